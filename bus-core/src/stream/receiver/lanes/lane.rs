//! One lane, from its receiver's side.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::{Content, Ends, Lane, Lent};
use crate::lane::board::Board;
use crate::lane::doorbell::{Doorbell, Ringer};
use crate::lane::layout::PAGE_BYTES;
use crate::lane::region::{Access, MemoryFile};
use crate::lane::ring::{Broken, Limits, Position, Reader, Record, Start};
use crate::lane::stamp::now_ns;
use crate::limits::CLAIM_MESSAGES;
use crate::name::ChannelName;
use crate::stream::handover::exactly;
use crate::stream::receiver::skips::Skips;
use crate::wire::{LaneAttempts, LaneBrought, LaneEnd, LaneGiven, LaneStart, Origin};

/// For how much room a sender that waits is worth to be rung for, in bytes: less than a quarter of what lies in its
/// lane, where that is much.
const WORTH_BYTES: u64 = 64 * 1024;

impl Lane {
    /// Maps what was fetched.
    pub(in crate::stream::receiver) fn new(
        given: LaneGiven,
        message_max_bytes: u32,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<(Self, Ends)> {
        let [data, cursor, ringer, bell, board] = exactly(descriptors)?;
        let ring = usize::try_from(given.ring_bytes).map_err(io::Error::other)?;
        let file = MemoryFile::open_checked(data, PAGE_BYTES + ring, Access::Read).map_err(io::Error::other)?;
        let cursor = MemoryFile::open_checked(cursor, PAGE_BYTES, Access::Write).map_err(io::Error::other)?;
        let board = MemoryFile::open_checked(board, PAGE_BYTES, Access::Read).map_err(io::Error::other)?;
        let LaneStart { logical, place, messages } = given.start;
        let start = Start { logical, place, messages, taken: messages };
        let limits = Limits { ring_bytes: given.ring_bytes, message_max_bytes };
        let reader = Reader::new(file.map_readable()?, cursor.map_writable()?, limits, given.generation, start);
        let mut lane = Self {
            id: given.lane,
            file,
            proof: given.proof,
            generation: given.generation,
            next: reader.head(),
            first_tail: 0,
            second_tail: 0,
            reader,
            ringer: Arc::new(Ringer::new(ringer)),
            sender: given.sender,
            pid: given.pid,
            not_before_ns: given.not_before_ns,
            attempts: given.attempts,
            known_through: 0,
            sender_gone: false,
            orphaned: false,
            brought: given.brought,
            head: None,
            alike: None,
            begun: false,
            skips: Skips::default(),
            stream_is_read: false,
            given_back: Vec::new(),
            sequence: 0,
            released: false,
            ring_at: None,
        };
        let _ = lane.reader.look();
        if given.sender_gone {
            lane.sender_is_gone();
        }
        Ok((lane, (Doorbell::new(bell), Board::new(board.map_readable()?))))
    }

    /// Messages that are acknowledged, since the lane began.
    pub(in crate::stream::receiver) fn messages(&self) -> u64 {
        self.reader.head().messages
    }

    /// Nothing more comes, and everything is acknowledged. An orphan goes on for as long as its sender has not
    /// turned away.
    pub(super) fn is_over(&mut self) -> bool {
        if self.orphaned && !self.sender_gone && (!self.reader.is_honoured() || self.ringer.is_deserted()) {
            self.sender_is_gone();
        }
        self.sender_gone && self.next == self.reader.head() && self.next.logical == self.reader.tail()
    }

    /// Nobody writes any more: what a look shows from now on is all there will be.
    pub(in crate::stream::receiver) fn sender_is_gone(&mut self) {
        self.sender_gone = true;
        if self.brought && !self.reader.stream_is_settled() {
            // All that it had sent before by the stream the daemon has accepted by now.
            self.not_before_ns = now_ns();
        }
        // What cannot be shows again where messages are looked for.
        let _ = self.reader.look();
    }

    pub(super) fn look(&mut self) -> Result<(), Broken> {
        self.reader.look()
    }

    /// The first message that is not handed out, if it was seen at the second look.
    #[inline]
    pub(super) fn head(&mut self) -> Result<Option<Record>, Broken> {
        if self.waits_to_pass() {
            self.pass_over();
        }
        while self.head.is_none() && self.next.logical < self.second_tail {
            if let Some(behind) = self.skips.behind(self.next) {
                self.next = behind;
                continue;
            }
            let record = self.reader.record(self.next)?;
            match record.filter(|_| self.skips.take(self.next.messages)) {
                Some(record) => self.skip(&record),
                None => self.head = record,
            }
        }
        Ok(self.head)
    }

    /// Passes over a message that is not to be handed out.
    #[cold]
    pub(super) fn skip(&mut self, record: &Record) {
        self.skips.note(self.next, record.next);
        self.next = record.next;
        self.pass_over();
    }

    /// Whether the first messages that are not acknowledged were passed over, and something before them is not settled.
    #[inline]
    pub(super) fn waits_to_pass(&self) -> bool {
        !self.skips.is_passed_nothing() && self.skips.behind(self.reader.head()).is_some()
    }

    /// Acknowledges what was passed over, once all before it is settled: whoever acknowledges something in a lane has
    /// acknowledged all that its sender sent before, also by the stream.
    fn pass_over(&mut self) {
        let head = self.reader.head();
        let Some(through) = self.skips.behind(head).filter(|_| self.stream_before_is_settled()) else { return };
        self.acknowledge_through(head);
        if self.next.logical < through.logical {
            (self.next, self.head) = (through, None);
        }
    }

    /// Whether nothing is on its way any more that was sent before the lane; or nobody is left who would send it again.
    fn stream_before_is_settled(&self) -> bool {
        // What its user has seen of the lane came behind all of that.
        self.sequence > 0 || self.stream_is_read || self.sender_gone || self.reader.stream_is_settled()
    }

    /// All has come that its sender sent before by the stream, and is settled.
    pub(super) fn stream_is_read(&mut self) {
        self.stream_is_read = true;
        self.pass_over();
    }

    /// Acknowledges everything before a position, and what was passed over behind it. Returns how far that goes.
    #[inline]
    pub(super) fn acknowledge_through(&mut self, through: Position) -> Position {
        let through = self.skips.passed(through);
        let gone = through.messages - self.messages();
        self.reader.acknowledge(through);
        if !self.given_back.is_empty() {
            // Attempts are those of a message, and go with it.
            self.given_back.drain(..self.given_back.len().min(gone as usize));
            self.say_given_back();
        }
        through
    }

    /// Says how often the head was given back, for the next receiver.
    pub(super) fn say_given_back(&mut self) {
        let head = self.given_back.first().copied().unwrap_or(0);
        // The claim that stands counts one attempt.
        self.reader.give_back(head.saturating_sub(1));
    }

    /// How many were skipped since this was asked last.
    pub(super) fn skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skips.untold)
    }

    /// Whether its messages wait for what its sender sent before by the stream: the daemon that has it is gone, and
    /// the sender sends it again.
    pub(super) fn waits_for_stream(&mut self, is_up: bool) -> bool {
        if is_up && !self.orphaned && !self.brought || self.released {
            return false;
        }
        let deserted = || (!is_up || self.orphaned) && self.ringer.is_deserted();
        if self.reader.stream_is_settled() || self.sender_gone {
            self.released = true;
        } else if deserted() {
            // Without a daemon that could tell. What of the stream is here comes first.
            (self.released, self.not_before_ns) = (true, now_ns());
        }
        !self.released
    }

    /// What the next daemon has to know; nothing when another receiver has it. This one takes nothing more.
    ///
    /// A sender that has turned away from this one, and to nobody else yet, has brought the lane to a daemon that may
    /// have died since, and may be dead itself: then nobody else has what is in it.
    pub(in crate::stream::receiver) fn brought(&self, channel: &ChannelName) -> Option<LaneBrought> {
        let head = self.reader.head();
        let mut attempts = self.attempts.clone();
        // The claim counts one attempt.
        let given_back = self.given_back.first().map_or(0, |times| times.saturating_sub(1));
        attempts.push(LaneAttempts { before: head.messages + 1, times: given_back });
        (!self.reader.is_anothers()).then(|| LaneBrought {
            lane: self.id,
            proof: self.proof,
            channel: channel.clone(),
            sender: self.sender,
            pid: self.pid,
            by: LaneEnd::Receiver,
            ring_bytes: (self.file.bytes() - PAGE_BYTES) as u64,
            generation: self.generation,
            not_before_ns: self.not_before_ns,
            start: LaneStart { logical: head.logical, place: head.place, messages: head.messages },
            attempts,
        })
    }

    /// What goes to the next daemon with that.
    pub(in crate::stream::receiver) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.file.as_fd(), self.ringer.as_fd()]
    }

    #[inline]
    pub(super) fn stamp_ns(&self, record: &Record, clock_ns: u64) -> u64 {
        record.header.stamp_ns.max(self.not_before_ns).min(clock_ns)
    }

    #[inline]
    pub(super) fn is_claimed(&self, messages: u64) -> bool {
        messages <= self.reader.taken()
    }

    /// Claims so many messages, and some of what follows. `false` when its sender honours another receiver.
    pub(super) fn claim(&mut self, messages: u64) -> bool {
        let ahead = (messages - 1 + CLAIM_MESSAGES).min(self.reader.published());
        self.reader.claim(messages.max(ahead))
    }

    /// Its receiver hands out nothing more, and nothing is lent: the claim ends behind what was given back.
    pub(super) fn end_claim(&mut self) {
        let given_back = self.given_back.iter().rposition(|times| *times > 0).map_or(0, |last| last + 1);
        self.reader.end_claim(self.messages() + given_back as u64);
    }

    /// A message as it is lent for the first time, without a copy of its content.
    #[inline(always)]
    pub(super) fn lends(&self, record: Record) -> Lent {
        let Self { id: lane, sender, pid, .. } = *self;
        Lent { lane, sender, pid, attempt: 1, given_back: 0, content: Content::default(), record }
    }

    /// How often a message was handed out by earlier receivers, this time included.
    pub(super) fn attempt(&self, message: u64) -> u32 {
        let earlier = self.attempts.iter().filter(|seen| message <= seen.before).map(|seen| seen.times);
        earlier.fold(1, u32::saturating_add)
    }

    pub(in crate::stream::receiver) fn origin(&self) -> Origin {
        Origin { sender: self.sender, accepted_at_ns: 0, pid: self.pid, attempt: 1 }
    }

    pub(in crate::stream::receiver) fn last_sequence(&self) -> u64 {
        self.sequence
    }

    pub(in crate::stream::receiver) fn is_orphaned(&self) -> bool {
        self.orphaned
    }

    pub(super) fn has_news(&mut self, is_up: bool) -> bool {
        // One that waits for the stream has it when that has come.
        let has_news =
            self.look().is_err() || (self.next.logical < self.reader.tail() && !self.waits_for_stream(is_up));
        if has_news {
            self.reader.fetch(self.next);
        }
        has_news
    }

    /// Rings for a sender that waits for room, once there is so much that it can work for a while.
    pub(super) fn ring_when_worth_it(&mut self) {
        let head = self.reader.head().logical;
        if self.ring_at.is_none() && self.reader.must_ring() {
            let quarter = (self.reader.tail() - head) / 4;
            // What is so little is not worth to be waited for.
            self.ring_at = Some(if quarter < WORTH_BYTES { head } else { head + quarter });
        }
        if self.ring_at.is_some_and(|at| head >= at) {
            self.ring_at = None;
            self.ringer.ring();
        }
    }

    pub(super) fn ring_now(&mut self) {
        if self.ring_at.take().is_some() || self.reader.must_ring() {
            self.ringer.ring();
        }
    }
}
