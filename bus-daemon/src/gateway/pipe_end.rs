//! [`PipeEnd`]: the writing end of a pipe, at which a thread can wait and be told to stop, and which knows how much
//! its reader has read.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use super::link::Link;
use super::stop::Stop;

/// Waiting ends when the reader goes, which is [`BrokenPipe`](io::ErrorKind::BrokenPipe). After the order to stop it
/// goes on for a while, so that what has begun is not torn, and then fails with [`STOPPED`].
pub(super) struct PipeEnd<'a> {
    pipe: File,
    stop: &'a Stop,
    /// Readable when the process that reads has ended, whoever else may hold the pipe.
    end: Option<Arc<OwnedFd>>,
    answers: Option<Answers>,
    /// How many bytes the pipe has taken.
    written: u64,
    /// When to give up, once the order to stop was seen: if nothing moves, and in any case.
    give_up: Option<(Instant, Instant)>,
}

/// The lines that a reader answers.
struct Answers {
    output: File,
    lines: u64,
    ended: bool,
}

/// What waiting fails with after the order to stop.
pub(super) const STOPPED: io::ErrorKind = io::ErrorKind::ConnectionAborted;

impl<'a> PipeEnd<'a> {
    /// `pipe` must not wait by itself.
    pub(super) fn new(pipe: File, stop: &'a Stop) -> Self {
        Self { pipe, stop, end: None, answers: None, written: 0, give_up: None }
    }

    /// With a reader that has a process of its own, and may answer.
    pub(super) fn of_process(pipe: File, stop: &'a Stop, end: Arc<OwnedFd>, output: Option<File>) -> Self {
        let answers = output.map(|output| Answers { output, lines: 0, ended: false });
        Self { end: Some(end), answers, ..Self::new(pipe, stop) }
    }

    /// Whether nobody reads any more.
    pub(super) fn is_deserted(&self) -> bool {
        let mut watched = [PollFd::new(&self.pipe, PollFlags::empty())];
        let polled = rustix::event::poll(&mut watched, Some(&Timespec::default()));
        polled.is_ok() && watched[0].revents().contains(PollFlags::ERR)
    }

    /// How many bytes of what was written are read. Without a reader it stays so until this end is closed.
    pub(super) fn read_bytes(&self) -> u64 {
        let unread = rustix::io::ioctl_fionread(&self.pipe);
        unread.map_or(0, |unread| self.written.saturating_sub(unread))
    }

    /// Waits until everything is read. The kernel does not tell, so it is asked again and again, less and less
    /// often the longer it takes; that the reader goes is told at once.
    pub(super) fn wait_until_read(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        let mut read = self.read_bytes();
        while read < self.written {
            let pause = (begun.elapsed() / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            self.wait(Some(PollFlags::empty()), Some(pause))?;
            let before = std::mem::replace(&mut read, self.read_bytes());
            if read > before {
                self.has_moved();
            }
        }
        Ok(())
    }

    /// Whether its reader answers by lines.
    pub(super) fn has_answers(&self) -> bool {
        self.answers.is_some()
    }

    /// Forgets the lines that have come until now.
    pub(super) fn forget_lines(&mut self, link: &Link) -> io::Result<()> {
        let Some(answers) = &mut self.answers else { return Ok(()) };
        answers.read()?;
        let lines = std::mem::take(&mut answers.lines);
        if lines > 0 {
            link.refuse(&format_args!("the worker wrote {lines} lines before it had a message: they acknowledge none"));
        }
        Ok(())
    }

    /// Waits for the line that acknowledges what was written last.
    pub(super) fn wait_for_line(&mut self, link: &Link) -> io::Result<()> {
        let mut waited = Ok(());
        loop {
            let Some(answers) = &mut self.answers else { return Ok(()) };
            answers.read()?;
            match std::mem::take(&mut answers.lines) {
                // What it wrote before it ended is read by now.
                0 => waited?,
                lines => {
                    if lines > 1 {
                        let why = format_args!("the worker wrote {lines} lines for one message: one acknowledges it");
                        link.refuse(&why);
                    }
                    return Ok(());
                }
            }
            if answers.ended {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            // It may have closed its input: it has all that it needs.
            waited = self.wait(None, None);
        }
    }

    /// Waits until the pipe is ready, the reader answers, or `timeout` is over; for the reader's end in any case.
    fn wait(&mut self, interest: Option<PollFlags>, timeout: Option<Duration>) -> io::Result<()> {
        let is_stopped = self.stop.is_given();
        let timeout = match is_stopped {
            true => Some(timeout.unwrap_or(Duration::MAX).min(self.patience_left()?)),
            false => timeout,
        };
        let mut watched = Vec::with_capacity(4);
        if !is_stopped {
            watched.push(PollFd::new(self.stop, PollFlags::IN));
        }
        let end_at = self.end.as_ref().map(|end| {
            watched.push(PollFd::new(&**end, PollFlags::IN));
            watched.len() - 1
        });
        let answers = self.answers.iter().filter(|answers| !answers.ended);
        watched.extend(answers.map(|answers| PollFd::new(&answers.output, PollFlags::IN)));
        let pipe_at = watched.len();
        watched.extend(interest.map(|interest| PollFd::new(&self.pipe, interest)));
        let timeout = timeout.map(|timeout| Timespec::try_from(timeout).unwrap_or_default());
        match rustix::event::poll(&mut watched, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        // What is seen here holds, though another reader may come the next moment.
        let is_deserted = watched.get(pipe_at).is_some_and(|pipe| pipe.revents().contains(PollFlags::ERR));
        let has_ended = end_at.is_some_and(|at| !watched[at].revents().is_empty());
        drop(watched);
        if let Some(answers) = &mut self.answers {
            // A worker that writes while it reads would wait for room for ever.
            answers.read()?;
        }
        // Whatever it has answered: of one that has ended nothing more can come.
        if is_deserted || has_ended { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn patience_left(&mut self) -> io::Result<Duration> {
        let now = Instant::now();
        let (unmoved, at_last) = *self.give_up.get_or_insert((now + PATIENCE, now + LONGEST_PATIENCE));
        let left = unmoved.min(at_last).saturating_duration_since(now);
        if left.is_zero() { Err(STOPPED.into()) } else { Ok(left) }
    }

    fn has_moved(&mut self) {
        if let Some((unmoved, _)) = &mut self.give_up {
            *unmoved = Instant::now() + PATIENCE;
        }
    }
}

impl Write for PipeEnd<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (&self.pipe).write(bytes) {
                Ok(written) => {
                    self.written += written as u64;
                    self.has_moved();
                    return Ok(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(Some(PollFlags::OUT), None)?,
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Answers {
    /// Counts the lines that are there, without waiting; as much as a pipe holds at once, for a worker may write
    /// without end.
    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4_096];
        for _ in 0..PIPE_READS {
            match (&self.output).read(&mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(bytes) => self.lines += buffer[..bytes].iter().filter(|byte| **byte == b'\n').count() as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// As many as empty a pipe.
const PIPE_READS: u32 = 16;

/// How long what has begun may still take after the order to stop while nothing moves.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long it may take in any case.
const LONGEST_PATIENCE: Duration = Duration::from_secs(2);

/// About what a reader that is there takes.
const SHORTEST_PAUSE: Duration = Duration::from_micros(20);

/// How late it is seen at most that a slow reader has read.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
