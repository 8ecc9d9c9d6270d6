//! [`Daemon`]: a broker with its connections, driven as the event loop drives it.
//!
//! A connection is written only when the broker has asked for it, and read only while it is not
//! paused: a forgotten `Write` or `Resume` shows as a world that does not drain.

use std::io::IoSlice;
use std::time::Duration;

use bus_core::ChannelName;
use bus_core::wire::{
    FrameHeader, FrameLimits, HEADER_BYTES, Hello, Kind, ORIGIN_BYTES, Origin, Reply, Request, Role, put_control,
    read_control,
};
use bus_daemon::Credentials;
use bus_daemon::broker::{Action, Announced, Broker, Content, Handled, LARGE_BYTES, PREFIX_BYTES, PeerId};

use crate::options::{Options, UID};
use crate::wire::{Closed, WireId, Wires};

pub(crate) struct Daemon {
    pub(crate) broker: Broker,
    pub(crate) connections: Vec<Connection>,
    started_ms: u64,
    /// A peer that asks and orders without a wire.
    auditor: PeerId,
    /// The frames of this step, for the journal.
    pub(crate) frames: Frames,
    /// How often a connection was read.
    readings: u64,
}

/// Kinds and sequences of frames that were read.
pub(crate) type Frames = Vec<(Kind, u64)>;

pub(crate) struct Connection {
    peer: PeerId,
    /// Until it is closed, while frames of it may still wait.
    wire: Option<WireId>,
    /// It is to be closed, and what it holds to be kept.
    to_hang_up: bool,
    /// Read and not handed in.
    rest: Vec<u8>,
    /// What was said to the header of the frame that comes next.
    announced: Option<Announced>,
    paused: bool,
    wants_write: bool,
    closing: bool,
}

impl Daemon {
    pub(crate) fn start(options: &Options, generation: u64, now_ms: u64) -> Self {
        let mut broker = Broker::new(options.rules(generation));
        for plan in &options.channels {
            if let Some(declared) = &plan.declared {
                broker.declare(plan.name.clone(), declared.clone());
            }
        }
        let auditor = broker.connected(Duration::ZERO, Credentials { pid: 1, uid: UID });
        let mut daemon =
            Self { broker, connections: Vec::new(), started_ms: now_ms, auditor, frames: Frames::new(), readings: 0 };
        let mut hello = Vec::new();
        put_control(
            Kind::Hello,
            &Hello { name: "auditor".to_owned(), pid: 1, role: Role::Control, clock: 0 },
            &mut hello,
        );
        daemon.tell_auditors_frame(&hello, now_ms);
        daemon
    }

    fn since_start(&self, now_ms: u64) -> Duration {
        Duration::from_millis(now_ms - self.started_ms)
    }

    pub(crate) fn accept(&mut self, wire: WireId, now_ms: u64) {
        let peer = self.broker.connected(self.since_start(now_ms), Credentials { pid: 2, uid: UID });
        self.connections.push(Connection {
            peer,
            wire: Some(wire),
            to_hang_up: false,
            rest: Vec::new(),
            announced: None,
            paused: false,
            wants_write: false,
            closing: false,
        });
        self.carry_out();
    }

    /// Reads up to `most` bytes of a connection and hands in the frames that are whole.
    pub(crate) fn read(&mut self, index: usize, most: usize, wires: &mut Wires, now_ms: u64) {
        let connection = &mut self.connections[index];
        if connection.paused {
            // Whoever is dead keeps no socket while its frames wait.
            connection.to_hang_up |= connection.wire.is_some_and(|wire| wires.is_deserted(wire));
            return self.hang_up(wires);
        }
        let read = connection.wire.map_or(Err(Closed), |wire| wires.read_up(wire, most));
        let over = read.is_err();
        connection.rest.extend(read.unwrap_or_default());
        self.hand_in(index, now_ms);
        if over && !self.connections[index].paused {
            self.drop_connection(index, wires, now_ms);
        }
        self.carry_out();
        self.hang_up(wires);
    }

    /// Closes sockets that are to be closed, and keeps what they hold.
    pub(crate) fn hang_up(&mut self, wires: &mut Wires) {
        for connection in &mut self.connections {
            if let Some(wire) = connection.wire.filter(|_| std::mem::take(&mut connection.to_hang_up)) {
                connection.rest.extend(wires.read_up(wire, usize::MAX).unwrap_or_default());
                wires.close_daemon(wire);
                connection.wire = None;
                // Half a frame does not wait for room.
                let header = FrameHeader::decode(&connection.rest, self.broker.frame_limits());
                connection.paused &= match header {
                    Ok(header) => header.is_some_and(|header| header.frame_bytes() <= connection.rest.len()),
                    Err(_) => true,
                };
                self.broker.hung_up(connection.peer, connection.rest.len() as u64);
            }
        }
        self.carry_out();
    }

    fn note_run(&mut self, mut run: &[u8]) {
        while let Ok(Some(header)) = FrameHeader::decode(run, self.broker.frame_limits()) {
            self.frames.push((header.kind, header.sequence));
            run = &run[header.frame_bytes()..];
        }
    }

    fn hand_in(&mut self, index: usize, now_ms: u64) {
        let now = self.since_start(now_ms);
        let peer = self.connections[index].peer;
        let mut rest = std::mem::take(&mut self.connections[index].rest);
        let mut done = 0;
        self.readings += 1;
        // Every other time, as the event loop does: the outcome must be the same.
        let runs = self.readings.is_multiple_of(2);
        while done < rest.len() {
            // What was announced is handed in as one frame.
            if runs && self.connections[index].announced.is_none() {
                let run = self.broker.run(now, peer, &rest[done..]).bytes;
                self.note_run(&rest[done..done + run]);
                done += run;
            }
            let header = match FrameHeader::decode(&rest[done..], self.broker.frame_limits()) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(error) => {
                    self.broker.malformed(now, peer, &error);
                    done = rest.len();
                    break;
                }
            };
            let Some(frame) = rest[done..].get(..header.frame_bytes()) else {
                self.announce(index, &header, now);
                break;
            };
            let content = match self.connections[index].announced.take() {
                Some(Announced::Skip) => &[],
                Some(Announced::Keep | Announced::NotNow) | None => &frame[HEADER_BYTES..],
            };
            let content = if content.len() >= LARGE_BYTES && header.kind.carries_message() {
                Content::Owned([&[0; PREFIX_BYTES][..], content].concat())
            } else {
                Content::Borrowed(content)
            };
            self.frames.push((header.kind, header.sequence));
            match self.broker.frame(now, peer, &header, content) {
                Handled::Taken => done += header.frame_bytes(),
                Handled::NotNow(content) => {
                    let connection = &mut self.connections[index];
                    connection.announced = content.bytes().is_empty().then_some(Announced::Skip);
                    connection.paused = true;
                    break;
                }
            }
        }
        rest.drain(..done);
        self.connections[index].rest = rest;
    }

    /// Half a message has come. Of every other one its header is announced, as that of a large one is.
    fn announce(&mut self, index: usize, header: &FrameHeader, now: Duration) {
        let connection = &mut self.connections[index];
        let comes = connection.wire.is_some() && header.kind == Kind::Data && header.sequence.is_multiple_of(2);
        if comes && connection.announced.is_none() {
            match self.broker.announced(now, connection.peer, header) {
                Announced::NotNow => connection.paused = true,
                outcome => connection.announced = Some(outcome),
            }
        }
    }

    /// Writes up to `most` bytes to a connection, if the broker has asked for it; closes it when
    /// everything is said that was to be said.
    /// Returns how many bytes it was.
    pub(crate) fn write(&mut self, index: usize, most: usize, wires: &mut Wires, now_ms: u64) -> usize {
        let connection = &mut self.connections[index];
        if !connection.wants_write {
            return 0;
        }
        let mut slices: Vec<IoSlice<'_>> = Vec::new();
        self.broker.output(connection.peer, &mut slices);
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        let taken = all.min(most).min(connection.wire.map_or(usize::MAX, |wire| wires.down_room(wire)));
        if all == 0 {
            connection.wants_write = false;
        } else if taken > 0 {
            let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).take(taken);
            if connection.wire.is_some_and(|wire| wires.write_down(wire, bytes)) {
                self.broker.wrote(connection.peer, taken);
            } else {
                // As when a socket says that nobody is there: what was sent is still to be read.
                connection.wants_write = false;
                self.broker.write_closed(connection.peer);
            }
        }
        if connection.closing && !connection.wants_write {
            self.drop_connection(index, wires, now_ms);
        }
        self.carry_out();
        taken
    }

    /// A connection that is to be closed has had its time.
    pub(crate) fn cut_lingering(&mut self, index: usize, wires: &mut Wires, now_ms: u64) {
        if self.connections[index].closing {
            self.drop_connection(index, wires, now_ms);
            self.carry_out();
        }
    }

    fn drop_connection(&mut self, index: usize, wires: &mut Wires, now_ms: u64) {
        let connection = self.connections.swap_remove(index);
        if let Some(wire) = connection.wire {
            wires.close_daemon(wire);
        }
        self.broker.disconnected(self.since_start(now_ms), connection.peer);
    }

    /// The loop has nothing to do.
    pub(crate) fn be_idle(&mut self) {
        self.broker.tell_all();
        self.carry_out();
    }

    pub(crate) fn tick(&mut self, now_ms: u64) {
        let now = self.since_start(now_ms);
        if self.broker.next_tick().is_some_and(|at| at <= now) {
            self.broker.tick(now);
            self.carry_out();
        }
    }

    fn carry_out(&mut self) {
        loop {
            while let Some(action) = self.broker.poll_action() {
                let peer = match &action {
                    Action::Write(peer) | Action::Resume(peer) | Action::Close(peer, _) | Action::HangUp(peer, _) => {
                        peer
                    }
                    Action::Lane(action) => panic!("{action:?}: nobody here wishes a lane"),
                    Action::Link(_, order) => panic!("{order:?}: nobody here orders gateways"),
                };
                let Some(connection) = self.connections.iter_mut().find(|connection| connection.peer == *peer) else {
                    continue;
                };
                match action {
                    Action::Write(_) => connection.wants_write = true,
                    Action::Resume(_) => connection.paused = false,
                    Action::HangUp(..) => connection.to_hang_up = true,
                    Action::Close(..) => (connection.closing, connection.wants_write) = (true, true),
                    Action::Lane(_) | Action::Link(..) => {}
                }
            }
            self.broker.end_turn();
            if !self.broker.has_actions() {
                return;
            }
        }
    }

    /// Everything that it alone held is gone, and what was on its way to it.
    pub(crate) fn die(self, wires: &mut Wires) {
        let wires_left = self.connections.into_iter().filter_map(|connection| connection.wire);
        wires_left.for_each(|wire| wires.close_daemon(wire));
    }

    /// Whether the peer of a wire was removed, and the wire is not closed yet.
    pub(crate) fn has_removed(&self, wire: WireId) -> bool {
        self.connections.iter().any(|connection| connection.wire == Some(wire) && connection.closing)
    }

    /// Whether a connection has something to be read or written.
    pub(crate) fn is_busy(&self, index: usize, wires: &mut Wires) -> bool {
        let connection = &self.connections[index];
        let has_up = connection.wire.is_none_or(|wire| wires.has_up(wire));
        connection.wants_write || (!connection.paused && (has_up || !connection.rest.is_empty()))
    }

    /// Asks a question, or gives an order, and has the reply at once.
    pub(crate) fn ask(&mut self, request: &Request, now_ms: u64) -> Reply {
        let mut frame = Vec::new();
        put_control(Kind::Request, request, &mut frame);
        let reply = self.tell_auditors_frame(&frame, now_ms);
        read_control(Kind::Reply, &reply[HEADER_BYTES..]).expect("the daemon replies as it should")
    }

    /// Copies of what a channel holds: sender, sequence and value of each.
    pub(crate) fn peek(&mut self, channel: ChannelName, now_ms: u64) -> Vec<(u64, u64, u64)> {
        let mut request = Vec::new();
        put_control(Kind::Request, &Request::Peek { channel, after: 0, messages: u32::MAX }, &mut request);
        let answer = self.tell_auditors_frame(&request, now_ms);
        let limits = FrameLimits { message_max_bytes: u32::MAX, control_max_bytes: u32::MAX };
        let (mut rest, mut copies) = (&answer[..], Vec::new());
        while let Some(header) = FrameHeader::decode(rest, limits).expect("the daemon speaks as it should") {
            let (frame, after) = rest.split_at(header.frame_bytes());
            rest = after;
            if header.kind == Kind::Deliver {
                let (origin, payload) = frame[HEADER_BYTES..].split_first_chunk::<ORIGIN_BYTES>().expect("an origin");
                let value = payload.first_chunk().map(|value| u64::from_le_bytes(*value)).expect("a value");
                copies.push((Origin::decode(origin).sender, header.sequence, value));
            }
        }
        copies
    }

    fn tell_auditors_frame(&mut self, frame: &[u8], now_ms: u64) -> Vec<u8> {
        let limits = FrameLimits { message_max_bytes: 0, control_max_bytes: u32::MAX };
        let header = FrameHeader::decode(frame, limits).ok().flatten().expect("the auditor speaks as it should");
        let now = self.since_start(now_ms);
        let _ = self.broker.frame(now, self.auditor, &header, Content::Borrowed(&frame[HEADER_BYTES..]));
        let mut slices: Vec<IoSlice<'_>> = Vec::new();
        self.broker.output(self.auditor, &mut slices);
        let reply: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.broker.wrote(self.auditor, reply.len());
        self.carry_out();
        reply
    }
}
