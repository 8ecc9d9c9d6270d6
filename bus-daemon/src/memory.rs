//! [`MemoryHub`]: where threads of an app that embeds the daemon come in, without a socket.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bus_core::{ClientEnd, DaemonEnd, Door, memory_pair};

/// Shared by the event loop and the app's threads. Whatever they put here wakes the loop.
pub(crate) struct MemoryHub {
    waker: mio::Waker,
    news: Mutex<News>,
}

/// What has happened since the loop last looked.
#[derive(Default)]
pub(crate) struct News {
    /// Connections that are new, by number.
    pub(crate) arrived: Vec<(u64, DaemonEnd)>,
    /// Connections with something to read, or room to write again.
    pub(crate) ready: Vec<u64>,
    connected: u64,
    ended: bool,
}

impl MemoryHub {
    pub(crate) fn new(waker: mio::Waker) -> Arc<Self> {
        Arc::new(Self { waker, news: Mutex::default() })
    }

    /// The way in.
    pub(crate) fn door(self: &Arc<Self>) -> Door {
        let hub = Arc::downgrade(self);
        Door::new(move || {
            let ended = || io::Error::new(io::ErrorKind::ConnectionRefused, "the daemon in this process has ended");
            hub.upgrade().ok_or_else(ended)?.connect().ok_or_else(ended)
        })
    }

    fn connect(self: &Arc<Self>) -> Option<ClientEnd> {
        let mut news = self.lock();
        if news.ended {
            return None;
        }
        news.connected += 1;
        let number = news.connected;
        let hub: Weak<Self> = Arc::downgrade(self);
        let (client, daemon) = memory_pair(Box::new(move || {
            if let Some(hub) = hub.upgrade() {
                hub.lock().ready.push(number);
                hub.wake();
            }
        }));
        news.arrived.push((number, daemon));
        drop(news);
        self.wake();
        Some(client)
    }

    /// Takes what has happened.
    pub(crate) fn take(&self) -> (Vec<(u64, DaemonEnd)>, Vec<u64>) {
        let mut news = self.lock();
        (std::mem::take(&mut news.arrived), std::mem::take(&mut news.ready))
    }

    /// Lets nobody in any more.
    pub(crate) fn end(&self) {
        let mut news = self.lock();
        news.ended = true;
        news.arrived.clear();
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "the event loop could not be woken");
        }
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
