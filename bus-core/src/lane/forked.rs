//! [`Origin`]: the process that made a handle. A forked child has a copy of the handle, and none of what belongs to
//! it: no thread that reconnects it, no map of its lane, and a socket that its parent writes to at the same time.
//!
//! A page tells the two apart that the kernel empties in a forked child. So asking costs one load, where asking for the
//! number of the process costs a system call. Where there is no such page the number is asked for.

#![expect(unsafe_code, reason = "mapping a page, and reading it through a pointer that lives as long as the process")]

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::layout::PAGE_BYTES;

/// The process that made a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where it stands who this process is; not where the kernel has no page for that.
    place: Option<NonNull<AtomicU64>>,
    mark: u64,
}

// SAFETY: the place is an atomic that lives as long as the process.
unsafe impl Send for Origin {}
// SAFETY: as above.
unsafe impl Sync for Origin {}

/// The page, once somebody has asked for it; never unmapped then.
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// The marks given so far, by this process and those that it was forked from: so no two of them have the same.
static MARKS: AtomicU64 = AtomicU64::new(0);

impl Origin {
    /// This process.
    #[must_use]
    pub fn here() -> Self {
        let place = page();
        let Some(word) = place else { return Self { place, mark: std::process::id().into() } };
        // SAFETY: the page is never unmapped.
        let word = unsafe { word.as_ref() };
        let mark = match word.load(Ordering::Relaxed) {
            0 => {
                let mark = MARKS.fetch_add(1, Ordering::Relaxed) + 1;
                // Another thread may be as fast: then it is that one's.
                word.compare_exchange(0, mark, Ordering::Relaxed, Ordering::Relaxed).map_or_else(|mark| mark, |_| mark)
            }
            mark => mark,
        };
        Self { place, mark }
    }

    /// Whether this process is the one.
    #[inline]
    #[must_use]
    pub fn is_here(&self) -> bool {
        match self.place {
            // SAFETY: the page is never unmapped.
            Some(word) => unsafe { word.as_ref() }.load(Ordering::Relaxed) == self.mark,
            None => u64::from(std::process::id()) == self.mark,
        }
    }
}

/// The page of this process, made when it is asked for the first time.
fn page() -> Option<NonNull<AtomicU64>> {
    if let Some(page) = NonNull::new(PAGE.load(Ordering::Acquire)) {
        return Some(page);
    }
    let made = map_page()?;
    match PAGE.compare_exchange(ptr::null_mut(), made.as_ptr(), Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(made),
        Err(other) => {
            // SAFETY: nobody else has seen this one.
            let _ = unsafe { munmap(made.as_ptr().cast(), PAGE_BYTES) };
            NonNull::new(other)
        }
    }
}

fn map_page() -> Option<NonNull<AtomicU64>> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new map at an address of the kernel's choice, of memory that is this process's alone.
    let page = unsafe { mmap_anonymous(ptr::null_mut(), PAGE_BYTES, protection, MapFlags::PRIVATE) }.ok()?;
    // SAFETY: the map just made, which holds nothing yet.
    if unsafe { madvise(page, PAGE_BYTES, Advice::LinuxWipeOnFork) }.is_err() {
        // SAFETY: as above.
        let _ = unsafe { munmap(page, PAGE_BYTES) };
        return None;
    }
    NonNull::new(page.cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_own_handles() {
        let origin = Origin::here();
        assert!(origin.is_here());
        assert_eq!(std::thread::spawn(Origin::here).join().unwrap(), origin);
    }

    #[test]
    fn where_the_kernel_has_no_such_page_the_number_tells() {
        let origin = Origin { place: None, mark: std::process::id().into() };
        assert!(origin.is_here());
        assert!(!Origin { mark: origin.mark + 1, ..origin }.is_here());
    }
}
