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
use bus_core::lane::ring::{
    Counts, Limits, Position, Start, at_rest, believed, counts, record_end, walk, write_cursor,
};
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

    fn believed(&self, lane: LaneId) -> Option<LaneStart> {
        believed(&self.lock().get(&lane)?.data).map(lane_start)
    }

    fn record_end(&self, lane: LaneId, said: LaneStart, message_max_bytes: u32) -> Option<LaneStart> {
        let all = self.lock().get_mut(&lane).and_then(|heads| heads.all().ok());
        // As in `walk`.
        let Some((map, bytes)) = all else { return Some(said) };
        let LaneStart { logical, place, messages } = said;
        let limits = Limits { ring_bytes: (bytes - PAGE_BYTES) as u64, message_max_bytes };
        record_end(&*map, limits, Start { logical, place, messages, taken: messages }).map(lane_start)
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
    cursor: Option<Arc<MemoryFile>>,
    /// What is being frozen at this moment.
    freezing: Freezing,
    /// What is shown to whoever has that.
    reader: Option<Arc<Board<Map>>>,
    /// Until its sender has it.
    bell: Option<Doorbell>,
    ringer: Ringer,
}

/// Which files of a lane are being frozen.
#[derive(Clone, Copy, Debug, Default)]
struct Freezing {
    data: bool,
    cursor: bool,
}

/// A file that is to be frozen, on another thread.
#[derive(Clone, Debug)]
pub(crate) struct ToFreeze {
    pub(crate) lane: LaneId,
    pub(crate) which: Frozen,
    file: Arc<MemoryFile>,
}

/// What of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frozen {
    /// So that its sender writes nothing more.
    Data,
    /// So that its receiver takes nothing more.
    Cursor,
}

impl ToFreeze {
    /// Freezes it. `false` when somebody can write to it still.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn freeze(&self) -> io::Result<bool> {
        self.file.freeze()
    }
}

#[derive(Debug)]
struct ReceiverEnds {
    bell: Doorbell,
    ringer: Ringer,
    board: MemoryFile,
    shown: Arc<Board<Map>>,
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
        let freezing = Freezing::default();
        self.lanes.insert(lane, Files { data, cursor: None, freezing, reader: None, bell: Some(bell), ringer });
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
        let (freezing, ringer) = (Freezing::default(), Ringer::new(ringer));
        self.lanes.insert(lane, Files { data, cursor: None, freezing, reader: None, bell: None, ringer });
        Ok(Some(number))
    }

    /// There is to be a cursor for another receiver.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new_cursor(&mut self, lane: LaneId) -> io::Result<()> {
        if let Some(files) = self.lanes.get_mut(&lane) {
            // What the last receiver had is nothing for the next: without a new one it fetches nothing.
            (files.cursor, files.freezing.cursor, files.reader) = (None, false, None);
            let cursor = MemoryFile::create("bus-cursor", PAGE_BYTES)?;
            if let Some(heads) = self.books.lock().get_mut(&lane) {
                heads.cursor = Some(cursor.watch_head()?);
            }
            files.cursor = Some(Arc::new(cursor));
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
        let files = self.lanes.get_mut(&lane).ok_or_else(gone)?;
        if let LanePart::ForReceiver(receiver) = part {
            files.reader = self.receivers.get(&receiver).map(|ends| Arc::clone(&ends.shown));
        }
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
            LanePart::Cursor(receiver) => {
                let ends = ends(receiver)?;
                vec![cursor?.reading_descriptor()?, own(ends.ringer.as_fd())?, ends.board.reading_descriptor()?]
            }
        })
    }

    /// The sender has mapped its data, and has its bell.
    ///
    /// # Errors
    /// What the system says: somebody has sealed it against seals.
    pub(crate) fn seal_data(&mut self, lane: LaneId) -> io::Result<()> {
        let Some(files) = self.lanes.get_mut(&lane) else { return Ok(()) };
        files.bell = None;
        files.data.forbid_new_writers()
    }

    /// The receiver has mapped its cursor.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn seal_cursor(&self, lane: LaneId) -> io::Result<()> {
        self.lanes
            .get(&lane)
            .and_then(|files| files.cursor.as_ref())
            .map_or(Ok(()), |cursor| cursor.forbid_new_writers())
    }

    /// What is to be frozen; `None` where that is under way, or there is nothing.
    pub(crate) fn begin_to_freeze(&mut self, lane: LaneId, which: Frozen) -> Option<ToFreeze> {
        let files = self.lanes.get_mut(&lane)?;
        let (file, under_way) = match which {
            Frozen::Data => (Arc::clone(&files.data), &mut files.freezing.data),
            Frozen::Cursor => (Arc::clone(files.cursor.as_ref()?), &mut files.freezing.cursor),
        };
        (!std::mem::replace(under_way, true)).then_some(ToFreeze { lane, which, file })
    }

    /// That was tried. Whether it says something of the lane as it is now: another receiver may have another cursor.
    pub(crate) fn was_frozen(&mut self, tried: &ToFreeze) -> bool {
        let Some(files) = self.lanes.get_mut(&tried.lane) else { return false };
        let (file, under_way) = match tried.which {
            Frozen::Data => (Some(&files.data), &mut files.freezing.data),
            Frozen::Cursor => (files.cursor.as_ref(), &mut files.freezing.cursor),
        };
        let is_same = file.is_some_and(|file| Arc::ptr_eq(file, &tried.file));
        *under_way &= !is_same;
        is_same
    }

    /// Whether there is a receiver's cursor.
    pub(crate) fn has_cursor(&self, lane: LaneId) -> bool {
        self.lanes.get(&lane).is_some_and(|files| files.cursor.is_some())
    }

    /// Takes the place of a receiver down that is gone for the daemon, and has its cursor mapped still: it may be
    /// stopped, and go on at any time. Returns where it stood; `None` when it was never handed the lane.
    pub(crate) fn revoke_reader(&mut self, lane: LaneId) -> Option<AtRest> {
        self.lanes.get(&lane)?.reader.as_ref()?.revoke();
        let stands = self.read_cursor(lane);
        // What it writes from now on does not count.
        if let Some(heads) = self.books.lock().get_mut(&lane) {
            heads.cursor = None;
        }
        Some(stands)
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

    /// Nobody needs it any more. What it held is for the caller to drop.
    pub(crate) fn free(&mut self, lane: LaneId) -> impl Send + 'static + use<> {
        (self.lanes.remove(&lane), self.books.lock().remove(&lane))
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

    /// Whether something was made for a receiver.
    #[cfg(test)]
    pub(crate) fn has_receiver(&self, receiver: PeerId) -> bool {
        self.receivers.contains_key(&receiver)
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
        let shown = Arc::new(Board::new(board.map_writable()?));
        board.forbid_new_writers()?;
        Ok(Self { bell, ringer, board, shown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cursor of a receiver that was replaced meanwhile would have been read as that of the next.
    #[test]
    fn what_was_tried_with_an_earlier_cursor_says_nothing_of_the_present_one() {
        let (mut store, lane) = (LaneStore::default(), LaneId(1));
        store.make(lane, LaneSize { ring_bytes: 4_096, message_max_bytes: 64 }).unwrap();
        store.new_cursor(lane).unwrap();
        let first = store.begin_to_freeze(lane, Frozen::Cursor).unwrap();
        assert!(store.begin_to_freeze(lane, Frozen::Cursor).is_none(), "it is under way");
        store.new_cursor(lane).unwrap();
        assert!(first.freeze().unwrap(), "nobody has it mapped");
        assert!(!store.was_frozen(&first));
        let second = store.begin_to_freeze(lane, Frozen::Cursor).unwrap();
        assert!(store.was_frozen(&second));
        assert!(store.begin_to_freeze(lane, Frozen::Cursor).is_some(), "and may be tried again");
        drop(store.free(lane));
        assert!(!store.was_frozen(&second), "nor of a lane that is gone");
    }

    /// It was only told to the log, by the turn, and whoever waited for the lane waited for ever.
    #[test]
    fn a_lane_whose_sender_forbids_seals_cannot_be_sealed_or_frozen_and_that_is_told() {
        let (mut store, lane) = (LaneStore::default(), LaneId(1));
        store.make(lane, LaneSize { ring_bytes: 4_096, message_max_bytes: 64 }).unwrap();
        let handed_over = store.descriptors(lane, LanePart::ForSender).unwrap();
        rustix::fs::fcntl_add_seals(&handed_over[0], rustix::fs::SealFlags::SEAL).unwrap();
        assert_eq!(store.seal_data(lane).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let to_freeze = store.begin_to_freeze(lane, Frozen::Data).unwrap();
        assert_eq!(to_freeze.freeze().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    /// The daemon kept it for as long as the lane: a descriptor for each, and the bell never counted as deserted.
    #[test]
    fn the_bell_of_a_sender_is_its_own_once_it_has_its_lane_mapped() {
        let (mut store, lane) = (LaneStore::default(), LaneId(1));
        store.make(lane, LaneSize { ring_bytes: 4_096, message_max_bytes: 64 }).unwrap();
        let handed_over = store.descriptors(lane, LanePart::ForSender).unwrap();
        store.seal_data(lane).unwrap();
        let ringer = &store.lanes[&lane].ringer;
        assert!(!ringer.is_deserted());
        drop(handed_over);
        assert!(ringer.is_deserted(), "nobody but the sender holds it");
    }
}
