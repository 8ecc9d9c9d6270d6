//! A lane as its sender has it mapped, and the receiver that it honours there.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::thread::sched_getcpu;

use super::Encoded;
use crate::lane::board::Board;
use crate::lane::doorbell::{Doorbell, Ringer};
use crate::lane::layout::{MessageHeader, NOBODY, PAGE_BYTES, data};
use crate::lane::memory::{Fence, Memory};
use crate::lane::region::{Access, Map, MemoryFile};
use crate::lane::ring::{Bounds, Limits, NotWritten, Reader, SleepsAt, Start, Writer};
use crate::lane::stamp::now_ns;
use crate::name::ChannelName;
use crate::stream::handover::exactly;
use crate::stream::outbox::Outgoing;
use crate::stream::session::wall_clock_ns;
use crate::wire::{Flags, LaneBrought, LaneEnd, LaneId, LaneOffered, LaneProof, LaneStart};

/// How much of a ring is used at first, in bytes: it stays in the cache of a processor.
const FIRST_BYTES: u64 = 256 * 1024;

/// One lane, from its sender's side.
#[derive(Debug)]
pub(super) struct SenderLane {
    pub(super) id: LaneId,
    /// Where it lies, for the next daemon.
    pub(super) file: MemoryFile,
    pub(super) proof: LaneProof,
    pub(super) writer: Writer<Map, Cursor>,
    /// The receiver that it honours, or has honoured last.
    pub(super) generation: u64,
    pub(super) ring_bytes: u64,
    pub(super) window_messages: u64,
    pub(super) bell: Arc<Doorbell>,
    /// What rings that: for the next daemon, and for who gives room back that another waits for.
    pub(super) bell_ringer: Ringer,
    pub(super) ringer: Option<Ringer>,
    /// Of the message that was sent last.
    pub(super) sequence: u64,
    /// It may be sent to, and the daemon keeps what is sent.
    pub(super) kept: bool,
    /// Something that was sent before by the stream is not acknowledged.
    pub(super) owes_stream: bool,
    pub(super) looked_at_ns: u64,
    /// The daemon was told that its receiver writes what no receiver writes.
    pub(super) given_up: bool,
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

    pub(super) fn has_acknowledgements(&mut self) -> bool {
        let _ = self.writer.look();
        self.writer.was_seen()
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

    /// Whether there is room for a message where the last one ended.
    #[inline]
    pub(super) fn fits(&self, message: &Encoded<'_>) -> bool {
        self.writer.fits(self.header(message, 0).record_bytes())
    }

    /// Writes a message. Nobody sees it before it is [shown](Self::show).
    #[inline]
    pub(super) fn put(&mut self, message: &Encoded<'_>, stamp_ns: u64) -> Result<u64, NotWritten> {
        let header = self.header(message, stamp_ns);
        self.writer.write(&header, message.header_block, message.payload)?;
        self.sequence += 1;
        Ok(self.sequence)
    }

    #[inline]
    fn header(&self, message: &Encoded<'_>, stamp_ns: u64) -> MessageHeader {
        MessageHeader {
            flags: Flags::default(),
            codec: message.codec,
            sequence: self.sequence + 1,
            stamp_ns,
            payload_bytes: message.payload.len() as u32,
            header_block_bytes: message.header_block.len() as u32,
        }
    }

    /// Makes everything that was written visible, and wakes a receiver that sleeps.
    #[inline]
    pub(super) fn show(&mut self) {
        self.writer.publish();
        self.ring();
    }

    /// Writes a message if the window has room for it beside those that are not acknowledged on the stream.
    #[inline]
    pub(super) fn write_within(
        &mut self,
        message: &Encoded<'_>,
        stamp_ns: u64,
        on_stream: u64,
    ) -> Result<u64, NotWritten> {
        if on_stream > 0 && on_stream + self.unacknowledged() >= self.window_messages {
            return Err(NotWritten::Full);
        }
        let sequence = self.put(message, stamp_ns)?;
        self.show();
        Ok(sequence)
    }

    #[inline]
    pub(super) fn ring(&mut self) {
        if let Some(at) = self.writer.must_wake() {
            self.wake(at);
        }
    }

    #[cold]
    fn wake(&self, at: SleepsAt) {
        self.writer.wakes_from(sched_getcpu());
        match (at, &self.ringer) {
            (SleepsAt::Word, _) => self.writer.data().wake(data::WOKEN),
            (SleepsAt::Bell, Some(ringer)) => ringer.ring(),
            (SleepsAt::Bell, None) => {}
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
        // Of what was published before it was honoured.
        self.ring();
        if let Some(ringer) = &self.ringer {
            ringer.ring();
        }
    }

    /// Turns to nobody. Returns where the receiver stood.
    pub(super) fn turn_to_nobody(&mut self) -> Start {
        self.ringer = None;
        self.writer.turn(Cursor::Nobody, NOBODY)
    }

    /// Looks at its receiver no more, without saying so: nothing that it may not have read is written over.
    /// Returns what the next daemon has to know.
    pub(super) fn stand_still(&mut self, channel: &ChannelName, sender: u64) -> LaneBrought {
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
    pub(super) fn read_back(&self, start: Start, mut each: impl FnMut(Outgoing<'_>)) {
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
                confirm: false,
                // The daemon may have given the lane to a receiver of which nobody has told this end.
                redelivered: true,
                message: &Encoded { codec: record.header.codec, header_block: &block, payload: &payload },
            });
        }
        debug_assert_eq!(at.messages, self.writer.messages(), "everything that was published is read back");
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
