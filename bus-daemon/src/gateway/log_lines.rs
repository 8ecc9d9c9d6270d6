//! What a command says on its error output, in the daemon's log: bounded in length and in number, and harmless to a
//! terminal.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::stop::Stop;

/// Logs line after line until the output ends. After the order to stop it takes what a pipe holds and no more: a
/// process that has left the group of its command may write for ever.
/// `errors` must not wait by itself. Returns the last line.
pub(super) fn log_lines(link: &str, errors: File, stop: &Stop) -> String {
    let mut lines = Lines { link, last: Vec::new(), throttle: Throttle::new(Instant::now()) };
    let mut line = Vec::new();
    let mut buffer = [0; LINE_MAX_BYTES];
    let mut reads_after_stop = 0;
    while reads_after_stop < PIPE_READS {
        reads_after_stop += u32::from(stop.is_given());
        match (&errors).read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => {
                for byte in &buffer[..bytes] {
                    if *byte == b'\n' || line.len() == LINE_MAX_BYTES {
                        lines.say(&mut line);
                    }
                    if *byte != b'\n' {
                        line.push(*byte);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !stop.is_given() => {
                if stop.wait_or([(errors.as_fd(), PollFlags::IN)], lines.throttle.news_in(Instant::now())).is_err() {
                    break;
                }
                lines.tell_left_out(Instant::now());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    if !line.is_empty() {
        lines.say(&mut line);
    }
    lines.tell_left_out(Instant::now() + WINDOW);
    shown(&lines.last)
}

struct Lines<'a> {
    link: &'a str,
    last: Vec<u8>,
    throttle: Throttle,
}

impl Lines<'_> {
    /// Takes a line.
    fn say(&mut self, line: &mut Vec<u8>) {
        let now = Instant::now();
        self.tell_left_out(now);
        if self.throttle.admits(line.len(), now) {
            tracing::info!(link = self.link, "{}", shown(line));
        }
        std::mem::swap(&mut self.last, line);
        line.clear();
    }

    fn tell_left_out(&mut self, now: Instant) {
        if let Some(lines) = self.throttle.left_out(now) {
            let seconds = WINDOW.as_secs();
            tracing::warn!(
                link = self.link,
                "{lines} lines more are left out: {WINDOW_LINES} lines or {WINDOW_BYTES} bytes are logged in {seconds} s"
            );
        }
    }
}

/// So much in so long: a command that never stops talking fills no disk.
struct Throttle {
    since: Instant,
    lines: u32,
    bytes: usize,
    left_out: u64,
}

impl Throttle {
    fn new(now: Instant) -> Self {
        Self { since: now, lines: 0, bytes: 0, left_out: 0 }
    }

    /// Whether there is room for a line.
    fn admits(&mut self, line_bytes: usize, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= WINDOW {
            (self.since, self.lines, self.bytes) = (now, 0, 0);
        }
        let admits = self.lines < WINDOW_LINES && self.bytes + line_bytes <= WINDOW_BYTES;
        if admits {
            self.lines += 1;
            self.bytes += line_bytes;
        } else {
            self.left_out += 1;
        }
        admits
    }

    /// How many lines were left out, once that time is over.
    fn left_out(&mut self, now: Instant) -> Option<u64> {
        let is_over = now.saturating_duration_since(self.since) >= WINDOW;
        (is_over && self.left_out > 0).then(|| std::mem::take(&mut self.left_out))
    }

    /// When there is something to tell though nothing more comes.
    fn news_in(&self, now: Instant) -> Option<Duration> {
        (self.left_out > 0).then(|| (self.since + WINDOW).saturating_duration_since(now))
    }
}

/// What would steer a terminal, or turn the order in which it shows text, is shown as an escape.
fn shown(line: &[u8]) -> String {
    let steers = |c: char| {
        let is_direction =
            matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        is_direction || (c.is_control() && c != '\t')
    };
    let mut text = String::with_capacity(line.len());
    for c in String::from_utf8_lossy(line).chars() {
        if steers(c) { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}

/// As many as empty a pipe.
const PIPE_READS: u32 = 16;

/// Longer lines are logged in parts, so that a command that never ends a line fills no memory.
const LINE_MAX_BYTES: usize = 4_096;

/// In which so much is logged: room for a few stack traces, and about a gigabyte a day at most.
const WINDOW: Duration = Duration::from_secs(10);
const WINDOW_LINES: u32 = 500;
const WINDOW_BYTES: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_limit_is_counted_and_told_once_the_time_is_over() {
        let begun = Instant::now();
        let mut throttle = Throttle::new(begun);
        assert_eq!((0..WINDOW_LINES + 7).filter(|_| throttle.admits(10, begun)).count(), WINDOW_LINES as usize);
        assert_eq!((throttle.left_out(begun), throttle.news_in(begun)), (None, Some(WINDOW)));
        let later = begun + WINDOW;
        assert_eq!((throttle.left_out(later), throttle.left_out(later)), (Some(7), None));
        assert_eq!(throttle.news_in(later), None);
        // Long lines count by their bytes.
        let long = (0..1_000).filter(|_| throttle.admits(LINE_MAX_BYTES, later)).count();
        assert_eq!(long, WINDOW_BYTES / LINE_MAX_BYTES);
    }

    #[test]
    fn what_would_steer_a_terminal_is_shown_as_an_escape() {
        let line = "\u{e4}\t\u{1b}[2J\u{7}\r\u{9b}\u{202e}txt\u{2028}".as_bytes();
        assert_eq!(shown(line), "\u{e4}\t\\u{1b}[2J\\u{7}\\r\\u{9b}\\u{202e}txt\\u{2028}");
        assert_eq!(shown(b"a\xffb"), "a\u{fffd}b");
    }
}
