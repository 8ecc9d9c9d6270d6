//! [`Daemon`]: a broker with its connections, driven as the event loop drives it.
//!
//! A connection is written only when the broker has asked for it, and read only while it is not
//! paused: a forgotten `Write` or `Resume` shows as a world that does not drain.

use std::io::IoSlice;
use std::time::Duration;

use bus_core::wire::{
    FrameHeader, FrameLimits, HEADER_BYTES, Hello, Kind, Reply, Request, Role, put_control, read_control,
};
use bus_daemon::Credentials;
use bus_daemon::broker::{Action, Broker, Content, Handled, LARGE_BYTES, PREFIX_BYTES, PeerId};

use crate::options::{Options, UID};
use crate::wire::{WireId, Wires};

pub(crate) struct Daemon {
    pub(crate) broker: Broker,
    pub(crate) connections: Vec<Connection>,
    started_ms: u64,
    /// A peer that asks and orders without a wire.
    auditor: PeerId,
    /// The frames of this step, for the journal.
    pub(crate) frames: Frames,
}

/// Kinds and sequences of frames that were read.
pub(crate) type Frames = Vec<(Kind, u64)>;

pub(crate) struct Connection {
    peer: PeerId,
    wire: WireId,
    /// Read and not handed in.
    rest: Vec<u8>,
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
        let mut daemon = Self { broker, connections: Vec::new(), started_ms: now_ms, auditor, frames: Frames::new() };
        let mut hello = Vec::new();
        put_control(Kind::Hello, &Hello { name: "auditor".to_owned(), pid: 1, role: Role::Control }, &mut hello);
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
            wire,
            rest: Vec::new(),
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
            return;
        }
        let read = wires.read_up(connection.wire, most);
        let over = read.is_err();
        connection.rest.extend(read.unwrap_or_default());
        self.hand_in(index, now_ms);
        if over && !self.connections[index].paused {
            self.drop_connection(index, wires, now_ms);
        }
        self.carry_out();
    }

    fn hand_in(&mut self, index: usize, now_ms: u64) {
        let now = self.since_start(now_ms);
        let peer = self.connections[index].peer;
        let mut rest = std::mem::take(&mut self.connections[index].rest);
        let mut done = 0;
        while done < rest.len() {
            let header = match FrameHeader::decode(&rest[done..], self.broker.frame_limits()) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(error) => {
                    self.broker.malformed(now, peer, &error);
                    done = rest.len();
                    break;
                }
            };
            let Some(frame) = rest[done..].get(..header.frame_bytes()) else { break };
            let content = &frame[HEADER_BYTES..];
            let content = if content.len() >= LARGE_BYTES && header.kind.carries_message() {
                Content::Owned([&[0; PREFIX_BYTES][..], content].concat())
            } else {
                Content::Borrowed(content)
            };
            self.frames.push((header.kind, header.sequence));
            match self.broker.frame(now, peer, &header, content) {
                Handled::Taken => done += header.frame_bytes(),
                Handled::NotNow(_) => {
                    self.connections[index].paused = true;
                    break;
                }
            }
        }
        rest.drain(..done);
        self.connections[index].rest = rest;
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
        let taken = all.min(most).min(wires.down_room(connection.wire));
        if all == 0 {
            connection.wants_write = false;
        } else if taken > 0 {
            let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).take(taken);
            if wires.write_down(connection.wire, bytes) {
                self.broker.wrote(connection.peer, taken);
            } else {
                // As when a socket says that nobody is there: what was sent is still to be read.
                connection.wants_write = false;
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
        wires.close_daemon(connection.wire);
        self.broker.disconnected(self.since_start(now_ms), connection.peer);
    }

    /// The loop has nothing to do.
    pub(crate) fn be_idle(&mut self) {
        self.broker.end_turn(true);
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
                let (Action::Write(peer) | Action::Resume(peer) | Action::Close(peer, _)) = &action;
                let Some(connection) = self.connections.iter_mut().find(|connection| connection.peer == *peer) else {
                    continue;
                };
                match action {
                    Action::Write(_) => connection.wants_write = true,
                    Action::Resume(_) => connection.paused = false,
                    Action::Close(..) => (connection.closing, connection.wants_write) = (true, true),
                }
            }
            self.broker.end_turn(false);
            if !self.broker.has_actions() {
                return;
            }
        }
    }

    /// Everything that it alone held is gone, and what was on its way to it.
    pub(crate) fn die(self, wires: &mut Wires) {
        self.connections.into_iter().for_each(|connection| wires.close_daemon(connection.wire));
    }

    /// Whether a connection has something to be read or written.
    pub(crate) fn is_busy(&self, index: usize, wires: &mut Wires) -> bool {
        let connection = &self.connections[index];
        connection.wants_write || (!connection.paused && (wires.has_up(connection.wire) || !connection.rest.is_empty()))
    }

    /// Asks a question, or gives an order, and has the reply at once.
    pub(crate) fn ask(&mut self, request: &Request, now_ms: u64) -> Reply {
        let mut frame = Vec::new();
        put_control(Kind::Request, request, &mut frame);
        let reply = self.tell_auditors_frame(&frame, now_ms);
        read_control(Kind::Reply, &reply[HEADER_BYTES..]).expect("the daemon replies as it should")
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
