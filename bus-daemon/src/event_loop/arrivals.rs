//! Who comes: by the socket, and from threads of this process. And who does not: processes that ended
//! with an earlier daemon.

use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Token};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use super::traffic::Readiness;
use super::{EventLoop, FIRST_CONNECTION, Outside, Slot};
use crate::connection::{self, Connection};
use crate::listener::Accepted;
use crate::peer::Credentials;

/// How long accepting rests when there are no descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often that is told, while it lasts.
const ACCEPT_WARNING_PAUSE: Duration = Duration::from_secs(10);

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
                    let now = Instant::now();
                    if self.accept_failed_at.is_none_or(|at| now > at + ACCEPT_WARNING_PAUSE) {
                        tracing::warn!(%error, "accepting rests, {} ms each time", ACCEPT_PAUSE.as_millis());
                        self.accept_failed_at = Some(now);
                    }
                    self.accept_again_at = Some(now + ACCEPT_PAUSE);
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
        entry.insert(Slot {
            connection,
            peer,
            paused: false,
            queued: false,
            held_back: false,
            watched_for_room: false,
            number,
            closing: None,
        });
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
            // No further word comes after this one: whoever reads later must know that the end is there.
            self.ready(key, Readiness { readable: true, read_closed: deserted, writable: true, deserted });
        }
    }

    /// Tells the broker which of the processes are gone that it hopes for.
    pub(super) fn look_at_processes(&mut self) {
        let mut gone = self.broker.processes_to_look_at();
        gone.retain(|pid| is_gone(*pid));
        if gone.is_empty() {
            return;
        }
        // What a process did before its end counts: it may have come back, and nobody was let in since.
        self.accept();
        if self.accept_again_at.is_some() {
            return;
        }
        for pid in gone {
            self.broker.process_gone(self.started.elapsed(), pid);
        }
    }
}

/// Whether a process has ended, also when its parent has not asked for its end yet. One of which the
/// kernel does not tell is not gone.
fn is_gone(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => {
            let mut ended = [PollFd::new(&process, PollFlags::IN)];
            rustix::event::poll(&mut ended, Some(&Timespec::default())) == Ok(1)
        }
        Err(error) => error == Errno::SRCH,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_gone_when_it_has_ended_whether_or_not_its_parent_knows() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        assert!(!is_gone(pid));
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        drop(child.stdin.take());
        rustix::event::poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
        assert!(is_gone(pid), "nobody has waited for it");
        child.wait().unwrap();
        assert!(is_gone(pid));
    }

    #[test]
    fn a_process_that_another_user_owns_or_nobody_can_have_is_not_gone() {
        for pid in [1, std::process::id(), 0, u32::MAX] {
            assert!(!is_gone(pid), "{pid}");
        }
    }
}
