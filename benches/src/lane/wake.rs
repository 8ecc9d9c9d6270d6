//! What it costs to wake a process that sleeps: by the doorbell of a lane, by a pipe, and by a word of memory.
//!
//! The benchmark itself is one of the two; it rings, sleeps until it is rung for, and so on.

use std::fs::{File, OpenOptions};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use bus_core::lane::doorbell::{Doorbell, Ringer, doorbell};
use bus_core::lane::memory::Memory as _;
use bus_core::lane::region::Map;
use bus_core::lane::sleep;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::gettid;
use serde::{Deserialize, Serialize};

use super::files::{Files, Maps, Place, Size, path_of};
use crate::child::{Player, say};
use crate::clock::now_ns;
use crate::processors::Placement;
use crate::role::Role;
use crate::traffic::{Latency, latencies};

/// Rings back whenever it is rung for, until it is killed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Pong {
    /// Its input is a socket that rings both ways.
    Doorbell,
    /// A pipe each way.
    Pipes { forth: PathBuf, back: PathBuf },
    /// A word of memory each way.
    Words(Place),
}

impl Pong {
    pub(crate) fn play(self) -> Result<()> {
        match self {
            Self::Doorbell => answer(Bell::of(&stdin())?),
            Self::Pipes { forth, back } => {
                let (hear, ring) = (File::open(forth)?, OpenOptions::new().write(true).open(back)?);
                answer(Pipes { hear, ring })
            }
            Self::Words(place) => {
                let Maps { data, cursor } = place.reading_maps()?;
                answer(Words { heard: data, rung: cursor, last: 0 })
            }
        }
    }
}

fn answer(mut line: impl Line) -> Result<()> {
    say("ready")?;
    loop {
        line.sleep()?;
        line.ring()?;
    }
}

/// Half a round trip by doorbells.
pub(crate) fn by_doorbell(lasts: Duration) -> Result<Latency> {
    let (here, there) = doorbell()?;
    let _pong = Player::start_with(&Role::WakePong(Pong::Doorbell), Stdio::from(clone(&there)?))?;
    drop(there);
    ping(Bell::of(&here)?, lasts)
}

/// Half a round trip by pipes.
pub(crate) fn by_pipe(lasts: Duration) -> Result<Latency> {
    let ((far_hear, ring), (hear, far_ring)) = (pipe()?, pipe()?);
    let role = Pong::Pipes { forth: path_of(&far_hear), back: path_of(&far_ring) };
    let _pong = Player::start(&Role::WakePong(role))?;
    // What is left is held by the other process only: its end is seen.
    drop((far_hear, far_ring));
    ping(Pipes::<PipeReader, PipeWriter> { hear, ring }, lasts)
}

/// Half a round trip by words that each sleeps on: the least that waking takes.
pub(crate) fn by_futex(placement: Placement, lasts: Duration) -> Result<Latency> {
    let files = Files::create(Size::of(0))?;
    let pong = Player::start(&Role::WakePong(Pong::Words(files.place())))?;
    let Maps { data, cursor } = files.writing_maps()?;
    // On a thread of its own, so that the benchmark itself stays where it likes.
    let measured = thread::spawn(move || {
        placement.put([gettid(), pong.main_thread()], None)?;
        ping(Words { heard: cursor, rung: data, last: 0 }, lasts)
    });
    measured.join().map_err(|_| anyhow!("the measurement panicked"))?
}

fn ping(mut line: impl Line, lasts: Duration) -> Result<Latency> {
    let mut histogram = latencies()?;
    let until_ns = now_ns() + lasts.as_nanos() as u64;
    loop {
        let rung_ns = now_ns();
        line.ring()?;
        line.sleep()?;
        histogram.saturating_record((now_ns() - rung_ns) / 2);
        if rung_ns >= until_ns {
            return Ok(Latency::of(&histogram));
        }
    }
}

/// One end of what two processes wake each other by.
trait Line {
    fn ring(&mut self) -> Result<()>;

    /// Sleeps until the other rings.
    fn sleep(&mut self) -> Result<()>;
}

struct Bell {
    bell: Doorbell,
    ringer: Ringer,
}

impl Bell {
    /// Rings at the other end of the socket that it listens to.
    fn of(socket: &impl AsFd) -> Result<Self> {
        Ok(Self { bell: Doorbell::new(clone(socket)?), ringer: Ringer::new(clone(socket)?) })
    }
}

fn clone(socket: &impl AsFd) -> Result<OwnedFd> {
    Ok(socket.as_fd().try_clone_to_owned()?)
}

impl Line for Bell {
    fn ring(&mut self) -> Result<()> {
        self.ringer.ring();
        Ok(())
    }

    fn sleep(&mut self) -> Result<()> {
        let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
        let mut polled = [PollFd::new(&self.bell, PollFlags::IN)];
        poll(&mut polled, Some(&patience))?;
        let rung = polled[0].revents() == PollFlags::IN;
        ensure!(rung, "nobody rings any more");
        self.bell.take();
        Ok(())
    }
}

struct Pipes<R, W> {
    hear: R,
    ring: W,
}

impl<R: Read, W: Write> Line for Pipes<R, W> {
    fn ring(&mut self) -> Result<()> {
        Ok(self.ring.write_all(&[1])?)
    }

    fn sleep(&mut self) -> Result<()> {
        Ok(self.hear.read_exact(&mut [0])?)
    }
}

/// One word is written here and slept on there, the other the other way round.
struct Words {
    heard: Map,
    rung: Map,
    /// What was heard last.
    last: u64,
}

impl Line for Words {
    fn ring(&mut self) -> Result<()> {
        self.rung.store(0, self.rung.load(0) + 1);
        self.rung.wake(0);
        Ok(())
    }

    fn sleep(&mut self) -> Result<()> {
        let patience = Instant::now() + Duration::from_secs(20);
        while self.heard.load(0) == self.last {
            let mut words = sleep::Words::with_capacity(1);
            words.add_shared(self.heard.futex(0), self.last as u32);
            words.sleep(Some(patience))?;
            ensure!(Instant::now() < patience, "nobody wakes any more");
        }
        self.last = self.heard.load(0);
        Ok(())
    }
}
