//! Progress of a long publishing: a line on the terminal, written over once a second.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

use crate::output::grouped;

/// Shows how many messages have been published, and how fast.
#[derive(Debug)]
pub(crate) struct Progress {
    /// `None` when nobody is to see it.
    begun: Option<Instant>,
    shown_at: Instant,
    shown_count: u64,
    shown: bool,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        let now = Instant::now();
        let begun = (!quiet && stderr().is_terminal()).then_some(now);
        Self { begun, shown_at: now, shown_count: 0, shown: false }
    }

    /// `count` messages have been published. Cheap enough for every chunk of input, not for every
    /// message.
    pub(crate) fn tell(&mut self, count: u64) {
        let Some(begun) = self.begun else { return };
        let now = Instant::now();
        let since = now - self.shown_at;
        if since < INTERVAL || now - begun < QUIET_START {
            return;
        }
        let rate = (count - self.shown_count) as f64 / since.as_secs_f64();
        self.write(&format!("\r\x1b[K{} messages, {}/s", grouped(count), grouped(rate as u64)));
        (self.shown_at, self.shown_count, self.shown) = (now, count, true);
    }

    /// Clears the line.
    pub(crate) fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        // Progress that cannot be shown is no reason to stop.
        let _ = stderr().write_all(text.as_bytes());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

const INTERVAL: Duration = Duration::from_secs(1);

/// What is done within two seconds needs no progress.
const QUIET_START: Duration = Duration::from_secs(2);
