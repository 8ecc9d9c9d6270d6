//! A sender in its lane: messages go into memory that the receiver reads, and no system call lies between.
//!
//! The stream stays: for what the daemon has to say, and to go back to when the daemon that knows the lane is
//! gone. What the receiver has not acknowledged then is sent again over the stream.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::{Encoded, LOOK_INTERVAL_NS, Link, PushError, State, StreamSender, Wait, Written};
use crate::lane::board::Board;
use crate::lane::doorbell::{Doorbell, Ringer};
use crate::lane::layout::{MessageHeader, NOBODY, PAGE_BYTES, data};
use crate::lane::memory::{Fence, Memory};
use crate::lane::region::{Access, Map, MemoryFile};
use crate::lane::ring::{Bounds, Limits, NotWritten, Reader, SleepsAt, Start, Writer};
use crate::lane::stamp::now_ns;
use crate::name::ChannelName;
use crate::stream::handover::exactly;
use crate::stream::keeper;
use crate::stream::outbox::Outgoing;
use crate::stream::session::{DialError, wall_clock_ns};
use crate::waiting::Waiting;
use crate::wire::{
    CursorGiven, Flags, Kind, LaneBrought, LaneDone, LaneEnd, LaneId, LaneNamed, LaneOffered, LaneProof, LaneStart,
    Turned,
};

/// How much of a ring is used at first, in bytes: it stays in the cache of a processor.
const FIRST_BYTES: u64 = 256 * 1024;

/// How often a sender that waits for its receiver looks whether the daemon is back.
const DAEMON_LOOK: Duration = Duration::from_millis(20);

/// How long a call waits until everything before is accepted, when it could go on in a lane: a daemon that serves says
/// so at once.
const MOVE_PATIENCE: Duration = Duration::from_millis(50);

/// How long the stream is used before that is tried again.
const MOVE_PAUSE: Duration = Duration::from_millis(500);

/// For how long a sender that spins leaves its state to others: a fraction of a microsecond.
const SPINS: u32 = 16;

/// What the daemon said of lanes, until somebody looks at it.
#[derive(Debug, Default)]
pub(super) struct LaneNews {
    pub(super) offered: Option<LaneOffered>,
    pub(super) kept: Option<LaneId>,
    pub(super) cursor: Option<CursorGiven>,
    pub(super) recalled: Option<LaneNamed>,
}

impl LaneNews {
    pub(super) fn is_empty(&self) -> bool {
        self.offered.is_none() && self.kept.is_none() && self.cursor.is_none() && self.recalled.is_none()
    }
}

/// One lane, from its sender's side.
#[derive(Debug)]
pub(super) struct SenderLane {
    id: LaneId,
    /// Where it lies, for the next daemon.
    file: MemoryFile,
    proof: LaneProof,
    pub(super) writer: Writer<Map, Cursor>,
    /// The receiver that it honours, or has honoured last.
    generation: u64,
    ring_bytes: u64,
    pub(super) window_messages: u64,
    bell: Arc<Doorbell>,
    /// What rings that: for the next daemon, and for who gives room back that another waits for.
    pub(super) bell_ringer: Ringer,
    pub(super) ringer: Option<Ringer>,
    /// Of the message that was sent last.
    pub(super) sequence: u64,
    /// It may be sent to, and the daemon keeps what is sent.
    kept: bool,
    /// Something that was sent before by the stream is not acknowledged.
    owes_stream: bool,
    pub(super) looked_at_ns: u64,
    /// The daemon was told that its receiver writes what no receiver writes.
    given_up: bool,
}

/// What a receiver writes; nothing, while there is none.
#[derive(Debug)]
pub(super) enum Cursor {
    Nobody,
    /// With what the daemon shows of it, where that can be.
    Map(Map, Option<Board<Map>>),
}

impl Memory for Cursor {
    fn words(&self) -> usize {
        match self {
            Self::Nobody => 0,
            Self::Map(map, _) => map.words(),
        }
    }

    #[inline]
    fn load(&self, word: usize) -> u64 {
        match self {
            Self::Nobody => 0,
            Self::Map(map, _) => map.load(word),
        }
    }

    fn store(&self, _: usize, _: u64) {}

    #[inline]
    fn fence(&self, fence: Fence) {
        if let Self::Map(map, _) = self {
            map.fence(fence);
        }
    }

    fn is_revoked(&self) -> bool {
        let Self::Map(map, Some(board)) = self else { return false };
        // Pairs with (V) in the board.
        map.fence(Fence::Sequential);
        board.is_revoked()
    }
}

impl SenderLane {
    /// Maps what was fetched.
    pub(super) fn new(offered: &LaneOffered, descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let bytes = PAGE_BYTES + usize::try_from(offered.ring_bytes).map_err(io::Error::other)?;
        let [data, bell, bell_ringer] = exactly(descriptors)?;
        let file = MemoryFile::open_checked(data, bytes, Access::Write).map_err(io::Error::other)?;
        let data = file.map_writable()?;
        // Else the first messages would pay for it; what fails here is tried again by them.
        let _ = data.populate(0, PAGE_BYTES + FIRST_BYTES as usize);
        let (ring_bytes, window_messages) = (offered.ring_bytes, u64::from(offered.window_messages));
        let bounds = Bounds { first_bytes: FIRST_BYTES, ring_bytes, window_messages };
        Ok(Self {
            id: offered.lane,
            file,
            proof: offered.proof,
            generation: 0,
            writer: Writer::new(data, Cursor::Nobody, bounds),
            ring_bytes,
            window_messages,
            bell: Arc::new(Doorbell::new(bell)),
            bell_ringer: Ringer::new(bell_ringer),
            ringer: None,
            sequence: 0,
            kept: false,
            owes_stream: true,
            looked_at_ns: 0,
            given_up: false,
        })
    }

    pub(super) fn id(&self) -> LaneId {
        self.id
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn knows_receiver(&self) -> bool {
        self.ringer.is_some()
    }

    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }

    /// The daemon is another, or its connection was: what it was told it may not have heard.
    pub(super) fn is_to_be_named_again(&mut self) {
        (self.kept, self.given_up) = (false, false);
    }

    fn has_acknowledgements(&mut self) -> bool {
        let _ = self.writer.look();
        self.writer.acknowledged() > 0
    }

    pub(super) fn unacknowledged(&mut self) -> u64 {
        // A receiver that lies about that lies to nobody else.
        let _ = self.writer.look();
        self.writer.messages() - self.writer.acknowledged()
    }

    /// All that was sent in it is acknowledged, and nobody has a place to write to.
    pub(super) fn is_at_rest(&mut self) -> bool {
        self.unacknowledged() == 0 && self.writer.reserved() == 0
    }

    pub(super) fn bell(&self) -> Arc<Doorbell> {
        Arc::clone(&self.bell)
    }

    /// Writes a message. Nobody sees it before it is [shown](Self::show).
    #[inline]
    pub(super) fn put(&mut self, message: Encoded<'_>, stamp_ns: u64) -> Result<u64, NotWritten> {
        let header = MessageHeader {
            flags: Flags::default(),
            codec: message.codec,
            sequence: self.sequence + 1,
            stamp_ns,
            payload_bytes: message.payload.len() as u32,
            header_block_bytes: message.header_block.len() as u32,
        };
        self.writer.write(&header, message.header_block, message.payload)?;
        self.sequence += 1;
        Ok(self.sequence)
    }

    /// Makes everything that was written visible, and wakes a receiver that sleeps.
    #[inline]
    pub(super) fn show(&mut self) {
        self.writer.publish();
        self.ring();
    }

    /// Writes a message if the window has room for it beside those that are not acknowledged on the stream.
    #[inline]
    fn write_within(&mut self, message: Encoded<'_>, stamp_ns: u64, on_stream: u64) -> Result<u64, NotWritten> {
        if on_stream > 0 && on_stream + self.unacknowledged() >= self.window_messages {
            return Err(NotWritten::Full);
        }
        let sequence = self.put(message, stamp_ns)?;
        self.show();
        Ok(sequence)
    }

    #[inline]
    pub(super) fn ring(&mut self) {
        match (self.writer.must_wake(), &self.ringer) {
            (None, _) | (Some(SleepsAt::Bell), None) => {}
            (Some(SleepsAt::Tail), _) => self.writer.data().wake(data::TAIL),
            (Some(SleepsAt::Bell), Some(ringer)) => ringer.ring(),
        }
    }

    /// Wakes whoever waits for room.
    pub(super) fn ring_own_bell(&self) {
        self.bell_ringer.ring();
    }

    /// It is of no use any more, and the daemon is to be told so. Returns how many messages were acknowledged.
    pub(super) fn give_up(&mut self) -> u64 {
        self.given_up = true;
        self.turn_to_nobody().messages
    }

    /// Turns to another receiver, or to nobody.
    pub(super) fn turn(&mut self, cursor: Cursor, ringer: Option<Ringer>, generation: u64) {
        self.writer.turn(cursor, generation);
        (self.generation, self.ringer) = (generation, ringer);
        // What was published before this receiver could say that it sleeps, and where.
        self.writer.data().wake(data::TAIL);
        if let Some(ringer) = &self.ringer {
            ringer.ring();
        }
    }

    /// Turns to nobody. Returns where the receiver stood.
    fn turn_to_nobody(&mut self) -> Start {
        self.ringer = None;
        self.writer.turn(Cursor::Nobody, NOBODY)
    }

    /// Looks at its receiver no more, without saying so: nothing that it may not have read is written over.
    /// Returns what the next daemon has to know.
    fn stand_still(&mut self, channel: &ChannelName, sender: u64) -> LaneBrought {
        self.ringer = None;
        let Start { logical, place, messages, .. } = self.writer.turn(Cursor::Nobody, self.generation);
        LaneBrought {
            lane: self.id,
            proof: self.proof,
            channel: channel.clone(),
            sender,
            pid: std::process::id(),
            by: LaneEnd::Sender,
            ring_bytes: self.ring_bytes,
            generation: self.generation,
            not_before_ns: 0,
            start: LaneStart { logical, place, messages },
            attempts: Vec::new(),
        }
    }

    /// Reads back what lies behind `start`.
    fn read_back(&self, start: Start, mut each: impl FnMut(Outgoing<'_>)) {
        let before = self.sequence - self.writer.messages();
        let limits = Limits { ring_bytes: self.ring_bytes, message_max_bytes: u32::MAX };
        let mut reader = Reader::new(self.writer.data(), Cursor::Nobody, limits, NOBODY, start);
        let wall_clock_offset_ns = wall_clock_ns().wrapping_sub(now_ns());
        let (mut block, mut payload) = (Vec::new(), Vec::new());
        let mut at = reader.head();
        // It is this process's own memory, and nobody else can have written there.
        while reader.look().is_ok()
            && let Ok(Some(record)) = reader.record(at)
        {
            block.resize(record.header.header_block_bytes as usize, 0);
            payload.resize(record.header.payload_bytes as usize, 0);
            reader.copy_header_block(&record, &mut block);
            reader.copy_payload(&record, &mut payload);
            at = record.next;
            each(Outgoing {
                sequence: before + at.messages,
                sent_at_ns: record.header.stamp_ns.wrapping_add(wall_clock_offset_ns),
                codec: record.header.codec,
                confirm: false,
                // The daemon may have given the lane to a receiver of which nobody has told this end.
                redelivered: true,
                header_block: &block,
                payload: &payload,
            });
        }
        debug_assert_eq!(at.messages, self.writer.messages(), "everything that was published is read back");
    }
}

/// What came of a message that was to go through the lane.
pub(super) enum InLane<'a, P> {
    Sent(P),
    /// There is no lane any more: it goes by the stream.
    Gone(MutexGuard<'a, State>),
}

impl State {
    /// The lane of that name, whether it is used or about to be.
    pub(super) fn lane_of(&mut self, id: LaneId) -> Option<&mut SenderLane> {
        self.lane.as_mut().into_iter().chain(&mut self.mapped).find(|lane| lane.id == id)
    }
}

impl StreamSender {
    /// Sends a message through the lane, and waits for room there.
    pub(super) fn push_in_lane<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        message: Encoded<'_>,
        wait: Wait,
    ) -> Result<InLane<'a, u64>, PushError> {
        let put = |lane: &mut SenderLane, stamp_ns, on_stream| lane.write_within(message, stamp_ns, on_stream);
        let bytes = (message.header_block.len() + message.payload.len()) as u64;
        self.put_in_lane(state, bytes, put, wait)
    }

    /// Does for a message of so many bytes what `put` does with the lane, a stamp, and the number of messages on the
    /// stream, and waits for room.
    pub(super) fn put_in_lane<'a, P>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        bytes: u64,
        put: impl Fn(&mut SenderLane, u64, u64) -> Result<P, NotWritten>,
        wait: Wait,
    ) -> Result<InLane<'a, P>, PushError> {
        let (mut waits, mut looked) = (false, false);
        let outcome = loop {
            if matches!(state.link, Link::Closed) || self.lacks_receiver(&state) {
                break Err(PushError::Disconnected);
            }
            let on_stream = state.sending.unacknowledged() as u64;
            let is_up = matches!(state.link, Link::Up(_));
            // While this thread waited all of it was folded back.
            let Some(lane) = &mut state.lane else { return Ok(InLane::Gone(state)) };
            let stamp_ns = now_ns();
            match put(lane, stamp_ns, on_stream) {
                Ok(done) => {
                    state = self.after_sending(state, stamp_ns);
                    break Ok(InLane::Sent(done));
                }
                Err(not @ (NotWritten::Broken(_) | NotWritten::TooLarge)) if is_up && !lane.given_up => {
                    // The daemon ends it, and what is in it goes by the stream.
                    let fault = match not {
                        NotWritten::Broken(broken) => broken.to_string(),
                        NotWritten::TooLarge | NotWritten::Full => {
                            format!("a message of {bytes} bytes does not fit into its ring of {}", lane.ring_bytes)
                        }
                    };
                    let (messages, fault) = (lane.give_up(), Some(fault));
                    let done = LaneDone { lane: lane.id, messages, fault };
                    state.sending.say(Kind::LaneDone, &done);
                    if self.write(&mut state) == Written::SocketFull {
                        keeper::wake();
                    }
                    continue;
                }
                Err(NotWritten::Full | NotWritten::Broken(_) | NotWritten::TooLarge) => {}
            }
            if !waits {
                // A receiver that is busy makes room at any moment.
                waits = true;
                lane.writer.waits_since(stamp_ns);
                lane.writer.begin_wait();
                continue;
            }
            if !looked {
                // The daemon has something to say, perhaps: it is heard once before anything is waited for.
                looked = true;
                state = self.look_around(state);
                continue;
            }
            match wait {
                Wait::Never => break Err(PushError::Full),
                Wait::Until(deadline) if Instant::now() >= deadline => break Err(PushError::Timeout),
                Wait::Until(_) | Wait::Forever => {}
            }
            if self.options.waiting == Waiting::Spin && is_up {
                state = self.spin(state, stamp_ns);
                continue;
            }
            state = match state.link {
                Link::Up(_) if !state.reading => self.wait_for_news(state, wait.deadline()),
                // Whoever reads may not listen to the bell.
                Link::Up(_) | Link::Away | Link::Closed => self.wait_for_bell(state, wait.deadline()),
            };
            if let Some(lane) = &mut state.lane {
                lane.bell.take();
                // The receiver rings once for each time that it is waited for.
                lane.writer.begin_wait();
            }
            state = self.look_around(state);
        };
        if waits && let Some(lane) = &mut state.lane {
            lane.writer.end_wait();
        }
        outcome
    }

    /// Wakes a receiver of which only the daemon knows, and hears the daemon once in a while.
    #[inline]
    pub(super) fn after_sending<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        stamp_ns: u64,
    ) -> MutexGuard<'a, State> {
        let Some(lane) = &mut state.lane else { return state };
        let named = LaneNamed { lane: lane.id };
        if lane.ringer.is_none() {
            // Whoever reads it may sleep, and only the daemon can wake it, if there is one.
            if matches!(state.link, Link::Up(_)) {
                state.sending.say(Kind::Nudge, &named);
                if self.write(&mut state) == Written::SocketFull {
                    keeper::wake();
                }
            }
            state = self.look_around(state);
        } else if stamp_ns.abs_diff(lane.looked_at_ns) >= LOOK_INTERVAL_NS {
            lane.looked_at_ns = stamp_ns;
            state = self.look_around(state);
        }
        state
    }

    /// Lets a moment pass, or hears what the daemon says once in a while.
    fn spin<'a>(&'a self, mut state: MutexGuard<'a, State>, now_ns: u64) -> MutexGuard<'a, State> {
        let lane = state.lane.as_mut().filter(|lane| now_ns.abs_diff(lane.looked_at_ns) >= LOOK_INTERVAL_NS);
        if let Some(lane) = lane {
            lane.looked_at_ns = now_ns;
            return self.look_around(state);
        }
        drop(state);
        for _ in 0..SPINS {
            std::hint::spin_loop();
        }
        crate::stream::session::lock(&self.state)
    }

    /// Waits for the receiver alone, while there is no daemon.
    fn wait_for_bell<'a>(&'a self, state: MutexGuard<'a, State>, deadline: Option<Instant>) -> MutexGuard<'a, State> {
        let Some(bell) = state.lane.as_ref().map(SenderLane::bell) else { return state };
        drop(state);
        let until = Instant::now() + DAEMON_LOOK;
        bell.wait(deadline.map_or(until, |deadline| deadline.min(until)));
        crate::stream::session::lock(&self.state)
    }

    /// Reads what the daemon says, and does what it says of lanes.
    pub(super) fn look_around<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.pump(&mut state);
        self.settle_stream(&mut state);
        self.tend_lane(&mut state);
        state
    }

    /// Shows the receiver that all is acknowledged which was sent before the lane by the stream, once it is. Who
    /// acknowledges something in the lane has acknowledged all before it, whether or not a daemon had the time to
    /// say so.
    pub(super) fn settle_stream(&self, state: &mut State) {
        let State { lane: Some(lane), sending, link, .. } = state else { return };
        if !lane.owes_stream {
            return;
        }
        if sending.unacknowledged() > 0 && lane.has_acknowledgements() {
            sending.settle_before_lane(lane.sequence - lane.writer.messages(), matches!(link, Link::Up(_)));
        }
        if sending.unacknowledged() == 0 {
            lane.owes_stream = false;
            lane.writer.settle_stream();
        }
    }

    /// Does what the daemon says of lanes. What has to be fetched for that a thread fetches.
    pub(super) fn tend_lane(&self, state: &mut State) {
        if state.sending.lanes.is_empty() {
            return;
        }
        if let Some(kept) = state.sending.lanes.kept.take()
            && let Some(lane) = state.lane_of(kept)
        {
            lane.kept = true;
        }
        if let Some(CursorGiven { lane: id, generation, .. }) =
            state.sending.lanes.cursor.take_if(|given| given.ticket.is_none())
            && let Some(lane) = state.lane_of(id)
        {
            lane.turn(Cursor::Nobody, None, generation);
            state.sending.say(Kind::Turned, &Turned { lane: id, generation });
            self.write_or_leave(state);
        }
        if let Some(recalled) = state.sending.lanes.recalled.take() {
            self.leave_lane(state, recalled.lane);
        }
        self.fetch_what_is_announced(state);
    }

    /// Goes on in the lane that is mapped and open, once everything before is accepted: what others send later by other
    /// ways is then handed out later. Where that takes long this end stays on the stream for a while.
    pub(super) fn move_to_lane<'a>(&'a self, mut state: MutexGuard<'a, State>, wait: Wait) -> MutexGuard<'a, State> {
        if state.move_again_at.is_some_and(|at| Instant::now() < at) {
            return state;
        }
        let patience = Instant::now() + MOVE_PATIENCE;
        let until = wait.deadline().map_or(patience, |deadline| deadline.min(patience));
        loop {
            let is_open = state.mapped.as_ref().is_some_and(SenderLane::is_kept);
            if !is_open || !matches!(state.link, Link::Up(_)) || state.writing || state.sending.wants_room() {
                return state;
            }
            let sequence = state.sending.last_sequence();
            if state.sending.unwritten() == 0 && state.sending.settled().accepted >= sequence {
                self.go_on_in_lane(&mut state);
                return state;
            }
            state.sending.ask_to_confirm(sequence);
            self.write(&mut state);
            if wait == Wait::Never {
                // The answer is here with a later call.
                return state;
            }
            let now = Instant::now();
            if now >= until {
                // A call with a short deadline says nothing of the daemon.
                state.move_again_at = (now >= patience).then(|| now + MOVE_PAUSE);
                return state;
            }
            state = self.wait_for_news(state, Some(until));
        }
    }

    fn go_on_in_lane(&self, state: &mut State) {
        let Some(mut lane) = state.mapped.take() else { return };
        lane.sequence = state.sending.last_sequence();
        state.sending.is_in_lane(true);
        state.lane = Some(lane);
        state.move_again_at = None;
        // Those who waited for room on the stream.
        self.wake_others(state);
        // From now on it listens for this end.
        keeper::wake();
    }

    /// Brings the lane to a daemon that does not know it.
    pub(super) fn bring_lane(&self) -> Result<(), DialError> {
        let mut state = crate::stream::session::lock(&self.state);
        let sender = state.sending.rules().sender;
        let Some(lane) = &mut state.lane else { return Ok(()) };
        let brought = lane.stand_still(&self.options.channel, sender);
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned();
        let descriptors = own(lane.file.as_fd()).and_then(|data| Ok([data, own(lane.bell_ringer.as_fd())?]));
        drop(state);
        let [data, ringer] = descriptors.map_err(DialError::Unreachable)?;
        self.options.dialer.bring(brought, &[data.as_fd(), ringer.as_fd()])
    }

    /// Goes back to the stream, with everything that the receiver has not acknowledged.
    pub(super) fn fold_lane(&self, state: &mut State) {
        state.mapped = None;
        let Some(mut lane) = state.lane.take() else { return };
        let start = lane.turn_to_nobody();
        let first = lane.sequence - lane.writer.messages() + start.messages + 1;
        if start.messages > 0 {
            // Whoever has acknowledged something here has acknowledged all that came before by the stream.
            state.sending.settle_through(first - 1);
        }
        let sending = &mut state.sending;
        sending.is_in_lane(false);
        lane.read_back(start, |message| sending.fold(message));
    }

    /// This end is closed. With its channel what the daemon did not see any more comes back, unless a receiver took
    /// it; else what is in the lane stays for its receiver.
    pub(super) fn end_lane(&self, state: &mut State) {
        state.mapped = None;
        let Some(mut lane) = state.lane.take() else { return };
        let (messages, before) = (lane.writer.messages(), lane.sequence - lane.writer.messages());
        let sending = &mut state.sending;
        sending.is_in_lane(false);
        let Some(ended) = sending.lane_ended(lane.id) else {
            return sending.accept_through(sending.last_sequence());
        };
        let start = lane.turn_to_nobody();
        if start.messages > 0 {
            sending.settle_through(before + start.messages);
        }
        lane.read_back(start, |message| sending.fold(message));
        sending.accept_through(before + ended.clamp(start.taken.min(messages), messages));
    }

    pub(super) fn lacks_receiver(&self, state: &State) -> bool {
        self.options.require_receiver && state.sending.receivers() == 0
    }
}

/// Maps what was fetched of a receiver.
pub(super) fn cursor_of(mut descriptors: Vec<OwnedFd>) -> io::Result<(Cursor, Ringer)> {
    let map = |page| MemoryFile::open_checked(page, PAGE_BYTES, Access::Read).map_err(io::Error::other)?.map_readable();
    // Where the daemon stands in for a receiver there is nothing to show of that.
    let board = if descriptors.len() > 2 { descriptors.pop().map(map).transpose()? } else { None };
    let [cursor, ringer] = exactly(descriptors)?;
    Ok((Cursor::Map(map(cursor)?, board.map(Board::new)), Ringer::new(ringer)))
}
