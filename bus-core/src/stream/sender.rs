//! [`StreamSender`]: one sending endpoint on a socket, shared by the clones of a `Sender`.
//!
//! The lock of the state is never held while waiting. Of the threads that wait for an answer one
//! reads the socket (`reading`), and wakes the others by the condition variable. A frame that is
//! being written belongs to one thread (`writing`), so that it can be taken back when its time is up.

use std::io::{self, IoSlice};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::inbox::{Fill, Inbox};
use super::keeper::{self, Kept, Standing};
use super::outbox::{Outbox, Outgoing, SLICES_MAX};
use super::session::{DialError, Dialer, Session, lock, wall_clock_ns};
use crate::channel::{Peers, WhenFull};
use crate::codec::Codec;
use crate::error::{FlushError, OpenError, PeersError};
use crate::limits::{DROP_FLUSH_MS, FEED_BUFFER_BYTES};
use crate::message::{Message, MessageInfo, SenderId};
use crate::name::ChannelName;
use crate::ticket::Ticket;
use crate::transport::{Connection, Interest};
use crate::wire::{
    Closing, ClosingCode, FrameHeader, FrameLimits, HEADER_BYTES, Kind, Receivers, RefusedCode, Resume, Role,
    SenderHello, SenderWelcome, Settled, TypeDeclaration, Want, WelcomeRole, decode_headers, put_control, read_control,
};

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
    /// The frame is in the daemon's socket.
    Written,
    /// As `Written`, and the daemon is asked to confirm it at once.
    Confirmable,
}

/// A message as bytes, on its way out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoded<'a> {
    pub(crate) codec: Codec,
    pub(crate) header_block: &'a [u8],
    pub(crate) payload: &'a [u8],
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
}

#[derive(Debug)]
pub(crate) struct StreamSender {
    options: SenderOptions,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    link: Link,
    inbox: Inbox,
    outbox: Outbox,
    rules: SenderWelcome,
    settled: Settled,
    last_sequence: u64,
    /// What the daemon was last asked to confirm over this connection.
    confirm_asked: u64,
    want: Option<PendingWant>,
    wants: u64,
    receivers: u32,
    peers: Option<Peers>,
    watching: bool,
    reading: bool,
    writing: bool,
    /// Not everything is sent again yet over a new connection: the keeper sees to it.
    resending: bool,
    looked_at_ns: u64,
}

#[derive(Debug)]
enum Link {
    Up(Arc<Connection>),
    Away,
    /// For good; nothing is accepted any more.
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct PendingWant {
    want: Want,
    asked: bool,
    answer: Option<Kind>,
}

/// What came of asking for room.
enum Room<'a> {
    Granted(MutexGuard<'a, State>),
    /// There is none, and the channel drops what is newest.
    Dropped {
        last_sequence: u64,
    },
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
        let role = Role::Sender(hello(&options, None));
        let address = &options.dialer.address;
        let session = match options.dialer.dial(&role) {
            Ok(session) => session,
            Err(DialError::Refused(refused)) => {
                return Err(OpenError::from_refusal(address, &options.channel, refused.code, refused.text));
            }
            Err(DialError::Unreachable(_)) => options.dialer.dial_or_start(&role)?,
            Err(error) => return Err(options.dialer.connect_error(error).into()),
        };
        let Session { connection, inbox: early, welcome } = session;
        let WelcomeRole::Sender(rules) = welcome.role else {
            let text = "the daemon did not welcome a sender".to_owned();
            return Err(options.dialer.connect_error(DialError::Protocol(text)).into());
        };
        let state = State {
            link: Link::Up(Arc::new(connection)),
            inbox: early,
            outbox: Outbox::default(),
            settled: rules.settled,
            last_sequence: rules.settled.accepted,
            confirm_asked: 0,
            want: None,
            wants: 0,
            receivers: rules.receivers,
            peers: None,
            watching: false,
            reading: false,
            writing: false,
            resending: false,
            looked_at_ns: 0,
            rules,
        };
        let sender = Arc::new(Self { options, state: Mutex::new(state), changed: Condvar::new() });
        let weak: Weak<Self> = Arc::downgrade(&sender);
        keeper::keep(weak);
        Ok(sender)
    }

    pub(crate) fn id(&self) -> SenderId {
        SenderId(lock(&self.state).rules.sender)
    }

    /// Sends one message. `Ok` has its sequence.
    pub(crate) fn push(&self, message: Encoded<'_>, wait: Wait, until: Until) -> Result<u64, PushError> {
        let bytes = message.header_block.len() as u64 + message.payload.len() as u64;
        let mut state = lock(&self.state);
        let limit = state.rules.message_max_bytes;
        if bytes > u64::from(limit) {
            return Err(PushError::TooLarge { bytes, limit });
        }
        let sent_at_ns = wall_clock_ns();
        if sent_at_ns.abs_diff(state.looked_at_ns) >= LOOK_INTERVAL_NS || self.options.require_receiver {
            state.looked_at_ns = sent_at_ns;
            self.pump(&mut state);
        }
        state = self.await_room(state, bytes, wait)?;
        if state.rules.exact {
            match self.await_grant(state, bytes as u32, wait)? {
                Room::Granted(granted) => state = granted,
                Room::Dropped { last_sequence } => return Ok(last_sequence),
            }
        }
        state.last_sequence += 1;
        let sequence = state.last_sequence;
        let confirm = until == Until::Confirmable;
        let Encoded { codec, header_block, payload } = message;
        state.outbox.push(Outgoing { sequence, sent_at_ns, codec, confirm, header_block, payload });
        if until == Until::Buffered && !state.rules.exact && state.outbox.unwritten() < FEED_BUFFER_BYTES {
            return Ok(sequence);
        }
        if confirm {
            state.confirm_asked = sequence;
        }
        self.write_out(state, wait).map(|()| sequence)
    }

    /// Waits until the window has room for a message, and nobody is in the middle of a frame.
    fn await_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        bytes: u64,
        wait: Wait,
    ) -> Result<MutexGuard<'a, State>, PushError> {
        let mut looked = false;
        loop {
            if matches!(state.link, Link::Closed) || (self.options.require_receiver && state.receivers == 0) {
                return Err(PushError::Disconnected);
            }
            if wait == Wait::Never && matches!(state.link, Link::Away) {
                return Err(PushError::Away);
            }
            if !state.writing && state.has_room(bytes) {
                // A try must not find itself behind bytes that the socket does not take.
                if wait == Wait::Never && state.outbox.unwritten() > 0 && self.write(&mut state) == Written::SocketFull
                {
                    return Err(PushError::Full);
                }
                return Ok(state);
            }
            if !looked {
                looked = true;
                self.pump(&mut state);
                continue;
            }
            // What is only buffered can never be acknowledged.
            if !state.writing {
                self.write(&mut state);
            }
            if wait == Wait::Never {
                return Err(PushError::Full);
            }
            let deadline = wait.deadline();
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(PushError::Timeout);
            }
            state = self.wait_for_news(state, deadline);
        }
    }

    /// Asks an exact channel for room for one message, and waits for it.
    fn await_grant<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        bytes: u32,
        wait: Wait,
    ) -> Result<Room<'a>, PushError> {
        // The daemon answers a try at once; the bound is for one that does not answer at all.
        let deadline = match wait {
            Wait::Never => Some(Instant::now() + TRY_PATIENCE),
            Wait::Until(_) | Wait::Forever => wait.deadline(),
        };
        let late = if wait == Wait::Never { PushError::Full } else { PushError::Timeout };
        while state.want.is_some() || state.writing {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(late);
            }
            state = self.wait_for_news(state, deadline);
        }
        state.wants += 1;
        let waits = wait != Wait::Never && state.rules.when_full == WhenFull::Block;
        let want = Want { number: state.wants, bytes, wait: waits };
        state.want = Some(PendingWant { want, asked: false, answer: None });
        let outcome = loop {
            if matches!(state.link, Link::Closed) || (self.options.require_receiver && state.receivers == 0) {
                break Err(PushError::Disconnected);
            }
            if wait == Wait::Never && matches!(state.link, Link::Away) {
                break Err(PushError::Away);
            }
            match state.want {
                Some(PendingWant { answer: Some(Kind::Granted), .. }) => break Ok(()),
                Some(PendingWant { answer: Some(_), .. }) => break Err(PushError::Full),
                Some(PendingWant { asked: false, .. }) => {
                    if self.write_control(&mut state, Kind::Want, &want) == Written::All
                        && let Some(pending) = &mut state.want
                    {
                        pending.asked = true;
                        continue;
                    }
                }
                Some(_) | None => {}
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break Err(late);
            }
            state = self.wait_for_news(state, deadline);
        };
        let asked = state.want.take().is_some_and(|pending| pending.asked && pending.answer.is_none());
        if asked {
            self.write_control(&mut state, Kind::Unwant, &want);
        }
        self.changed.notify_all();
        match outcome {
            Ok(()) => Ok(Room::Granted(state)),
            // The policy has its way, and the daemon has counted it.
            Err(PushError::Full) if !asked && state.rules.when_full == WhenFull::DropNewest => {
                Ok(Room::Dropped { last_sequence: state.last_sequence })
            }
            Err(error) => Err(error),
        }
    }

    /// Writes until the frame that was pushed last is in the socket.
    fn write_out<'a>(&'a self, mut state: MutexGuard<'a, State>, wait: Wait) -> Result<(), PushError> {
        let patience = match wait {
            Wait::Never => Some(Instant::now() + TRY_PATIENCE),
            Wait::Until(_) | Wait::Forever => wait.deadline(),
        };
        loop {
            let written = self.write(&mut state);
            match (written, &state.link) {
                (Written::All, _) => break,
                (Written::NoLink, Link::Closed) => {
                    self.withdraw(&mut state);
                    self.end_writing(&mut state);
                    return Err(PushError::Disconnected);
                }
                (Written::NoLink, _) if wait == Wait::Never => {
                    self.withdraw(&mut state);
                    self.end_writing(&mut state);
                    return Err(PushError::Away);
                }
                (Written::NoLink | Written::SocketFull, _) => {}
            }
            if patience.is_some_and(|patience| Instant::now() >= patience) {
                // Half of the frame may be in the socket. The daemon forgets half a frame when the
                // connection goes, and everything before it is sent again: so it was never sent.
                self.lose_link(&mut state);
                self.withdraw(&mut state);
                self.end_writing(&mut state);
                return Err(if wait == Wait::Never { PushError::Full } else { PushError::Timeout });
            }
            state.writing = true;
            state = match &state.link {
                Link::Up(connection) => {
                    let connection = Arc::clone(connection);
                    drop(state);
                    let _ = connection.wait(Interest::Writable, patience);
                    lock(&self.state)
                }
                Link::Away | Link::Closed => self.wait_for_news(state, patience),
            };
        }
        self.end_writing(&mut state);
        Ok(())
    }

    fn withdraw(&self, state: &mut State) {
        state.outbox.withdraw_last();
        state.last_sequence -= 1;
    }

    fn end_writing(&self, state: &mut State) {
        if std::mem::take(&mut state.writing) {
            self.changed.notify_all();
        }
    }

    /// Writes what the socket takes now.
    fn write(&self, state: &mut State) -> Written {
        while state.outbox.unwritten() > 0 {
            let Link::Up(connection) = &state.link else { return Written::NoLink };
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = state.outbox.unwritten_slices(&mut slices);
            match connection.send(&slices[..count]) {
                Ok(bytes) => state.outbox.wrote(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Written::SocketFull,
                Err(_) => {
                    self.take_last_words(state);
                    return Written::NoLink;
                }
            }
        }
        if std::mem::take(&mut state.resending) {
            state.release(usize::MAX);
        }
        if matches!(state.link, Link::Up(_)) { Written::All } else { Written::NoLink }
    }

    /// Writes a control frame behind everything else.
    fn write_control<T: serde::Serialize>(&self, state: &mut State, kind: Kind, body: &T) -> Written {
        let written = self.write(state);
        let (Written::All, Link::Up(connection)) = (written, &state.link) else { return written };
        let mut frame = Vec::with_capacity(64);
        put_control(kind, body, &mut frame);
        match connection.send(&[IoSlice::new(&frame)]) {
            // The kernel takes so small a piece whole or not at all.
            Ok(bytes) if bytes == frame.len() => Written::All,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Written::SocketFull,
            Ok(_) | Err(_) => {
                self.take_last_words(state);
                Written::NoLink
            }
        }
    }

    /// Waits until something may have changed: an answer, room in the socket, another thread's news.
    fn wait_for_news<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        let connection = match &state.link {
            Link::Up(connection) if !state.reading => Arc::clone(connection),
            Link::Up(_) | Link::Away | Link::Closed => return self.wait_for_others(state, deadline),
        };
        state.reading = true;
        let writes = state.outbox.unwritten() > 0 && !state.writing;
        drop(state);
        let interest = if writes { Interest::Either } else { Interest::Readable };
        let ready = connection.wait(interest, deadline);
        let mut state = lock(&self.state);
        state.reading = false;
        if !matches!(ready, Ok(false)) {
            self.pump(&mut state);
            if writes && !state.writing {
                self.write(&mut state);
            }
        }
        self.changed.notify_all();
        state
    }

    fn wait_for_others<'a>(&'a self, state: MutexGuard<'a, State>, deadline: Option<Instant>) -> MutexGuard<'a, State> {
        match deadline {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let rest = deadline.saturating_duration_since(Instant::now());
                self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Reads and processes what the daemon has said, unless another thread is about to.
    fn pump(&self, state: &mut State) {
        if state.reading {
            return;
        }
        while let Link::Up(connection) = &state.link {
            match state.inbox.fill(&Arc::clone(connection)) {
                Ok(Fill::Bytes) => {}
                Ok(Fill::Nothing) => return,
                Ok(Fill::Closed) | Err(_) => return self.lose_link(state),
            }
            if state.process().is_err() {
                self.lose_link(state);
            }
        }
    }

    /// The connection does not take more: reads why, if the daemon has said so.
    fn take_last_words(&self, state: &mut State) {
        self.pump(state);
        if matches!(state.link, Link::Up(_)) {
            self.lose_link(state);
        }
    }

    fn lose_link(&self, state: &mut State) {
        if let Link::Up(connection) = &state.link {
            connection.hang_up();
            state.link = Link::Away;
            keeper::wake();
        }
        self.changed.notify_all();
    }

    pub(crate) fn ticket(&self) -> Ticket {
        Ticket { sequence: lock(&self.state).last_sequence }
    }

    /// Waits until all that the ticket stands for is accepted.
    pub(crate) fn wait(&self, ticket: Ticket, deadline: Option<Instant>) -> Result<(), FlushError> {
        let mut state = lock(&self.state);
        loop {
            if state.settled.accepted >= ticket.sequence {
                return Ok(());
            }
            if matches!(state.link, Link::Closed) {
                return Err(FlushError::Disconnected { refused: state.refused_count() });
            }
            if state.confirm_asked < ticket.sequence
                && !state.writing
                && self.write_control(&mut state, Kind::Confirm, &()) == Written::All
            {
                state.confirm_asked = state.last_sequence;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(FlushError::Unknown(ticket));
            }
            state = self.wait_for_news(state, deadline);
        }
    }

    /// Writes what is buffered, without waiting for anything but room in the socket.
    pub(crate) fn write_buffered(&self) {
        let state = lock(&self.state);
        if state.outbox.unwritten() > 0 && !state.writing {
            let mut state = state;
            self.write(&mut state);
        }
    }

    /// The messages that were sent and never accepted, once the channel is closed.
    pub(crate) fn refused(&self) -> Vec<Message> {
        let state = lock(&self.state);
        if !matches!(state.link, Link::Closed) {
            return Vec::new();
        }
        let known = state.outbox.len() - state.refused_count().min(state.outbox.len());
        state.outbox.frames().skip(known).filter_map(|frame| state.message(frame)).collect()
    }

    pub(crate) fn unacknowledged(&self) -> usize {
        let mut state = lock(&self.state);
        self.pump(&mut state);
        state.outbox.len()
    }

    pub(crate) fn dropped(&self) -> u64 {
        let mut state = lock(&self.state);
        self.pump(&mut state);
        state.settled.dropped
    }

    /// The peers of the channel; with `from`, once they differ from it.
    pub(crate) fn peers(&self, from: Option<Peers>, deadline: Option<Instant>) -> Result<Peers, PeersError> {
        let mut state = lock(&self.state);
        self.pump(&mut state);
        loop {
            match &state.link {
                Link::Closed => return Err(PeersError::Disconnected),
                Link::Away if from.is_none() => return Err(PeersError::Away),
                Link::Away | Link::Up(_) => {}
            }
            if let Some(peers) = state.peers.filter(|peers| Some(*peers) != from) {
                return Ok(peers);
            }
            if !state.watching && !state.writing && self.write_control(&mut state, Kind::Watch, &()) == Written::All {
                state.watching = true;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(PeersError::Timeout);
            }
            state = self.wait_for_news(state, deadline);
        }
    }

    fn resume(&self, state: &State) -> Resume {
        let next_sequence = state.last_sequence + 1 - state.outbox.len() as u64;
        Resume { sender: state.rules.sender, token: state.rules.token, next_sequence }
    }
}

impl State {
    fn has_room(&self, bytes: u64) -> bool {
        let held = self.outbox.len();
        held == 0
            || (held < self.rules.window_messages as usize
                && self.outbox.message_bytes() + bytes <= self.rules.window_bytes)
    }

    fn refused_count(&self) -> usize {
        usize::try_from(self.last_sequence.saturating_sub(self.settled.accepted)).unwrap_or(usize::MAX)
    }

    fn message(&self, frame: &[u8]) -> Option<Message> {
        let limits = FrameLimits { message_max_bytes: u32::MAX, control_max_bytes: 0 };
        let header = FrameHeader::decode(frame, limits).ok()??;
        let (block, payload) = frame[HEADER_BYTES..].split_at(header.header_block_bytes as usize);
        let info = MessageInfo::from_wire(
            self.rules.sender,
            std::process::id(),
            header.sequence,
            header.sent_at_ns,
            0,
            false,
            header.codec,
        );
        Some(Message { info, headers: decode_headers(block).unwrap_or_default(), payload: payload.to_vec() })
    }

    /// Takes notice of every frame that is here whole.
    fn process(&mut self) -> Result<(), Broken> {
        while let Some(frame) = self.inbox.front().map_err(|_| Broken)? {
            let body = self.inbox.front_bytes()[HEADER_BYTES..].to_vec();
            self.inbox.pop_front();
            self.notice(frame.kind, &body)?;
        }
        Ok(())
    }

    fn notice(&mut self, kind: Kind, body: &[u8]) -> Result<(), Broken> {
        match kind {
            Kind::Settled => self.settle(read_control(kind, body).map_err(|_| Broken)?),
            Kind::Granted | Kind::Full => {
                let answered: Want = read_control(kind, body).map_err(|_| Broken)?;
                if let Some(pending) = self.want.as_mut().filter(|pending| pending.want.number == answered.number) {
                    pending.answer = Some(kind);
                }
                Ok(())
            }
            Kind::Peers => {
                let peers: Peers = read_control(kind, body).map_err(|_| Broken)?;
                self.peers = Some(peers);
                Ok(())
            }
            Kind::Receivers => {
                let receivers: Receivers = read_control(kind, body).map_err(|_| Broken)?;
                self.receivers = receivers.count;
                Ok(())
            }
            Kind::Closing => {
                let closing: Closing = read_control(kind, body).map_err(|_| Broken)?;
                match closing.code {
                    ClosingCode::ShuttingDown => Err(Broken),
                    ClosingCode::Deleted | ClosingCode::Kicked | ClosingCode::Fault => {
                        if let Link::Up(connection) = std::mem::replace(&mut self.link, Link::Closed) {
                            connection.hang_up();
                        }
                        Ok(())
                    }
                }
            }
            _ => Err(Broken),
        }
    }

    fn settle(&mut self, told: Settled) -> Result<(), Broken> {
        if told.acked > told.accepted || told.accepted > self.last_sequence || told.acked < self.settled.acked {
            return Err(Broken);
        }
        self.settled = told;
        self.release(self.outbox.written_frames());
        Ok(())
    }

    /// Lets go what is acknowledged, `most` frames at most. A daemon may know of messages that are not
    /// sent again yet, from a receiver: a frame that is half in the socket has to be finished all the
    /// same.
    fn release(&mut self, most: usize) {
        let released = self.last_sequence - self.outbox.len() as u64;
        let acknowledged = self.settled.acked.saturating_sub(released);
        self.outbox.acknowledge(usize::try_from(acknowledged).unwrap_or(usize::MAX).min(most));
    }
}

/// The daemon said something that makes no sense: this connection is given up.
#[derive(Debug)]
struct Broken;

impl Kept for StreamSender {
    fn standing(&self) -> Standing {
        let state = lock(&self.state);
        match &state.link {
            Link::Up(connection) => Standing::Up { connection: Arc::clone(connection), wants_room: state.resending },
            Link::Away => Standing::Away,
            Link::Closed => Standing::Over,
        }
    }

    fn hung_up(&self) -> bool {
        let mut state = lock(&self.state);
        // A thread that is reading wakes by the same hang-up.
        if state.reading {
            return false;
        }
        self.pump(&mut state);
        true
    }

    fn reattach(&self) -> bool {
        let role = {
            let mut state = lock(&self.state);
            // Let go first what is acknowledged: the daemon expects what is named here to come next.
            state.release(usize::MAX);
            state.outbox.rewind();
            Role::Sender(hello(&self.options, Some(self.resume(&state))))
        };
        let session = match self.options.dialer.dial(&role) {
            Ok(session) => session,
            Err(DialError::Refused(refused)) if is_final(refused.code) => {
                lock(&self.state).link = Link::Closed;
                self.changed.notify_all();
                return true;
            }
            Err(_) => return false,
        };
        let Session { connection, inbox: early, welcome } = session;
        let WelcomeRole::Sender(rules) = welcome.role else { return false };
        let mut state = lock(&self.state);
        state.link = Link::Up(Arc::new(connection));
        state.inbox = early;
        state.receivers = rules.receivers;
        state.confirm_asked = 0;
        state.watching = false;
        state.peers = None;
        if let Some(pending) = &mut state.want {
            (pending.asked, pending.answer) = (false, None);
        }
        // Accepted by a daemon that died is not accepted; acknowledged stays acknowledged.
        let acked = rules.settled.acked.max(state.settled.acked);
        let dropped = state.settled.dropped;
        let told = Settled { accepted: rules.settled.accepted.max(acked), acked, dropped };
        state.rules = rules;
        if state.settle(told).is_err() {
            self.lose_link(&mut state);
            return false;
        }
        // Nothing is half written on a new connection: what is acknowledged need not be sent again.
        state.release(usize::MAX);
        state.outbox.rewind();
        state.resending = true;
        if state.process().is_err() {
            self.lose_link(&mut state);
            return false;
        }
        if !state.writing {
            self.write(&mut state);
        }
        self.changed.notify_all();
        true
    }

    fn room(&self) {
        let mut state = lock(&self.state);
        if !state.writing {
            self.write(&mut state);
        }
    }
}

impl Drop for StreamSender {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        self.write_control(&mut state, Kind::Goodbye, &());
        if let Link::Up(connection) = std::mem::replace(&mut state.link, Link::Closed) {
            connection.hang_up();
        }
        keeper::wake();
    }
}

/// A sender in the hands of its users. The last of them to let go flushes, with a bound, while the
/// keeper can still reconnect.
#[derive(Debug)]
pub(crate) struct FlushOnDrop(pub(crate) Arc<StreamSender>);

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        // The bound is the promise; whoever needs the outcome calls flush.
        let _ = self.0.wait(self.0.ticket(), Some(Instant::now() + Duration::from_millis(DROP_FLUSH_MS)));
    }
}

fn hello(options: &SenderOptions, resume: Option<Resume>) -> SenderHello {
    SenderHello {
        channel: options.channel.clone(),
        declares: options.declares.clone(),
        require_receiver: options.require_receiver,
        resume,
    }
}

/// Whether another attempt would be refused as well.
pub(super) fn is_final(code: RefusedCode) -> bool {
    match code {
        RefusedCode::ShuttingDown | RefusedCode::Limit => false,
        RefusedCode::Version
        | RefusedCode::Protocol
        | RefusedCode::Denied
        | RefusedCode::ReceiverTaken
        | RefusedCode::TypeMismatch
        | RefusedCode::NoSuchChannel
        | RefusedCode::Exists => true,
    }
}

impl Wait {
    fn deadline(self) -> Option<Instant> {
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
