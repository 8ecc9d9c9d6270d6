//! [`Pace`]: whether a connection is read when the kernel tells of it, or by the clock.
//!
//! A sender that sends one small message after the other tells the loop of each, and is read a few at a
//! time: the two are in each other's way in the kernel. So while it does, its connection is out of the
//! poll and read every [`PACE`]. Measured on a bare pair of sockets with frames of 96 bytes: sending costs
//! 1,100 ns and reading 890 where each is told of and read at once, 985 and 670 where it is told of and
//! read by the clock, and 865 and 615 where nobody is told.
//!
//! Only while nobody waits for what the daemon says of the messages, and not where so few come that each
//! could be read alone. A message of such a flow waits for the clock, and what its sender asks behind it as
//! well. The loop sleeps meanwhile, and does not poll: whoever else has something to say wakes it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use bus_core::lane::stamp::now_ns;
use mio::Interest;
use mio::unix::SourceFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::{EventLoop, Outside};
use crate::broker::PeerId;

/// How long those that are read by the clock are left alone after a reading: a socket that holds 200 KiB
/// takes 250 small messages, sent in no less than 200 us.
const PACE: Duration = Duration::from_micros(20);

/// How many readings of several messages have to follow one another before the clock decides.
const READINGS: u32 = 16;

/// Most of them, for who was read by the clock in vain.
const READINGS_MAX: u32 = 4_096;

/// Readings that lie farther apart than this do not follow one another, in nanoseconds.
const APART_NS: u64 = 50_000;

/// How many messages a reading by the clock has to bring.
const MESSAGES_MIN: u64 = 16;

/// Who sends more than this within the pace might wait for room in the socket, in bytes.
const BYTES_MAX: usize = 64 * 1024;

/// After so many readings by the clock it was right to let it decide.
const PROVED: u32 = 64;

/// What one reading brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    pub(super) messages: u64,
    pub(super) bytes: usize,
    /// Something else came, which somebody may wait for an answer to.
    pub(super) asked: bool,
    /// What `CLOCK_MONOTONIC` said, in nanoseconds; 0 where nothing came.
    pub(super) at_ns: u64,
}

/// How one connection is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    by_clock: bool,
    /// Readings of several messages that followed one another, less those of one.
    readings: u32,
    needed: u32,
    heard_at_ns: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { by_clock: false, readings: 0, needed: READINGS, heard_at_ns: 0 }
    }
}

impl Pace {
    /// Whether it is out of the poll.
    pub(super) fn is_by_clock(&self) -> bool {
        self.by_clock
    }

    /// Whether it is to be read by the clock, after a reading that brought this.
    fn suits(&mut self, heard: Heard) -> bool {
        let since_ns = heard.at_ns.saturating_sub(self.heard_at_ns);
        let follows = since_ns < APART_NS;
        self.heard_at_ns = self.heard_at_ns.max(heard.at_ns);
        let may = !heard.asked && heard.bytes <= BYTES_MAX;
        if self.by_clock {
            // Read before its time, with others or because somebody came: that says nothing.
            let early = since_ns < PACE.as_nanos() as u64;
            return if early { may } else { self.stays(may && heard.messages >= MESSAGES_MIN) };
        }
        self.readings = match heard.messages {
            _ if !may || !follows => 0,
            0 | 1 => self.readings.saturating_sub(2),
            _ => self.readings + 1,
        };
        self.readings >= self.needed
    }

    /// It was read by the clock, with success or in vain.
    fn stays(&mut self, brought: bool) -> bool {
        self.readings += u32::from(brought);
        if self.readings >= PROVED {
            self.needed = READINGS;
        } else if !brought {
            self.needed = READINGS_MAX.min(2 * self.needed);
        }
        brought
    }

    fn goes_by_clock(&mut self) {
        (self.by_clock, self.readings) = (true, 0);
    }

    /// It is in the poll from now on. Whether it was not.
    pub(super) fn end(&mut self) -> bool {
        let was = std::mem::replace(&mut self.by_clock, false);
        if was {
            self.readings = 0;
        }
        was
    }
}

/// Those that are read by the clock, and the clock.
pub(super) struct Paced {
    timer: OwnedFd,
    pub(super) keys: Vec<(usize, PeerId)>,
    /// When they are to be read, where the timer is set for that.
    due_at: Option<Instant>,
    /// Somebody has come in this turn, and nobody leaves the poll.
    comes: bool,
}

impl Paced {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer, keys: Vec::new(), due_at: None, comes: false })
    }

    /// Sees to it that the next poll ends when they are due. `false` when there are none.
    pub(super) fn set_timer(&mut self, now: Instant) -> io::Result<bool> {
        if self.keys.is_empty() {
            return Ok(false);
        }
        if self.due_at.is_none() {
            let value = Timespec { tv_sec: 0, tv_nsec: PACE.subsec_nanos().into() };
            let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            self.due_at = Some(now + PACE);
        }
        Ok(true)
    }
}

impl AsFd for Paced {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

impl<O: Outside> EventLoop<O> {
    /// Decides how a connection is read from now on, after a reading that drained it.
    pub(super) fn pace(&mut self, key: usize, mut heard: Heard) {
        let slot = &mut self.connections[key];
        let was = slot.pace.by_clock;
        if was && heard.at_ns == 0 {
            heard.at_ns = now_ns();
        }
        let suits = slot.pace.suits(heard);
        if was && !suits {
            self.end_pace(key);
        } else if suits && !was && !slot.watched_for_room && !self.paced.comes {
            self.begin_pace(key);
        }
    }

    fn begin_pace(&mut self, key: usize) {
        let slot = &mut self.connections[key];
        let Some(fd) = slot.connection.fd() else { return };
        if self.poll.registry().deregister(&mut SourceFd(&fd)).is_ok() {
            slot.pace.goes_by_clock();
            self.paced.keys.push((key, slot.peer));
        }
    }

    /// Lets the kernel tell again. What has come since the last reading it tells of at once.
    pub(super) fn end_pace(&mut self, key: usize) {
        if self.connections[key].pace.is_by_clock() {
            self.watch(key, Interest::READABLE);
        }
    }

    /// Reads those that are read by the clock when it is time, or when somebody `comes`: who leaves and comes again at
    /// once has left first. The end of a connection shows behind what it brings, so then the kernel tells of it again.
    /// Whether any was read.
    pub(super) fn read_paced(&mut self, comes: bool) -> bool {
        self.paced.comes = comes;
        if self.paced.keys.is_empty() {
            return false;
        }
        if !comes && self.paced.due_at.is_none_or(|at| Instant::now() < at) {
            return false;
        }
        let mut keys = std::mem::take(&mut self.paced.keys);
        keys.retain(|(key, peer)| {
            let is_paced = |slot: &super::Slot| slot.peer == *peer && slot.pace.is_by_clock();
            if !self.connections.get(*key).is_some_and(is_paced) {
                return false;
            }
            self.read(*key);
            if comes && self.connections.get(*key).is_some_and(is_paced) {
                self.end_pace(*key);
            }
            self.connections.get(*key).is_some_and(is_paced)
        });
        self.paced.keys = keys;
        self.paced.due_at = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One reading after the other, `gap_ns` apart; whether each was followed by the clock.
    fn hear(pace: &mut Pace, readings: u32, heard: Heard, gap_ns: u64) -> bool {
        let mut by_clock = pace.by_clock;
        for _ in 0..readings {
            let at_ns = pace.heard_at_ns + gap_ns;
            by_clock = pace.suits(Heard { at_ns, ..heard });
            match by_clock {
                true if !pace.by_clock => pace.goes_by_clock(),
                true => {}
                false => drop(pace.end()),
            }
        }
        by_clock
    }

    fn several(messages: u64) -> Heard {
        Heard { messages, bytes: 96 * messages as usize, ..Heard::default() }
    }

    const SOON_NS: u64 = PACE.as_nanos() as u64;

    #[test]
    fn who_is_read_of_several_messages_again_and_again_is_read_by_the_clock() {
        let mut pace = Pace::default();
        assert!(!hear(&mut pace, READINGS - 1, several(3), SOON_NS));
        assert!(hear(&mut pace, 1, several(3), SOON_NS));
        assert!(hear(&mut pace, 1_000, several(60), SOON_NS), "as long as enough come");
    }

    #[test]
    fn who_sends_one_message_at_a_time_or_at_leisure_or_waits_for_an_answer_is_not() {
        let mut pace = Pace::default();
        assert!(!hear(&mut pace, 10_000, several(1), SOON_NS), "one at a time");
        assert!(!hear(&mut pace, 10_000, several(3), APART_NS), "at leisure");
        assert!(!hear(&mut pace, 10_000, Heard { asked: true, ..several(3) }, SOON_NS), "waits for an answer");
        assert!(!hear(&mut pace, 10_000, Heard { bytes: BYTES_MAX + 1, ..several(3) }, SOON_NS), "fills its socket");
        for _ in 0..10_000 {
            assert!(!hear(&mut pace, 1, several(3), SOON_NS) && !hear(&mut pace, 1, several(1), SOON_NS), "by turns");
        }
    }

    #[test]
    fn the_clock_leaves_who_brings_little_or_asks_and_is_slower_to_decide_again_after_it_was_wrong() {
        let mut pace = Pace::default();
        for wrong in [several(MESSAGES_MIN - 1), several(0), Heard { asked: true, ..several(60) }] {
            let needed = pace.needed;
            assert!(hear(&mut pace, needed, several(3), SOON_NS));
            assert!(!hear(&mut pace, 1, wrong, SOON_NS));
            assert!(!pace.by_clock && pace.needed == 2 * needed);
        }
        // By the clock in vain, again and again.
        hear(&mut pace, 1_000_000, several(3), SOON_NS);
        pace.end();
        assert_eq!(pace.needed, READINGS_MAX, "there is an end to that");
        assert!(hear(&mut pace, READINGS_MAX, several(MESSAGES_MIN), SOON_NS));
        assert!(hear(&mut pace, PROVED, several(MESSAGES_MIN), SOON_NS));
        assert!(!hear(&mut pace, 1, several(0), SOON_NS));
        assert_eq!(pace.needed, READINGS, "it was right for long enough");
    }

    #[test]
    fn a_reading_before_its_time_says_nothing() {
        let mut pace = Pace::default();
        assert!(hear(&mut pace, READINGS, several(3), SOON_NS));
        assert!(hear(&mut pace, 100, several(0), SOON_NS - 1));
        assert!(!hear(&mut pace, 1, Heard { asked: true, ..several(3) }, SOON_NS - 1), "but what is asked is heard");
        assert_eq!(pace.needed, READINGS);
    }
}
