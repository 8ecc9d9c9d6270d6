//! [`StreamReceiver`]: the receiving endpoint on a socket.
//!
//! Messages are handed out from the inbox, one at a time and in order. Before the first of them is
//! handed out, the daemon is told how far the receiver *claims* (`taken`); so it knows after the
//! receiver's death which messages may have been seen. Given back, a message simply stays at the
//! head of the inbox.
//!
//! One thread uses a receiver, and holds the lock of its state also while it waits; the keeper and
//! owned deliveries come in between.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use super::inbox::{Fill, Inbox};
use super::keeper::{self, Kept, Standing};
use super::sender::is_final;
use super::session::{DialError, Dialer, Session, lock};
use crate::channel::Peers;
use crate::error::{Ended, OpenError, PeersError};
use crate::limits::{CLAIM_MESSAGES, DEPARTED_SENDERS_MAX, REPLY_MAX_BYTES};
use crate::message::MessageInfo;
use crate::name::ChannelName;
use crate::transport::{Connection, Interest};
use crate::wire::{
    Closing, ClosingCode, Flags, FrameHeader, FrameLimits, HEADER_BYTES, Kind, KnownSender, ORIGIN_BYTES, Origin,
    Progress, ReceiverHello, Returning, Role, TypeDeclaration, WelcomeRole, put_control, read_control,
};

pub(crate) use super::sender::Wait;

/// What opens a receiver.
#[derive(Clone, Debug)]
pub(crate) struct ReceiverOptions {
    pub(crate) dialer: Dialer,
    pub(crate) channel: ChannelName,
    pub(crate) declares: Option<TypeDeclaration>,
    pub(crate) standby: bool,
    pub(crate) until_disconnected: bool,
}

/// Why there is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoMessage {
    Empty,
    Timeout,
    Away,
    Ended(Ended),
}

#[derive(Debug)]
pub(crate) struct StreamReceiver {
    options: ReceiverOptions,
    state: Mutex<State>,
    /// How the endpoint stands, readable while a thread waits with the state locked.
    link: Mutex<Link>,
    /// Something was put off that the daemon is to be told: the keeper looks in.
    deferred: AtomicBool,
    /// A thread waits for the daemon with the state locked. It has put nothing off.
    asleep: AtomicBool,
    changed: Condvar,
}

#[derive(Clone, Debug)]
enum Link {
    Up(Arc<Connection>),
    Away,
    Over,
}

#[derive(Debug)]
pub(crate) struct State {
    connection: Option<Arc<Connection>>,
    inbox: Inbox,
    /// Frames of a connection that broke, which nobody has seen yet. They come first.
    orphans: VecDeque<Vec<u8>>,
    progress: Progress,
    told: Progress,
    told_at: CoarseTime,
    /// Deliveries at the head of the inbox that are handed out and not settled.
    lent: usize,
    /// A thread waits until what is lent is settled.
    waiting: bool,
    /// How often the first `given_back_span` messages here were given back.
    given_back: u32,
    given_back_span: usize,
    known: KnownSenders,
    seated: bool,
    sender_seen: bool,
    peers: Option<Peers>,
    watching: bool,
    ended: Option<Ended>,
}

/// A message at the head of the inbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    sequence: u64,
    origin: Origin,
    orphan: bool,
}

impl StreamReceiver {
    pub(crate) fn open(options: ReceiverOptions) -> Result<Arc<Self>, OpenError> {
        let role = Role::Receiver(hello(&options, None));
        let address = &options.dialer.address;
        let session = match options.dialer.dial(&role) {
            Ok(session) => session,
            Err(DialError::Refused(refused)) => {
                return Err(OpenError::from_refusal(address, &options.channel, refused.code, refused.text));
            }
            Err(DialError::Unreachable(_)) => options.dialer.dial_or_start(&role)?,
            Err(error) => return Err(options.dialer.connect_error(error).into()),
        };
        let state = State {
            connection: None,
            inbox: Inbox::new(limits(0)),
            orphans: VecDeque::new(),
            progress: Progress::default(),
            told: Progress::default(),
            told_at: CoarseTime::default(),
            lent: 0,
            waiting: false,
            given_back: 0,
            given_back_span: 0,
            known: KnownSenders::default(),
            seated: false,
            sender_seen: false,
            peers: None,
            watching: false,
            ended: None,
        };
        let receiver = Arc::new(Self {
            options,
            state: Mutex::new(state),
            link: Mutex::new(Link::Away),
            deferred: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            changed: Condvar::new(),
        });
        let mut state = lock(&receiver.state);
        if !receiver.begin(&mut state, session) {
            let text = "the daemon did not welcome a receiver".to_owned();
            return Err(receiver.options.dialer.connect_error(DialError::Protocol(text)).into());
        }
        drop(state);
        let weak: Weak<Self> = Arc::downgrade(&receiver);
        keeper::keep(weak);
        Ok(receiver)
    }

    /// Takes a new connection into use.
    fn begin(&self, state: &mut State, session: Session) -> bool {
        let WelcomeRole::Receiver(welcome) = session.welcome.role else { return false };
        let connection = Arc::new(session.connection);
        let mut inbox = Inbox::new(limits(welcome.message_max_bytes));
        inbox.take_over(session.inbox);
        state.inbox = inbox;
        state.progress = Progress::default();
        state.told = Progress::default();
        state.seated = welcome.place_in_line == 0;
        state.watching = false;
        state.peers = None;
        state.connection = Some(Arc::clone(&connection));
        *lock(&self.link) = Link::Up(connection);
        true
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits for the next message, and lends it: it stays at the head until it is settled.
    ///
    /// A message that is acknowledged before its user sees it need not be claimed first.
    pub(crate) fn next<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        wait: Wait,
        claim: bool,
    ) -> Result<(MutexGuard<'a, State>, Head), NoMessage> {
        loop {
            if state.lent > 0 {
                // An owned delivery is out: order waits for it.
                state = self.wait_for_change(state, wait)?;
                continue;
            }
            if self.look_for_orders(&mut state).is_err() {
                self.lose_link(&mut state);
            }
            match state.head() {
                Ok(Some(head)) if state.is_known(&head) => {
                    state.settle_head(&head);
                    self.tell(&mut state, false);
                }
                Ok(Some(head)) => {
                    if head.orphan || !claim || self.claim(&mut state) {
                        state.lent = 1;
                        return Ok((state, head));
                    }
                }
                Ok(None) => {
                    if let Some(ended) = state.ended.clone() {
                        self.lose_link(&mut state);
                        return Err(NoMessage::Ended(ended));
                    }
                    state = self.read_more(state, wait)?;
                }
                Err(Broken) => self.lose_link(&mut state),
            }
        }
    }

    /// Takes notice of an order that stands behind messages which are not claimed: those go back.
    fn look_for_orders(&self, state: &mut State) -> Result<(), Broken> {
        let behind_claim = state.progress.taken > state.progress.acked;
        if behind_claim || !state.orphans.is_empty() {
            return Ok(());
        }
        // With several messages here, orders may wait unread: a slow consumer looks before each.
        if state.inbox.deliveries() > 1
            && state.told_at != CoarseTime::now()
            && let Some(connection) = state.connection.clone()
        {
            let _ = state.inbox.fill(&connection);
        }
        if state.inbox.has_order() { state.obey() } else { Ok(()) }
    }

    /// Lends also those that follow the head and are here already: `count` in all, at most.
    pub(crate) fn lend_more(&self, state: &mut State, head: &Head, count: usize) -> usize {
        if head.orphan {
            return 1;
        }
        let known = |frame: &[u8]| state.known.sequence(origin(frame).sender) >= sequence(frame);
        let follow = state.inbox.frames().take(count).skip(1);
        let lent = 1 + follow.take_while(|(kind, frame)| *kind == Kind::Deliver && !known(frame)).count();
        state.lent = lent;
        let lent = state.lent as u64;
        if state.progress.taken < state.progress.acked + lent {
            state.progress.taken = state.progress.acked + lent;
            self.tell(state, true);
            if state.connection.is_none() {
                // The rest was not claimed in time. The head was, and is the first orphan now.
                state.lent = 1;
            }
        }
        state.lent
    }

    /// Acknowledges the one that is lent and was not claimed, before its user sees it.
    pub(crate) fn take(&self, state: &mut State) {
        state.lent = 0;
        if let Ok(Some(head)) = state.head() {
            state.settle_head(&head);
        }
        let unclaimed = state.told.taken < state.progress.acked;
        if unclaimed && state.told_at == CoarseTime::now() {
            // Busy: those that follow are claimed with it, and acknowledged together.
            let follow = (state.inbox.deliveries() as u64).min(CLAIM_MESSAGES);
            state.progress.taken = state.progress.taken.max(state.progress.acked + follow);
        }
        self.tell(state, unclaimed);
    }

    /// Acknowledges the first `count` of those that are lent, and takes the others back.
    pub(crate) fn settle(&self, state: &mut State, count: usize) {
        let lent = std::mem::take(&mut state.lent);
        for _ in 0..count.min(lent) {
            if let Ok(Some(head)) = state.head() {
                state.settle_head(&head);
            }
        }
        if count < lent {
            state.take_back(lent - count);
            self.tell(state, true);
        } else {
            self.tell(state, false);
        }
        if state.waiting {
            self.changed.notify_all();
        }
    }

    /// Tells the daemon that the receiver claims the head, before it is handed out. A busy receiver
    /// claims several at once. `false` when the daemon could not be told.
    fn claim(&self, state: &mut State) -> bool {
        if state.progress.taken > state.progress.acked {
            return true;
        }
        let busy = state.told_at == CoarseTime::now();
        let most = if busy { CLAIM_MESSAGES } else { 1 };
        state.progress.taken = state.progress.acked + (state.inbox.deliveries() as u64).clamp(1, most);
        self.tell(state, true);
        state.connection.is_some()
    }

    /// Tells the daemon how far this receiver is: at once when it `must`, when nothing else is here,
    /// or when it was last told before the clock ticked; else later, together with more.
    fn tell(&self, state: &mut State, must: bool) {
        if state.progress == state.told {
            return;
        }
        let pending = state.progress.acked - state.told.acked;
        let now = CoarseTime::now();
        let idle = state.inbox.deliveries() == 0;
        if !(must || idle || now != state.told_at || pending >= CLAIM_MESSAGES) {
            // There may be no further call for long: then the keeper tells it.
            if !self.deferred.swap(true, Ordering::SeqCst) {
                keeper::wake();
            }
            return;
        }
        state.told_at = now;
        let Some(connection) = state.connection.clone() else { return };
        let mut frame = Vec::with_capacity(HEADER_BYTES + 24);
        put_control(Kind::Progress, &state.progress, &mut frame);
        match send_small(&connection, &frame) {
            Ok(()) => state.told = state.progress,
            Err(_) => self.lose_link(state),
        }
    }

    fn read_more<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        wait: Wait,
    ) -> Result<MutexGuard<'a, State>, NoMessage> {
        self.tell(&mut state, true);
        let Some(connection) = state.connection.clone() else {
            return match wait {
                Wait::Never => Err(NoMessage::Away),
                Wait::Forever | Wait::Until(_) => self.wait_for_change(state, wait),
            };
        };
        let filled = match wait {
            Wait::Forever => self.asleep(|| state.inbox.fill_blocking(&connection)),
            Wait::Never => state.inbox.fill(&connection),
            Wait::Until(deadline) => match state.inbox.fill(&connection) {
                Ok(Fill::Nothing) => match self.asleep(|| connection.wait(Interest::Readable, Some(deadline))) {
                    Ok(true) => state.inbox.fill(&connection),
                    Ok(false) => return Err(NoMessage::Timeout),
                    Err(error) => Err(error),
                },
                filled => filled,
            },
        };
        match filled {
            Ok(Fill::Nothing) if wait == Wait::Never => return Err(NoMessage::Empty),
            Ok(Fill::Bytes | Fill::Nothing) => {}
            Ok(Fill::Closed) | Err(_) => self.lose_link(&mut state),
        }
        Ok(state)
    }

    fn asleep<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.asleep.store(true, Ordering::SeqCst);
        let woken = wait();
        self.asleep.store(false, Ordering::SeqCst);
        woken
    }

    fn wait_for_change<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        wait: Wait,
    ) -> Result<MutexGuard<'a, State>, NoMessage> {
        let deadline = match wait {
            Wait::Never => return Err(NoMessage::Empty),
            Wait::Forever => None,
            Wait::Until(deadline) => Some(deadline),
        };
        state.waiting = true;
        let mut state = match deadline {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let rest = deadline.saturating_duration_since(Instant::now());
                if rest.is_zero() {
                    return Err(NoMessage::Timeout);
                }
                self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.waiting = false;
        Ok(state)
    }

    /// The connection is gone. What it had brought whole stays, to be handed out first; unless the
    /// daemon had said that it goes to another.
    fn lose_link(&self, state: &mut State) {
        let Some(connection) = state.connection.take() else { return };
        while matches!(state.inbox.fill(&connection), Ok(Fill::Bytes)) {}
        if state.ended.is_some() {
            // In order: the daemon learns how far this receiver came.
            let mut frame = Vec::new();
            put_control(Kind::Goodbye, &state.last_progress(), &mut frame);
            let _ = send_small(&connection, &frame);
        }
        connection.hang_up();
        state.keep_orphans();
        *lock(&self.link) = if state.ended.is_some() { Link::Over } else { Link::Away };
        keeper::wake();
    }

    /// How many messages are here.
    pub(crate) fn len(&self) -> usize {
        let mut state = self.state();
        if state.lent == 0
            && let Some(connection) = state.connection.clone()
        {
            let _ = state.inbox.fill(&connection);
        }
        (state.orphans.len() + state.inbox.deliveries()).saturating_sub(state.lent)
    }

    pub(crate) fn is_seated(&self) -> bool {
        let mut state = self.state();
        if !state.seated
            && let Some(connection) = state.connection.clone()
            && matches!(state.inbox.fill(&connection), Ok(Fill::Bytes))
        {
            let _ = state.head();
        }
        state.seated
    }

    /// The peers of the channel; with `from`, once they differ from it. Messages that arrive
    /// meanwhile stay in the inbox.
    pub(crate) fn peers(&self, from: Option<Peers>, deadline: Option<Instant>) -> Result<Peers, PeersError> {
        let mut state = self.state();
        loop {
            if let Some(connection) = state.connection.clone() {
                // A failure shows again below, where it is handled.
                let _ = state.inbox.fill(&connection);
            }
            if let Some(told) = state.find_peers() {
                state.peers = Some(told);
            }
            if let Some(peers) = state.peers.filter(|peers| Some(*peers) != from) {
                return Ok(peers);
            }
            if state.ended.is_some() {
                return Err(PeersError::Disconnected);
            }
            let Some(connection) = state.connection.clone() else { return Err(PeersError::Away) };
            if !state.watching {
                let mut frame = Vec::new();
                put_control(Kind::Watch, &(), &mut frame);
                if send_small(&connection, &frame).is_err() {
                    self.lose_link(&mut state);
                    continue;
                }
                state.watching = true;
            }
            match connection.wait(Interest::Readable, deadline) {
                Ok(true) => {}
                Ok(false) => return Err(PeersError::Timeout),
                Err(_) => self.lose_link(&mut state),
            }
            match state.inbox.fill(&connection) {
                Ok(Fill::Bytes | Fill::Nothing) => {}
                Ok(Fill::Closed) | Err(_) => self.lose_link(&mut state),
            }
        }
    }
}

impl State {
    /// The next message, after taking notice of every control frame before it.
    fn head(&mut self) -> Result<Option<Head>, Broken> {
        if let Some(frame) = self.orphans.front() {
            return Ok(Some(Head { sequence: sequence(frame), origin: origin(frame), orphan: true }));
        }
        while let Some(frame) = self.inbox.front().map_err(|_| Broken)? {
            if frame.kind == Kind::Deliver {
                self.sender_seen = true;
                let bytes = self.inbox.front_bytes();
                return Ok(Some(Head { sequence: sequence(bytes), origin: origin(bytes), orphan: false }));
            }
            let body = self.inbox.front_bytes()[HEADER_BYTES..].to_vec();
            self.inbox.pop_front();
            self.notice(frame.kind, &body)?;
        }
        Ok(None)
    }

    fn notice(&mut self, kind: Kind, body: &[u8]) -> Result<(), Broken> {
        match kind {
            Kind::Seated => self.seated = true,
            Kind::Ended => self.ended = Some(Ended::Disconnected),
            Kind::Peers => self.peers = Some(read_control(kind, body).map_err(|_| Broken)?),
            Kind::Recall => self.answer_recall()?,
            Kind::Closing => {
                let closing: Closing = read_control(kind, body).map_err(|_| Broken)?;
                match closing.code {
                    ClosingCode::ShuttingDown => return Err(Broken),
                    ClosingCode::Deleted => self.ended = Some(Ended::Deleted),
                    ClosingCode::Kicked => self.ended = Some(Ended::Kicked),
                    ClosingCode::Fault => self.ended = Some(Ended::Refused(closing.text)),
                }
            }
            _ => return Err(Broken),
        }
        Ok(())
    }

    /// Gives back every message before the order, and takes notice of all else there. Nothing is
    /// claimed or lent.
    fn obey(&mut self) -> Result<(), Broken> {
        while let Some(frame) = self.inbox.front().map_err(|_| Broken)?.filter(|_| self.inbox.has_order()) {
            let body = match frame.kind {
                Kind::Deliver => Vec::new(),
                _ => self.inbox.front_bytes()[HEADER_BYTES..].to_vec(),
            };
            self.inbox.pop_front();
            match frame.kind {
                Kind::Deliver => (self.given_back, self.given_back_span) = (0, 0),
                kind => self.notice(kind, &body)?,
            }
        }
        Ok(())
    }

    fn answer_recall(&mut self) -> Result<(), Broken> {
        let connection = self.connection.clone().ok_or(Broken)?;
        let mut frame = Vec::new();
        put_control(Kind::Recalled, &self.progress, &mut frame);
        send_small(&connection, &frame).map_err(|_| Broken)?;
        self.progress.head_given_back = 0;
        self.told = self.progress;
        Ok(())
    }

    /// Whether this receiver has acknowledged the message before, over an earlier connection.
    fn is_known(&self, head: &Head) -> bool {
        self.known.sequence(head.origin.sender) >= head.sequence
    }

    /// The first `span` messages are not lent any more: they come again, first.
    ///
    /// The daemon counts an attempt for each message that is claimed when the receiver dies. One that
    /// was given back is not claimed any more, and its attempt is told; of several it is the claim
    /// that tells.
    fn take_back(&mut self, span: usize) {
        self.given_back += 1;
        self.given_back_span = span;
        if self.orphans.is_empty() {
            let claimed = if span > 1 { span as u64 } else { 0 };
            self.progress.taken = self.progress.acked + claimed;
            self.progress.head_given_back = if span > 1 { self.given_back - 1 } else { self.given_back };
        }
    }

    /// What to say at the end: what was claimed in advance and never lent is not claimed any more.
    fn last_progress(&self) -> Progress {
        let seen = self.lent.max(if self.given_back_span > 1 { self.given_back_span } else { 0 }) as u64;
        Progress { taken: self.progress.taken.min(self.progress.acked + seen), ..self.progress }
    }

    /// Acknowledges the head.
    fn settle_head(&mut self, head: &Head) {
        self.known.note(head.origin, head.sequence);
        self.given_back_span = self.given_back_span.saturating_sub(1);
        if self.given_back_span == 0 {
            self.given_back = 0;
        }
        self.progress.head_given_back = 0;
        if head.orphan {
            self.orphans.pop_front();
            return;
        }
        self.inbox.pop_front();
        self.progress.acked += 1;
        self.progress.taken = self.progress.taken.max(self.progress.acked);
    }

    /// Moves what is here whole out of the inbox of a connection that broke. When the daemon closed
    /// it by order, what is not claimed is the next receiver's, and goes.
    fn keep_orphans(&mut self) {
        let frames: Vec<_> = self.inbox.frames().map(|(kind, frame)| (kind, frame.to_vec())).collect();
        self.inbox.clear();
        for (kind, frame) in &frames {
            if matches!(kind, Kind::Ended | Kind::Closing) {
                // An end in order is noticed by this; any other close is what has just happened.
                let _ = self.notice(*kind, &frame[HEADER_BYTES..]);
            }
        }
        let claimed = (self.progress.taken - self.progress.acked) as usize;
        let kept = match self.ended {
            Some(Ended::Kicked | Ended::Deleted | Ended::Refused(_)) => claimed,
            Some(Ended::Disconnected) | None => usize::MAX,
        };
        let deliveries = frames.into_iter().filter(|(kind, _)| *kind == Kind::Deliver);
        self.orphans.extend(deliveries.take(kept).map(|(_, mut frame)| {
            // The next daemon may give the seat, and with it the same message, to another.
            frame[FrameHeader::FLAGS_AT] |= Flags::REDELIVERED;
            frame
        }));
        self.progress.taken = self.progress.acked;
    }

    /// The last `Peers` frame among those that are here, wherever it stands.
    fn find_peers(&self) -> Option<Peers> {
        let told = self.inbox.frames().filter(|(kind, _)| *kind == Kind::Peers).last();
        told.and_then(|(kind, frame)| read_control(kind, &frame[HEADER_BYTES..]).ok())
    }

    /// How many messages are lent.
    pub(crate) fn lent(&self) -> usize {
        self.lent
    }

    /// The frame of the head, which is lent.
    pub(crate) fn lent_frame(&self) -> LentFrame<'_> {
        let frame = self.orphans.front().map_or(self.inbox.front_bytes(), Vec::as_slice);
        self.lent_frame_in(frame, 0)
    }

    /// The frames that are lent, in order.
    pub(crate) fn lent_frames(&self) -> impl Iterator<Item = LentFrame<'_>> {
        let orphan = self.orphans.front().map(Vec::as_slice);
        let here = self.inbox.frames().map(|(_, frame)| frame).skip(if orphan.is_some() { usize::MAX } else { 0 });
        let lent = orphan.into_iter().chain(here).take(self.lent);
        lent.enumerate().map(|(index, frame)| self.lent_frame_in(frame, index))
    }

    fn lent_frame_in<'a>(&self, frame: &'a [u8], index: usize) -> LentFrame<'a> {
        // Checked when it was indexed; nobody has written to it since.
        let header = FrameHeader::decode(frame, limits(u32::MAX)).ok().flatten().expect("a lent frame is whole");
        let content = &frame[HEADER_BYTES + ORIGIN_BYTES..];
        let (header_block, payload) = content.split_at(header.header_block_bytes as usize);
        let given_back = if index < self.given_back_span { self.given_back } else { 0 };
        LentFrame { header, origin: origin(frame), given_back, header_block, payload }
    }
}

/// A message in the inbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LentFrame<'a> {
    header: FrameHeader,
    origin: Origin,
    given_back: u32,
    pub(crate) header_block: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl LentFrame<'_> {
    pub(crate) fn info(&self) -> MessageInfo {
        let attempt = self.origin.attempt + self.given_back;
        MessageInfo::from_wire(
            self.origin.sender,
            self.origin.pid,
            self.header.sequence,
            self.header.sent_at_ns,
            attempt,
            attempt > 1 || self.header.flags.has(Flags::REDELIVERED),
            self.header.codec,
        )
    }
}

/// The highest sequence that was acknowledged, for each sender.
#[derive(Debug, Default)]
struct KnownSenders {
    /// The sender of the last message, because most come in runs. Not in `others`.
    last: Option<KnownSender>,
    others: HashMap<u64, KnownSender>,
}

impl KnownSenders {
    fn sequence(&self, sender: u64) -> u64 {
        match &self.last {
            Some(last) if last.sender == sender => last.sequence,
            _ => self.others.get(&sender).map_or(0, |known| known.sequence),
        }
    }

    fn note(&mut self, origin: Origin, sequence: u64) {
        if let Some(last) = self.last.as_mut().filter(|last| last.sender == origin.sender) {
            last.sequence = last.sequence.max(sequence);
            return;
        }
        let sequence = sequence.max(self.sequence(origin.sender));
        self.others.remove(&origin.sender);
        if let Some(earlier) = self.last.take() {
            if self.others.len() >= DEPARTED_SENDERS_MAX - 1 {
                // Any will do: this many senders do not come back all at once.
                let any = self.others.keys().next().copied();
                any.and_then(|sender| self.others.remove(&sender));
            }
            self.others.insert(earlier.sender, earlier);
        }
        let Origin { sender, pid, .. } = origin;
        self.last = Some(KnownSender { sender, pid, sequence, present: true });
    }

    fn all(&self) -> Vec<KnownSender> {
        self.last.iter().chain(self.others.values()).copied().collect()
    }
}

impl Kept for StreamReceiver {
    fn standing(&self) -> Standing {
        match &*lock(&self.link) {
            Link::Up(connection) => Standing::Up { connection: Arc::clone(connection), wants_room: false },
            Link::Away => Standing::Away,
            Link::Over => Standing::Over,
        }
    }

    fn tend(&self) -> bool {
        if !self.deferred.load(Ordering::SeqCst) {
            return false;
        }
        let Ok(mut state) = self.state.try_lock() else {
            if !self.asleep.load(Ordering::SeqCst) {
                // In use: look again soon, its user may stop.
                return true;
            }
            // Asleep it needs nobody. Should it wake at this very moment and put something off, one of
            // the two sees the other: it sets `asleep` before `deferred`, and here it is the reverse.
            self.deferred.store(false, Ordering::SeqCst);
            let woke = !self.asleep.load(Ordering::SeqCst);
            if woke {
                self.deferred.store(true, Ordering::SeqCst);
            }
            return woke;
        };
        if state.progress == state.told {
            self.deferred.store(false, Ordering::SeqCst);
            return false;
        }
        self.tell(&mut state, true);
        true
    }

    fn hung_up(&self) -> bool {
        let Ok(mut state) = self.state.try_lock() else { return false };
        let Some(connection) = state.connection.clone() else { return true };
        // What is still in the socket belongs to the deliveries: read it to its end.
        loop {
            match state.inbox.fill(&connection) {
                Ok(Fill::Bytes) => {}
                Ok(Fill::Nothing) => return true,
                Ok(Fill::Closed) | Err(_) => {
                    self.lose_link(&mut state);
                    self.changed.notify_all();
                    return true;
                }
            }
        }
    }

    fn reattach(&self) -> bool {
        let returning = {
            let Ok(state) = self.state.try_lock() else { return false };
            Returning { senders: state.known.all(), sender_seen: state.sender_seen, seated: state.seated }
        };
        let session = match self.options.dialer.dial(&Role::Receiver(hello(&self.options, Some(returning)))) {
            Ok(session) => session,
            Err(DialError::Refused(refused)) if is_final(refused.code) => {
                lock(&self.state).ended = Some(Ended::Refused(refused.text));
                *lock(&self.link) = Link::Over;
                self.changed.notify_all();
                return true;
            }
            Err(_) => return false,
        };
        let mut state = lock(&self.state);
        let begun = self.begin(&mut state, session);
        self.changed.notify_all();
        begun
    }
}

impl Drop for StreamReceiver {
    fn drop(&mut self) {
        let state = lock(&self.state);
        if let Some(connection) = &state.connection {
            let mut frame = Vec::new();
            put_control(Kind::Goodbye, &state.last_progress(), &mut frame);
            let _ = send_small(connection, &frame);
            connection.hang_up();
        }
        keeper::wake();
    }
}

/// The peer said something that makes no sense.
#[derive(Debug)]
struct Broken;

/// Milliseconds by a clock that ticks with the kernel and costs a quarter of the precise one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CoarseTime {
    ticks: (i64, i64),
}

impl CoarseTime {
    fn now() -> Self {
        let time = clock_gettime(ClockId::MonotonicCoarse);
        Self { ticks: (time.tv_sec, time.tv_nsec) }
    }
}

fn limits(message_max_bytes: u32) -> FrameLimits {
    FrameLimits { message_max_bytes, control_max_bytes: REPLY_MAX_BYTES }
}

fn origin(frame: &[u8]) -> Origin {
    frame[HEADER_BYTES..].first_chunk().map(Origin::decode).expect("a Deliver frame holds its origin")
}

fn sequence(frame: &[u8]) -> u64 {
    frame[FrameHeader::SEQUENCE_AT..]
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .expect("a frame holds its header")
}

fn hello(options: &ReceiverOptions, returning: Option<Returning>) -> ReceiverHello {
    ReceiverHello {
        channel: options.channel.clone(),
        declares: options.declares.clone(),
        standby: options.standby,
        until_disconnected: options.until_disconnected,
        returning,
    }
}

/// Writes a frame that is far smaller than a socket's buffer: the kernel takes it whole, unless the
/// daemon has not read for long.
fn send_small(connection: &Connection, frame: &[u8]) -> io::Result<()> {
    loop {
        match connection.send(&[IoSlice::new(frame)]) {
            Ok(bytes) if bytes == frame.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                connection.wait(Interest::Writable, None)?;
            }
            Err(error) => return Err(error),
        }
    }
}
