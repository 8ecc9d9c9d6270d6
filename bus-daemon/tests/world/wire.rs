//! [`Wires`]: simulated sockets, of two byte queues each.
//!
//! As with a local socket, what one side has written stays readable after that side has closed or
//! died, and is lost when the side that should read it closes. Cuts fall between any two bytes,
//! because every write and every read may be of any size.

use std::collections::{HashMap, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WireId(u64);

#[derive(Debug)]
pub(crate) struct Wires {
    wires: HashMap<WireId, Wire>,
    made: u64,
    /// How many bytes each direction holds.
    socket_bytes: usize,
}

#[derive(Debug)]
struct Wire {
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    client_open: bool,
    daemon_open: bool,
}

/// The other side has closed.
#[derive(Debug)]
pub(crate) struct Closed;

impl Wires {
    pub(crate) fn new(socket_bytes: usize) -> Self {
        Self { wires: HashMap::new(), made: 0, socket_bytes }
    }

    /// From now on sockets are large.
    pub(crate) fn widen(&mut self) {
        self.socket_bytes = usize::MAX;
    }

    pub(crate) fn open(&mut self) -> WireId {
        self.made += 1;
        let wire = Wire { up: VecDeque::new(), down: VecDeque::new(), client_open: true, daemon_open: true };
        self.wires.insert(WireId(self.made), wire);
        WireId(self.made)
    }

    fn wire(&mut self, id: WireId) -> &mut Wire {
        self.wires.get_mut(&id).expect("a wire lives until both sides have closed")
    }

    /// The client writes; returns how much was taken.
    pub(crate) fn write_up(&mut self, id: WireId, bytes: &[u8]) -> Result<usize, Closed> {
        let room = self.socket_bytes.saturating_sub(self.wire(id).up.len());
        let taken = bytes.len().min(room);
        self.write_up_whole(id, &bytes[..taken])?;
        Ok(taken)
    }

    /// The client writes what is small: a local socket takes that whole, or nothing of it.
    pub(crate) fn write_up_piece(&mut self, id: WireId, bytes: &[u8]) -> Result<usize, Closed> {
        let held = self.wire(id).up.len();
        let fits = held == 0 || held + bytes.len() <= self.socket_bytes;
        self.write_up_whole(id, if fits { bytes } else { &[] })?;
        Ok(if fits { bytes.len() } else { 0 })
    }

    /// The client writes something small, whether it fits or not.
    pub(crate) fn write_up_whole(&mut self, id: WireId, bytes: &[u8]) -> Result<(), Closed> {
        let wire = self.wire(id);
        if !wire.daemon_open {
            return Err(Closed);
        }
        wire.up.extend(bytes);
        Ok(())
    }

    /// The client reads up to `most` bytes. Nothing is an error only after the daemon has closed.
    pub(crate) fn read_down(&mut self, id: WireId, most: usize) -> Result<Vec<u8>, Closed> {
        let wire = self.wire(id);
        if wire.down.is_empty() && !wire.daemon_open {
            return Err(Closed);
        }
        let count = wire.down.len().min(most);
        Ok(wire.down.drain(..count).collect())
    }

    pub(crate) fn down_room(&mut self, id: WireId) -> usize {
        self.socket_bytes.saturating_sub(self.wire(id).down.len())
    }

    /// The daemon writes, at most [`Self::down_room`] bytes. `false` when nobody is there to read.
    pub(crate) fn write_down(&mut self, id: WireId, bytes: impl Iterator<Item = u8>) -> bool {
        let wire = self.wire(id);
        if wire.client_open {
            wire.down.extend(bytes);
        }
        wire.client_open
    }

    /// The daemon reads up to `most` bytes. Nothing is an error only after the client has closed.
    pub(crate) fn read_up(&mut self, id: WireId, most: usize) -> Result<Vec<u8>, Closed> {
        let wire = self.wire(id);
        if wire.up.is_empty() && !wire.client_open {
            return Err(Closed);
        }
        let count = wire.up.len().min(most);
        Ok(wire.up.drain(..count).collect())
    }

    pub(crate) fn has_up(&mut self, id: WireId) -> bool {
        let wire = self.wire(id);
        !wire.up.is_empty() || !wire.client_open
    }

    /// Whether the client has closed or died.
    pub(crate) fn is_deserted(&mut self, id: WireId) -> bool {
        !self.wire(id).client_open
    }

    pub(crate) fn close_client(&mut self, id: WireId) {
        let wire = self.wire(id);
        wire.client_open = false;
        wire.down.clear();
        self.forget(id);
    }

    pub(crate) fn close_daemon(&mut self, id: WireId) {
        let wire = self.wire(id);
        wire.daemon_open = false;
        wire.up.clear();
        self.forget(id);
    }

    fn forget(&mut self, id: WireId) {
        let wire = self.wire(id);
        if !wire.client_open && !wire.daemon_open {
            self.wires.remove(&id);
        }
    }
}
