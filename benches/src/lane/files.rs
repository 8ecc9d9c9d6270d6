//! The two memory files of a ring, made by the benchmark and mapped by both ends.
//!
//! The benchmark keeps them open while the ends live, and the ends open them again by their place in
//! `/proc`: nothing has to be handed over a socket, and nothing is sealed against the ends.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bus_core::lane::layout::PAGE_BYTES;
use bus_core::lane::region::{Access, Map, MemoryFile};
use serde::{Deserialize, Serialize};

/// One ring; dropping it forgets the memory once the ends are gone.
pub(crate) struct Files {
    data: MemoryFile,
    cursor: MemoryFile,
    size: Size,
}

/// How much a ring holds, and of what.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) payload_bytes: usize,
    pub(crate) ring_bytes: usize,
}

/// Where an end finds its ring.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    data: PathBuf,
    cursor: PathBuf,
    pub(crate) size: Size,
}

/// What one end of a ring works on: it stores to one map, and the other end to the other.
pub(crate) struct Maps {
    /// The messages and how far there are any.
    pub(crate) data: Map,
    /// How far they are read.
    pub(crate) cursor: Map,
}

impl Size {
    /// As large as a lane is at first; where that holds too few messages, as large as it takes to hold eight.
    pub(crate) fn of(payload_bytes: usize) -> Self {
        const FIRST_BYTES: usize = 256 * 1024;
        let eight = (8 * payload_bytes).next_multiple_of(PAGE_BYTES) + PAGE_BYTES;
        Self { payload_bytes, ring_bytes: FIRST_BYTES.max(eight) }
    }
}

impl Files {
    pub(crate) fn create(size: Size) -> Result<Self> {
        let data = MemoryFile::create("bench-data", PAGE_BYTES + size.ring_bytes)?;
        let cursor = MemoryFile::create("bench-cursor", PAGE_BYTES)?;
        Ok(Self { data, cursor, size })
    }

    pub(crate) fn place(&self) -> Place {
        Place { data: path_of(&self.data), cursor: path_of(&self.cursor), size: self.size }
    }

    /// For the end that writes, in this process.
    pub(crate) fn writing_maps(&self) -> Result<Maps> {
        writing_maps(&self.data, &self.cursor)
    }

    /// For the end that reads, in this process.
    pub(crate) fn reading_maps(&self) -> Result<Maps> {
        reading_maps(&self.data, &self.cursor)
    }
}

impl Place {
    /// For the end that writes, in another process.
    pub(crate) fn writing_maps(&self) -> Result<Maps> {
        let [data, cursor] = self.open()?;
        writing_maps(&data, &cursor)
    }

    /// For the end that reads, in another process.
    pub(crate) fn reading_maps(&self) -> Result<Maps> {
        let [data, cursor] = self.open()?;
        reading_maps(&data, &cursor)
    }

    fn open(&self) -> Result<[MemoryFile; 2]> {
        Ok([open(&self.data, PAGE_BYTES + self.size.ring_bytes)?, open(&self.cursor, PAGE_BYTES)?])
    }
}

fn writing_maps(data: &MemoryFile, cursor: &MemoryFile) -> Result<Maps> {
    let maps = Maps { data: data.map_writable()?, cursor: cursor.map_readable()? };
    // A page that is written to for the first time costs more than the messages in it.
    maps.data.populate(0, data.bytes())?;
    Ok(maps)
}

fn reading_maps(data: &MemoryFile, cursor: &MemoryFile) -> Result<Maps> {
    Ok(Maps { data: data.map_readable()?, cursor: cursor.map_writable()? })
}

fn open(path: &Path, bytes: usize) -> Result<MemoryFile> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let fd = OwnedFd::from(file.with_context(|| format!("cannot open {}", path.display()))?);
    Ok(MemoryFile::open_checked(fd, bytes, Access::Write)?)
}

/// Where another process finds a descriptor of this one.
pub(crate) fn path_of(fd: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_fd().as_raw_fd()))
}
