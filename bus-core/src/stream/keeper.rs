//! The keeper: one sleeping thread of the process that notices a daemon's death for endpoints
//! that nobody is using, and brings every endpoint back to the next daemon.
//!
//! It asks the kernel for hang-ups alone, so that it is not woken by traffic. Connecting can take
//! seconds beside a daemon that is stopped: a thread of its own does it, one for each address.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::session::{Backoff, lock};
use crate::address::Address;
use crate::lane::forked::Origin;
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
    pauses: Pauses,
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

/// The keepers of this process and, before it, of those that it was forked from: of the latter there are no threads here.
static KEEPERS: OnceLock<Box<Generation>> = OnceLock::new();

struct Generation {
    origin: Origin,
    keeper: Keeper,
    next: OnceLock<Box<Generation>>,
}

impl Generation {
    fn new(origin: Origin) -> Self {
        let keeper = Keeper::default();
        if let Ok(waker) = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) {
            let _ = keeper.waker.set(waker);
        }
        // Without the thread nobody reconnects; a process that cannot start one has worse troubles.
        let _ = std::thread::Builder::new().name("bus-keeper".into()).spawn(|| run(Keeper::of_this_process()));
        Self { origin, keeper, next: OnceLock::new() }
    }
}

/// Gives an endpoint into the keeper's care, for as long as somebody holds it.
pub(super) fn keep(endpoint: Weak<dyn Kept>) {
    let keeper = Keeper::of_this_process();
    let (pauses, tending) = (Pauses::default(), Backoff::default());
    lock(&keeper.entries).push(Entry { endpoint, pauses, tending, tend_at: None });
    wake();
}

/// Tells the keeper that something has changed: an endpoint is away, or gone.
pub(super) fn wake() {
    if let Some(waker) = Keeper::of_this_process().waker.get() {
        // A full counter wakes as well.
        let _ = rustix::io::write(waker, &1_u64.to_ne_bytes());
    }
}

fn run(keeper: &'static Keeper) {
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
    /// Made, with its thread, when it is asked for the first time.
    fn of_this_process() -> &'static Self {
        let here = Origin::here();
        let mut place = &KEEPERS;
        loop {
            let generation = place.get_or_init(|| Box::new(Generation::new(here)));
            if generation.origin == here {
                return &generation.keeper;
            }
            place = &generation.next;
        }
    }

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
                Standing::Up { connection, wants_room, wants_news } => match entry.pauses.while_up(now) {
                    Some(at) => next_look.at(at),
                    // Memory ends with this process, and has no descriptor to watch.
                    None if connection.fd().is_none() => {
                        if wants_room {
                            endpoint.room();
                            next_look.at(now + TEND_PAUSE);
                        }
                    }
                    None => {
                        watched.push(Watched { endpoint: entry.endpoint.clone(), connection, wants_room, wants_news });
                    }
                },
                Standing::Away => match entry.pauses.while_away(now) {
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
        // However this thread ends: others of the address are to come back.
        let _dialling = Dialling { keeper: self, address };
        let mut nobody_there = false;
        for endpoint in endpoints {
            let done = match nobody_there {
                true => false,
                false => {
                    // One that panics has failed, and is left alone for as long as any other that has: what it left
                    // half done is behind locks that everybody takes whatever became of their last holder.
                    let attempt = catch_unwind(AssertUnwindSafe(|| endpoint.reattach()));
                    let reattached = attempt.unwrap_or(Reattached::NotNow);
                    nobody_there = reattached == Reattached::NobodyThere;
                    reattached == Reattached::Done
                }
            };
            if let Some(entry) = lock(&self.entries).iter_mut().find(|entry| entry.is_of(&endpoint)) {
                entry.pauses.tried(done, Instant::now());
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
                entry.pauses.again_at = Some(Instant::now() + BUSY_PAUSE);
            }
        }
        if let Some(waker) = self.waker.get() {
            let _ = rustix::io::read(waker, &mut [0_u8; 8]);
        }
    }
}

/// When an endpoint is looked at, and connected, again.
#[derive(Default)]
struct Pauses {
    reconnecting: Backoff,
    /// After connections that did not stand.
    parted: Backoff,
    again_at: Option<Instant>,
    /// Since when it is connected.
    up_since: Option<Instant>,
}

impl Pauses {
    /// It is connected. Returns until when it is left alone.
    fn while_up(&mut self, now: Instant) -> Option<Instant> {
        self.up_since.get_or_insert(now);
        self.resting(now)
    }

    /// It is not. Returns when it is connected again, if that is later. A daemon that lets an endpoint in and parts with
    /// it at once is not asked again and again.
    fn while_away(&mut self, now: Instant) -> Option<Instant> {
        if let Some(since) = self.up_since.take() {
            match now.saturating_duration_since(since) < STEADY {
                true => self.again_at = Some(now + self.parted.next_delay()),
                false => (self.parted, self.again_at) = (Backoff::default(), None),
            }
        }
        self.resting(now)
    }

    /// It was tried to connect it.
    fn tried(&mut self, done: bool, now: Instant) {
        match done {
            // It may be gone again before anybody looks.
            true => (self.reconnecting, self.again_at, self.up_since) = (Backoff::default(), None, Some(now)),
            false => self.again_at = Some(now + self.reconnecting.next_delay()),
        }
    }

    fn resting(&self, now: Instant) -> Option<Instant> {
        self.again_at.filter(|at| *at > now)
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

/// How long a connection has to stand before its loss is nothing to wait for: longer than a daemon takes to part with
/// what it does not like, and shorter than any that works lives.
const STEADY: Duration = Duration::from_millis(100);

/// How long to sleep where nothing wakes the keeper.
const UNWOKEN_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    /// Each time it was let in all was well again, and it came back at once: thousands of times a second.
    #[test]
    fn who_is_let_in_and_sent_away_again_and_again_comes_back_after_growing_pauses() {
        let (mut pauses, mut now) = (Pauses::default(), Instant::now());
        let mut waited = Vec::new();
        for _ in 0..12 {
            assert_eq!(pauses.while_up(now), None);
            let at = pauses.while_away(now).expect("it has only just come");
            assert_eq!(pauses.while_away(now), Some(at), "asked again it is the same");
            waited.push(at - now);
            now = at;
            assert_eq!(pauses.while_away(now), None);
            pauses.tried(true, now);
        }
        assert!(waited.is_sorted() && waited[0] == Duration::from_millis(2), "{waited:?}");
        assert_eq!(waited[11], Duration::from_millis(256));
        // One that has stood for a while is missed at once.
        assert_eq!(pauses.while_up(now), None);
        assert_eq!(pauses.while_away(now + STEADY), None);
        assert_eq!(pauses.while_up(now + STEADY), None);
        assert_eq!(pauses.while_away(now + STEADY), Some(now + STEADY + Duration::from_millis(2)));
    }

    /// Panics when it is connected again.
    struct Panics {
        address: Address,
        tried: std::sync::mpsc::Sender<()>,
    }

    impl Kept for Panics {
        fn address(&self) -> &Address {
            &self.address
        }

        fn standing(&self) -> Standing {
            Standing::Away
        }

        fn hung_up(&self) -> bool {
            true
        }

        fn reattach(&self) -> Reattached {
            let _ = self.tried.send(());
            panic!("as a test wants it");
        }
    }

    /// It was tried again at once, by one thread after the other: five thousand times a second.
    #[test]
    fn a_panic_while_connecting_is_an_attempt_that_failed_and_keeps_nobody_else_away() {
        let keeper: &'static Keeper = Box::leak(Box::default());
        let (tried, tries) = std::sync::mpsc::channel();
        let address = Address::new("/nowhere").unwrap();
        let endpoints: Vec<Arc<dyn Kept>> = (0..2)
            .map(|_| Arc::new(Panics { address: address.clone(), tried: tried.clone() }) as Arc<dyn Kept>)
            .collect();
        for endpoint in &endpoints {
            let (pauses, tending) = (Pauses::default(), Backoff::default());
            lock(&keeper.entries).push(Entry { endpoint: Arc::downgrade(endpoint), pauses, tending, tend_at: None });
        }
        let dialled = std::thread::spawn({
            let endpoints = endpoints.clone();
            move || keeper.dial(&address, endpoints)
        });
        let _ = dialled.join();
        assert_eq!(tries.try_iter().count(), 2);
        for entry in lock(&keeper.entries).iter_mut() {
            assert!(entry.pauses.again_at.is_some(), "it is left alone for a while");
        }
    }

    #[test]
    fn a_daemon_that_refuses_is_asked_after_growing_pauses() {
        let (mut pauses, now) = (Pauses::default(), Instant::now());
        for expected in [2, 4, 8] {
            pauses.tried(false, now);
            assert_eq!(pauses.while_away(now), Some(now + Duration::from_millis(expected)));
        }
    }
}
