//! What the thread of a bridge does: it takes values from one side and puts them into the other, several together where
//! several wait.

use std::convert::Infallible;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{TryRecvError, TrySendError, select};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::{ExportFault, ImportError, Stop};
use crate::error::{FlushError, TryRecvError as NoValue};
use crate::limits::DROP_FLUSH_MS;
use crate::receiver::{Passed, Receiver};
use crate::sender::Sender;
use crate::stream::sender::Seen;

/// Passes values on until the source ends. What is left of those that it took together is in `taken`.
pub(super) fn pass_out<T: Send + 'static>(
    source: &crossbeam_channel::Receiver<T>,
    sender: &Sender<T>,
    taken: &mut Vec<T>,
) -> Result<(), ExportFault<T>> {
    let closed = sender.closed();
    let most = sender.feeds_together();
    let flush_bounded = || sender.flush_deadline(Instant::now() + DROP_FLUSH);
    let unsent = |error| {
        // What was fed before it goes on, whether or not anybody joins. Its own end is told by the sender.
        let _ = flush_bounded();
        ExportFault::Send(error)
    };
    let mut ends_at = None;
    loop {
        if taken.is_empty() {
            select! {
                recv(source) -> value => taken.extend(value),
                recv(closed) -> _ => return Err(ExportFault::Deleted),
            }
        }
        let mut has_yielded = false;
        loop {
            let nothing = take_waiting(source, taken, most).err();
            let together = taken.len();
            if together > 0 {
                sender.feed_values(taken).map_err(unsent)?;
                if taken.len() < together {
                    ends_at = None;
                }
            }
            if !taken.is_empty() {
                // There is no daemon.
                break;
            }
            match nothing {
                None => {}
                Some(TryRecvError::Disconnected) => return flush_bounded().map_err(ExportFault::Flush),
                Some(TryRecvError::Empty) if together > 1 && !has_yielded => {
                    // Whoever sends several does not wait, and more of them share what a write costs, or a sleep.
                    has_yielded = true;
                    thread::yield_now();
                }
                Some(TryRecvError::Empty) => break,
            }
        }
        // Nobody would write the rest while this waits for the next value.
        see_written(source, sender, taken, &mut ends_at)?;
    }
}

/// Waits until what was fed is written, and there is a daemon for what is in `taken`. Whether the source has ended
/// meanwhile is known once everything in it is taken. From then on the wait for a daemon has a bound: `ends_at`.
fn see_written<T: Send + 'static>(
    source: &crossbeam_channel::Receiver<T>,
    sender: &Sender<T>,
    taken: &mut Vec<T>,
    ends_at: &mut Option<Instant>,
) -> Result<(), ExportFault<T>> {
    // One more, to see what is behind the last.
    let most_away = source.capacity().map_or(usize::MAX, |capacity| capacity.max(FEWEST_AWAY).saturating_add(1));
    // Something is left only where there was no daemon, also in a lane that goes on without one.
    let mut seen = if taken.is_empty() { Seen::Written } else { Seen::Away };
    let mut pause = LOOK_PAUSE_MIN;
    loop {
        let has_ended = match seen {
            Seen::Written => false,
            Seen::Unread => has_ended(source, taken, sender.feeds_together()),
            Seen::Away => has_ended(source, taken, most_away),
        };
        if has_ended && taken.is_empty() {
            return sender.flush_deadline(Instant::now() + DROP_FLUSH).map_err(ExportFault::Flush);
        }
        let now = Instant::now();
        *ends_at = (has_ended && seen == Seen::Away).then(|| ends_at.unwrap_or(now + DROP_FLUSH));
        if ends_at.is_some_and(|at| at <= now) {
            return Err(ExportFault::Flush(FlushError::Unknown(sender.ticket())));
        }
        seen = sender.see_buffered_written(now + pause);
        if seen == Seen::Written {
            return Ok(());
        }
        pause = (pause * 2).min(LOOK_PAUSE_MAX);
    }
}

/// Whether nobody can send into the source any more, and all is taken. Takes what waits, until there are `most`.
fn has_ended<T>(source: &crossbeam_channel::Receiver<T>, taken: &mut Vec<T>, most: usize) -> bool {
    take_waiting(source, taken, most) == Err(TryRecvError::Disconnected)
}

/// Takes what waits, until there are `most`.
fn take_waiting<T>(
    source: &crossbeam_channel::Receiver<T>,
    taken: &mut Vec<T>,
    most: usize,
) -> Result<(), TryRecvError> {
    while taken.len() < most {
        taken.push(source.try_recv()?);
    }
    Ok(())
}

/// Passes messages on until the channel ends, or nobody takes them any more.
pub(super) fn pass_in<T: Send + 'static>(
    receiver: &mut Receiver<T>,
    sink: &crossbeam_channel::Sender<T>,
    stop: &Stop,
) -> Result<(), ImportError> {
    let stopped = stop.watch();
    loop {
        let passed = match receiver.try_pass(sink) {
            Ok(passed) => passed,
            Err(NoValue::Empty | NoValue::Away) => match wait_for_message(receiver, stop) {
                Ok(true) => continue,
                Ok(false) => return Ok(()),
                Err(source) => return Err(ImportError::Start { channel: receiver.channel().clone(), source }),
            },
            Err(NoValue::Disconnected) => return Ok(()),
            Err(source) => return Err(ImportError::Recv { channel: receiver.channel().clone(), source }),
        };
        let goes_on = match passed {
            Passed::Taken => true,
            Passed::Lent(delivery) => delivery.hand_over(|value| put(value, sink, &stopped)),
            Passed::Gone => false,
        };
        if !goes_on || stopped.try_recv() == Err(TryRecvError::Disconnected) {
            return Ok(());
        }
    }
}

/// Hands a value over, once there is room. Where nobody takes it, or this is to stop, it is given back.
fn put<T>(
    mut value: T,
    sink: &crossbeam_channel::Sender<T>,
    stopped: &crossbeam_channel::Receiver<Infallible>,
) -> Result<(), T> {
    for waits in [false, true] {
        if waits {
            // Who takes values takes several by then, and need not wake this thread for the first.
            thread::yield_now();
        }
        match sink.try_send(value) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Disconnected(back)) => return Err(back),
            Err(TrySendError::Full(back)) => value = back,
        }
    }
    select! {
        send(sink, value) -> sent => sent.map_err(|unsent| unsent.0),
        recv(stopped) -> _ => Err(value),
    }
}

/// Waits for a message, or the end of the channel; `false` when it is to stop.
fn wait_for_message<T: Send + 'static>(receiver: &Receiver<T>, stop: &Stop) -> io::Result<bool> {
    let readiness = receiver.readiness()?;
    let mut polled = [PollFd::from_borrowed_fd(readiness, PollFlags::IN), PollFd::new(&stop.signal, PollFlags::IN)];
    match poll(&mut polled, None) {
        // Interrupted: it is looked again.
        Ok(_) | Err(Errno::INTR) => Ok(polled[1].revents().is_empty()),
        Err(error) => Err(error.into()),
    }
}

/// How long an export whose source has ended waits for the rest to be accepted, and for a daemon.
const DROP_FLUSH: Duration = Duration::from_millis(DROP_FLUSH_MS);

/// How many values an export may take on at least while there is no daemon.
const FEWEST_AWAY: usize = 128;

/// How long an export that waits for a daemon, or for one that reads, leaves its source unlooked at, at first and at last.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(5);
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(100);
