//! The keeper: one sleeping thread of the process that notices a daemon's death for endpoints
//! that nobody is using, and brings every endpoint back to the next daemon.
//!
//! It asks the kernel for hang-ups alone, so that it is not woken by traffic.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::session::{Backoff, lock};
use crate::transport::{Connection, timespec};

/// What the keeper needs of an endpoint.
pub(super) trait Kept: Send + Sync {
    /// How it stands. Never waits.
    fn standing(&self) -> Standing;

    /// The socket takes more. Never waits.
    fn room(&self) {}

    /// Tells the daemon what was put off. Never waits. Returns whether to look in again soon.
    fn tend(&self) -> bool {
        false
    }

    /// The connection has hung up: read what is left, and take notice. Never waits; `false` when a
    /// thread is using the endpoint, which takes notice itself.
    fn hung_up(&self) -> bool;

    /// Connects again. Returns whether it is done, or there is no point in another attempt.
    fn reattach(&self) -> bool;
}

/// How an endpoint stands.
pub(super) enum Standing {
    /// Connected: watch this.
    Up {
        connection: Arc<Connection>,
        /// There is more to write as soon as the socket takes it, and nobody else does it.
        wants_room: bool,
    },
    /// Its daemon is away.
    Away,
    /// Closed for good.
    Over,
}

struct Entry {
    endpoint: Weak<dyn Kept>,
    backoff: Backoff,
    again_at: Option<Instant>,
}

#[derive(Default)]
struct Keeper {
    entries: Mutex<Vec<Entry>>,
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
    lock(&keeper.entries).push(Entry { endpoint, backoff: Backoff::default(), again_at: None });
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
        let (watched, pause) = look_after(keeper);
        wait_for_hang_up(keeper, &watched, pause);
    }
}

/// An endpoint whose hang-up the kernel is asked for. Not held alive by being watched.
struct Watched {
    endpoint: Weak<dyn Kept>,
    connection: Arc<Connection>,
    wants_room: bool,
}

/// Goes through all endpoints once. Returns what to watch, and when to look again.
fn look_after(keeper: &Keeper) -> (Vec<Watched>, Option<Duration>) {
    let now = Instant::now();
    let mut watched = Vec::new();
    let mut away = Vec::new();
    let mut next_look: Option<Instant> = None;
    let mut look_at = |at: Instant| next_look = Some(next_look.map_or(at, |next| next.min(at)));
    lock(&keeper.entries).retain_mut(|entry| {
        let Some(endpoint) = entry.endpoint.upgrade() else { return false };
        let resting = entry.again_at.filter(|at| *at > now);
        if endpoint.tend() {
            look_at(now + TEND_PAUSE);
        }
        match endpoint.standing() {
            Standing::Over => return false,
            Standing::Up { connection, wants_room } => match resting {
                Some(at) => look_at(at),
                // Memory ends with this process, and has no descriptor to watch.
                None if connection.fd().is_none() => {}
                None => {
                    (entry.backoff, entry.again_at) = (Backoff::default(), None);
                    watched.push(Watched { endpoint: entry.endpoint.clone(), connection, wants_room });
                }
            },
            Standing::Away => {
                if resting.is_none() {
                    entry.again_at = Some(now + entry.backoff.next_delay());
                    away.push(endpoint);
                }
                look_at(entry.again_at.unwrap_or(now));
            }
        }
        true
    });
    // Outside the lock: connecting can take a moment, and the last owner may let go meanwhile.
    for endpoint in away {
        if endpoint.reattach() {
            look_at(now);
        }
    }
    (watched, next_look.map(|at| at.saturating_duration_since(Instant::now())))
}

fn wait_for_hang_up(keeper: &Keeper, watched: &[Watched], pause: Option<Duration>) {
    let mut polled: Vec<PollFd<'_>> = watched
        .iter()
        .filter_map(|watched| Some((watched.connection.fd()?, watched.wants_room)))
        .map(|(fd, wants_room)| {
            let flags = if wants_room { PollFlags::OUT } else { PollFlags::empty() };
            PollFd::from_borrowed_fd(fd, flags)
        })
        .collect();
    if let Some(waker) = keeper.waker.get() {
        polled.push(PollFd::new(waker, PollFlags::IN));
    }
    let timeout = pause.map(timespec);
    if poll(&mut polled, timeout.as_ref()).is_err() {
        return;
    }
    for (watched, fd) in watched.iter().zip(&polled) {
        if fd.revents().is_empty() {
            continue;
        }
        let Some(endpoint) = watched.endpoint.upgrade() else { continue };
        if fd.revents() == PollFlags::OUT {
            endpoint.room();
        } else if !endpoint.hung_up() {
            let mut entries = lock(&keeper.entries);
            let entry = entries.iter_mut().find(|entry| entry.endpoint.ptr_eq(&watched.endpoint));
            if let Some(entry) = entry {
                entry.again_at = Some(Instant::now() + BUSY_PAUSE);
            }
        }
    }
    if let Some(waker) = keeper.waker.get() {
        let _ = rustix::io::read(waker, &mut [0_u8; 8]);
    }
}

/// How long an acknowledgement may be put off, when it is not told with the next ones: a tick of the
/// kernel's clock.
const TEND_PAUSE: Duration = Duration::from_millis(4);

/// How long to leave an endpoint alone that has hung up while a thread was using it.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
