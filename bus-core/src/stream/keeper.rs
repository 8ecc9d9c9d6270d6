//! The keeper: one sleeping thread of the process that notices a daemon's death for endpoints
//! that nobody is using, and brings every endpoint back to the next daemon.
//!
//! It asks the kernel for hang-ups alone, so that it is not woken by traffic. Connecting can take
//! seconds beside a daemon that is stopped: a thread of its own does it, one for each address.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::session::{Backoff, lock};
use crate::address::Address;
use crate::transport::{Connection, timespec};

/// What the keeper needs of an endpoint.
pub(super) trait Kept: Send + Sync {
    /// Where its daemon is.
    fn address(&self) -> &Address;

    /// How it stands. Never waits.
    fn standing(&self) -> Standing;

    /// The socket takes more. Never waits.
    fn room(&self) {}

    /// Something has come that is to be looked at. `false` when it is in use: it is asked again soon.
    fn news(&self) -> bool {
        true
    }

    /// Tells the daemon what was put off. Never waits.
    fn tend(&self) -> Tended {
        Tended::Nothing
    }

    /// The connection has hung up: read what is left, and take notice. Never waits; `false` when a
    /// thread is using the endpoint, which takes notice itself.
    fn hung_up(&self) -> bool;

    /// Connects again.
    fn reattach(&self) -> Reattached;
}

/// How an endpoint stands.
pub(super) enum Standing {
    /// Connected: watch this.
    Up {
        connection: Arc<Connection>,
        /// There is more to write as soon as the socket takes it, and nobody else does it.
        wants_room: bool,
        /// What comes is to be looked at, and not only its end.
        wants_news: bool,
    },
    /// Its daemon is away.
    Away,
    /// Closed for good.
    Over,
}

/// What became of what was put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tended {
    /// There is nothing.
    Nothing,
    /// It is told; there may be more before long.
    Told,
    /// A thread is using the endpoint, and tells by itself what is due.
    Soon,
    /// A thread is using the endpoint, or the daemon does not read: later.
    NotNow,
}

/// What came of an attempt to connect again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reattached {
    /// It is back, or there is no point in another attempt.
    Done,
    /// The daemon does not take this endpoint now.
    NotNow,
    /// No daemon answers: others at this address need not try.
    NobodyThere,
}

struct Entry {
    endpoint: Weak<dyn Kept>,
    reconnecting: Backoff,
    again_at: Option<Instant>,
    tending: Backoff,
    tend_at: Option<Instant>,
}

#[derive(Default)]
struct Keeper {
    entries: Mutex<Vec<Entry>>,
    /// Where a thread is connecting.
    dialling: Mutex<Vec<Address>>,
    waker: OnceLock<OwnedFd>,
}

static KEEPER: OnceLock<Keeper> = OnceLock::new();

/// Gives an endpoint into the keeper's care, for as long as somebody holds it.
pub(super) fn keep(endpoint: Weak<dyn Kept>) {
    let keeper = KEEPER.get_or_init(|| {
        let keeper = Keeper::default();
        if let Ok(waker) = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) {
            let _ = keeper.waker.set(waker);
        }
        // Without the thread nobody reconnects; a process that cannot start one has worse troubles.
        let _ = std::thread::Builder::new().name("bus-keeper".into()).spawn(run);
        keeper
    });
    let (reconnecting, tending) = (Backoff::default(), Backoff::default());
    lock(&keeper.entries).push(Entry { endpoint, reconnecting, again_at: None, tending, tend_at: None });
    wake();
}

/// Tells the keeper that something has changed: an endpoint is away, or gone.
pub(super) fn wake() {
    if let Some(waker) = KEEPER.get().and_then(|keeper| keeper.waker.get()) {
        // A full counter wakes as well.
        let _ = rustix::io::write(waker, &1_u64.to_ne_bytes());
    }
}

fn run() {
    let keeper = KEEPER.wait();
    loop {
        let (watched, pause) = keeper.look_after();
        keeper.wait_for_hang_up(&watched, pause);
    }
}

/// An endpoint whose hang-up the kernel is asked for. Not held alive by being watched.
struct Watched {
    endpoint: Weak<dyn Kept>,
    connection: Arc<Connection>,
    wants_room: bool,
    wants_news: bool,
}

/// When to look again: the earliest of several times.
#[derive(Default)]
struct NextLook(Option<Instant>);

impl NextLook {
    fn at(&mut self, at: Instant) {
        self.0 = Some(self.0.map_or(at, |next| next.min(at)));
    }
}

impl Keeper {
    /// Goes through all endpoints once. Returns what to watch, and when to look again.
    fn look_after(&'static self) -> (Vec<Watched>, Option<Duration>) {
        let now = Instant::now();
        let (mut watched, mut away) = (Vec::new(), Vec::new());
        let mut next_look = NextLook::default();
        // Let go outside the lock: the keeper may be the last to hold one.
        let mut held = Vec::new();
        lock(&self.entries).retain_mut(|entry| {
            let Some(endpoint) = entry.endpoint.upgrade() else { return false };
            held.push(Arc::clone(&endpoint));
            entry.tend(&*endpoint, now, &mut next_look);
            match endpoint.standing() {
                Standing::Over => return false,
                Standing::Up { connection, wants_room, wants_news } => match entry.resting(now) {
                    Some(at) => next_look.at(at),
                    // Memory ends with this process, and has no descriptor to watch.
                    None if connection.fd().is_none() => {
                        if wants_room {
                            endpoint.room();
                            next_look.at(now + TEND_PAUSE);
                        }
                    }
                    None => {
                        (entry.reconnecting, entry.again_at) = (Backoff::default(), None);
                        watched.push(Watched { endpoint: entry.endpoint.clone(), connection, wants_room, wants_news });
                    }
                },
                Standing::Away => match entry.resting(now) {
                    Some(at) => next_look.at(at),
                    None => away.push(endpoint),
                },
            }
            true
        });
        drop(held);
        if !self.reconnect(away) {
            next_look.at(now + UNWOKEN_PAUSE);
        }
        (watched, next_look.0.map(|at| at.saturating_duration_since(Instant::now())))
    }

    /// Connects those endpoints again, each address by a thread of its own. `false` when there is no
    /// thread to be had.
    fn reconnect(&'static self, mut away: Vec<Arc<dyn Kept>>) -> bool {
        let mut started = true;
        while let Some(address) = away.first().map(|endpoint| endpoint.address().clone()) {
            let (here, elsewhere) = away.into_iter().partition(|endpoint| *endpoint.address() == address);
            away = elsewhere;
            let mut dialling = lock(&self.dialling);
            if dialling.contains(&address) {
                continue;
            }
            dialling.push(address.clone());
            drop(dialling);
            let there = address.clone();
            let dial = move || self.dial(&there, here);
            if std::thread::Builder::new().name("bus-dial".into()).spawn(dial).is_err() {
                lock(&self.dialling).retain(|other| *other != address);
                started = false;
            }
        }
        started
    }

    fn dial(&self, address: &Address, endpoints: Vec<Arc<dyn Kept>>) {
        // Also should this thread panic: others of the address are to come back.
        let _dialling = Dialling { keeper: self, address };
        let mut nobody_there = false;
        for endpoint in endpoints {
            let done = match nobody_there {
                true => false,
                false => {
                    let reattached = endpoint.reattach();
                    nobody_there = reattached == Reattached::NobodyThere;
                    reattached == Reattached::Done
                }
            };
            if let Some(entry) = lock(&self.entries).iter_mut().find(|entry| entry.is_of(&endpoint)) {
                entry.again_at = match done {
                    true => None,
                    false => Some(Instant::now() + entry.reconnecting.next_delay()),
                };
            }
        }
    }

    fn wait_for_hang_up(&self, watched: &[Watched], mut pause: Option<Duration>) {
        let mut polled: Vec<PollFd<'_>> = watched
            .iter()
            .filter_map(|watched| Some((watched.connection.fd()?, watched.wants_room, watched.wants_news)))
            .map(|(fd, wants_room, wants_news)| {
                let room = if wants_room { PollFlags::OUT } else { PollFlags::empty() };
                let flags = if wants_news { room | PollFlags::IN } else { room };
                PollFd::from_borrowed_fd(fd, flags)
            })
            .collect();
        match self.waker.get() {
            Some(waker) => polled.push(PollFd::new(waker, PollFlags::IN)),
            // Nothing tells when there is something to do: look for it.
            None => pause = Some(pause.map_or(UNWOKEN_PAUSE, |pause| pause.min(UNWOKEN_PAUSE))),
        }
        let timeout = pause.map(timespec);
        if poll(&mut polled, timeout.as_ref()).is_err() {
            // Out of memory, perhaps: no reason to use up the processor as well.
            std::thread::sleep(UNWOKEN_PAUSE);
            return;
        }
        for (watched, fd) in watched.iter().zip(&polled) {
            if fd.revents().is_empty() {
                continue;
            }
            let Some(endpoint) = watched.endpoint.upgrade() else { continue };
            let ends = fd.revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
            if !ends && fd.revents().contains(PollFlags::OUT) {
                endpoint.room();
            }
            let looked = match ends {
                true => endpoint.hung_up(),
                false => !fd.revents().contains(PollFlags::IN) || endpoint.news(),
            };
            if !looked && let Some(entry) = lock(&self.entries).iter_mut().find(|entry| entry.is_of(&endpoint)) {
                entry.again_at = Some(Instant::now() + BUSY_PAUSE);
            }
        }
        if let Some(waker) = self.waker.get() {
            let _ = rustix::io::read(waker, &mut [0_u8; 8]);
        }
    }
}

/// A thread that connects to an address, for as long as it does.
struct Dialling<'a> {
    keeper: &'a Keeper,
    address: &'a Address,
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        lock(&self.keeper.dialling).retain(|other| other != self.address);
        wake();
    }
}

impl Entry {
    fn is_of(&self, endpoint: &Arc<dyn Kept>) -> bool {
        std::ptr::addr_eq(self.endpoint.as_ptr(), Arc::as_ptr(endpoint))
    }

    /// Until when it is left alone.
    fn resting(&self, now: Instant) -> Option<Instant> {
        self.again_at.filter(|at| *at > now)
    }

    fn tend(&mut self, endpoint: &dyn Kept, now: Instant, next_look: &mut NextLook) {
        if let Some(at) = self.tend_at.filter(|at| *at > now) {
            return next_look.at(at);
        }
        self.tend_at = match endpoint.tend() {
            Tended::Nothing => {
                self.tending = Backoff::default();
                None
            }
            Tended::Told | Tended::Soon => {
                self.tending = Backoff::default();
                Some(now + TEND_PAUSE)
            }
            Tended::NotNow => Some(now + TEND_PAUSE.max(self.tending.next_delay())),
        };
        if let Some(at) = self.tend_at {
            next_look.at(at);
        }
    }
}

/// How long an acknowledgement may be put off, when it is not told with the next ones: a tick of the
/// kernel's clock.
const TEND_PAUSE: Duration = Duration::from_millis(4);

/// How long to leave an endpoint alone that has hung up while a thread was using it.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How long to sleep where nothing wakes the keeper.
const UNWOKEN_PAUSE: Duration = Duration::from_millis(50);
