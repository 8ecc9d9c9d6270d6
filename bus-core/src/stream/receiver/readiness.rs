//! Readiness: a descriptor that other event loops poll, readable while a call would give something.
//!
//! It is an epoll of all that a message can come by: the socket, the bell of the lanes, and a [`Signal`] for
//! what has left the kernel and lies in the endpoint. Made when it is first asked for; an endpoint that nobody
//! polls pays one look at an empty cell for each call.
//!
//! After each call the endpoint *shows* what it has. While something is here the signal is raised. A call that
//! gave nothing has read the socket dry, so that what makes the descriptor readable next is new; what cannot be
//! handed out now, because a delivery is out or the daemon does not read, is not watched for until it can.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::receiving::Broken;
use super::{Copied, Loan, NoMessage, State, StreamReceiver, Wait};
use crate::lane::doorbell::Doorbell;
use crate::lane::ring::SleepsAt;
use crate::signal::Signal;
use crate::stream::session::lock;
use crate::transport::{Connection, timespec};

#[derive(Debug)]
pub(super) struct Readiness {
    epoll: OwnedFd,
    /// Something is here.
    here: Signal,
    watched: Mutex<Watched>,
}

/// What the epoll holds besides the signal.
#[derive(Debug, Default)]
struct Watched {
    socket: Option<(Arc<Connection>, EventFlags)>,
    bell: Option<Arc<Doorbell>>,
    /// The senders in lanes know that this end waits.
    waits_in_lanes: bool,
    /// For what nobody tells, and whether it is set.
    timer: Option<(OwnedFd, bool)>,
}

/// What a message can come by next.
#[derive(Debug, Default)]
struct Sources {
    socket: Option<(Arc<Connection>, EventFlags)>,
    bell: Option<Arc<Doorbell>>,
    look_again: bool,
}

/// How often to look whether the sender of a lane without a daemon has turned away.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Readiness {
    fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let here = Signal::new()?;
        epoll::add(&epoll, &here, EventData::new_u64(0), EventFlags::IN)?;
        Ok(Self { epoll, here, watched: Mutex::default() })
    }

    /// Watches these, and nothing else. Where the system refuses, the descriptor stays readable: who polls it
    /// calls too often, and misses nothing.
    fn watch(&self, sources: Sources) {
        let mut watched = lock(&self.watched);
        let watched = &mut *watched;
        if self.exchange(watched, sources).is_err() {
            self.here.raise();
        }
    }

    fn exchange(&self, watched: &mut Watched, sources: Sources) -> io::Result<()> {
        let Sources { socket, bell, look_again } = sources;
        match (&watched.socket, &socket) {
            (Some((old, had)), Some((new, wanted))) if Arc::ptr_eq(old, new) => {
                if had != wanted {
                    epoll::modify(&self.epoll, new.poll_fd()?, EventData::new_u64(1), *wanted)?;
                }
            }
            (old, new) => {
                if let Some((old, _)) = old {
                    // Others may hold it open for longer.
                    epoll::delete(&self.epoll, old.poll_fd()?)?;
                }
                watched.socket = None;
                if let Some((new, wanted)) = new {
                    epoll::add(&self.epoll, new.poll_fd()?, EventData::new_u64(1), *wanted)?;
                }
            }
        }
        watched.socket = socket;
        let same = |bell: &Arc<Doorbell>, other: &Arc<Doorbell>| Arc::ptr_eq(bell, other);
        if !watched.bell.as_ref().zip(bell.as_ref()).is_some_and(|(old, new)| same(old, new)) {
            if let Some(old) = watched.bell.take() {
                epoll::delete(&self.epoll, old.as_fd())?;
            }
            if let Some(new) = &bell {
                epoll::add(&self.epoll, new.as_fd(), EventData::new_u64(2), EventFlags::IN)?;
            }
            watched.bell = bell;
        }
        self.set_timer(&mut watched.timer, look_again)
    }

    fn set_timer(&self, timer: &mut Option<(OwnedFd, bool)>, look_again: bool) -> io::Result<()> {
        if look_again && timer.is_none() {
            let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
            let new = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            epoll::add(&self.epoll, &new, EventData::new_u64(3), EventFlags::IN)?;
            *timer = Some((new, false));
        }
        if let Some((timer, is_set)) = timer
            && (look_again || *is_set)
        {
            // Setting it makes it unreadable as well.
            let at = if look_again { timespec(LOOK_AGAIN) } else { Timespec::default() };
            let once = Itimerspec { it_interval: Timespec::default(), it_value: at };
            timerfd_settime(&*timer, TimerfdTimerFlags::empty(), &once)?;
            *is_set = look_again;
        }
        Ok(())
    }
}

impl StreamReceiver {
    /// The descriptor that shows whether a call would give something.
    pub(crate) fn readiness(&self) -> io::Result<BorrowedFd<'_>> {
        if self.readiness.get().is_none() {
            let new = Readiness::new()?;
            // Another may have been as fast.
            let _ = self.readiness.set(new);
            self.show();
        }
        self.readiness.get().map(|readiness| readiness.epoll.as_fd()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// As [`next`](Self::next), and shows what there is when nothing came.
    pub(crate) fn lend_next(&self, wait: Wait, claim: bool, copied: Copied) -> Result<Loan<'_>, NoMessage> {
        let Some(readiness) = self.readiness.get() else { return self.next(wait, claim, copied) };
        self.end_wait_in_lanes(readiness, wait)?;
        self.next(wait, claim, copied).inspect_err(|_| self.show())
    }

    /// As [`lend_next`](Self::lend_next) of a try, for who sleeps on the descriptor otherwise: looks for a moment
    /// first, as who waits in a call does, where it pays.
    pub(crate) fn lend_soon(&self) -> Result<Loan<'_>, NoMessage> {
        if let Some(readiness) = self.readiness.get() {
            self.end_wait_in_lanes(readiness, Wait::Never)?;
            match self.next(Wait::Never, true, Copied::All) {
                Err(NoMessage::Empty) if self.gives_way() => {}
                outcome => return outcome.inspect_err(|_| self.show()),
            }
        }
        self.lend_next(Wait::Never, true, Copied::All)
    }

    /// Whoever polled has called: it does not wait in its lanes any more.
    fn end_wait_in_lanes(&self, readiness: &Readiness, wait: Wait) -> Result<(), NoMessage> {
        if lock(&readiness.watched).waits_in_lanes {
            let mut state = self.lock_within(wait)?;
            state.lanes.end_wait(true);
            // While it is locked: who looks after it may begin another wait.
            lock(&readiness.watched).waits_in_lanes = false;
        }
        Ok(())
    }

    /// Shows whether something is here. Whoever has it locked for longer does so once that is over.
    pub(crate) fn show(&self) {
        if self.readiness.get().is_none() {
            return;
        }
        if let Ok(mut state) = self.lock_within(Wait::Never) {
            self.show_state(&mut state);
        }
    }

    /// Shows what the endpoint has, unless something is lent: there is nothing more until that is settled.
    pub(super) fn show_state(&self, state: &mut State) {
        let Some(readiness) = self.readiness.get() else { return };
        if state.lent() > 0 {
            readiness.here.lower();
            return readiness.watch(Sources::default());
        }
        let (here, sources) = self.look_for_sources(state);
        lock(&readiness.watched).waits_in_lanes = sources.bell.is_some();
        if here {
            readiness.here.raise();
        } else {
            readiness.here.lower();
        }
        readiness.watch(sources);
    }

    /// Whether a call would give something, and what may bring it otherwise.
    fn look_for_sources(&self, state: &mut State) -> (bool, Sources) {
        // A try leaves that to the next tick, and there may be none.
        self.finish_lanes(state);
        let head = loop {
            match state.receiving.head() {
                Ok(head) => break head,
                Err(Broken) => self.lose_link(state),
            }
        };
        let socket = state.connection.clone();
        let unsaid = !state.receiving.control.is_empty();
        if head.as_ref().is_some_and(|head| unsaid && !state.receiving.is_claimed(head)) {
            // It is not handed out before its claim is told, and the daemon does not read.
            let socket = socket.map(|socket| (socket, EventFlags::OUT));
            return (false, Sources { socket, ..Sources::default() });
        }
        if state.coming.hold_back() {
            // Who brings what it waits for shows it.
            let socket = socket.map(|socket| (socket, EventFlags::IN));
            let here = state.receiving.ended().is_some() || state.receiving.inbox.has_lane_news();
            return (here, Sources { socket, ..Sources::default() });
        }
        let interest = if unsaid { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        let mut sources = Sources { socket: socket.map(|socket| (socket, interest)), ..Sources::default() };
        if head.is_some() || state.receiving.ended().is_some() || state.receiving.inbox.has_lane_news() {
            return (true, sources);
        }
        if state.lanes.is_empty() {
            return (false, sources);
        }
        if !state.begin_wait(SleepsAt::Bell) {
            return (true, sources);
        }
        sources.bell = state.lanes.bell();
        sources.look_again = state.lanes.are_to_be_watched();
        (false, sources)
    }
}
