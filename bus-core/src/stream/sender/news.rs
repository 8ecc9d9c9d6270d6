//! The socket of a sender: writing what is owed, reading what is said, and waiting for either.

use std::io::{self, IoSlice};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::mapped::SenderLane;
use super::sending::Broken;
use super::{Link, State, StreamSender, Written};
use crate::lane::biased::BiasedGuard;
use crate::stream::inbox::Fill;
use crate::stream::keeper;
use crate::stream::outbox::SLICES_MAX;
use crate::transport::{Interest, Ready};
use crate::wire::HEADER_BYTES;

impl StreamSender {
    /// Writes everything by one call where that can be, as it can for most messages. `false` when there is
    /// more to do, or to look at.
    pub(super) fn write_at_once(&self, state: &mut State) -> bool {
        let Link::Up(connection) = &state.link else { return false };
        let Some(output) = state.sending.output_in_one().filter(|_| !state.sending.wants_room()) else { return false };
        let all = output.len();
        let sent = connection.send(&[IoSlice::new(output)]).unwrap_or_default();
        if sent > 0 {
            state.sending.wrote(sent);
        }
        sent == all
    }

    /// Writes what the socket takes now.
    pub(super) fn write(&self, state: &mut State) -> Written {
        while state.sending.has_output() {
            let Link::Up(connection) = &state.link else { return Written::NoLink };
            let (asked, sent) = match state.sending.output_in_one() {
                Some(output) => (output.len(), connection.send(&[IoSlice::new(output)])),
                None => {
                    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                    let count = state.sending.output(&mut slices);
                    let asked = slices[..count].iter().map(|slice| slice.len()).sum();
                    (asked, connection.send(&slices[..count]))
                }
            };
            match sent {
                Ok(bytes) => {
                    state.sending.wrote(bytes);
                    if bytes < asked {
                        // It would take no more if it was asked again.
                        return Written::SocketFull;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Written::SocketFull,
                Err(_) => {
                    self.take_last_words(state);
                    return Written::NoLink;
                }
            }
        }
        if matches!(state.link, Link::Up(_)) { Written::All } else { Written::NoLink }
    }

    /// Waits until something may have changed: an answer, room in the socket, another thread's news.
    pub(super) fn wait_for_news<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> BiasedGuard<'a, State> {
        if std::mem::take(&mut state.lost) {
            // While its caller was writing: what it waits for may have come before.
            return state;
        }
        let writes = state.sending.has_output();
        let connection = match &state.link {
            Link::Up(connection) if writes || !state.reading => Arc::clone(connection),
            Link::Up(_) | Link::Away | Link::Closed => return self.wait_for_others(state, deadline),
        };
        let reads = !std::mem::replace(&mut state.reading, true);
        let bell = state.lane.as_ref().map(SenderLane::bell);
        drop(state);
        let interest = if writes { Interest::Either } else { Interest::Readable };
        let ready = connection.wait_or_ring(interest, bell.as_ref().map(|bell| bell.as_fd()), deadline);
        let mut state = self.state.lock();
        // A failure shows in reading and in writing.
        let ready = ready.unwrap_or(Some(Ready { readable: true, writable: true }));
        if let (Some(bell), Some(Ready { readable: false, writable: false })) = (&bell, ready) {
            // Who waits for it looks for itself.
            bell.take();
        }
        let is_ready = |what: fn(&Ready) -> bool| ready.as_ref().is_some_and(what);
        if reads {
            state.reading = false;
        }
        if writes && is_ready(|ready| ready.writable) {
            self.write(&mut state);
        }
        if reads && is_ready(|ready| ready.readable) {
            self.pump(&mut state);
        }
        if ready.is_some() && state.reading && state.sending.has_output() {
            // What woke this thread may be there to be read, by another that is awake as well.
            let soon = Instant::now() + READER_PATIENCE;
            state = self.wait_for_others(state, Some(deadline.map_or(soon, |deadline| deadline.min(soon))));
        }
        self.wake_others(&state);
        self.tend_lane(&mut state);
        state
    }

    /// Lets those look who wait for what this thread has changed.
    pub(super) fn wake_others(&self, state: &State) {
        // Waking nobody would be a system call all the same.
        if state.waiting > 0 {
            self.changed.tell();
        }
    }

    pub(super) fn wait_for_others<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> BiasedGuard<'a, State> {
        state.waiting += 1;
        let seen = self.changed.seen();
        drop(state);
        self.changed.wait(seen, deadline);
        let mut state = self.state.lock();
        state.waiting -= 1;
        state
    }

    /// Reads and takes notice of what the daemon has said, unless another thread is about to: that one
    /// sleeps until there is something to read, and would sleep through what this one has read.
    pub(super) fn pump(&self, state: &mut State) {
        if !state.reading {
            self.read_all(state);
        }
    }

    fn read_all(&self, state: &mut State) {
        while let Link::Up(connection) = &state.link {
            match state.inbox.fill(&Arc::clone(connection)) {
                Ok(Fill::Bytes) => {}
                Ok(Fill::Nothing) => return,
                Ok(Fill::Closed) | Err(_) => return self.lose_link(state),
            }
            if self.take_notice(state).is_err() {
                self.lose_link(state);
            }
        }
    }

    /// Takes notice of every frame that is here whole.
    pub(super) fn take_notice(&self, state: &mut State) -> Result<(), Broken> {
        while let Some(frame) = state.inbox.front().map_err(|_| Broken)? {
            state.sending.handle(frame.kind, &state.inbox.front_bytes()[HEADER_BYTES..])?;
            state.inbox.pop_front();
        }
        if state.sending.is_closed()
            && let Link::Up(connection) = std::mem::replace(&mut state.link, Link::Closed)
        {
            connection.hang_up();
            self.end_lane(state);
            state.closing.close();
        }
        Ok(())
    }

    /// The connection takes nothing more: reads why, if the daemon has said so. A thread that is
    /// reading is woken by the same hang-up.
    fn take_last_words(&self, state: &mut State) {
        self.read_all(state);
        if matches!(state.link, Link::Up(_)) {
            self.lose_link(state);
        }
    }

    pub(super) fn lose_link(&self, state: &mut State) {
        if let Link::Up(connection) = &state.link {
            connection.hang_up();
            state.link = Link::Away;
            state.lost = true;
            state.inbox.clear();
            state.sending.disconnected();
            // A daemon that did not hear of it knows nothing of what is mapped only.
            state.mapped = None;
            state.lane.iter_mut().for_each(SenderLane::is_to_be_named_again);
            keeper::wake();
        }
        self.wake_others(state);
    }
}

/// How long a thread leaves the reading to another that has been woken for it.
const READER_PATIENCE: Duration = Duration::from_millis(1);
