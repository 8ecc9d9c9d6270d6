//! Who comes: by the socket, and from threads of this process.

use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::traffic::Readiness;
use super::{EventLoop, FIRST_CONNECTION, Outside, Slot};
use crate::connection::{self, Connection};
use crate::listener::Accepted;
use crate::peer::Credentials;

/// How long accepting rests when there are no descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl<O: Outside> EventLoop<O> {
    pub(super) fn accept(&mut self) {
        while let Some(listener) = &self.listener {
            if self.open_sockets >= self.options.connections_max {
                // Whoever waits in the backlog is let in when another leaves.
                self.accept_again_at = Some(Instant::now() + ACCEPT_PAUSE);
                return;
            }
            match listener.accept() {
                Ok(Accepted::Nobody) => return,
                Ok(Accepted::Lost) => {}
                Ok(Accepted::Connection(connection, credentials)) => {
                    self.admit(connection, credentials, None);
                }
                Err(error) => {
                    // Above all a full descriptor table: the others go on, and this one waits.
                    tracing::warn!(%error, "accepting rests for {} ms", ACCEPT_PAUSE.as_millis());
                    self.accept_again_at = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Takes a connection in. Returns its key.
    pub(super) fn admit(
        &mut self,
        connection: Connection,
        credentials: Credentials,
        number: Option<u64>,
    ) -> Option<usize> {
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        if let Some(fd) = connection.fd() {
            let token = Token(key + FIRST_CONNECTION);
            if let Err(error) = self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE) {
                tracing::warn!(%error, "a connection could not be watched and is closed");
                return None;
            }
            self.open_sockets += 1;
        }
        let peer = self.broker.connected(self.started.elapsed(), credentials);
        entry.insert(Slot { connection, peer, paused: false, queued: false, held_back: false, number, closing: None });
        self.by_peer.insert(peer, key);
        // It may have spoken before it was watched.
        self.queue(key);
        Some(key)
    }

    /// Connections by memory: new ones, and those with something to read or room to write again.
    pub(super) fn look_into_memory(&mut self) {
        let (arrived, ready) = self.memory.take();
        let credentials = Credentials { pid: std::process::id(), uid: rustix::process::geteuid().as_raw() };
        for (number, end) in arrived {
            let connection = Connection::new(connection::Stream::Memory(end));
            if let Some(key) = self.admit(connection, credentials, Some(number)) {
                self.by_number.insert(number, key);
            }
        }
        for number in ready {
            let Some(key) = self.by_number.get(&number).copied() else { continue };
            let connection = &mut self.connections[key].connection;
            connection.look_for_client();
            let deserted = connection.deserted;
            self.ready(key, Readiness { readable: true, read_closed: false, writable: true, deserted });
        }
    }
}
