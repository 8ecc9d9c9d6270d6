//! A receiver that waits for its lanes, and senders that wait for it: where it sleeps, and whom it rings for.

use std::sync::Arc;

use rustix::thread::sched_getcpu;

use super::{Lane, Lanes};
use crate::lane::doorbell::Ringer;
use crate::lane::layout::data;
use crate::lane::ring::SleepsAt;
use crate::lane::sleep::{Wakeup, Words};
use crate::lane::stamp::now_ns;

/// A sleep as short as this would have been spared by looking a little longer, in nanoseconds.
const HOT_NS: u64 = 100_000;

impl Lanes {
    /// Whether a sender ran on this processor when it woke this receiver last: while that is awake, the sender does nothing.
    pub(in crate::stream::receiver) fn share_processor(&self) -> bool {
        let here = sched_getcpu();
        self.lanes.iter().any(|lane| lane.reader.was_woken_from(here))
    }

    /// Whether it paid the last time to look again and again.
    pub(in crate::stream::receiver) fn is_hot(&self) -> bool {
        self.hot
    }

    /// It did not pay.
    pub(in crate::stream::receiver) fn cool(&mut self) {
        self.hot = false;
    }

    /// Says that the receiver waits, and looks once more. `false` when there is something.
    pub(in crate::stream::receiver) fn begin_wait(&mut self, at: SleepsAt, received: u64, is_up: bool) -> bool {
        // Whoever begins to wait now sees what was acknowledged, or is seen to wait.
        self.settle_looks();
        for lane in &mut self.lanes {
            lane.reader.begin_wait(at);
            // Nobody is left waiting for what is acknowledged.
            lane.ring_now();
        }
        self.settle_looks();
        self.slept_at_ns = now_ns();
        let waits = !self.has_news(received, is_up);
        if !waits {
            self.end_wait(at == SleepsAt::Bell);
        }
        waits
    }

    /// What is to be slept on; `None` when a sender has woken this receiver since it said that it waits.
    pub(in crate::stream::receiver) fn words(&self, wakeup: &Wakeup, seen: u32) -> Option<Words> {
        let mut words = Words::with_capacity(self.lanes.len() + 1);
        words.add_own(wakeup, seen);
        for lane in &self.lanes {
            words.add_shared(lane.reader.data().futex(data::WOKEN), lane.reader.unwoken()? as u32);
        }
        Some(words)
    }

    /// Whether a sender waits that was not rung for, although something is acknowledged: more is to come first.
    #[inline]
    pub(in crate::stream::receiver) fn owe_rings(&self) -> bool {
        self.lanes.iter().any(|lane| lane.ring_at.is_some())
    }

    /// By what those are rung for.
    pub(in crate::stream::receiver) fn owed_rings(&self) -> impl Iterator<Item = Arc<Ringer>> {
        self.lanes.iter().filter(|lane| lane.ring_at.is_some()).map(|lane| Arc::clone(&lane.ringer))
    }

    /// They were rung for.
    pub(in crate::stream::receiver) fn have_rung(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.ring_at = None);
    }

    /// Rings for senders that wait for what is acknowledged.
    pub(in crate::stream::receiver) fn ring_for_those_who_wait(&mut self) {
        self.settle_looks();
        self.lanes.iter_mut().for_each(Lane::ring_now);
    }

    /// It waits no more; its bell may have rung.
    pub(in crate::stream::receiver) fn end_wait(&mut self, rung: bool) {
        for lane in &mut self.lanes {
            lane.reader.end_wait();
        }
        self.hot = now_ns() - self.slept_at_ns < HOT_NS;
        if rung && let Some((bell, _)) = &self.ends {
            bell.take();
        }
    }

    /// Whether a look finds something that was not there.
    pub(in crate::stream::receiver) fn has_news(&mut self, received: u64, is_up: bool) -> bool {
        (is_up && self.stream_is_due(received)) || self.lanes.iter_mut().any(|lane| lane.has_news(is_up))
    }
}
