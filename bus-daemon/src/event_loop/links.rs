//! What the loop has to do with gateways: orders go to them, answers and partings come from them.

use std::time::{Duration, Instant};

use super::{EventLoop, Outside};
use crate::gateway::News;

impl<O: Outside> EventLoop<O> {
    /// There is news from gateways.
    pub(super) fn look_at_links(&mut self) {
        let News { answers, to_part_with } = self.links.take_news();
        for name in to_part_with {
            self.broker.part_with(std::process::id(), &name);
        }
        for (peer, reply) in answers {
            self.broker.answer(peer, &reply);
        }
        self.end_sources(Instant::now());
    }

    /// The end is ordered. What gateways have read from pipes is taken in before nothing more is.
    pub(super) fn begin_end_of_sources(&mut self) {
        self.links.end_sources();
        self.sources_end_by = Some(Instant::now() + SOURCES_PATIENCE);
        self.end_sources(Instant::now());
    }

    pub(super) fn end_sources(&mut self, now: Instant) {
        if self.sources_end_by.is_some_and(|by| by <= now || !self.links.has_sources()) {
            self.sources_end_by = None;
            self.broker.begin_shutdown();
        }
    }

    /// The loop ends: gateways are told, and find that their ends are gone.
    pub(super) fn end_links(&mut self) {
        self.links.end_all();
        self.look_at_links();
    }
}

/// Longer than a gateway tries to hand on what it has read.
const SOURCES_PATIENCE: Duration = Duration::from_secs(2);
