//! Who comes: by the socket, and from threads of this process. And who does not: processes that ended
//! with an earlier daemon.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Token};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use super::pace::Pace;
use super::telling::tells_frames;
use super::traffic::Readiness;
use super::{EventLoop, FIRST_CONNECTION, Outside, Slot};
use crate::connection::{self, Connection};
use crate::daemon::RAISE_DESCRIPTORS;
use crate::listener::Accepted;
use crate::peer::Credentials;

/// How long accepting rests when there are no descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often that is told at most. While it lasts, once.
const ACCEPT_WARNING_PAUSE: Duration = Duration::from_secs(10);

impl<O: Outside> EventLoop<O> {
    pub(super) fn accept(&mut self) {
        self.refill_reserve();
        // It is set where somebody waits: what hangs on nobody being at the door goes on else.
        self.accept_again_at = None;
        while let Some(listener) = &self.listener {
            if self.open_sockets >= self.options.connections_max {
                // Whoever waits in the backlog is let in when another leaves; whoever comes next is heard of.
                if somebody_waits(listener.as_fd()) {
                    let most = self.options.connections_max;
                    self.tell_of_rest(format_args!("all {most} connections are in use: others wait until one ends"));
                    self.accept_again_at = Some(Instant::now() + ACCEPT_PAUSE);
                }
                return;
            }
            match listener.accept() {
                Ok(Accepted::Nobody) => return,
                Ok(Accepted::Lost) => {}
                Ok(Accepted::Connection(connection, credentials)) => {
                    if std::mem::take(&mut self.accept_rests) {
                        tracing::info!("connections are accepted again");
                    }
                    self.admit(connection, credentials, None);
                }
                // A full descriptor table is told of before it is known whether anybody is there.
                Err(_) if !somebody_waits(listener.as_fd()) => return,
                Err(error) if self.reserve.helps_against(&error) => self.broker.descriptors_are_short(true),
                Err(error) => {
                    // Above all a full descriptor table: the others go on, and this one waits.
                    self.tell_of_rest(format_args!("no connection can be accepted: {error}"));
                    self.accept_again_at = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// What is free again goes to the reserve before anybody else has it.
    pub(super) fn refill_reserve(&mut self) {
        if self.reserve.is_short() {
            self.reserve.fill();
            self.broker.descriptors_are_short(self.reserve.is_short());
        }
    }

    /// Tells, once until it is over, that others have to wait, and what can be done.
    fn tell_of_rest(&mut self, what: std::fmt::Arguments<'_>) {
        let now = Instant::now();
        // A table that is full by turns is told of no more often than one that stays so.
        let lately = self.accept_told_at.is_some_and(|at| now < at + ACCEPT_WARNING_PAUSE);
        if !self.accept_rests && !lately {
            tracing::warn!("{what}; end some, or raise connections_max and the descriptor limit ({RAISE_DESCRIPTORS})");
            (self.accept_rests, self.accept_told_at) = (true, Some(now));
        }
    }

    /// Takes a connection in. Returns its key.
    pub(super) fn admit(
        &mut self,
        connection: Connection,
        credentials: Credentials,
        number: Option<u64>,
    ) -> Option<usize> {
        let Credentials { pid, uid } = credentials;
        tracing::debug!(pid, uid, "a connection was accepted");
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
            pace: Pace::default(),
            frames_out: tells_frames().then(Box::default),
        });
        if self.keys.len() <= peer.place() {
            self.keys.resize(peer.place() + 1, usize::MAX);
        }
        self.keys[peer.place()] = key;
        if number.is_some() {
            // It may have spoken before. What a socket has said the next poll tells, behind those that spoke earlier:
            // who leaves and comes again at once has left first.
            self.queue(key);
        }
        Some(key)
    }

    /// Connections by memory: new ones, and those with something to read or room to write again.
    pub(super) fn look_into_memory(&mut self) {
        let (arrived, ready) = self.memory.take();
        let credentials = Credentials { pid: std::process::id(), uid: rustix::process::geteuid().as_raw() };
        // Those first that were here: who leaves and comes again at once has left first.
        for number in ready {
            let Some(key) = self.by_number.get(&number).copied() else { continue };
            let connection = &mut self.connections[key].connection;
            connection.look_for_client();
            let deserted = connection.deserted;
            // No further word comes after this one: whoever reads later must know that the end is there.
            self.ready(key, Readiness { readable: true, read_closed: deserted, writable: true, deserted });
        }
        for (number, end) in arrived {
            let connection = Connection::new(connection::Stream::Memory(end));
            if let Some(key) = self.admit(connection, credentials, Some(number)) {
                self.by_number.insert(number, key);
                // Its end may have come with it, and was told of while nobody knew its number.
                let connection = &mut self.connections[key].connection;
                connection.look_for_client();
                connection.hung_up |= connection.deserted;
            }
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

/// Whether somebody stands at the door.
fn somebody_waits(listener: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(listener, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&Timespec::default())) == Ok(1)
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
