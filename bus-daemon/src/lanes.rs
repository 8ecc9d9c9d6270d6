//! [`LaneStore`]: the memory of lanes, as the daemon keeps it. It maps what it writes and what is at rest, and
//! reads no message.
//!
//! Each file has one writer in another process. It is sealed when that has mapped it, and only then handed to
//! anybody else.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus_core::lane::board::Board;
use bus_core::lane::doorbell::{Doorbell, Ringer, doorbell};
use bus_core::lane::layout::{NOBODY, PAGE_BYTES, data};
use bus_core::lane::memory::Memory as _;
use bus_core::lane::region::{Access, Map, MemoryFile};
use bus_core::lane::ring::{Counts, Limits, Position, Start, at_rest, counts, walk, write_cursor};
use bus_core::wire::{LaneEnd, LaneId, LaneStart};

use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

use crate::broker::{AtRest, LaneBooks, LaneMessage, LanePart, LaneSize, PeerId};

/// All lanes, and what their receivers have once.
#[derive(Debug, Default)]
pub(crate) struct LaneStore {
    lanes: HashMap<LaneId, Files>,
    books: Books,
    receivers: HashMap<PeerId, ReceiverEnds>,
    /// How many frames receivers are due.
    dues: HashMap<PeerId, u64>,
}

/// The first pages of all lanes, from which the broker reads how much is in them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books(Arc<Mutex<HashMap<LaneId, Heads>>>);

#[derive(Debug)]
struct Heads {
    file: Arc<MemoryFile>,
    /// All of it, once somebody has looked.
    all: Option<Arc<Map>>,
    data: Map,
    cursor: Option<Map>,
}

impl Books {
    fn lock(&self) -> MutexGuard<'_, HashMap<LaneId, Heads>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LaneBooks for Books {
    fn counts(&self, lane: LaneId) -> Counts {
        self.lock().get(&lane).map(|heads| counts(&heads.data, heads.cursor.as_ref())).unwrap_or_default()
    }

    fn position(&self, lane: LaneId) -> Option<LaneStart> {
        self.lock().get(&lane)?.cursor.as_ref().and_then(|cursor| at_rest(cursor).start).map(lane_start)
    }

    fn walk(
        &self,
        lane: LaneId,
        from: LaneStart,
        message_max_bytes: u32,
        each: &mut dyn FnMut(LaneMessage<'_>) -> bool,
    ) -> Option<LaneStart> {
        // What cannot be mapped or read is not shown: whoever reads the lane finds out for itself.
        let (map, bytes) = self.lock().get_mut(&lane)?.all().ok()?;
        let LaneStart { logical, place, messages } = from;
        let limits = Limits { ring_bytes: (bytes - PAGE_BYTES) as u64, message_max_bytes };
        let start = Start { logical, place, messages, taken: messages };
        let mut at = from;
        let walked = walk(&*map, limits, start, |reader, record| {
            let goes_on = each(LaneMessage {
                at,
                header: record.header,
                read: &|out: &mut Vec<u8>| {
                    let (block, payload) = (record.header.header_block_bytes as usize, record.header.payload_bytes);
                    let begin = out.len();
                    out.resize(begin + block + payload as usize, 0);
                    let (to_block, to_payload) = out[begin..].split_at_mut(block);
                    reader.copy_header_block(record, to_block);
                    reader.copy_payload(record, to_payload);
                },
            });
            let Position { logical, place, messages } = record.next;
            at = LaneStart { logical, place, messages };
            goes_on
        });
        walked.ok().map(lane_start)
    }
}

impl Heads {
    /// A map of all of it, and its length.
    fn all(&mut self) -> io::Result<(Arc<Map>, usize)> {
        let map = match &self.all {
            Some(map) => Arc::clone(map),
            None => Arc::clone(self.all.insert(Arc::new(self.file.map_to_read()?))),
        };
        Ok((map, self.file.bytes()))
    }
}

fn lane_start(start: Start) -> LaneStart {
    LaneStart { logical: start.logical, place: start.place, messages: start.messages }
}

#[derive(Debug)]
struct Files {
    data: Arc<MemoryFile>,
    /// Of the present receiver.
    cursor: Option<MemoryFile>,
    /// Until its sender has it.
    bell: Option<Doorbell>,
    ringer: Ringer,
}

#[derive(Debug)]
struct ReceiverEnds {
    bell: Doorbell,
    ringer: Ringer,
    board: MemoryFile,
    shown: Board<Map>,
}

impl LaneStore {
    /// Makes the memory of a lane.
    ///
    /// # Errors
    /// What the system says: no descriptors left, or memory files forbidden.
    pub(crate) fn make(&mut self, lane: LaneId, size: LaneSize) -> io::Result<u64> {
        let data = MemoryFile::create("bus-lane", PAGE_BYTES + size.ring_bytes as usize)?;
        // Whoever reads it gets it by another descriptor, and nowhere without.
        let head = data.watch_head()?;
        let (bell, ringer) = doorbell()?;
        let number = data.number()?;
        let data = Arc::new(data);
        self.books.lock().insert(lane, Heads { file: Arc::clone(&data), all: None, data: head, cursor: None });
        self.lanes.insert(lane, Files { data, cursor: None, bell: Some(bell), ringer });
        Ok(number)
    }

    /// Takes the memory of a lane that an earlier daemon made. Returns the number of its file, or `None` when the
    /// lane is here already.
    ///
    /// # Errors
    /// When it is not what it has to be, or what the system says.
    pub(crate) fn adopt(
        &mut self,
        lane: LaneId,
        by: LaneEnd,
        ring_bytes: u64,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<Option<u64>> {
        if self.lanes.contains_key(&lane) {
            return Ok(None);
        }
        let came = descriptors.len();
        let [data, ringer] = <[OwnedFd; 2]>::try_from(descriptors)
            .map_err(|_| io::Error::other(format!("{came} descriptors came with it, and 2 were to come")))?;
        // Whatever else it is, others would wait for it.
        if socket_domain(&ringer)? != AddressFamily::UNIX || socket_type(&ringer)? != SocketType::STREAM {
            return Err(io::Error::other("what is to ring its sender is no bell"));
        }
        let bytes = PAGE_BYTES + usize::try_from(ring_bytes).map_err(io::Error::other)?;
        let data = match by {
            LaneEnd::Sender => MemoryFile::open_checked(data, bytes, Access::Write).map_err(io::Error::other)?,
            // What is sealed against writing can be opened for that, so that it can be frozen.
            LaneEnd::Receiver => {
                MemoryFile::open_checked(data, bytes, Access::Read).map_err(io::Error::other)?.reopen_writable()?
            }
        };
        data.forbid_new_writers()?;
        let head = data.watch_head()?;
        if head.load(data::GENERATION) == NOBODY {
            return Err(io::Error::other("its sender has left it: what is in it comes by the stream"));
        }
        let number = data.number()?;
        let data = Arc::new(data);
        self.books.lock().insert(lane, Heads { file: Arc::clone(&data), all: None, data: head, cursor: None });
        self.lanes.insert(lane, Files { data, cursor: None, bell: None, ringer: Ringer::new(ringer) });
        Ok(Some(number))
    }

    /// There is to be a cursor for another receiver.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new_cursor(&mut self, lane: LaneId) -> io::Result<()> {
        if let Some(files) = self.lanes.get_mut(&lane) {
            // What the last receiver had is nothing for the next: without a new one it fetches nothing.
            files.cursor = None;
            let cursor = MemoryFile::create("bus-cursor", PAGE_BYTES)?;
            if let Some(heads) = self.books.lock().get_mut(&lane) {
                heads.cursor = Some(cursor.watch_head()?);
            }
            files.cursor = Some(cursor);
        }
        Ok(())
    }

    /// There is no receiver: there is to be a cursor that says that one stands here, and stays so.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn stand_in(&mut self, lane: LaneId, at: LaneStart) -> io::Result<()> {
        self.new_cursor(lane)?;
        let Some(cursor) = self.lanes.get(&lane).and_then(|files| files.cursor.as_ref()) else { return Ok(()) };
        let LaneStart { logical, place, messages } = at;
        write_cursor(&cursor.map_writable()?, Start { logical, place, messages, taken: messages });
        cursor.forbid_new_writers()
    }

    /// The descriptors that a fetch gets.
    ///
    /// # Errors
    /// What the system says, or `NotFound` when the lane is gone.
    pub(crate) fn descriptors(&mut self, lane: LaneId, part: LanePart) -> io::Result<Vec<OwnedFd>> {
        if let LanePart::ForReceiver(receiver) = part
            && !self.receivers.contains_key(&receiver)
        {
            let ends = ReceiverEnds::new()?;
            // What it was shown before it had a board.
            ends.shown.show(self.dues.get(&receiver).copied().unwrap_or(0));
            self.receivers.insert(receiver, ends);
        }
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let files = self.lanes.get(&lane).ok_or_else(gone)?;
        let cursor = files.cursor.as_ref().ok_or_else(gone);
        let ends = |receiver: &PeerId| self.receivers.get(receiver).ok_or_else(gone);
        let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned();
        Ok(match &part {
            LanePart::ForSender => {
                let bell = files.bell.as_ref().ok_or_else(gone)?;
                vec![own(files.data.as_fd())?, own(bell.as_fd())?, own(files.ringer.as_fd())?]
            }
            LanePart::ForReceiver(receiver) => {
                let ends = ends(receiver)?;
                vec![
                    files.data.reading_descriptor()?,
                    own(cursor?.as_fd())?,
                    own(files.ringer.as_fd())?,
                    own(ends.bell.as_fd())?,
                    ends.board.reading_descriptor()?,
                ]
            }
            LanePart::StandIn => {
                // Nobody sleeps there.
                let (_, ringer) = doorbell()?;
                vec![cursor?.reading_descriptor()?, own(ringer.as_fd())?]
            }
            LanePart::Cursor(receiver) => vec![cursor?.reading_descriptor()?, own(ends(receiver)?.ringer.as_fd())?],
        })
    }

    /// The sender has mapped its data.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn seal_data(&self, lane: LaneId) -> io::Result<()> {
        self.lanes.get(&lane).map_or(Ok(()), |files| files.data.forbid_new_writers())
    }

    /// The receiver has mapped its cursor.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn seal_cursor(&self, lane: LaneId) -> io::Result<()> {
        self.lanes.get(&lane).and_then(|files| files.cursor.as_ref()).map_or(Ok(()), MemoryFile::forbid_new_writers)
    }

    /// Where the last receiver stood; `None` while it has its cursor mapped.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn freeze_cursor(&self, lane: LaneId) -> io::Result<Option<AtRest>> {
        let cursor = self.lanes.get(&lane).and_then(|files| files.cursor.as_ref());
        let frozen = cursor.map_or(Ok(true), MemoryFile::freeze)?;
        Ok(frozen.then(|| self.read_cursor(lane)))
    }

    /// Where a receiver stands that takes nothing more.
    pub(crate) fn read_cursor(&self, lane: LaneId) -> AtRest {
        let heads = self.books.lock();
        let Some(cursor) = heads.get(&lane).and_then(|heads| heads.cursor.as_ref()) else {
            return AtRest { start: None, taken: 0, given_back: 0 };
        };
        let found = at_rest(cursor);
        AtRest { start: found.start.map(lane_start), taken: found.taken, given_back: found.given_back }
    }

    /// Whether nobody can write to the data of a lane any more.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn freeze_data(&self, lane: LaneId) -> io::Result<bool> {
        self.lanes.get(&lane).map_or(Ok(true), |files| files.data.freeze())
    }

    /// Nobody needs it any more.
    pub(crate) fn free(&mut self, lane: LaneId) {
        self.lanes.remove(&lane);
        self.books.lock().remove(&lane);
    }

    /// What the broker reads.
    pub(crate) fn books(&self) -> Books {
        self.books.clone()
    }

    /// A receiver's connection is gone.
    pub(crate) fn forget_receiver(&mut self, receiver: PeerId) {
        self.receivers.remove(&receiver);
        self.dues.remove(&receiver);
    }

    /// Wakes a receiver.
    pub(crate) fn ring(&self, receiver: PeerId) {
        if let Some(ends) = self.receivers.get(&receiver) {
            ends.ringer.ring();
        }
    }

    /// Shows a receiver how many frames it is due, and wakes nobody: what it is due is about to be written.
    pub(crate) fn show(&mut self, receiver: PeerId, due: u64) {
        self.dues.insert(receiver, due);
        if let Some(ends) = self.receivers.get(&receiver) {
            ends.shown.show(due);
        }
    }
}

impl ReceiverEnds {
    fn new() -> io::Result<Self> {
        let (bell, ringer) = doorbell()?;
        let board = MemoryFile::create("bus-board", PAGE_BYTES)?;
        let shown = Board::new(board.map_writable()?);
        board.forbid_new_writers()?;
        Ok(Self { bell, ringer, board, shown })
    }
}
