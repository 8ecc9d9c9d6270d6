//! [`StreamSender`]: one sending endpoint on a socket, shared by the clones of a `Sender`.
//!
//! What the endpoint knows and owes is in [`sending`]; here are its threads and its socket. The lock
//! of the state is never held while waiting. Of the threads that wait for an answer one reads the
//! socket (`reading`), and tells the others what has changed. The message that is being written belongs
//! to one thread (`writing`), so that it can be taken back when its time is up.

mod feeding;
mod fetching;
mod flight;
mod growing;
mod kept;
mod lane;
mod leaving;
mod mapped;
mod news;
mod room;
mod sending;
mod slot;

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use self::flight::Flight;
use self::lane::InLane;
use self::mapped::SenderLane;
use self::room::{Entering, Room};
use self::sending::{Sending, Withdrawn};
pub(crate) use self::slot::{LaneSlot, Loaned};
use super::changes::Changes;
use super::inbox::Inbox;
use super::keeper;
use super::session::{DialError, Dialer, Session, wall_clock_ns};
use crate::admin::ControlConnection;
use crate::channel::{ChannelInfo, Peers};
use crate::closing::Closing;
use crate::codec::Codec;
use crate::error::{AdminError, FlushError, OpenError, PeersError};
use crate::lane::biased::{BiasedGuard, BiasedMutex};
use crate::lane::forked::Origin;
use crate::limits::{DROP_FLUSH_MS, FEED_BUFFER_BYTES};
use crate::message::{Message, SenderId};
use crate::name::ChannelName;
use crate::obstacle::Hindrance;
use crate::ticket::Ticket;
use crate::transport::Connection;
use crate::waiting::Waiting;
use crate::wire::{LaneWish, Resume, Role, SenderHello, TypeDeclaration, WelcomeRole};

/// How long a sending call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Forever,
    Until(Instant),
    Never,
}

/// When a sending call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// The frame is in the sender's buffer.
    Buffered,
    /// As `Buffered`; while there is no daemon to take it, it is not sent, and the call does not wait for one.
    BufferedWhileUp,
    /// The frame is in the daemon's socket.
    Written,
    /// As `Written`, and the daemon was asked for room before: it takes the message.
    WrittenToRoom,
    /// As `Written`, and the daemon is asked to confirm it at once.
    Confirmable,
}

impl Until {
    pub(crate) fn buffers(self) -> bool {
        matches!(self, Self::Buffered | Self::BufferedWhileUp)
    }
}

/// What became of what was buffered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// All of it is in the daemon's socket, or lies in a lane, or the channel is closed.
    Written,
    /// The daemon does not read.
    Unread,
    /// There is no daemon.
    Away,
}

/// A message as bytes, on its way out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoded<'a> {
    pub(crate) codec: Codec,
    pub(crate) header_block: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl Encoded<'_> {
    /// What counts of it against bounds: payload and header block.
    fn bytes(&self) -> u64 {
        self.header_block.len() as u64 + self.payload.len() as u64
    }
}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    Timeout,
    Full,
    Away,
    Disconnected,
    TooLarge { bytes: u64, limit: u32 },
}

/// What opens a sender.
#[derive(Clone, Debug)]
pub(crate) struct SenderOptions {
    pub(crate) dialer: Dialer,
    pub(crate) channel: ChannelName,
    pub(crate) declares: Option<TypeDeclaration>,
    pub(crate) require_receiver: bool,
    pub(crate) lane: LaneWish,
    pub(crate) waiting: Waiting,
}

#[derive(Debug)]
pub(crate) struct StreamSender {
    /// Where it may be used: whoever holds it asks before each call.
    pub(crate) origin: Origin,
    options: SenderOptions,
    /// For threads that work for it, and do not keep it.
    me: Weak<Self>,
    /// Of the threads that share a sender one sends most, and often there is no other.
    state: BiasedMutex<State>,
    changed: Changes,
}

#[derive(Debug)]
struct State {
    link: Link,
    inbox: Inbox,
    sending: Sending,
    reading: bool,
    writing: bool,
    /// Threads that wait for what others change.
    waiting: usize,
    /// The link was lost, with the last words of the daemon, and nobody has looked at that yet.
    lost: bool,
    looked_at_ns: u64,
    /// A lane that it moves to once that is open, and everything before is accepted.
    mapped: Option<SenderLane>,
    /// When that is tried again, after it took too long.
    move_again_at: Option<Instant>,
    /// The lane that it sends through.
    lane: Option<SenderLane>,
    /// Calls that wait for room in a lane.
    waiting_in_lane: usize,
    flight: Flight,
    /// A thread fetches what the daemon has announced.
    fetching: bool,
    closing: Closing,
    /// What was in the way of the last message that was not sent.
    hindrance: Option<Hindrance>,
}

#[derive(Debug)]
enum Link {
    Up(Arc<Connection>),
    Away,
    /// For good; nothing is accepted any more.
    Closed,
}

/// How far a write came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    All,
    SocketFull,
    NoLink,
}

impl StreamSender {
    pub(crate) fn open(options: SenderOptions) -> Result<Arc<Self>, OpenError> {
        let role = Role::Sender(hello(&options, None, options.lane));
        let session = options.dialer.dial_end(&role, &options.channel)?;
        let Session { connection, inbox, welcome } = session;
        let WelcomeRole::Sender(rules) = welcome.role else {
            let text = "the daemon did not welcome a sender".to_owned();
            return Err(options.dialer.connect_error(DialError::Protocol(text)).into());
        };
        let state = State {
            link: Link::Up(Arc::new(connection)),
            inbox,
            sending: Sending::new(rules),
            reading: false,
            writing: false,
            waiting: 0,
            lost: false,
            looked_at_ns: 0,
            mapped: None,
            move_again_at: None,
            lane: None,
            waiting_in_lane: 0,
            flight: Flight::default(),
            fetching: false,
            closing: Closing::default(),
            hindrance: None,
        };
        let sender = Arc::new_cyclic(|me| Self {
            origin: Origin::here(),
            options,
            me: me.clone(),
            state: BiasedMutex::new(state),
            changed: Changes::default(),
        });
        let weak: Weak<Self> = Arc::downgrade(&sender);
        keeper::keep(weak);
        Ok(sender)
    }

    /// Disconnected once the channel is closed.
    pub(crate) fn closed(&self) -> crossbeam_channel::Receiver<Infallible> {
        self.state.lock().closing.watch()
    }

    /// How its channel stands, by the daemon's word.
    pub(crate) fn stats(&self) -> Result<ChannelInfo, AdminError> {
        ControlConnection::open(&self.options.dialer)?.show(&self.options.channel)
    }

    pub(crate) fn id(&self) -> SenderId {
        SenderId(self.state.lock().sending.rules().sender)
    }

    /// Sends one message. `Ok` has its sequence.
    pub(crate) fn push(&self, message: &Encoded<'_>, wait: Wait, until: Until) -> Result<u64, PushError> {
        let mut state = self.state.lock();
        match self.push_in_passing(&mut state, message) {
            Some(sequence) => Ok(sequence),
            None => self.push_wherever(state, message, wait, until),
        }
    }

    /// As [`push`](Self::push), for a message that something is to be waited for, heard or decided for.
    // Not inlined: most messages in a lane have a short way past it.
    #[inline(never)]
    fn push_wherever<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        message: &Encoded<'_>,
        wait: Wait,
        until: Until,
    ) -> Result<u64, PushError> {
        let bytes = message.bytes();
        let limit = state.sending.rules().message_max_bytes;
        if bytes > u64::from(limit) {
            return Err(PushError::TooLarge { bytes, limit });
        }
        if state.lane.is_some() {
            state = match self.push_in_lane(state, message, wait)? {
                InLane::Sent(sequence) => return Ok(sequence),
                InLane::Gone(state) => state,
            };
        }
        let entering = Entering { bytes, wait, until };
        state = self.keep_flight_short(state, entering);
        let sent_at_ns = wall_clock_ns();
        state = self.look_for_lane(state, sent_at_ns, wait);
        if state.lane.is_none() {
            state = match self.await_room(state, entering)? {
                Room::Here(state) => state,
                Room::Dropped { last_sequence } => return Ok(last_sequence),
            };
        }
        if state.lane.is_some() {
            // Now, or by another thread while this one looked or waited.
            drop(state);
            return self.push(message, wait, until);
        }
        let confirm = until == Until::Confirmable;
        let sequence = state.sending.push(message, sent_at_ns, confirm);
        // Room that was granted is used at once.
        let buffers = until.buffers() && !state.sending.wants_room();
        if buffers && state.sending.unwritten() < FEED_BUFFER_BYTES {
            return Ok(sequence);
        }
        if self.write_at_once(&mut state) {
            return Ok(sequence);
        }
        self.write_out(state, wait, until).map(|()| sequence)
    }

    /// Hears the daemon once in a while, and moves to a lane that it has given.
    #[inline]
    fn look_for_lane<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        now_ns: u64,
        wait: Wait,
    ) -> BiasedGuard<'a, State> {
        if now_ns.abs_diff(state.looked_at_ns) >= LOOK_INTERVAL_NS || self.options.require_receiver {
            state.looked_at_ns = now_ns;
            state = self.look_around(state);
        }
        if state.mapped.as_ref().is_some_and(SenderLane::is_kept) {
            state = self.move_to_lane(state, wait);
        }
        state
    }

    /// Writes until the message that was pushed last is in the socket, or takes it back.
    fn write_out<'a>(&'a self, mut state: BiasedGuard<'a, State>, wait: Wait, until: Until) -> Result<(), PushError> {
        let patience = match wait {
            Wait::Never => Some(Instant::now() + TRY_PATIENCE),
            Wait::Until(_) | Wait::Forever => wait.deadline(),
        };
        let mut written = self.write(&mut state);
        let outcome = loop {
            match (written, &state.link) {
                (Written::All, _) => break Ok(()),
                (Written::NoLink, Link::Closed) => break Err(PushError::Disconnected),
                (Written::NoLink, _) if wait == Wait::Never || until == Until::BufferedWhileUp => {
                    state.hindrance = Some(Hindrance::Away);
                    break Err(PushError::Away);
                }
                (Written::NoLink | Written::SocketFull, _) => {}
            }
            if patience.is_some_and(|patience| Instant::now() >= patience) {
                state.hindrance = Some(if written == Written::NoLink { Hindrance::Away } else { Hindrance::Unread });
                break Err(if wait == Wait::Never { PushError::Full } else { PushError::Timeout });
            }
            if self.lacks_receiver(&mut state) {
                break Err(PushError::Disconnected);
            }
            state.writing = true;
            // Also reads: what the daemon says may end this, and it reads nobody who does not read. And writes, as soon as
            // the socket takes more: asked again at once it would take next to nothing.
            state = self.wait_for_news(state, patience);
            written = match state.link {
                Link::Up(_) if state.sending.has_output() => Written::SocketFull,
                Link::Up(_) => Written::All,
                Link::Away | Link::Closed => Written::NoLink,
            };
        };
        let outcome = match outcome {
            Err(refusal) if self.take_back(&mut state) => Err(refusal),
            Ok(()) | Err(_) => Ok(()),
        };
        let wanted_room = state.sending.wants_room();
        match outcome {
            Ok(()) => state.sending.stop_wanting_room(true),
            Err(_) => self.give_room_back(&mut state),
        }
        if std::mem::take(&mut state.writing) || wanted_room || outcome.is_err() {
            self.wake_others(&state);
        }
        outcome
    }

    /// Takes the message that was pushed last back. `false` when it is sent all the same: another thread
    /// has written it.
    fn take_back(&self, state: &mut State) -> bool {
        let mut withdrawn = state.sending.withdraw();
        if withdrawn == Withdrawn::Begun {
            // Everything before it is sent again.
            self.lose_link(state);
            withdrawn = state.sending.withdraw();
        }
        withdrawn == Withdrawn::Whole
    }

    pub(crate) fn ticket(&self) -> Ticket {
        Ticket { sequence: self.state.lock().last_sequence() }
    }

    /// Waits until all that the ticket stands for is accepted.
    pub(crate) fn wait(&self, ticket: Ticket, deadline: Option<Instant>) -> Result<(), FlushError> {
        let mut state = self.state.lock();
        loop {
            // A message may have been taken back since.
            let awaited = ticket.sequence.min(state.last_sequence());
            if state.lane.is_some() {
                // Also whether the channel is there at all.
                state = self.look_around(state);
                if matches!(state.link, Link::Closed) {
                    return Err(self.closed_before(&state));
                }
            }
            let accepted = match &state.lane {
                // Before that was said everything before it was accepted.
                Some(lane) if lane.is_kept() => lane.sequence(),
                Some(_) | None => state.sending.settled().accepted,
            };
            if accepted >= awaited {
                return Ok(());
            }
            if matches!(state.link, Link::Closed) {
                return Err(self.closed_before(&state));
            }
            if matches!(state.link, Link::Up(_)) && state.lane.is_none() {
                state.sending.ask_to_confirm(ticket.sequence);
                self.write(&mut state);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(FlushError::Unknown(ticket));
            }
            state = self.wait_for_news(state, deadline);
        }
    }

    fn closed_before(&self, state: &State) -> FlushError {
        FlushError::Disconnected { channel: self.options.channel.clone(), refused: state.sending.refused_count() }
    }

    /// The messages that were sent and never accepted, once the channel is closed.
    pub(crate) fn refused(&self) -> Vec<Message> {
        let state = self.state.lock();
        if matches!(state.link, Link::Closed) { state.sending.refused().collect() } else { Vec::new() }
    }

    /// Whether the channel counts every message, and has room for each granted.
    pub(crate) fn is_exact(&self) -> bool {
        self.state.lock().sending.rules().exact
    }

    pub(crate) fn has_lane(&self) -> bool {
        self.state.lock().lane.is_some()
    }

    pub(crate) fn is_in_lane(&self) -> bool {
        let state = self.look_around(self.state.lock());
        state.lane.as_ref().is_some_and(SenderLane::knows_receiver)
    }

    pub(crate) fn unacknowledged(&self) -> usize {
        let mut state = self.look_around(self.state.lock());
        let in_lane = state.lane.as_mut().map_or(0, SenderLane::unacknowledged);
        state.sending.unacknowledged() + usize::try_from(in_lane).unwrap_or(usize::MAX)
    }

    pub(crate) fn dropped(&self) -> u64 {
        let mut state = self.state.lock();
        self.pump(&mut state);
        state.sending.settled().dropped
    }

    /// The peers of the channel; with `from`, once they differ from it.
    pub(crate) fn peers(&self, from: Option<Peers>, deadline: Option<Instant>) -> Result<Peers, PeersError> {
        let mut state = self.state.lock();
        self.pump(&mut state);
        loop {
            match &state.link {
                Link::Closed => return Err(PeersError::Disconnected),
                Link::Away if from.is_none() => return Err(PeersError::Away),
                Link::Away => {}
                Link::Up(_) => {
                    if let Some(peers) = state.sending.watch_peers().filter(|peers| Some(*peers) != from) {
                        return Ok(peers);
                    }
                    self.write(&mut state);
                }
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(PeersError::Timeout);
            }
            state = self.wait_for_news(state, deadline);
        }
    }
}

impl Drop for StreamSender {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        // Its memory first: the daemon finds nobody who could write to it.
        (state.lane, state.mapped) = (None, None);
        if let Link::Up(connection) = &state.link {
            let connection = Arc::clone(connection);
            state.sending.say_goodbye();
            self.write(&mut state);
            connection.hang_up();
        }
        state.link = Link::Closed;
        keeper::wake();
    }
}

/// A sender in the hands of its users. The last of them to let go flushes, with a bound, while the
/// keeper can still reconnect.
#[derive(Debug)]
pub(crate) struct FlushOnDrop(pub(crate) Arc<StreamSender>);

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        if !self.0.origin.is_here() {
            return self.abandon();
        }
        // The bound is the promise; whoever needs the outcome calls flush.
        let _ = self.0.wait(self.0.ticket(), Some(Instant::now() + Duration::from_millis(DROP_FLUSH_MS)));
    }
}

impl FlushOnDrop {
    /// In a forked child: nothing is said, and nothing let go that another thread of the parent may have been changing
    /// when it was copied. But the daemon is to notice when the parent dies.
    fn abandon(&self) {
        std::mem::forget(Arc::clone(&self.0));
        if let Some(mut state) = self.0.state.try_lock() {
            state.link = Link::Closed;
        }
    }
}

impl State {
    /// The sequence of the message that was sent last, by either way.
    fn last_sequence(&self) -> u64 {
        self.lane.as_ref().map_or_else(|| self.sending.last_sequence(), SenderLane::sequence)
    }
}

fn hello(options: &SenderOptions, resume: Option<Resume>, lane: LaneWish) -> SenderHello {
    SenderHello {
        channel: options.channel.clone(),
        declares: options.declares.clone(),
        require_receiver: options.require_receiver,
        resume,
        lane,
    }
}

impl Wait {
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Until(deadline) => Some(deadline),
            Self::Forever | Self::Never => None,
        }
    }
}

/// How often a busy sender looks for answers that it does not need yet.
const LOOK_INTERVAL_NS: u64 = 1_000_000;

/// How long a try waits for a daemon that answers, or reads, at once when it is well.
const TRY_PATIENCE: Duration = Duration::from_millis(50);
