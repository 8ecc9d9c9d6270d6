//! What goes over the connections: frames in, output out, and how connections end.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use bus_core::lane::stamp::now_ns;
use bus_core::wire::{FrameError, FrameHeader};
use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::pace::{Heard, Pace};
use super::telling::{tell_frame_in, tell_frame_out, tell_frames_in, tells_frames};
use super::{EventLoop, FIRST_CONNECTION, HOLD_BACK, HeldBack, LINGER, Outside, Slot};
use crate::broker::{Action, Announced, Broker, Content, Handled, PeerId};
use crate::connection::{Read, Sink};

/// What the kernel, or a client in this process, has told of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readiness {
    pub(super) readable: bool,
    /// The other side sends no more.
    pub(super) read_closed: bool,
    pub(super) writable: bool,
    /// The other side is gone in both directions.
    pub(super) deserted: bool,
}

impl Readiness {
    pub(super) fn of(event: &mio::event::Event) -> Self {
        let (read_closed, write_closed) = (event.is_read_closed(), event.is_write_closed());
        let error = event.is_error();
        Self {
            readable: event.is_readable() || read_closed || error,
            read_closed: read_closed || error,
            writable: event.is_writable() || write_closed,
            deserted: read_closed && write_closed,
        }
    }
}

/// What one peer sends, on its way to the broker.
struct Intake<'b> {
    broker: &'b mut Broker,
    started_at_ns: u64,
    peer: PeerId,
    heard: Heard,
}

impl Intake<'_> {
    /// The time at which something is taken in: after it was sent, and before anybody is told of it. So of two
    /// messages of which one was confirmed before the other was sent the first has the earlier time.
    fn now(&mut self) -> Duration {
        self.heard.at_ns = now_ns();
        Duration::from_nanos(self.heard.at_ns.saturating_sub(self.started_at_ns))
    }
}

impl Sink for Intake<'_> {
    fn run(&mut self, bytes: &[u8]) -> usize {
        let now = self.now();
        let run = self.broker.run(now, self.peer, bytes);
        if run.bytes > 0 && tells_frames() {
            tell_frames_in(self.broker, self.peer, &bytes[..run.bytes]);
        }
        self.heard.messages += run.messages;
        self.heard.asked |= run.asked;
        run.bytes
    }

    fn announced(&mut self, header: &FrameHeader) -> Announced {
        let now = self.now();
        self.broker.announced(now, self.peer, header)
    }

    fn record(&mut self, bytes: usize) -> Vec<u8> {
        self.broker.record(bytes)
    }

    fn frame<'a>(&mut self, header: &FrameHeader, content: Content<'a>) -> Handled<'a> {
        self.heard.asked = true;
        let now = self.now();
        let handled = self.broker.frame(now, self.peer, header, content);
        if matches!(handled, Handled::Taken) {
            tell_frame_in(self.broker, self.peer, header);
        }
        handled
    }

    fn brought(&mut self, bytes: usize) {
        self.heard.bytes += bytes;
    }

    fn malformed(&mut self, error: FrameError) {
        let now = self.now();
        self.broker.malformed(now, self.peer, &error);
    }
}

impl<O: Outside> EventLoop<O> {
    pub(super) fn slot_of(&self, peer: PeerId) -> Option<usize> {
        let key = *self.keys.get(peer.place())?;
        // Somebody else may have come to the place, or to the key.
        self.connections.get(key).is_some_and(|slot| slot.peer == peer).then_some(key)
    }

    pub(super) fn ready(&mut self, key: usize, readiness: Readiness) {
        let Some(slot) = self.connections.get_mut(key) else { return };
        let connection = &mut slot.connection;
        connection.hung_up |= readiness.read_closed;
        connection.deserted |= readiness.deserted;
        if readiness.readable {
            // No further event follows a hang-up: its end has to be read now, or after a pause.
            self.read(key);
        }
        if readiness.writable && self.connections.contains(key) {
            self.connections[key].connection.write_blocked = false;
            self.write(key);
        }
    }

    pub(super) fn queue(&mut self, key: usize) {
        if !std::mem::replace(&mut self.connections[key].queued, true) {
            self.unread.push_back(key);
        }
    }

    pub(super) fn read_unread(&mut self) {
        for _ in 0..self.unread.len() {
            let Some(key) = self.unread.pop_front() else { return };
            if let Some(slot) = self.connections.get_mut(key) {
                slot.queued = false;
                self.read(key);
            }
        }
    }

    /// Reads what a peer has sent, and hands it to the broker frame by frame.
    pub(super) fn read(&mut self, key: usize) {
        let limits = self.broker.frame_limits();
        let started_at_ns = self.options.started_at_ns;
        let slot = &mut self.connections[key];
        if slot.paused {
            return self.hang_up_if_deserted(key);
        }
        if slot.queued || slot.held_back || self.holds_back(key) {
            return self.end_pace(key);
        }
        let slot = &mut self.connections[key];
        let peer = slot.peer;
        let mut intake = Intake { broker: &mut self.broker, started_at_ns, peer, heard: Heard::default() };
        let outcome = slot.connection.read(&mut self.buffer, limits, &mut intake);
        let heard = intake.heard;
        match outcome {
            Read::Drained => self.pace(key, heard),
            Read::More => {
                self.end_pace(key);
                if self.connections.contains(key) {
                    self.queue(key);
                }
            }
            Read::Paused => {
                self.connections[key].paused = true;
                self.hang_up_if_deserted(key);
                self.end_pace(key);
            }
            Read::Closed => self.drop_connection(key, None),
        }
    }

    /// Leaves a sender unread whose receiver has no room in its socket and enough to go on with: to
    /// take in more would only push what waits out of the cache. Not for long: the receiver may have
    /// stopped, and what its senders send is to be accepted all the same.
    fn holds_back(&mut self, key: usize) -> bool {
        let peer = self.connections[key].peer;
        let receiver = self.broker.receiver_behind(peer).and_then(|receiver| self.slot_of(receiver));
        let receiver = receiver.map(|receiver| &self.connections[receiver].connection);
        let Some(blocked_at) = receiver.filter(|it| it.write_blocked).and_then(|it| it.blocked_at) else {
            return false;
        };
        let until = blocked_at + HOLD_BACK;
        if until <= Instant::now() {
            return false;
        }
        self.connections[key].held_back = true;
        self.held_back.push(HeldBack { key, peer, until });
        true
    }

    /// Reads those that were held back, as far as there is reason to.
    pub(super) fn read_held_back(&mut self) {
        if self.held_back.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut held_back = std::mem::take(&mut self.held_back);
        held_back.retain(|held| {
            let here = self.connections.get(held.key).is_some_and(|slot| slot.peer == held.peer);
            let waits = held.until > now && self.broker.receiver_behind(held.peer).is_some();
            if here && !waits {
                self.connections[held.key].held_back = false;
                self.queue(held.key);
            }
            here && waits
        });
        self.held_back.append(&mut held_back);
    }

    /// Whoever is dead keeps no descriptor while its last frames wait.
    fn hang_up_if_deserted(&mut self, key: usize) {
        let connection = &self.connections[key].connection;
        if connection.deserted && !connection.is_closed() {
            self.hang_up(key);
        }
    }

    /// Closes a socket, and keeps what it held to be handed in.
    fn hang_up(&mut self, key: usize) {
        self.leave_poll(key);
        let slot = &mut self.connections[key];
        let held_bytes = slot.connection.hang_up(&mut self.buffer);
        // Half a frame does not wait for room.
        slot.paused &= !slot.connection.is_spent(self.broker.frame_limits());
        let (peer, paused) = (slot.peer, slot.paused);
        if let Some(number) = slot.number.take() {
            self.by_number.remove(&number);
        }
        self.broker.hung_up(peer, held_bytes);
        if !paused {
            self.queue(key);
        }
    }

    fn leave_poll(&mut self, key: usize) {
        let slot = &mut self.connections[key];
        if let Some(fd) = slot.connection.fd() {
            slot.pace = Pace::default();
            // It leaves the poll by being closed; deregistering first keeps late events away.
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
            self.open_sockets -= 1;
        }
    }

    /// Does what the broker has ordered. Whoever is handed messages has them before others are told what became of
    /// theirs.
    pub(super) fn carry_out(&mut self) {
        loop {
            self.begin_actions();
            // Before anybody is told that something was accepted.
            for (receiver, due) in self.broker.dues() {
                // One whose channel went may have gone in the same turn.
                if self.slot_of(receiver).is_some() {
                    self.lanes.show(receiver, due);
                }
            }
            let mut to_write = std::mem::take(&mut self.to_write);
            for key in to_write.drain(..) {
                if self.connections.contains(key) {
                    self.write(key);
                }
            }
            self.to_write = to_write;
            if !self.broker.has_actions() {
                self.broker.end_turn();
            }
            if !self.broker.has_actions() {
                return self.tell_notes();
            }
        }
    }

    /// Begins what the broker has ordered, and lists who is to be written to.
    fn begin_actions(&mut self) {
        self.tell_notes();
        while let Some(action) = self.broker.poll_action() {
            match action {
                Action::Write(peer) => {
                    if let Some(key) = self.slot_of(peer) {
                        self.to_write.push(key);
                    }
                }
                Action::Resume(peer) => {
                    if let Some(key) = self.slot_of(peer) {
                        self.connections[key].paused = false;
                        self.queue(key);
                    }
                }
                Action::Close(peer, reason) => {
                    if let Some(key) = self.slot_of(peer) {
                        self.connections[key].closing = Some(reason);
                        self.to_write.push(key);
                    }
                }
                Action::Lane(action) => self.do_lane(action),
                Action::Link(peer, order) => self.links.order(peer, order),
                Action::HangUp(peer, reason) => {
                    if let Some(key) = self.slot_of(peer)
                        && !self.connections[key].connection.is_closed()
                    {
                        tracing::info!(peer = %self.broker.who(peer), reason, "hung up on a peer");
                        self.hang_up(key);
                    }
                }
            }
        }
    }

    /// Asks to be told when a socket is ready. Room to write is asked for only while it is missing:
    /// else each message that a peer reads would wake the loop.
    pub(super) fn watch(&mut self, key: usize, interest: Interest) {
        let slot = &mut self.connections[key];
        let Some(fd) = slot.connection.fd() else { return };
        let token = Token(key + FIRST_CONNECTION);
        let watched = match slot.pace.end() {
            true => self.poll.registry().register(&mut SourceFd(&fd), token, interest),
            false => self.poll.registry().reregister(&mut SourceFd(&fd), token, interest),
        };
        if let Err(error) = &watched {
            tracing::warn!(%error, "a connection could not be watched and is closed");
            self.drop_connection(key, None);
        }
    }

    /// Writes what there is for a peer, until its socket is full.
    fn write(&mut self, key: usize) {
        let slot = &mut self.connections[key];
        let peer = slot.peer;
        if slot.connection.write_blocked && slot.closing.is_none() {
            return;
        }
        while !slot.connection.write_blocked && !slot.connection.write_closed {
            let mut slices: Vec<IoSlice<'_>> = std::mem::take(&mut self.slices);
            self.broker.output(peer, &mut slices);
            let written = (!slices.is_empty()).then(|| slot.connection.write(&slices));
            let frames = slot.frames_out.as_mut().map(|frames| frames.wrote(&slices, written.unwrap_or_default()));
            self.slices = emptied(slices);
            for (kind, bytes) in frames.into_iter().flatten() {
                tell_frame_out(&self.broker, peer, kind, bytes);
            }
            let Some(written) = written else { break };
            if written > 0 {
                self.broker.wrote(peer, written);
            }
            if written > 0 && slot.connection.is_memory() {
                // A receiver in this process that sleeps beside its lanes.
                self.lanes.ring(peer);
            }
            if !self.broker.has_output(peer) {
                break;
            }
        }
        if slot.connection.write_closed {
            self.broker.write_closed(peer);
        }
        let blocked = slot.connection.write_blocked;
        if slot.closing.is_some() {
            if blocked && slot.connection.close_by.is_none() {
                slot.connection.close_by = Some(Instant::now() + LINGER);
                self.lingering += 1;
            } else if !blocked {
                let reason = slot.closing.take();
                return self.drop_connection(key, reason);
            }
        }
        // Asked for as long as it lasts: between two messages of a flow it is not taken back.
        if blocked != self.connections[key].watched_for_room {
            self.connections[key].watched_for_room = blocked;
            let room = if blocked { Some(Interest::WRITABLE) } else { None };
            self.watch(key, room.map_or(Interest::READABLE, |room| Interest::READABLE | room));
        }
    }

    /// Cuts peers that are to be closed and do not read what they are told.
    pub(super) fn cut_lingering(&mut self, now: Instant) {
        if self.lingering == 0 {
            return;
        }
        let overdue = |slot: &Slot| slot.connection.close_by.is_some_and(|at| at <= now);
        let keys: Vec<usize> = self.connections.iter().filter(|(_, slot)| overdue(slot)).map(|(key, _)| key).collect();
        for key in keys {
            let reason = self.connections[key].closing.take();
            self.drop_connection(key, reason);
        }
    }

    fn drop_connection(&mut self, key: usize, reason: Option<String>) {
        if !self.connections.contains(key) {
            return;
        }
        self.leave_poll(key);
        let slot = self.connections.remove(key);
        if slot.connection.close_by.is_some() {
            self.lingering -= 1;
        }
        self.tell_notes();
        self.tell_of_end(&slot, reason.as_deref());
        if let Some(number) = slot.number {
            self.by_number.remove(&number);
        }
        self.lanes.forget_receiver(slot.peer);
        self.broker.disconnected(self.started.elapsed(), slot.peer);
    }
}

/// The same memory, with nothing in it that is borrowed: a turn allocates nothing for what it writes.
fn emptied(mut slices: Vec<IoSlice<'_>>) -> Vec<IoSlice<'static>> {
    slices.clear();
    // Collected in place.
    slices.into_iter().map(|_| IoSlice::new(&[])).collect()
}
