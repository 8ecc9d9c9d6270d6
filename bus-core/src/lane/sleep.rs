//! Sleeping on the words of lanes: a receiver that waits for its senders alone, at the price of a bare futex.
//!
//! The receiver sleeps on a word of each lane, and on one of its own process, by which others wake it. A sender that
//! finds in the cursor that its receiver sleeps so writes into its word which of the receiver's waits it ends, and
//! wakes whoever sleeps there: it needs no descriptor for that, and what it wakes lies in memory that it alone writes.
//! A word that says so already is no sleep at all. (Its tail does not do: a wake may come late, for what was read
//! before the receiver began to wait, and then there is none for what follows.)
//!
//! Sleeping on several words needs Linux 5.16. Without it everybody sleeps at the [doorbell](super::doorbell).

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Wait, WaitFlags, WaitPtr, WaitvFlags};
use rustix::time::{ClockId, Timespec};

use super::stamp::now_ns;

/// On how many words a thread can sleep at once, its own among them; what the kernel allows.
pub const WORDS_MAX: usize = 128;

/// The word of a sleeper by which its own process wakes it.
#[derive(Debug, Default)]
pub struct Wakeup {
    word: AtomicU32,
}

impl Wakeup {
    /// What stands there: to be read before the last look, and slept on.
    pub fn seen(&self) -> u32 {
        self.word.load(Ordering::Acquire)
    }

    /// Wakes whoever sleeps on what stood there until now.
    pub fn wake(&self) {
        self.word.fetch_add(1, Ordering::Release);
        // It can only fail for an address that is none.
        let _ = futex::wake(&self.word, Flags::PRIVATE, 1);
    }
}

/// All words that a thread is about to sleep on.
#[derive(Debug)]
pub struct Words {
    words: Vec<Wait>,
}

impl Words {
    /// With room for so many.
    #[must_use]
    pub fn with_capacity(words: usize) -> Self {
        Self { words: Vec::with_capacity(words) }
    }

    /// Adds the word of the own process, and what was seen there.
    pub fn add_own(&mut self, wakeup: &Wakeup, seen: u32) {
        self.add(std::ptr::from_ref(&wakeup.word), seen, WaitFlags::SIZE_U32 | WaitFlags::PRIVATE);
    }

    /// Adds a word of shared memory, and what was seen of it.
    pub fn add_shared(&mut self, word: *const AtomicU32, seen: u32) {
        self.add(word, seen, WaitFlags::SIZE_U32);
    }

    fn add(&mut self, word: *const AtomicU32, seen: u32, flags: WaitFlags) {
        let mut wait = Wait::new();
        (wait.val, wait.uaddr, wait.flags) = (u64::from(seen), WaitPtr::new(word.cast_mut().cast()), flags);
        self.words.push(wait);
    }

    /// Sleeps until one of the words is woken, or a deadline; not at all when one has changed.
    ///
    /// # Errors
    /// What the system says where it cannot sleep on several words, or not on so many.
    pub fn sleep(&self, deadline: Option<Instant>) -> io::Result<()> {
        let until = deadline.map(|deadline| {
            let at = Duration::from_nanos(now_ns()) + deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: at.as_secs().cast_signed(), tv_nsec: at.subsec_nanos().into() }
        });
        match futex::waitv(&self.words, WaitvFlags::empty(), until.as_ref(), ClockId::Monotonic) {
            // Changed, late, or interrupted: whoever sleeps looks for itself.
            Ok(_) | Err(Errno::AGAIN | Errno::TIMEDOUT | Errno::INTR) => Ok(()),
            Err(refused) => Err(refused.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::layout::data;
    use crate::lane::memory::Memory as _;
    use crate::lane::region::{Access, MemoryFile};

    const LONG: Duration = Duration::from_secs(60);

    fn words_of(wakeup: &Wakeup, seen: u32) -> Words {
        let mut words = Words::with_capacity(2);
        words.add_own(wakeup, seen);
        words
    }

    fn late() -> Option<Instant> {
        Some(Instant::now() + LONG)
    }

    #[test]
    fn who_sleeps_on_a_word_that_it_may_only_read_is_woken_by_its_writer() {
        let file = MemoryFile::create("bus-test", 4096).unwrap();
        let writer = file.map_writable().unwrap();
        file.forbid_new_writers().unwrap();
        let reader =
            MemoryFile::open_checked(file.reading_descriptor().unwrap(), 4096, Access::Read).unwrap().map_readable();
        let reader = reader.unwrap();
        let begun = Instant::now();
        let sleeper = std::thread::spawn(move || {
            let wakeup = Wakeup::default();
            // As a receiver does: it looks, and sleeps on what it has looked at, until that is another.
            for seen in 0..100 {
                while reader.load(data::WOKEN) == seen {
                    let mut words = words_of(&wakeup, wakeup.seen());
                    words.add_shared(reader.futex(data::WOKEN), seen as u32);
                    words.sleep(late()).unwrap();
                }
            }
        });
        for woken in 1..=100 {
            writer.store(data::WOKEN, woken);
            writer.wake(data::WOKEN);
        }
        sleeper.join().unwrap();
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn who_is_woken_before_it_sleeps_does_not() {
        let wakeup = Wakeup::default();
        let seen = wakeup.seen();
        wakeup.wake();
        let begun = Instant::now();
        words_of(&wakeup, seen).sleep(late()).unwrap();
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn nobody_sleeps_beyond_a_deadline() {
        let wakeup = Wakeup::default();
        words_of(&wakeup, wakeup.seen()).sleep(Some(Instant::now() + Duration::from_millis(1))).unwrap();
        words_of(&wakeup, wakeup.seen()).sleep(Some(Instant::now())).unwrap();
    }

    #[test]
    fn more_words_than_the_kernel_takes_are_an_error() {
        let wakeup = Wakeup::default();
        let mut words = words_of(&wakeup, wakeup.seen());
        for _ in 0..WORDS_MAX {
            words.add_shared(std::ptr::from_ref(&wakeup.word), 0);
        }
        assert!(words.sleep(late()).is_err());
    }
}
