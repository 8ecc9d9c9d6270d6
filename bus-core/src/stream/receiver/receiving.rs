//! [`Receiving`]: what one receiving endpoint has, knows and owes, without its socket.
//!
//! **The driving rule:** let [`inbox`](Receiving::inbox) read; look at [`head`](Receiving::head) until
//! it gives a message or nothing; write what [`control`](Receiving::control) holds whenever the socket
//! takes it. A message may be lent when [`is_claimed`](Receiving::is_claimed) says that the daemon was
//! told. A connection that is gone is told by [`disconnected`](Receiving::disconnected), the next one
//! by [`connected`](Receiving::connected).

use std::collections::{HashMap, HashSet, VecDeque};

use super::known::KnownSenders;
use super::lent_frame::LentFrame;
use crate::channel::Peers;
use crate::error::Ended;
use crate::limits::{CLAIM_MESSAGES, MESSAGE_MAX_BYTES_MAX, REPLY_MAX_BYTES};
use crate::stream::control_queue::ControlQueue;
use crate::stream::inbox::Inbox;
use crate::wire::{
    Closing, ClosingCode, Flags, FrameHeader, FrameLimits, HEADER_BYTES, Kind, KnownSender, Origin, Progress,
    ReceiverWelcome, Returning, read_control,
};

/// One receiving endpoint.
#[derive(Debug)]
pub struct Receiving {
    /// What has come.
    pub inbox: Inbox,
    /// What is to be said.
    pub control: ControlQueue,
    /// Frames of a connection that broke, which nobody has seen yet. They come first.
    orphans: VecDeque<Vec<u8>>,
    progress: Progress,
    /// What the daemon was told, or is about to be.
    told: Progress,
    /// Bytes of the messages that are acknowledged and of which it was not told.
    untold_bytes: u64,
    /// How far it may be behind.
    lag_messages: u64,
    lag_bytes: u64,
    /// How many messages are claimed in advance at most.
    ahead_max: u64,
    /// Messages at the head that are handed out and not settled.
    lent: usize,
    /// How often each of the first messages here was given back: as many as were lent together.
    given_back: VecDeque<u32>,
    known: KnownSenders,
    message_max_bytes: u32,
    seated: bool,
    sender_seen: bool,
    peers: Option<Peers>,
    watching: bool,
    /// The daemon has said that it goes: what its peers do because of that means nothing.
    forsaken: bool,
    ended: Option<Ended>,
}

/// The message at the head.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    sequence: u64,
    origin: Origin,
    orphan: bool,
}

/// What tells the daemon that messages were seen: it counts an attempt for each that is claimed, and those
/// that it is told of the head.
struct Seen {
    claimed: u64,
    head_given_back: u32,
}

/// The daemon said something that makes no sense, or that it goes: the connection is given up.
#[derive(Debug)]
pub struct Broken;

impl Default for Receiving {
    fn default() -> Self {
        Self {
            inbox: Inbox::new(limits(0)),
            control: ControlQueue::default(),
            orphans: VecDeque::new(),
            progress: Progress::default(),
            told: Progress::default(),
            untold_bytes: 0,
            lag_messages: 1,
            lag_bytes: 0,
            ahead_max: CLAIM_MESSAGES,
            lent: 0,
            given_back: VecDeque::new(),
            known: KnownSenders::default(),
            message_max_bytes: 0,
            seated: false,
            sender_seen: false,
            peers: None,
            watching: false,
            forsaken: false,
            ended: None,
        }
    }
}

impl Receiving {
    // Connections.

    /// A new connection is there; `early` is what it has brought already.
    pub fn connected(&mut self, welcome: ReceiverWelcome, early: Inbox) {
        self.inbox = Inbox::new(limits(welcome.message_max_bytes));
        self.message_max_bytes = welcome.message_max_bytes;
        self.inbox.take_over(early);
        self.control.clear();
        self.progress = Progress::default();
        self.told = Progress::default();
        self.untold_bytes = 0;
        (self.lag_messages, self.lag_bytes) = (u64::from(welcome.lag_messages), u64::from(welcome.lag_bytes));
        self.seated = welcome.place_in_line == 0;
        self.watching = false;
        self.forsaken = false;
        self.peers = None;
    }

    /// Largest message, in bytes.
    pub fn message_max_bytes(&self) -> u32 {
        self.message_max_bytes
    }

    /// A sender was there.
    pub(crate) fn note_sender(&mut self) {
        self.sender_seen = true;
    }

    /// What to tell the next daemon.
    pub fn returning(&self) -> Returning {
        let mut senders = self.known.all();
        // Also those of whom it has acknowledged nothing, and holds something: they may hold more.
        let mut named: HashSet<u64> = senders.iter().map(|known| known.sender).collect();
        for Origin { sender, pid, .. } in self.orphans.iter().map(|frame| origin(frame)) {
            if named.insert(sender) {
                senders.push(KnownSender { sender, pid, sequence: 0 });
            }
        }
        Returning { senders, sender_seen: self.sender_seen, seated: self.seated, lanes: false }
    }

    /// The connection is gone. What it had brought whole stays, to be handed out first; unless the daemon
    /// closed it by order. What is not lent is the next receiver's then, which has it marked if it was
    /// claimed; of a channel that was deleted nobody has what was claimed but this one.
    pub fn disconnected(&mut self) {
        let frames: Vec<_> = self.inbox.frames().map(|(kind, frame)| (kind, frame.to_vec())).collect();
        self.inbox.clear();
        self.control.clear();
        self.watching = false;
        for (kind, frame) in &frames {
            if matches!(kind, Kind::Ended | Kind::Closing) {
                // An end in order is noticed by this; any other close is what has just happened.
                let _ = self.notice(*kind, &frame[HEADER_BYTES..]);
            }
        }
        let kept = match self.ended {
            Some(Ended::Kicked | Ended::Replaced | Ended::Refused(_)) => self.lent,
            Some(Ended::Deleted) => (self.progress.taken - self.progress.acked) as usize,
            Some(Ended::Disconnected) | None => usize::MAX,
        };
        let deliveries = frames.into_iter().filter(|(kind, _)| *kind == Kind::Deliver).map(|(_, frame)| frame);
        self.keep(deliveries.take(kept));
        self.progress.taken = self.progress.acked;
    }

    /// Keeps frames, each message once: what is here of an earlier connection has come again over this
    /// one.
    fn keep(&mut self, frames: impl Iterator<Item = Vec<u8>>) {
        let mut here: HashMap<u64, u64> = HashMap::new();
        for frame in &self.orphans {
            here.insert(origin(frame).sender, sequence(frame));
        }
        let fresh = frames.filter(|frame| here.get(&origin(frame).sender).is_none_or(|here| sequence(frame) > *here));
        self.orphans.extend(fresh.map(|mut frame| {
            // The next daemon may give the seat, and with it the same message, to another.
            frame[FrameHeader::FLAGS_AT] |= Flags::REDELIVERED;
            frame
        }));
    }

    /// The daemon does not let this receiver in again.
    pub fn refuse(&mut self, text: String) {
        self.ended = Some(Ended::Refused(text));
    }

    /// Others have gone on without this receiver, which was told to go.
    pub(crate) fn is_replaced(&mut self) {
        if self.ended == Some(Ended::Kicked) {
            self.ended = Some(Ended::Replaced);
        }
    }

    /// Another receiver has the seat that this one had.
    pub(crate) fn replace(&mut self) {
        self.ended = Some(Ended::Replaced);
    }

    /// Says that this end leaves, and how far it came.
    pub fn say_goodbye(&mut self) {
        let progress = self.last_progress();
        self.control.push(Kind::Goodbye, &progress);
    }

    /// What to say at the end: what was claimed in advance and never lent is not claimed any more.
    fn last_progress(&self) -> Progress {
        let seen = self.lent.max(self.seen_together()) as u64;
        Progress { taken: self.progress.taken.min(self.progress.acked + seen), ..self.progress }
    }

    // The way in.

    /// The next message, after taking notice of every control frame before it.
    pub fn head(&mut self) -> Result<Option<Head>, Broken> {
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
            Kind::Ended if self.forsaken => {}
            Kind::Ended => self.ended = Some(Ended::Disconnected),
            Kind::Peers => self.peers = Some(read_control(kind, body).map_err(|_| Broken)?),
            Kind::Recall => self.answer_recall(),
            // Looked at when they came.
            Kind::LaneGiven | Kind::SenderGone | Kind::LaneSkip => {}
            Kind::Closing => {
                let closing: Closing = read_control(kind, body).map_err(|_| Broken)?;
                match closing.code {
                    ClosingCode::ShuttingDown => {
                        self.forsaken = true;
                        return Err(Broken);
                    }
                    ClosingCode::Deleted => self.ended = Some(Ended::Deleted),
                    ClosingCode::Kicked => self.ended = Some(Ended::Kicked),
                    ClosingCode::Fault => self.ended = Some(Ended::Refused(closing.text)),
                }
            }
            _ => return Err(Broken),
        }
        Ok(())
    }

    fn answer_recall(&mut self) {
        // Nothing stands before the order: what was claimed has not come.
        self.progress.taken = self.progress.acked;
        self.control.push(Kind::Recalled, &self.progress);
        self.progress.head_given_back = 0;
        self.is_told();
    }

    /// Whether orders may be obeyed now, with nothing lent. Of a batch that was given back it is the claim
    /// that tells the attempts: that is handed out first.
    pub fn may_obey(&self) -> bool {
        (self.seen_together() == 0 || self.inbox.deliveries() == 0) && self.orphans.is_empty()
    }

    /// Takes notice of an order that stands behind messages: those go back, also when they were claimed.
    /// See [`may_obey`](Self::may_obey).
    ///
    /// A daemon that ends has nobody to give them to: then it is as if the connection broke, and they stay.
    pub fn obey(&mut self) -> Result<(), Broken> {
        if self.daemon_ends() {
            return Err(Broken);
        }
        self.progress.taken = self.progress.acked;
        while let Some(frame) = self.inbox.front().map_err(|_| Broken)?.filter(|_| self.inbox.has_order()) {
            if frame.kind == Kind::Deliver {
                // Until the daemon has answered with it, or without it, lanes are not to go past it.
                self.inbox.give_front_back();
                self.given_back.clear();
                continue;
            }
            let body = self.inbox.front_bytes()[HEADER_BYTES..].to_vec();
            self.inbox.pop_front();
            self.notice(frame.kind, &body)?;
        }
        Ok(())
    }

    fn daemon_ends(&self) -> bool {
        self.inbox.frames().any(|(kind, frame)| {
            let closing = (kind == Kind::Closing).then(|| read_control::<Closing>(kind, &frame[HEADER_BYTES..]));
            matches!(closing, Some(Ok(Closing { code: ClosingCode::ShuttingDown, .. })))
        })
    }

    /// Whether it holds the channel, and is not in line.
    #[must_use]
    pub fn is_seated(&self) -> bool {
        self.seated
    }

    /// Whether nothing is here, of whatever kind, and it has not ended.
    #[inline]
    pub(super) fn has_nothing(&self) -> bool {
        let (_, frames) = self.inbox.received();
        frames == 0 && self.orphans.is_empty() && self.ended.is_none() && !self.inbox.is_broken()
    }

    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Whether nothing comes any more, by the daemon's word.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// How many messages are here and not lent.
    pub fn waiting(&self) -> usize {
        (self.orphans.len() + self.inbox.deliveries()).saturating_sub(self.lent)
    }

    // Claims.

    /// Whether messages are lent from now on, or acknowledged before their user sees them. While one is
    /// lent nobody takes back what was claimed in advance, so that is less.
    pub fn will_lend(&mut self, lends: bool) {
        self.ahead_max = if lends { self.lag_messages.min(CLAIM_MESSAGES) } else { self.lag_messages }.max(2);
    }

    /// Whether more is claimed than what is lent.
    pub fn is_claimed_ahead(&self) -> bool {
        self.told.taken > self.progress.acked + self.lent as u64
    }

    /// Whether a message may be handed out: the daemon was told that it is claimed, and the socket has
    /// that whole. What an earlier daemon sent has nobody to claim it from.
    pub fn is_claimed(&self, head: &Head) -> bool {
        head.orphan || (self.told.taken > self.progress.acked && self.control.is_empty())
    }

    /// Claims the head; a busy receiver claims several at once.
    pub fn claim(&mut self, busy: bool) {
        if self.progress.taken == self.progress.acked {
            self.progress.taken += self.here(busy).max(1).max(self.ahead(busy));
        }
    }

    /// Claims the message that comes next: its user waits for it, and is not to wait for the claim as
    /// well. In line there is nothing to claim.
    pub fn claim_next(&mut self, busy: bool) {
        if self.seated && self.progress.taken == self.progress.acked {
            self.progress.taken += self.ahead(busy).max(1);
        }
    }

    /// How many of the messages that are here to claim at once.
    fn here(&self, busy: bool) -> u64 {
        (self.inbox.deliveries() as u64).min(if busy { CLAIM_MESSAGES } else { 1 })
    }

    /// How many messages to claim whether they are here or not: twice as many as were taken since the
    /// daemon was last told, so that what is claimed is never more than the work of a few milliseconds.
    fn ahead(&self, busy: bool) -> u64 {
        match self.acknowledgements_owed() {
            _ if self.lag_messages == 1 => 0,
            0 => 0,
            1 if !busy => 0,
            taken => (2 * taken).clamp(2, self.ahead_max),
        }
    }

    /// Whether the daemon knows less than this end.
    pub fn owes_progress(&self) -> bool {
        self.progress != self.told
    }

    /// How many acknowledgements the daemon has not been told.
    fn acknowledgements_owed(&self) -> u64 {
        self.progress.acked - self.told.acked
    }

    /// Whether that is as much as may be.
    pub fn owes_much(&self) -> bool {
        self.acknowledgements_owed() >= self.lag_messages.max(CLAIM_MESSAGES) || self.untold_bytes >= self.lag_bytes
    }

    /// Whether its user may wait for the next message without the daemon being told anything first: that
    /// it is claimed is known there.
    pub fn may_wait_untold(&self) -> bool {
        let is_claimed = self.told.taken > self.progress.acked && self.told.head_given_back == 0;
        self.lag_messages > 1 && is_claimed && self.control.is_empty() && !self.owes_much()
    }

    /// What to tell the daemon when nothing has changed for a while: what is lent is claimed, or the next
    /// message, for which the user of this end waits; and no others.
    pub fn untold(&self) -> Option<Progress> {
        let claimed = self.lent.max(self.seen_together()).max(1) as u64;
        let resting = Progress { taken: self.progress.taken.min(self.progress.acked + claimed), ..self.progress };
        (resting != self.told).then_some(resting)
    }

    /// Whether another than its user may tell how far this end is: what it said before is written, and the
    /// daemon knows of what is lent.
    pub fn may_be_told(&self) -> bool {
        self.control.is_empty() && self.orphans.is_empty()
    }

    /// That was told, or will be with the rest of a frame.
    pub fn was_told(&mut self, progress: Progress, rest: ControlQueue) {
        self.progress = progress;
        self.is_told();
        self.control = rest;
    }

    /// Claims as much in advance as is right now: more, or less.
    pub fn claim_ahead(&mut self, busy: bool) {
        if self.seated && self.lent == 0 && self.given_back.is_empty() {
            let next = u64::from(self.progress.taken > self.progress.acked);
            self.progress.taken = self.progress.acked + self.ahead(busy).max(next);
        }
    }

    /// Claims nothing any more that is not lent: the user of this end does something else.
    pub fn claim_no_more(&mut self) {
        self.progress = self.last_progress();
    }

    fn is_told(&mut self) {
        self.told = self.progress;
        self.untold_bytes = 0;
    }

    /// Tells how far this end is, once everything that was said before is written.
    pub fn say_progress(&mut self) {
        if self.owes_progress() && self.control.is_empty() {
            self.control.push(Kind::Progress, &self.progress);
            self.is_told();
        }
    }

    /// Says that the head is acknowledged before anybody has seen it, and claims with it those that
    /// follow when `busy`. See [`unsay`](Self::unsay) and [`taken`](Self::taken).
    pub fn say_taken(&mut self, busy: bool) -> Progress {
        let acked = self.progress.acked + 1;
        let seen = self.seen_from(1);
        let follow = (self.here(busy) - 1).max(self.ahead(busy)).max(seen.claimed);
        let said = Progress { taken: acked + follow, acked, head_given_back: seen.head_given_back };
        self.control.push(Kind::Progress, &said);
        said
    }

    /// Takes back what was said last, of which the socket took nothing. `false` when it took a part.
    pub fn unsay(&mut self) -> bool {
        let unsaid = !self.control.has_begun();
        if unsaid {
            self.control.clear();
        }
        unsaid
    }

    /// What [`say_taken`](Self::say_taken) said is in the socket, or will be: acknowledges the head.
    pub fn taken(&mut self, head: &Head, said: Progress) {
        self.lent = 0;
        self.settle_head(head);
        self.progress = said;
        self.is_told();
    }

    // Lending.

    /// Whether this receiver has acknowledged the message before, over an earlier connection.
    pub fn is_known(&self, head: &Head) -> bool {
        self.known.sequence(head.origin.sender) >= head.sequence
    }

    /// Whether a message of a sender was acknowledged here, by whatever way it came.
    pub fn knows(&self, sender: u64, sequence: u64) -> bool {
        self.known.sequence(sender) >= sequence
    }

    /// The last message of a sender that was acknowledged here.
    pub fn known_of(&self, sender: u64) -> u64 {
        self.known.sequence(sender)
    }

    /// A message was acknowledged that came by another way.
    pub fn note(&mut self, origin: Origin, sequence: u64) {
        if !self.knows(origin.sender, sequence) {
            self.known.note(origin, sequence);
        }
    }

    /// How many messages are lent.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// Lends the first `count`, and no others.
    pub fn lend(&mut self, count: usize) {
        self.lent = count;
    }

    /// How many could be lent, from the head on: `most`, when they are here and not known.
    pub fn lendable(&self, head: &Head, most: usize) -> usize {
        if head.orphan {
            return 1;
        }
        let known = |frame: &[u8]| self.known.sequence(origin(frame).sender) >= sequence(frame);
        let follow = self.inbox.frames().take(most).skip(1);
        1 + follow.take_while(|(kind, frame)| *kind == Kind::Deliver && !known(frame)).count()
    }

    /// Claims the first `count`.
    pub fn claim_through(&mut self, count: usize) {
        self.progress.taken = self.progress.taken.max(self.progress.acked + count as u64);
    }

    /// Whether the daemon was told that the first `count` are claimed.
    pub fn is_claimed_through(&self, count: usize) -> bool {
        self.told.taken >= self.progress.acked + count as u64 && self.control.is_empty()
    }

    /// Acknowledges the first `count` of those that are lent, and takes the others back. Returns whether
    /// there were others.
    pub fn settle(&mut self, count: usize) -> bool {
        let lent = std::mem::take(&mut self.lent);
        for _ in 0..count.min(lent) {
            if let Ok(Some(head)) = self.head() {
                self.settle_head(&head);
            }
        }
        if count < lent {
            self.take_back(lent - count);
        } else if !self.given_back.is_empty() && self.orphans.is_empty() {
            self.claim_seen();
        }
        count < lent
    }

    /// Acknowledges the head, which is lent alone.
    pub fn settle_alone(&mut self, head: &Head) {
        self.lent = 0;
        self.settle_head(head);
        if !self.given_back.is_empty() && self.orphans.is_empty() {
            self.claim_seen();
        }
    }

    /// The first `span` messages are not lent any more: they come again, first.
    ///
    /// The daemon counts an attempt for each message that is claimed when the receiver dies. A head that
    /// alone was given back is not claimed any more, and its attempts are told; of several it is the claim
    /// that tells one of them.
    fn take_back(&mut self, span: usize) {
        if self.given_back.len() < span {
            self.given_back.resize(span, 0);
        }
        self.given_back.iter_mut().take(span).for_each(|times| *times += 1);
        if self.orphans.is_empty() {
            self.claim_seen();
        }
    }

    /// Claims of what is not lent that which was, and no more.
    fn claim_seen(&mut self) {
        let seen = self.seen_from(0);
        self.progress.taken = self.progress.acked + seen.claimed;
        self.progress.head_given_back = seen.head_given_back;
    }

    /// How the daemon is to know of messages here that were lent and given back, once `settled` are out of
    /// the way.
    fn seen_from(&self, settled: usize) -> Seen {
        let head = self.given_back.get(settled).copied().unwrap_or(0);
        match self.given_back.len().saturating_sub(settled) {
            0 | 1 => Seen { claimed: 0, head_given_back: head },
            several => Seen { claimed: several as u64, head_given_back: head.saturating_sub(1) },
        }
    }

    /// How many messages have been lent together and given back, the head counted; 0 when it was the head
    /// alone.
    fn seen_together(&self) -> usize {
        self.seen_from(0).claimed as usize
    }

    /// Acknowledges the head.
    pub fn settle_head(&mut self, head: &Head) {
        self.known.note(head.origin, head.sequence);
        self.given_back.pop_front();
        if head.orphan {
            self.orphans.pop_front();
            return;
        }
        self.progress.head_given_back = self.seen_from(0).head_given_back;
        self.untold_bytes += self.inbox.front_bytes().len() as u64;
        self.inbox.pop_front();
        self.progress.acked += 1;
        self.progress.taken = self.progress.taken.max(self.progress.acked);
    }

    /// The frame of the head, which is lent.
    pub fn lent_frame(&self) -> LentFrame<'_> {
        let frame = self.orphans.front().map_or(self.inbox.front_bytes(), Vec::as_slice);
        self.lent_frame_in(frame, 0)
    }

    /// The frames that are lent, in order.
    pub fn lent_frames(&self) -> impl Iterator<Item = LentFrame<'_>> {
        let orphan = self.orphans.front().map(Vec::as_slice);
        let here = self.inbox.frames().map(|(_, frame)| frame).skip(if orphan.is_some() { usize::MAX } else { 0 });
        let lent = orphan.into_iter().chain(here).take(self.lent);
        lent.enumerate().map(|(index, frame)| self.lent_frame_in(frame, index))
    }

    fn lent_frame_in<'a>(&self, frame: &'a [u8], index: usize) -> LentFrame<'a> {
        LentFrame::of_stream(frame, self.given_back.get(index).copied().unwrap_or(0))
    }

    // Peers.

    /// Asks to be told who is at the channel, from now on.
    pub fn watch_peers(&mut self) {
        if !std::mem::replace(&mut self.watching, true) {
            self.control.push(Kind::Watch, &());
        }
    }

    /// Who is at the channel, as last told, wherever among the messages here that stands.
    pub fn peers(&mut self) -> Option<Peers> {
        let told = self.inbox.frames().filter(|(kind, _)| *kind == Kind::Peers).last();
        if let Some(peers) = told.and_then(|(kind, frame)| read_control(kind, &frame[HEADER_BYTES..]).ok()) {
            self.peers = Some(peers);
        }
        self.peers
    }
}

impl Head {
    /// When the daemon accepted it, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) fn accepted_at_ns(&self) -> u64 {
        self.origin.accepted_at_ns
    }
}

fn limits(message_max_bytes: u32) -> FrameLimits {
    FrameLimits { message_max_bytes: message_max_bytes.min(MESSAGE_MAX_BYTES_MAX), control_max_bytes: REPLY_MAX_BYTES }
}

/// What stands at the front of a frame that is here whole.
pub(super) fn header(frame: &[u8]) -> FrameHeader {
    // Checked when it was indexed; nobody has written to it since.
    FrameHeader::decode(frame, limits(u32::MAX)).ok().flatten().expect("a lent frame is whole")
}

pub(super) fn origin(frame: &[u8]) -> Origin {
    frame[HEADER_BYTES..].first_chunk().map(Origin::decode).expect("a Deliver frame holds its origin")
}

fn sequence(frame: &[u8]) -> u64 {
    frame[FrameHeader::SEQUENCE_AT..]
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .expect("a frame holds its header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::put_control;

    /// The connections of all senders end with it, and one that ran before this was known told so.
    #[test]
    fn that_all_senders_have_left_means_nothing_behind_that_the_daemon_goes() {
        let closing = Closing { code: ClosingCode::ShuttingDown, text: "the daemon is ending".to_owned() };
        for is_read in [true, false] {
            let mut receiving = Receiving::default();
            let mut frames = Vec::new();
            put_control(Kind::Closing, &closing, &mut frames);
            put_control(Kind::Ended, &(), &mut frames);
            receiving.inbox = Inbox::new(limits(1024));
            receiving.inbox.take_in(&frames);
            assert!(!is_read || receiving.head().is_err());
            receiving.disconnected();
            assert_eq!(receiving.ended(), None);
        }
    }
}
