//! [`Sending`]: what one sending endpoint knows and owes, without its socket.
//!
//! **The driving rule:** give every frame from the daemon to [`handle`](Sending::handle); write what
//! [`output`](Sending::output) gives whenever the socket takes it, and tell by
//! [`wrote`](Sending::wrote) how much it took. A connection that is gone is told by
//! [`disconnected`](Sending::disconnected), the next one is asked for with
//! [`resume`](Sending::resume) and taken into use by [`resumed`](Sending::resumed).

use std::io::IoSlice;

use serde::Serialize;

use super::Encoded;
use super::lane::LaneNews;
use crate::channel::Peers;
use crate::message::{Message, MessageInfo};
use crate::obstacle::{Closed, Hindrance};
use crate::stream::control_queue::ControlQueue;
use crate::stream::outbox::{Outbox, Outgoing, SLICES_MAX};
use crate::wire::{
    Closing, ClosingCode, FrameHeader, FrameLimits, HEADER_BYTES, Kind, LaneEnded, LaneId, LaneLeft, LaneNamed,
    Receivers, Resume, SenderWelcome, Settled, Want, decode_headers, read_control,
};

#[derive(Debug)]
pub(super) struct Sending {
    rules: SenderWelcome,
    outbox: Outbox,
    control: ControlQueue,
    settled: Settled,
    last_sequence: u64,
    /// The last message that was written whole over a connection that is gone: its daemon may have
    /// handed it on.
    earlier_written_through: u64,
    /// What the daemon was last asked to confirm over this connection.
    confirm_asked: u64,
    want: Option<PendingWant>,
    wants: u64,
    receivers: u32,
    peers: Option<Peers>,
    watching: bool,
    /// Not everything is written again yet over a new connection.
    resending: bool,
    closed: Option<Closed>,
    /// What follows goes through a lane.
    in_lane: bool,
    /// All up to here were acknowledged in lanes that it left, or before its lane as that shows: a daemon may say less,
    /// from before it heard of that.
    left_through: u64,
    /// How many messages of its lane went with the channel.
    lane_ended: Option<LaneEnded>,
    /// What the daemon said of lanes, and nobody has looked at.
    pub(super) lanes: LaneNews,
}

/// A request for room in the channel.
#[derive(Clone, Copy, Debug)]
struct PendingWant {
    want: Want,
    asked: bool,
    answer: Option<RoomAnswer>,
}

/// What the daemon says to a request for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoomAnswer {
    Granted,
    Full,
}

/// What became of a message that was to be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withdrawn {
    /// It was never sent.
    Whole,
    /// A part of it is in the socket: the connection has to go first, because the daemon forgets half
    /// a frame.
    Begun,
    /// It is in a daemon's socket, or was in that of one that is gone: it is sent.
    Sent,
}

/// The daemon said something that makes no sense, or that it goes: the connection is given up.
#[derive(Debug)]
pub(super) struct Broken;

impl Sending {
    pub(super) fn new(rules: SenderWelcome) -> Self {
        Self {
            outbox: Outbox::default(),
            control: ControlQueue::default(),
            settled: rules.settled,
            last_sequence: rules.settled.accepted,
            earlier_written_through: 0,
            confirm_asked: 0,
            want: None,
            wants: 0,
            receivers: rules.receivers,
            peers: None,
            watching: false,
            resending: false,
            closed: None,
            in_lane: false,
            left_through: 0,
            lane_ended: None,
            lanes: LaneNews::default(),
            rules,
        }
    }

    pub(super) fn rules(&self) -> &SenderWelcome {
        &self.rules
    }

    /// The sequence of the message that was pushed last.
    pub(super) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    pub(super) fn settled(&self) -> Settled {
        self.settled
    }

    pub(super) fn receivers(&self) -> u32 {
        self.receivers
    }

    /// How many messages are not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.outbox.len()
    }

    /// How long they are, in bytes.
    pub(super) fn unacknowledged_bytes(&self) -> u64 {
        self.outbox.message_bytes()
    }

    /// Whether the daemon has ended this sender for good.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Why that is.
    pub(super) fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// Nothing is accepted any more.
    pub(super) fn close(&mut self, why: Closed) {
        self.closed.get_or_insert(why);
        self.disconnected();
    }

    // Messages.

    /// Whether the window has room for a message. While everything is sent again there is none: a
    /// message that waits behind all that could not be withdrawn in time.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let held = self.outbox.len();
        let in_window = held < self.rules.window_messages as usize
            && self.outbox.message_bytes() + bytes <= self.rules.window_bytes;
        !self.resending && (held == 0 || in_window)
    }

    /// Which part of the window has no room for a message.
    pub(super) fn lacks_room(&self, bytes: u64) -> Option<Hindrance> {
        let is_used_up = self.outbox.len() >= self.rules.window_messages as usize;
        let lack = if is_used_up { Hindrance::Window } else { Hindrance::WindowBytes };
        (!self.resending && !self.has_room(bytes)).then_some(lack)
    }

    /// Takes a message into the window. Returns its sequence.
    pub(super) fn push(&mut self, message: &Encoded<'_>, sent_at_ns: u64, confirm: bool) -> u64 {
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        let redelivered = false;
        self.outbox.push(Outgoing { sequence, sent_at_ns, confirm, redelivered, message });
        if confirm {
            self.confirm_asked = sequence;
        }
        sequence
    }

    /// All up to here were acknowledged by other ways.
    pub(super) fn settle_through(&mut self, sequence: u64) {
        self.outbox.acknowledge(usize::MAX);
        self.last_sequence = sequence;
        self.earlier_written_through = sequence;
        self.settled = Settled { accepted: sequence, acked: sequence, ..self.settled };
    }

    /// All up to here that was sent by the stream is acknowledged, by what was acknowledged behind it in a lane. What
    /// the socket has begun is finished all the same.
    pub(super) fn settle_before_lane(&mut self, sequence: u64, is_up: bool) {
        debug_assert_eq!(sequence, self.last_sequence);
        self.settled = Settled { accepted: sequence, acked: sequence, ..self.settled };
        self.left_through = sequence;
        self.release(if is_up { self.outbox.written_frames() } else { usize::MAX });
    }

    /// Goes on by the stream, behind messages of which all are acknowledged.
    pub(super) fn leave_lane(&mut self, lane: LaneId, sequence: u64) {
        self.in_lane = false;
        self.settle_through(sequence);
        self.left_through = sequence;
        self.control.push(Kind::LaneLeft, &LaneLeft { lane, sequence });
    }

    /// How many messages of a lane went with the channel, by the daemon's word.
    pub(super) fn lane_ended(&self, lane: LaneId) -> Option<u64> {
        self.lane_ended.filter(|ended| ended.lane == lane).map(|ended| ended.messages)
    }

    /// All up to here were accepted, by whatever way.
    pub(super) fn accept_through(&mut self, sequence: u64) {
        self.settled.accepted = sequence.min(self.last_sequence);
    }

    /// A message that was sent by other ways is to be sent by this one.
    pub(super) fn fold(&mut self, message: Outgoing<'_>) {
        debug_assert_eq!(message.sequence, self.last_sequence + 1);
        self.last_sequence = message.sequence;
        self.earlier_written_through = message.sequence;
        self.outbox.push(message);
    }

    /// Whether what follows the last message goes through a lane.
    pub(super) fn is_in_lane(&mut self, in_lane: bool) {
        self.in_lane = in_lane;
    }

    /// Says something.
    pub(super) fn say<T: Serialize>(&mut self, kind: Kind, body: &T) {
        self.control.push(kind, body);
    }

    /// Takes the last message back, as if it had never been sent; where that can be.
    pub(super) fn withdraw(&mut self) -> Withdrawn {
        if self.last_sequence <= self.written_through() {
            return Withdrawn::Sent;
        }
        if !self.outbox.withdraw_last() {
            return Withdrawn::Begun;
        }
        self.last_sequence -= 1;
        self.confirm_asked = self.confirm_asked.min(self.last_sequence);
        self.end_resending();
        Withdrawn::Whole
    }

    /// The last message that was written whole, over this connection or an earlier one.
    fn written_through(&self) -> u64 {
        let unwritten = self.outbox.len() - self.outbox.written_frames();
        self.earlier_written_through.max(self.last_sequence - unwritten as u64)
    }

    /// Asks the daemon to confirm all up to here as soon as it is accepted.
    pub(super) fn ask_to_confirm(&mut self, sequence: u64) {
        if self.confirm_asked < sequence {
            self.confirm_asked = self.last_sequence;
            self.control.push(Kind::Confirm, &());
        }
    }

    /// How many messages were sent and never accepted.
    pub(super) fn refused_count(&self) -> usize {
        let refused = usize::try_from(self.last_sequence.saturating_sub(self.settled.accepted)).unwrap_or(usize::MAX);
        refused.min(self.outbox.len())
    }

    /// The messages that were sent and never accepted.
    pub(super) fn refused(&self) -> impl Iterator<Item = Message> {
        let accepted = self.outbox.len() - self.refused_count();
        self.outbox.frames().skip(accepted).filter_map(|frame| self.message(frame))
    }

    fn message(&self, frame: &[u8]) -> Option<Message> {
        let limits = FrameLimits { message_max_bytes: u32::MAX, control_max_bytes: 0 };
        let header = FrameHeader::decode(frame, limits).ok()??;
        let (block, payload) = frame[HEADER_BYTES..].split_at(header.header_block_bytes as usize);
        let (sender, pid) = (self.rules.sender, std::process::id());
        let info = MessageInfo::from_wire(sender, pid, header.sequence, header.sent_at_ns, 0, false, header.codec);
        Some(Message { info, headers: decode_headers(block).unwrap_or_default(), payload: payload.to_vec() })
    }

    // Room in the channel, for one message at a time.

    pub(super) fn wants_room(&self) -> bool {
        self.want.is_some()
    }

    /// Begins to want room for a message.
    pub(super) fn want_room(&mut self, bytes: u32, wait: bool) {
        self.wants += 1;
        let want = Want { number: self.wants, bytes, wait };
        self.want = Some(PendingWant { want, asked: false, answer: None });
    }

    /// Asks for the room that is wanted, once for each connection. Returns the answer when it is here.
    pub(super) fn ask_for_room(&mut self) -> Option<RoomAnswer> {
        let pending = self.want.as_mut()?;
        if !pending.asked {
            pending.asked = true;
            self.control.push(Kind::Want, &pending.want);
        }
        pending.answer
    }

    /// Does not want room any more. Room that was granted, or still may be, is given back unless the
    /// message is `sent`.
    pub(super) fn stop_wanting_room(&mut self, sent: bool) {
        let Some(PendingWant { want, asked, answer }) = self.want.take() else { return };
        if asked && !sent && answer != Some(RoomAnswer::Full) {
            self.control.push(Kind::Unwant, &want);
        }
    }

    // Peers.

    /// Who is at the channel, as last told; asks to be told from now on.
    pub(super) fn watch_peers(&mut self) -> Option<Peers> {
        if !std::mem::replace(&mut self.watching, true) {
            self.control.push(Kind::Watch, &());
        }
        self.peers
    }

    pub(super) fn say_goodbye(&mut self) {
        self.control.push(Kind::Goodbye, &());
    }

    // The way out.

    /// Bytes of messages that are not written.
    pub(super) fn unwritten(&self) -> usize {
        self.outbox.unwritten()
    }

    pub(super) fn has_output(&self) -> bool {
        self.outbox.unwritten() > 0 || !self.control.is_empty()
    }

    /// Whether there is something to write that no call waits for.
    pub(super) fn has_output_of_its_own(&self) -> bool {
        self.resending || !self.control.is_empty()
    }

    /// What to write next, where that is in one piece: most of the time, and cheaper to find.
    pub(super) fn output_in_one(&self) -> Option<&[u8]> {
        if self.control.is_empty() { self.outbox.unwritten_in_one() } else { None }
    }

    /// What to write next. Control frames come behind the messages before them, and never into the
    /// middle of one.
    pub(super) fn output<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        if self.control.has_begun() {
            slices[0] = IoSlice::new(self.control.unwritten());
            return 1;
        }
        let (mut count, whole) = self.outbox.unwritten_slices(slices);
        if whole && count < SLICES_MAX && !self.control.is_empty() {
            slices[count] = IoSlice::new(self.control.unwritten());
            count += 1;
        }
        count
    }

    /// The socket has taken `bytes` of what [`output`](Self::output) gave.
    pub(super) fn wrote(&mut self, bytes: usize) {
        let messages = if self.control.has_begun() { 0 } else { bytes.min(self.outbox.unwritten()) };
        self.outbox.wrote(messages);
        if bytes > messages {
            self.control.wrote(bytes - messages);
        }
        self.end_resending();
    }

    /// Everything may be written again.
    fn end_resending(&mut self) {
        if self.resending && self.outbox.unwritten() == 0 {
            self.resending = false;
            self.release(usize::MAX);
        }
    }

    // The way in.

    /// Takes notice of one frame of the daemon.
    pub(super) fn handle(&mut self, kind: Kind, body: &[u8]) -> Result<(), Broken> {
        match kind {
            Kind::Settled => self.settle(read_control(kind, body).map_err(|_| Broken)?)?,
            Kind::Granted => self.answer(read_control(kind, body).map_err(|_| Broken)?, RoomAnswer::Granted),
            Kind::Full => self.answer(read_control(kind, body).map_err(|_| Broken)?, RoomAnswer::Full),
            Kind::Peers => self.peers = Some(read_control(kind, body).map_err(|_| Broken)?),
            Kind::Receivers => {
                let receivers: Receivers = read_control(kind, body).map_err(|_| Broken)?;
                self.receivers = receivers.count;
            }
            Kind::LaneOffered => self.lanes.offered = Some(read_control(kind, body).map_err(|_| Broken)?),
            Kind::LaneKept => {
                let LaneNamed { lane } = read_control(kind, body).map_err(|_| Broken)?;
                self.lanes.kept = Some(lane);
            }
            Kind::LaneRecalled => self.lanes.recalled = Some(read_control(kind, body).map_err(|_| Broken)?),
            Kind::LaneEnded => self.lane_ended = Some(read_control(kind, body).map_err(|_| Broken)?),
            Kind::CursorGiven => self.lanes.cursor = Some(read_control(kind, body).map_err(|_| Broken)?),
            Kind::Closing => {
                let closing: Closing = read_control(kind, body).map_err(|_| Broken)?;
                match closing.code {
                    ClosingCode::ShuttingDown => return Err(Broken),
                    ClosingCode::Deleted => self.close(Closed::Deleted),
                    ClosingCode::Kicked | ClosingCode::Fault => self.close(Closed::Refused(closing.text)),
                }
            }
            _ => return Err(Broken),
        }
        Ok(())
    }

    fn answer(&mut self, answered: Want, answer: RoomAnswer) {
        if let Some(pending) = self.want.as_mut().filter(|pending| pending.want.number == answered.number) {
            pending.answer = Some(answer);
        }
    }

    fn settle(&mut self, mut told: Settled) -> Result<(), Broken> {
        if self.in_lane {
            // A daemon knows from a receiver of messages that went through the lane.
            told.accepted = told.accepted.min(self.last_sequence);
            told.acked = told.acked.min(self.last_sequence);
        }
        told.accepted = told.accepted.max(self.left_through);
        told.acked = told.acked.max(self.left_through);
        if told.acked > told.accepted || told.accepted > self.last_sequence || told.acked < self.settled.acked {
            return Err(Broken);
        }
        self.settled = told;
        // A daemon may know of messages that are not written again yet, from a receiver: a frame that
        // is half in the socket has to be finished all the same.
        self.release(self.outbox.written_frames());
        Ok(())
    }

    /// Lets go what is acknowledged, `most` frames at most.
    fn release(&mut self, most: usize) {
        let released = self.last_sequence - self.outbox.len() as u64;
        let acknowledged = self.settled.acked.saturating_sub(released);
        self.outbox.acknowledge(usize::try_from(acknowledged).unwrap_or(usize::MAX).min(most));
    }

    // Connections.

    /// The connection is gone, and with it what was asked over it. No daemon has half a frame.
    pub(super) fn disconnected(&mut self) {
        self.earlier_written_through = self.written_through();
        self.control.clear();
        self.lanes = LaneNews::default();
        self.resending = false;
        self.confirm_asked = 0;
        self.watching = false;
        self.peers = None;
        if let Some(pending) = &mut self.want {
            (pending.asked, pending.answer) = (false, None);
        }
        self.begin_anew();
    }

    /// Nothing is half written: what is acknowledged need not be sent again, and all else is.
    fn begin_anew(&mut self) {
        self.release(usize::MAX);
        self.outbox.rewind();
    }

    /// What makes the next daemon know this sender. What is named here has to come next.
    pub(super) fn resume(&self) -> Resume {
        let next_sequence = self.last_sequence + 1 - self.outbox.len() as u64;
        let (sender, token) = (self.rules.sender, self.rules.token);
        Resume { sender, token, next_sequence, last_sequence: self.last_sequence }
    }

    /// A new connection is there, with its rules: everything is written again.
    pub(super) fn resumed(&mut self, rules: SenderWelcome) -> Result<(), Broken> {
        self.receivers = rules.receivers;
        // Accepted by a daemon that died is not accepted; acknowledged stays acknowledged.
        let acked = rules.settled.acked.max(self.settled.acked);
        let told = Settled { accepted: rules.settled.accepted.max(acked), acked, dropped: self.settled.dropped };
        self.rules = rules;
        self.settle(told)?;
        self.begin_anew();
        self.resending = self.outbox.unwritten() > 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::WhenFull;
    use crate::codec::Codec;

    fn sending() -> Sending {
        Sending::new(SenderWelcome {
            sender: 1,
            token: [0; 16],
            window_messages: 10,
            window_bytes: 1000,
            message_max_bytes: 100,
            exact: false,
            when_full: WhenFull::Block,
            settled: Settled::default(),
            receivers: 0,
        })
    }

    fn push(sending: &mut Sending) -> u64 {
        sending.push(&Encoded { codec: Codec::Raw, header_block: b"", payload: b"12345678" }, 0, false)
    }

    fn write(sending: &mut Sending, bytes: usize) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = sending.output(&mut slices);
        let most: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        sending.wrote(bytes.min(most));
    }

    #[test]
    fn what_no_socket_has_is_withdrawn_and_its_number_used_again() {
        let mut sending = sending();
        assert_eq!(push(&mut sending), 1);
        assert_eq!(sending.withdraw(), Withdrawn::Whole);
        assert_eq!(push(&mut sending), 1);
    }

    #[test]
    fn half_a_message_is_withdrawn_when_its_connection_is_gone() {
        let mut sending = sending();
        push(&mut sending);
        write(&mut sending, 10);
        assert_eq!(sending.withdraw(), Withdrawn::Begun);
        sending.disconnected();
        assert_eq!(sending.withdraw(), Withdrawn::Whole);
    }

    /// The keeper had written it to a new daemon, which died before the sending thread looked: the
    /// message came back as one that was never sent, and had arrived.
    #[test]
    fn what_a_daemon_had_whole_is_sent_also_when_that_daemon_is_gone() {
        let mut sending = sending();
        push(&mut sending);
        push(&mut sending);
        write(&mut sending, usize::MAX);
        sending.disconnected();
        assert_eq!(sending.withdraw(), Withdrawn::Sent);
        assert_eq!(push(&mut sending), 3);
        assert_eq!(sending.withdraw(), Withdrawn::Whole);
        assert_eq!(sending.withdraw(), Withdrawn::Sent);
    }

    /// The daemon died before it could tell, and what the lane's receiver had acknowledged came again, for itself, behind
    /// what it had acknowledged later.
    #[test]
    fn what_is_acknowledged_in_the_lane_behind_it_is_not_sent_again() {
        let mut sending = sending();
        (0..3).for_each(|_| _ = push(&mut sending));
        write(&mut sending, usize::MAX);
        sending.disconnected();
        assert_eq!(sending.resume().next_sequence, 1);
        sending.settle_before_lane(3, false);
        assert_eq!((sending.resume().next_sequence, sending.unacknowledged()), (4, 0));
    }

    #[test]
    fn what_the_socket_has_begun_is_finished_although_it_is_acknowledged_in_the_lane_behind_it() {
        let mut sending = sending();
        (0..2).for_each(|_| _ = push(&mut sending));
        write(&mut sending, HEADER_BYTES + 8 + 10);
        sending.settle_before_lane(2, true);
        assert_eq!((sending.unacknowledged(), sending.unwritten()), (1, HEADER_BYTES + 8 - 10));
    }

    /// The daemon had said less before it heard of what the receiver had acknowledged before the lane.
    #[test]
    fn a_daemon_may_say_less_than_the_lane_has_shown() {
        let mut sending = sending();
        (0..3).for_each(|_| _ = push(&mut sending));
        write(&mut sending, usize::MAX);
        sending.is_in_lane(true);
        sending.settle_before_lane(3, true);
        let told = Settled { accepted: 3, acked: 1, dropped: 0 };
        let mut bytes = Vec::new();
        crate::wire::put_control(Kind::Settled, &told, &mut bytes);
        sending.handle(Kind::Settled, &bytes[HEADER_BYTES..]).unwrap();
        assert_eq!(sending.unacknowledged(), 0);
    }

    #[test]
    fn a_control_frame_waits_for_the_end_of_the_message_before_it() {
        let mut sending = sending();
        push(&mut sending);
        write(&mut sending, 10);
        sending.ask_to_confirm(1);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        assert_eq!(sending.output(&mut slices), 2);
        let rest = slices[0].len();
        write(&mut sending, rest + 3);
        // A part of the control frame is out: no message may come between.
        push(&mut sending);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        assert_eq!((sending.output(&mut slices), slices[0].len()), (1, HEADER_BYTES - 3));
    }

    /// Nothing was left to be written, and nothing ended the sending again: there was no room for ever.
    #[test]
    fn a_message_that_is_withdrawn_while_all_is_sent_again_leaves_room() {
        let mut sending = sending();
        push(&mut sending);
        write(&mut sending, usize::MAX);
        push(&mut sending);
        sending.disconnected();
        let rules = sending.rules().clone();
        sending.resumed(rules).unwrap();
        write(&mut sending, HEADER_BYTES + 8);
        assert_eq!(sending.withdraw(), Withdrawn::Whole);
        assert!(!sending.has_output());
        assert!(!sending.has_output_of_its_own(), "the keeper polls a writable socket for ever");
        assert!(sending.has_room(8));
    }
}
