//! The sentry: one thread of the process that watches descriptors for receivers which sleep on the words of
//! their lanes, and wakes them.
//!
//! It is not on the way of messages in lanes: those wake their receiver themselves. It wakes for what the daemon
//! says, and for who rings a bell. A *post* is watched once: after it was woken it is [set](Post::set) again
//! before the next sleep, so that an end which reads its socket without sleeping costs nobody anything.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::session::lock;
use crate::lane::doorbell::Doorbell;
use crate::lane::forked::Origin;
use crate::lane::sleep::Wakeup;
use crate::transport::Connection;

/// What one receiver has watched.
#[derive(Debug)]
pub(super) struct Post {
    number: u64,
    connection: Arc<Connection>,
    bell: Arc<Doorbell>,
    sleeper: Arc<Sleeper>,
}

/// Who is woken.
#[derive(Debug, Default)]
struct Sleeper {
    wakeup: Wakeup,
    /// Something came since the post was set.
    woken: AtomicBool,
}

#[derive(Debug)]
struct Sentry {
    /// A forked child has a copy, and no thread that watches.
    origin: Origin,
    epoll: OwnedFd,
    posts: Mutex<HashMap<u64, Weak<Sleeper>>>,
}

static SENTRY: OnceLock<Option<Sentry>> = OnceLock::new();

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The sentry of this process; `None` where it cannot be had.
fn sentry() -> Option<&'static Sentry> {
    let begin = || {
        let epoll = epoll::create(CreateFlags::CLOEXEC).ok()?;
        std::thread::Builder::new().name("bus-sentry".into()).spawn(watch).ok()?;
        Some(Sentry { origin: Origin::here(), epoll, posts: Mutex::default() })
    };
    SENTRY.get_or_init(begin).as_ref().filter(|sentry| sentry.origin.is_here())
}

fn watch() {
    let Some(sentry) = SENTRY.wait() else { return };
    let mut events = Vec::with_capacity(64);
    loop {
        events.clear();
        if epoll::wait(&sentry.epoll, rustix::buffer::spare_capacity(&mut events), None).is_err() {
            continue;
        }
        for &Event { data, .. } in &events {
            let sleeper = lock(&sentry.posts).get(&data.u64()).and_then(Weak::upgrade);
            if let Some(sleeper) = sleeper {
                sleeper.woken.store(true, Ordering::Release);
                sleeper.wakeup.wake();
            }
        }
    }
}

impl Post {
    /// Has a connection and a bell watched. They are not watched before the post is set.
    ///
    /// # Errors
    /// What the system says: no descriptor or thread left.
    pub(super) fn new(connection: &Arc<Connection>, bell: &Arc<Doorbell>) -> io::Result<Self> {
        let Some(sentry) = sentry() else { return Err(io::ErrorKind::Unsupported.into()) };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let sleeper = Arc::new(Sleeper { wakeup: Wakeup::default(), woken: AtomicBool::new(true) });
        lock(&sentry.posts).insert(number, Arc::downgrade(&sleeper));
        let post = Self { number, connection: Arc::clone(connection), bell: Arc::clone(bell), sleeper };
        for fd in post.watched()? {
            epoll::add(&sentry.epoll, fd, EventData::new_u64(number), EventFlags::ONESHOT)?;
        }
        Ok(post)
    }

    /// Whether it watches these.
    pub(super) fn is_of(&self, connection: &Arc<Connection>, bell: &Arc<Doorbell>) -> bool {
        Arc::ptr_eq(&self.connection, connection) && Arc::ptr_eq(&self.bell, bell)
    }

    /// Sets it, unless it stands since the last time. What came before wakes as well.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn set(&self) -> io::Result<()> {
        let Some(sentry) = sentry() else { return Err(io::ErrorKind::Unsupported.into()) };
        if self.sleeper.woken.swap(false, Ordering::Acquire) {
            for fd in self.watched()? {
                epoll::modify(
                    &sentry.epoll,
                    fd,
                    EventData::new_u64(self.number),
                    EventFlags::IN | EventFlags::ONESHOT,
                )?;
            }
        }
        Ok(())
    }

    /// Whether something came since it was set.
    pub(super) fn was_woken(&self) -> bool {
        self.sleeper.woken.load(Ordering::Acquire)
    }

    /// What to sleep on.
    pub(super) fn wakeup(&self) -> &Wakeup {
        &self.sleeper.wakeup
    }

    fn watched(&self) -> io::Result<[BorrowedFd<'_>; 2]> {
        Ok([self.connection.poll_fd()?, self.bell.as_fd()])
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        let Some(sentry) = sentry() else { return };
        lock(&sentry.posts).remove(&self.number);
        // They may stay open elsewhere. One that was never added is no matter.
        for fd in self.watched().into_iter().flatten() {
            let _ = epoll::delete(&sentry.epoll, fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::lane::doorbell::doorbell;
    use crate::lane::sleep::Words;

    /// Sleeps until the post is woken; longer than any test takes.
    fn sleep(post: &Post) {
        let begun = Instant::now();
        let seen = post.wakeup().seen();
        post.set().unwrap();
        while !post.was_woken() && post.wakeup().seen() == seen {
            let mut words = Words::with_capacity(1);
            words.add_own(post.wakeup(), seen);
            words.sleep(Some(begun + Duration::from_secs(60))).unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn who_sleeps_is_woken_by_socket_and_bell_for_as_long_as_there_is_something() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let connection = Arc::new(Connection::of_socket(ours));
        let (bell, ringer) = doorbell().unwrap();
        let bell = Arc::new(bell);
        let post = Post::new(&connection, &bell).unwrap();
        assert!(post.is_of(&connection, &bell));
        ringer.ring();
        sleep(&post);
        // It is still there, so that it wakes again.
        sleep(&post);
        bell.take();
        std::io::Write::write_all(&mut &theirs, b"x").unwrap();
        sleep(&post);
        drop(theirs);
        sleep(&post);
    }
}
