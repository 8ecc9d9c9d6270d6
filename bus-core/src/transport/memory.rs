//! [`memory_pair`]: a connection within one process, for threads of an app that embeds the daemon.
//!
//! Two bounded byte queues under one lock. The client's side waits as on a socket; the daemon's side
//! never waits, and is notified instead.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::{Interest, Ready};
use crate::signal::Signal;

/// What each direction holds at most, in bytes: as much as a usual socket.
const QUEUE_BYTES: usize = 256 * 1024;

/// What is taken whole or not at all, in bytes, as a socket does: control frames are no longer.
const WHOLE_BYTES: usize = 4 * 1024;

/// Makes the two ends. `notify` is called, without a lock held, when the daemon's end may have
/// something to read or room to write again.
#[doc(hidden)]
#[must_use]
pub fn memory_pair(notify: Box<dyn Fn() + Send + Sync>) -> (ClientEnd, DaemonEnd) {
    let pipe = Arc::new(Pipe {
        state: Mutex::new(State::default()),
        changed: Condvar::new(),
        notify,
        readable: OnceLock::new(),
    });
    (ClientEnd { pipe: Arc::clone(&pipe) }, DaemonEnd { pipe })
}

struct Pipe {
    state: Mutex<State>,
    /// Something changed that the client may wait for.
    changed: Condvar,
    notify: Box<dyn Fn() + Send + Sync>,
    /// Raised while the client has something to read, once it has asked for that.
    readable: OnceLock<Signal>,
}

#[derive(Default)]
struct State {
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    client_closed: bool,
    daemon_closed: bool,
    /// The daemon found no room, and waits to be notified.
    daemon_blocked: bool,
}

/// The app's end.
#[doc(hidden)]
pub struct ClientEnd {
    pipe: Arc<Pipe>,
}

/// The daemon's end.
#[doc(hidden)]
pub struct DaemonEnd {
    pipe: Arc<Pipe>,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows to who polls whether the client has something to read.
    fn show(&self, state: &State) {
        let Some(signal) = self.readable.get() else { return };
        match state.down.is_empty() && !state.daemon_closed && !state.client_closed {
            true => signal.lower(),
            false => signal.raise(),
        }
    }
}

impl ClientEnd {
    pub(super) fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.pipe.lock();
        if state.daemon_closed || state.client_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let was_empty = state.up.is_empty();
        let bytes = push(&mut state.up, slices)?;
        drop(state);
        if was_empty {
            (self.pipe.notify)();
        }
        Ok(bytes)
    }

    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.pipe.lock();
        if state.down.is_empty() {
            let closed = state.daemon_closed || state.client_closed;
            return if closed { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let bytes = pull(&mut state.down, buffer);
        let unblocks = std::mem::take(&mut state.daemon_blocked);
        self.pipe.show(&state);
        drop(state);
        if unblocks {
            (self.pipe.notify)();
        }
        Ok(bytes)
    }

    pub(super) fn wait(&self, interest: Interest, deadline: Option<Instant>) -> Option<Ready> {
        let mut state = self.pipe.lock();
        loop {
            let readable = !state.down.is_empty();
            let writable = room(&state.up) >= WHOLE_BYTES;
            let closed = state.daemon_closed || state.client_closed;
            let is_ready = match interest {
                Interest::Readable => readable,
                Interest::Writable => writable,
                Interest::Either => readable || writable,
            };
            if is_ready || closed {
                return Some(Ready { readable: readable || closed, writable: writable || closed });
            }
            state = match deadline {
                None => self.pipe.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let rest = deadline.saturating_duration_since(Instant::now());
                    if rest.is_zero() {
                        return None;
                    }
                    self.pipe.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    pub(super) fn poll_fd(&self) -> io::Result<BorrowedFd<'_>> {
        let state = self.pipe.lock();
        if self.pipe.readable.get().is_none() {
            // Nobody else sets it: the state is locked.
            let _ = self.pipe.readable.set(Signal::new()?);
            self.pipe.show(&state);
        }
        self.pipe.readable.get().map(Signal::as_fd).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    pub(super) fn hang_up(&self) {
        self.pipe.lock().client_closed = true;
        self.pipe.changed.notify_all();
        (self.pipe.notify)();
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl DaemonEnd {
    /// Writes what fits now.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room: a notification follows. `BrokenPipe` when the client is gone.
    pub fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.pipe.lock();
        if state.client_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let asked: usize = slices.iter().map(|slice| slice.len()).sum();
        let sent = push(&mut state.down, slices);
        state.daemon_blocked = !matches!(&sent, Ok(bytes) if *bytes == asked);
        self.pipe.show(&state);
        drop(state);
        self.pipe.changed.notify_all();
        sent
    }

    /// Reads what is there; 0 means that the client is gone.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing: a notification follows.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.pipe.lock();
        if state.up.is_empty() {
            return if state.client_closed { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let bytes = pull(&mut state.up, buffer);
        drop(state);
        self.pipe.changed.notify_all();
        Ok(bytes)
    }
}

impl Drop for DaemonEnd {
    fn drop(&mut self) {
        let mut state = self.pipe.lock();
        state.daemon_closed = true;
        self.pipe.show(&state);
        drop(state);
        self.pipe.changed.notify_all();
    }
}

impl std::fmt::Debug for ClientEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientEnd")
    }
}

impl std::fmt::Debug for DaemonEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DaemonEnd")
    }
}

fn push(queue: &mut VecDeque<u8>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut room = room(queue);
    if room < WHOLE_BYTES {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let mut bytes = 0;
    for slice in slices {
        let part = &slice[..slice.len().min(room)];
        queue.extend(part);
        bytes += part.len();
        room -= part.len();
    }
    Ok(bytes)
}

fn room(queue: &VecDeque<u8>) -> usize {
    QUEUE_BYTES.saturating_sub(queue.len())
}

fn pull(queue: &mut VecDeque<u8>, buffer: &mut [u8]) -> usize {
    let (first, second) = queue.as_slices();
    let from_first = first.len().min(buffer.len());
    buffer[..from_first].copy_from_slice(&first[..from_first]);
    let from_second = second.len().min(buffer.len() - from_first);
    buffer[from_first..from_first + from_second].copy_from_slice(&second[..from_second]);
    queue.drain(..from_first + from_second);
    from_first + from_second
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn pair() -> (ClientEnd, DaemonEnd, Arc<AtomicUsize>) {
        let notified = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&notified);
        let (client, daemon) = memory_pair(Box::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        }));
        (client, daemon, notified)
    }

    #[test]
    fn bytes_cross_in_both_directions_and_the_daemon_is_notified_of_the_first() {
        let (client, daemon, notified) = pair();
        assert_eq!(client.send(&[IoSlice::new(b"ab"), IoSlice::new(b"c")]).unwrap(), 3);
        assert_eq!(client.send(&[IoSlice::new(b"d")]).unwrap(), 1);
        assert_eq!(notified.load(Ordering::SeqCst), 1);
        let mut buffer = [0; 8];
        assert_eq!(daemon.receive(&mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"abcd");
        assert_eq!(daemon.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        daemon.send(&[IoSlice::new(b"xyz")]).unwrap();
        assert_eq!(client.receive(&mut buffer).unwrap(), 3);
    }

    #[test]
    fn a_full_queue_pushes_back_and_says_when_there_is_room() {
        let (client, daemon, notified) = pair();
        let large = vec![7; QUEUE_BYTES + 10];
        assert_eq!(daemon.send(&[IoSlice::new(&large)]).unwrap(), QUEUE_BYTES);
        assert_eq!(notified.load(Ordering::SeqCst), 0);
        assert!(client.receive(&mut [0; 100]).unwrap() == 100);
        assert_eq!(notified.load(Ordering::SeqCst), 1);
        // Not in pieces: what is small arrives whole.
        assert_eq!(daemon.send(&[IoSlice::new(b"small")]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(client.receive(&mut [0; WHOLE_BYTES]).unwrap() == WHOLE_BYTES);
        assert_eq!(notified.load(Ordering::SeqCst), 2);
        assert_eq!(daemon.send(&[IoSlice::new(&large)]).unwrap(), WHOLE_BYTES + 100);
    }

    #[test]
    fn a_waiting_client_wakes_when_the_daemon_goes() {
        let (client, daemon, _) = pair();
        let waiting = std::thread::spawn(move || {
            assert!(client.wait(Interest::Readable, None).is_some());
            client.receive(&mut [0; 1]).unwrap()
        });
        drop(daemon);
        assert_eq!(waiting.join().unwrap(), 0);
    }

    #[test]
    fn what_a_client_sent_is_read_before_its_end() {
        let (client, daemon, _) = pair();
        client.send(&[IoSlice::new(b"last")]).unwrap();
        drop(client);
        let mut buffer = [0; 8];
        assert_eq!(daemon.receive(&mut buffer).unwrap(), 4);
        assert_eq!(daemon.receive(&mut buffer).unwrap(), 0);
    }
}
