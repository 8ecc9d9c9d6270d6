//! What a command says on its error output, in the daemon's log.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;

use rustix::event::PollFlags;

use super::stop::Stop;

/// Logs line after line until the output ends. After the order to stop it takes what a pipe holds and no more: a
/// process that has left the group of its command may write for ever.
/// `errors` must not wait by itself. Returns the last line.
pub(super) fn log_lines(link: &str, errors: File, stop: &Stop) -> String {
    let mut last = String::new();
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
                        last = say(link, &line);
                        line.clear();
                    }
                    if *byte != b'\n' {
                        line.push(*byte);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !stop.is_given() => {
                if stop.wait_or([(errors.as_fd(), PollFlags::IN)], None).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    if !line.is_empty() {
        last = say(link, &line);
    }
    last
}

fn say(link: &str, line: &[u8]) -> String {
    // What would steer a terminal is shown as an escape.
    let line: String = String::from_utf8_lossy(line)
        .chars()
        .flat_map(|c| if c.is_control() && c != '\t' { c.escape_default().collect() } else { vec![c] })
        .collect();
    tracing::info!(link, "{line}");
    line
}

/// As many as empty a pipe.
const PIPE_READS: u32 = 16;

/// Longer lines are logged in parts, so that a command that never ends a line fills no memory.
const LINE_MAX_BYTES: usize = 4_096;
