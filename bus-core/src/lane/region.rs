//! Memory that two processes share: sealed files of the kernel's memory filesystem, and maps of them.
//!
//! What another platform would have to provide, and nothing else of a lane is bound to Linux:
//!
//! - a file in memory without a name, that only who holds it can open ([`MemoryFile::create`]);
//! - a promise by the kernel that it is never cut ([`MemoryFile::open_checked`]);
//! - one writer: no way to write to it for whoever is handed a reading descriptor
//!   ([`MemoryFile::forbid_new_writers`], [`MemoryFile::reading_descriptor`]);
//! - a proof that its writer is gone ([`MemoryFile::freeze`]);
//! - maps for reading and writing that a forked child does not have ([`Map`]).

#![expect(unsafe_code, reason = "mapping memory, and reading what another process writes")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, fchmod, fcntl_add_seals, fcntl_get_seals, fcntl_getfl, fstat, fstatfs,
    ftruncate, memfd_create, open,
};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use rustix::thread::futex;

use super::layout::{PAGE_BYTES, WORD_BYTES};
use super::memory::{Fence, Memory};
use super::processor;

/// A file in memory.
#[derive(Debug)]
pub struct MemoryFile {
    fd: OwnedFd,
    bytes: usize,
}

/// What a descriptor from elsewhere is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For its one writer.
    Write,
    /// For everyone else: nobody can write to it any more but who has mapped it already.
    Read,
}

/// A descriptor that is not what it is said to be.
#[derive(Debug, thiserror::Error)]
pub enum NotALane {
    /// Not a file of the memory filesystem.
    #[error("it is not a file in memory")]
    Kind,
    /// Another length.
    #[error("it is {bytes} bytes long, and {expected} were announced")]
    Size {
        /// How long it is.
        bytes: u64,
        /// How long it should be.
        expected: usize,
    },
    /// It can be cut, or written to by others.
    #[error("it is not sealed as it must be (seals {seals:#x})")]
    Seals {
        /// Those that it has.
        seals: u32,
    },
    /// Opened for the wrong access.
    #[error("it is not opened for the access that was announced")]
    Access,
    /// The system refused to tell.
    #[error("the system does not tell what it is: {0}")]
    System(#[from] io::Error),
}

impl MemoryFile {
    /// Makes a file of zeros, `bytes` long for ever. Memory is taken where it is written to.
    ///
    /// # Errors
    /// What the system says: no descriptor left, or memory files forbidden.
    pub fn create(name: &str, bytes: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
            // A kernel before 6.3.
            Err(rustix::io::Errno::INVAL) => memfd_create(name, flags)?,
            made => made?,
        };
        // Born with rights for everybody, and everybody can reach it by /proc.
        fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
        ftruncate(&fd, bytes as u64)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        Ok(Self { fd, bytes })
    }

    /// Takes a descriptor from elsewhere, after looking what it is.
    ///
    /// # Errors
    /// [`NotALane`] says what is wrong with it.
    pub fn open_checked(fd: OwnedFd, bytes: usize, access: Access) -> Result<Self, NotALane> {
        const TMPFS_MAGIC: i64 = 0x0102_1994;
        // Files that were never meant to be sealed refuse the question, and this is the one that is asked first: of a file
        // whose filesystem is a program (FUSE), any other would wait for that program's answer.
        let seals = fcntl_get_seals(&fd).map_err(|_| NotALane::Kind)?;
        let status = fstat(&fd).map_err(io::Error::from)?;
        let filesystem = fstatfs(&fd).map_err(io::Error::from)?;
        let is_file = rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::RegularFile;
        if !is_file || i128::from(filesystem.f_type) != i128::from(TMPFS_MAGIC) {
            return Err(NotALane::Kind);
        }
        let length = u64::try_from(status.st_size).unwrap_or(0);
        if length != bytes as u64 {
            return Err(NotALane::Size { bytes: length, expected: bytes });
        }
        let needed = match access {
            Access::Write => SealFlags::SHRINK | SealFlags::GROW,
            Access::Read => SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE,
        };
        // What is frozen has no writer at all.
        let seen_as = if seals.contains(SealFlags::WRITE) { seals | SealFlags::FUTURE_WRITE } else { seals };
        if !seen_as.contains(needed) {
            return Err(NotALane::Seals { seals: seals.bits() });
        }
        let mode = fcntl_getfl(&fd).map_err(io::Error::from)? & OFlags::RWMODE;
        let wanted = match access {
            Access::Write => OFlags::RDWR,
            Access::Read => OFlags::RDONLY,
        };
        if mode != wanted {
            return Err(NotALane::Access);
        }
        Ok(Self { fd, bytes })
    }

    /// Its length, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// From now on nobody can write to it but who has mapped it for writing before.
    ///
    /// # Errors
    /// What the system says.
    pub fn forbid_new_writers(&self) -> io::Result<()> {
        Ok(fcntl_add_seals(&self.fd, SealFlags::FUTURE_WRITE)?)
    }

    /// From now on nobody can write to it at all. `false` when somebody has it mapped for writing: its writer
    /// lives.
    ///
    /// # Errors
    /// What the system says.
    pub fn freeze(&self) -> io::Result<bool> {
        match fcntl_add_seals(&self.fd, SealFlags::WRITE) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::BUSY) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Another descriptor of it, for reading only.
    ///
    /// # Errors
    /// What the system says: `/proc` has to be there.
    pub fn reading_descriptor(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        Ok(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// The same file, opened for writing: so that it can be frozen, where nobody can write to it any more but its
    /// writer.
    ///
    /// # Errors
    /// What the system says: it is another user's.
    pub fn reopen_writable(&self) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        Ok(Self { fd: open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?, bytes: self.bytes })
    }

    /// What tells it from other memory files, until it is gone.
    ///
    /// # Errors
    /// What the system says.
    pub fn number(&self) -> io::Result<u64> {
        Ok(fstat(&self.fd)?.st_ino)
    }

    /// Maps it for writing. Refused once [new writers are forbidden](Self::forbid_new_writers).
    ///
    /// # Errors
    /// What the system says.
    pub fn map_writable(&self) -> io::Result<Map> {
        Map::new(self, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Maps its first page for reading, and stands in nobody's way who proves that it has no writer.
    ///
    /// # Errors
    /// What the system says.
    pub fn watch_head(&self) -> io::Result<Map> {
        // By a descriptor that can only be read: a map of any other counts as a writer's.
        let head = Self { fd: self.reading_descriptor()?, bytes: PAGE_BYTES };
        Map::new(&head, ProtFlags::READ)
    }

    /// Maps it for reading, and stands in nobody's way who proves that it has no writer.
    ///
    /// # Errors
    /// What the system says.
    pub fn map_to_read(&self) -> io::Result<Map> {
        let file = Self { fd: self.reading_descriptor()?, bytes: self.bytes };
        Map::new(&file, ProtFlags::READ)
    }

    /// Maps it for reading.
    ///
    /// # Errors
    /// What the system says.
    pub fn map_readable(&self) -> io::Result<Map> {
        Map::new(self, ProtFlags::READ)
    }
}

impl AsFd for MemoryFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A memory file in this process's address space. A forked child does not have it.
#[derive(Debug)]
pub struct Map {
    base: NonNull<AtomicU64>,
    bytes: usize,
    /// Unmaps it, with the last that looks into it.
    mapped: Arc<Mapped>,
}

/// What is unmapped when it is dropped.
#[derive(Debug)]
struct Mapped {
    base: NonNull<AtomicU64>,
    bytes: usize,
}

// SAFETY: it is memory of the whole process, and all access to what others may change goes by atomics.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}
// SAFETY: it unmaps, which any thread may do, and does nothing else.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Map {
    fn new(file: &MemoryFile, protection: ProtFlags) -> io::Result<Self> {
        // SAFETY: a new map at an address of the kernel's choice. It is never cut, by the seals that
        // `MemoryFile` has made or checked, so no access within it faults.
        let base = unsafe { mmap(ptr::null_mut(), file.bytes, protection, MapFlags::SHARED, &file.fd, 0)? };
        let Some(base) = NonNull::new(base.cast::<AtomicU64>()) else { return Err(io::ErrorKind::OutOfMemory.into()) };
        let map = Self { base, bytes: file.bytes, mapped: Arc::new(Mapped { base, bytes: file.bytes }) };
        // Two processes that believe to be the same sender would both write.
        map.advise(0, map.bytes, Advice::LinuxDontFork)?;
        // Gigabytes of messages help nobody in a core dump. Where that is not known it is not needed.
        let _ = map.advise(0, map.bytes, Advice::LinuxDontDump);
        Ok(map)
    }

    /// Takes memory for a part of it now, and not at the first write to each page. For its writer.
    ///
    /// # Errors
    /// When there is none; nothing is lost then, and the first write tries again.
    pub fn populate(&self, from: usize, bytes: usize) -> io::Result<()> {
        assert!(from + bytes <= self.bytes, "the part lies in the map");
        self.advise(from, bytes, Advice::LinuxPopulateWrite)
    }

    /// The lower half of a word, as the kernel is asked to sleep on it or to wake who does: an address, and no
    /// memory to be read or written by.
    #[must_use]
    pub fn futex(&self, word: usize) -> *const AtomicU32 {
        let half = usize::from(cfg!(target_endian = "big"));
        std::ptr::from_ref(self.word(word)).cast::<AtomicU32>().wrapping_add(half)
    }

    /// Wakes whoever sleeps on a word of this file, in whichever process. For its writer, after it was written.
    pub fn wake(&self, word: usize) {
        // SAFETY: within the map, and aligned; the reference is only made to name the address to the kernel, which
        // neither reads nor writes what is there.
        let word = unsafe { &*self.futex(word) };
        // It can only fail for an address that is none.
        let _ = futex::wake(word, futex::Flags::empty(), 1);
    }

    fn advise(&self, from: usize, bytes: usize, advice: Advice) -> io::Result<()> {
        // SAFETY: within this map, by the callers; these advices change no content.
        unsafe { madvise(self.base.as_ptr().cast::<u8>().add(from).cast(), bytes, advice)? };
        Ok(())
    }

    /// The same map, for a message that lies in it: it stays for as long as either is there.
    pub(super) fn share(&self) -> Self {
        Self { base: self.base, bytes: self.bytes, mapped: Arc::clone(&self.mapped) }
    }

    /// Whether it is the same map.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mapped, &other.mapped)
    }

    /// Where a word lies, with so many bytes from there on within the map.
    pub(super) fn pointer(&self, word: usize, bytes: usize) -> NonNull<u8> {
        let words = bytes.div_ceil(WORD_BYTES);
        let length = self.bytes / WORD_BYTES;
        assert!(words <= length && word <= length - words, "the bytes lie in the map");
        // SAFETY: within the map, or just behind it for nothing at all.
        unsafe { self.base.add(word).cast() }
    }

    /// The words that hold so many bytes.
    #[inline]
    fn part(&self, word: usize, bytes: usize) -> &[AtomicU64] {
        let words = bytes.div_ceil(WORD_BYTES);
        let length = self.bytes / WORD_BYTES;
        assert!(words <= length && word <= length - words, "the bytes lie in the map");
        // SAFETY: within the map, as for one word; atomics may be shared with whoever stores there.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(word), words) }
    }

    #[inline]
    fn word(&self, word: usize) -> &AtomicU64 {
        // Without the figure, which would cost each access a place on the stack.
        assert!(word < self.bytes / WORD_BYTES, "the word lies in the map");
        // SAFETY: within the map, which lives as long as `self`, and aligned as pages are. Whoever else
        // writes there is another process, or this one by the same atomics or by `copy_in`, never both at
        // once.
        unsafe { self.base.add(word).as_ref() }
    }
}

impl Memory for Map {
    fn words(&self) -> usize {
        self.bytes / WORD_BYTES
    }

    #[inline]
    fn load(&self, word: usize) -> u64 {
        // Relaxed, because only such loads are allowed where memory may be mapped for reading only.
        self.word(word).load(Ordering::Relaxed)
    }

    #[inline]
    fn load_four(&self, word: usize) -> [u64; 4] {
        // Whether they lie within the map is asked once.
        let words = self.part(word, 4 * WORD_BYTES);
        std::array::from_fn(|index| words[index].load(Ordering::Relaxed))
    }

    #[inline]
    fn store(&self, word: usize, value: u64) {
        self.word(word).store(value, Ordering::Relaxed);
    }

    #[inline]
    fn store_in_sight(&self, word: usize, value: u64) {
        processor::store_in_sight(self.word(word), value);
    }

    #[inline]
    fn will_store(&self, word: usize) {
        processor::will_store(self.base.as_ptr().wrapping_add(word));
    }

    #[inline]
    fn will_load(&self, word: usize) {
        processor::will_load(self.base.as_ptr().wrapping_add(word));
    }

    #[inline]
    fn fence(&self, which: Fence) {
        match which {
            Fence::Acquire => fence(Ordering::Acquire),
            Fence::Release => fence(Ordering::Release),
            Fence::Sequential => processor::full_fence(),
        }
    }

    #[inline]
    fn copy_out(&self, word: usize, bytes: &mut [u8]) {
        let words = self.part(word, bytes.len());
        let (blocks, words) = words.as_chunks();
        let (to, bytes) = bytes.as_chunks_mut();
        processor::copy_blocks(blocks, to);
        // What is left is less than a block, or a block of which the last word is not whole.
        let last = blocks.get(to.len()).map_or(words, |last| &last[..]);
        copy_words(last, bytes);
    }

    #[inline]
    fn copy_in(&self, word: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        assert!(word * WORD_BYTES + bytes.len() <= self.bytes, "the bytes lie in the map");
        // SAFETY: within the map. Only this process writes there, by one sender under its lock, and nobody in
        // this process reads there: so it needs no atomics. `bytes` is no part of the map: of what is written
        // here nobody has a slice, and those of a slot lie in a place of their own.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(word).cast::<u8>(), bytes.len());
        }
    }
}

/// Copies words out, each loaded once.
#[inline]
fn copy_words(words: &[AtomicU64], bytes: &mut [u8]) {
    let mut chunks = bytes.chunks_exact_mut(WORD_BYTES);
    for (chunk, word) in (&mut chunks).zip(words) {
        chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    let rest = chunks.into_remainder();
    if let (false, Some(last)) = (rest.is_empty(), words.last()) {
        rest.copy_from_slice(&last.load(Ordering::Relaxed).to_ne_bytes()[..rest.len()]);
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into it any more. It can only fail for an address that is no map.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 64 * 1024;

    fn file() -> MemoryFile {
        MemoryFile::create("bus-test", BYTES).unwrap()
    }

    fn reader_of(file: &MemoryFile) -> MemoryFile {
        MemoryFile::open_checked(file.reading_descriptor().unwrap(), BYTES, Access::Read).unwrap()
    }

    #[test]
    fn what_the_writer_stores_the_reader_loads() {
        let file = file();
        let writer = file.map_writable().unwrap();
        file.forbid_new_writers().unwrap();
        let reader = reader_of(&file).map_readable().unwrap();
        writer.store(17, 42);
        let bytes: Vec<u8> = (0..=255).collect();
        writer.copy_in(18, &bytes);
        for length in 0..=bytes.len() {
            let mut out = vec![0; length + 1];
            reader.copy_out(18, &mut out[..length]);
            assert_eq!((&out[..length], out[length]), (&bytes[..length], 0));
        }
        assert_eq!(reader.load(17), 42);
    }

    #[test]
    fn nobody_else_can_write_once_the_writer_has_mapped() {
        let file = file();
        let writer = file.map_writable().unwrap();
        file.forbid_new_writers().unwrap();
        assert!(file.map_writable().is_err(), "a new map");
        assert!(rustix::io::pwrite(&file, b"x", 0).is_err(), "a write");
        assert!(ftruncate(&file, 0).is_err(), "a cut");
        let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        assert!(rustix::fs::fallocate(&file, hole, 0, 4096).is_err(), "a hole");
        let path = format!("/proc/self/fd/{}", file.reading_descriptor().unwrap().as_raw_fd());
        if let Ok(again) = open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            assert!(rustix::io::pwrite(&again, b"x", 0).is_err(), "opened again");
        }
        writer.store(0, 1);
    }

    #[test]
    fn a_file_is_frozen_when_its_writer_is_gone() {
        let file = file();
        let writer = file.map_writable().unwrap();
        let _reader = reader_of_unsealed(&file).map_readable().unwrap();
        let watched = file.watch_head().unwrap();
        assert!(!file.freeze().unwrap());
        writer.store(3, 7);
        assert_eq!(watched.load(3), 7);
        drop(writer);
        assert!(file.freeze().unwrap());
    }

    fn reader_of_unsealed(file: &MemoryFile) -> MemoryFile {
        file.forbid_new_writers().unwrap();
        reader_of(file)
    }

    #[test]
    fn what_is_no_lane_is_refused() {
        let unsealed = file();
        let fd = unsealed.reading_descriptor().unwrap();
        assert!(matches!(MemoryFile::open_checked(fd, BYTES, Access::Read), Err(NotALane::Seals { .. })));
        let sealed = file();
        sealed.forbid_new_writers().unwrap();
        let fd = sealed.reading_descriptor().unwrap();
        assert!(matches!(MemoryFile::open_checked(fd, BYTES * 2, Access::Read), Err(NotALane::Size { .. })));
        let fd = sealed.fd.try_clone().unwrap();
        assert!(matches!(MemoryFile::open_checked(fd, BYTES, Access::Read), Err(NotALane::Access)));
        let fd = OwnedFd::from(tempfile::tempfile().unwrap());
        assert!(MemoryFile::open_checked(fd, BYTES, Access::Read).is_err());
        let fd = OwnedFd::from(std::io::pipe().unwrap().0);
        assert!(matches!(MemoryFile::open_checked(fd, BYTES, Access::Read), Err(NotALane::Kind)));
    }

    #[test]
    fn memory_is_taken_where_it_is_asked_for() {
        let file = file();
        let map = file.map_writable().unwrap();
        map.populate(0, 8192).unwrap();
        assert_eq!(fstat(&file).unwrap().st_blocks, 16);
    }
}
