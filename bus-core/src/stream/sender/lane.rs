//! A sender in its lane: messages go into memory that the receiver reads, and no system call lies between.
//!
//! The stream stays: for what the daemon has to say, and to go back to when the daemon that knows the lane is
//! gone. What the receiver has not acknowledged then is sent again over the stream.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use super::growing::Shortage;
use super::mapped::{Cursor, SenderLane};
use super::{Encoded, LOOK_INTERVAL_NS, Link, PushError, State, StreamSender, Wait, Written};
use crate::lane::biased::BiasedGuard;
use crate::lane::ring::NotWritten;
use crate::lane::stamp::now_ns;
use crate::obstacle::Hindrance;
use crate::stream::keeper;
use crate::stream::session::DialError;
use crate::waiting::Waiting;
use crate::wire::{CursorGiven, Kind, LaneDone, LaneId, LaneNamed, LaneOffered, Turned};

/// How often a sender that waits for its receiver looks whether the daemon is back.
const DAEMON_LOOK: Duration = Duration::from_millis(20);

/// How long a call waits until everything before is accepted, when it could go on in a lane: a daemon that serves says
/// so at once.
const MOVE_PATIENCE: Duration = Duration::from_millis(50);

/// How long the stream is used before that is tried again.
const MOVE_PAUSE: Duration = Duration::from_millis(500);

/// When a sender that sleeps for room looks once more by itself: no processor keeps what it has stored to itself for so
/// long. From then on its receiver rings.
const SETTLING: Duration = Duration::from_millis(1);

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

/// What came of a message that was to go through the lane.
pub(super) enum InLane<'a, P> {
    Sent(P),
    /// There is no lane any more: it goes by the stream.
    Gone(BiasedGuard<'a, State>),
}

/// How far a call has come that finds no room in its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not waited: a receiver that is busy makes room at any moment.
    Tries,
    /// Its receiver can see that it is waited for. The daemon has something to say, perhaps: it is heard once before
    /// anything else is waited for.
    Waits,
    /// The daemon was heard.
    Heard,
    /// It has slept for room.
    Slept,
}

impl Stage {
    /// Whether its receiver was told.
    fn waits(self) -> bool {
        self != Self::Tries
    }
}

impl State {
    /// A call does not wait for room in the lane any more.
    fn ends_wait_in_lane(&mut self) {
        self.waiting_in_lane -= 1;
        let Some(lane) = &mut self.lane else { return };
        if self.waiting_in_lane == 0 {
            return lane.writer.end_wait();
        }
        // The receiver rings once for each time that it is waited for, and that ring this call may have heard alone.
        lane.writer.begin_wait();
        lane.ring_own_bell();
    }

    /// The lane of that name, whether it is used or about to be.
    pub(super) fn lane_of(&mut self, id: LaneId) -> Option<&mut SenderLane> {
        self.lane.as_mut().into_iter().chain(&mut self.mapped).find(|lane| lane.id == id)
    }
}

impl StreamSender {
    /// Sends a message through the lane where there is nothing to wait for, to hear or to decide: as nearly all go.
    #[inline]
    pub(super) fn push_in_passing(&self, state: &mut State, message: &Encoded<'_>) -> Option<u64> {
        let State { lane: Some(lane), sending, link, .. } = state else { return None };
        let is_plain = lane.knows_receiver()
            && sending.unacknowledged() == 0
            && !matches!(link, Link::Closed)
            && !self.options.require_receiver;
        if !is_plain || message.bytes() > u64::from(sending.rules().message_max_bytes) || !lane.fits(message) {
            return None;
        }
        let stamp_ns = now_ns();
        if stamp_ns.abs_diff(lane.looked_at_ns) >= LOOK_INTERVAL_NS {
            return None;
        }
        let sequence = lane.put(message, stamp_ns).ok()?;
        lane.show();
        Some(sequence)
    }

    /// Sends a message through the lane, and waits for room there.
    pub(super) fn push_in_lane<'a>(
        &'a self,
        state: BiasedGuard<'a, State>,
        message: &Encoded<'_>,
        wait: Wait,
    ) -> Result<InLane<'a, u64>, PushError> {
        let put = |lane: &mut SenderLane, stamp_ns, on_stream| lane.write_within(message, stamp_ns, on_stream);
        self.put_in_lane(state, message.bytes(), put, wait)
    }

    /// Does for a message of so many bytes what `put` does with the lane, a stamp, and the number of messages on the
    /// stream, and waits for room.
    pub(super) fn put_in_lane<'a, P>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        bytes: u64,
        put: impl Fn(&mut SenderLane, u64, u64) -> Result<P, NotWritten>,
        wait: Wait,
    ) -> Result<InLane<'a, P>, PushError> {
        let mut stage = Stage::Tries;
        let mut shortage = Shortage::new(wait, self.options.waiting);
        let outcome = loop {
            if matches!(state.link, Link::Closed) || self.lacks_receiver(&mut state) {
                break Err(PushError::Disconnected);
            }
            let on_stream = state.sending.unacknowledged() as u64;
            let is_up = matches!(state.link, Link::Up(_));
            // While this thread waited all of it was folded back.
            let Some(lane) = &mut state.lane else {
                state.waiting_in_lane -= usize::from(stage.waits());
                return Ok(InLane::Gone(state));
            };
            let stamp_ns = now_ns();
            lane.writer.set_growth(shortage.growth(stamp_ns, lane.knows_receiver()));
            match put(lane, stamp_ns, on_stream) {
                Ok(done) => {
                    state = self.after_sending(state, stamp_ns);
                    break Ok(InLane::Sent(done));
                }
                Err(not @ (NotWritten::Broken(_) | NotWritten::TooLarge)) if is_up && !lane.given_up => {
                    let done = give_up(lane, &not, bytes);
                    state.sending.say(Kind::LaneDone, &done);
                    if self.write(&mut state) == Written::SocketFull {
                        keeper::wake();
                    }
                    continue;
                }
                Err(NotWritten::Short) if shortage.is_waited_for_awake(stamp_ns) => {
                    drop(state);
                    std::thread::yield_now();
                    state = self.state.lock();
                    continue;
                }
                Err(NotWritten::Full | NotWritten::Short | NotWritten::Broken(_) | NotWritten::TooLarge) => {}
            }
            match stage {
                Stage::Tries => {
                    if !lane.writer.waits() {
                        lane.writer.waits_since(stamp_ns);
                    }
                    lane.writer.begin_wait();
                    state.waiting_in_lane += 1;
                    stage = Stage::Waits;
                    continue;
                }
                Stage::Waits => {
                    state = self.look_around(state);
                    stage = Stage::Heard;
                    continue;
                }
                Stage::Heard | Stage::Slept => {}
            }
            match wait {
                Wait::Never => {
                    state.hindrance = Some(in_the_way(&mut state, on_stream));
                    break Err(PushError::Full);
                }
                Wait::Until(deadline) if Instant::now() >= deadline => {
                    state.hindrance = Some(in_the_way(&mut state, on_stream));
                    break Err(PushError::Timeout);
                }
                Wait::Until(_) | Wait::Forever => {}
            }
            if self.options.waiting == Waiting::Spin && is_up {
                state = self.spin(state, stamp_ns);
                continue;
            }
            // What the receiver acknowledged before it could see that it is waited for may not have been seen, either.
            let settled = (stage == Stage::Heard).then(|| Instant::now() + SETTLING);
            stage = Stage::Slept;
            let until = shortage.deadline(stamp_ns).into_iter().chain(settled).min();
            state = match state.link {
                Link::Up(_) if !state.reading => self.wait_for_news(state, until),
                // Whoever reads may not listen to the bell.
                Link::Up(_) | Link::Away | Link::Closed => self.wait_for_bell(state, until),
            };
            if let Some(lane) = &mut state.lane {
                lane.bell.take();
                // The receiver rings once for each time that it is waited for.
                lane.writer.begin_wait();
            }
            state = self.look_around(state);
        };
        if stage.waits() {
            state.ends_wait_in_lane();
        }
        outcome
    }

    /// Wakes a receiver of which only the daemon knows, and hears the daemon once in a while.
    #[inline]
    pub(super) fn after_sending<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        stamp_ns: u64,
    ) -> BiasedGuard<'a, State> {
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
    fn spin<'a>(&'a self, mut state: BiasedGuard<'a, State>, now_ns: u64) -> BiasedGuard<'a, State> {
        let lane = state.lane.as_mut().filter(|lane| now_ns.abs_diff(lane.looked_at_ns) >= LOOK_INTERVAL_NS);
        if let Some(lane) = lane {
            lane.looked_at_ns = now_ns;
            return self.look_around(state);
        }
        drop(state);
        for _ in 0..SPINS {
            std::hint::spin_loop();
        }
        self.state.lock()
    }

    /// Waits for the receiver alone, while there is no daemon.
    fn wait_for_bell<'a>(&'a self, state: BiasedGuard<'a, State>, deadline: Option<Instant>) -> BiasedGuard<'a, State> {
        let Some(bell) = state.lane.as_ref().map(SenderLane::bell) else { return state };
        drop(state);
        let until = Instant::now() + DAEMON_LOOK;
        bell.wait(deadline.map_or(until, |deadline| deadline.min(until)));
        self.state.lock()
    }

    /// Reads what the daemon says, and does what it says of lanes.
    pub(super) fn look_around<'a>(&'a self, mut state: BiasedGuard<'a, State>) -> BiasedGuard<'a, State> {
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
    pub(super) fn move_to_lane<'a>(&'a self, mut state: BiasedGuard<'a, State>, wait: Wait) -> BiasedGuard<'a, State> {
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
        let mut state = self.state.lock();
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
            // Whoever has acknowledged something here has acknowledged all that came before by the stream; and what was to
            // be passed over alone was passed over once that was settled.
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

    pub(super) fn lacks_receiver(&self, state: &mut State) -> bool {
        let lacks = self.options.require_receiver && state.sending.receivers() == 0;
        if lacks {
            state.hindrance = Some(Hindrance::NoReceiver);
        }
        lacks
    }
}

/// Gives up a lane whose receiver writes what none does, or that is too small for a message: the daemon ends it, and
/// what is in it goes by the stream. Returns what to tell the daemon.
fn give_up(lane: &mut SenderLane, why: &NotWritten, message_bytes: u64) -> LaneDone {
    let fault = match why {
        NotWritten::Broken(broken) => broken.to_string(),
        NotWritten::TooLarge | NotWritten::Full | NotWritten::Short => {
            format!("a message of {message_bytes} bytes does not fit into its ring of {}", lane.ring_bytes)
        }
    };
    LaneDone { lane: lane.id, messages: lane.give_up(), fault: Some(fault) }
}

/// Which bound of a lane has no room for a message.
fn in_the_way(state: &mut State, on_stream: u64) -> Hindrance {
    let window_messages = u64::from(state.sending.rules().window_messages);
    match state.lane.as_mut().map(SenderLane::unacknowledged) {
        Some(in_lane) if on_stream + in_lane >= window_messages => Hindrance::Window,
        _ => Hindrance::Lane,
    }
}
