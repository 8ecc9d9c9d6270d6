//! [`EventLoop`]: the one thread that owns the sockets and the broker.
//!
//! A turn reads every ready peer, a bounded amount each, hands each frame to the broker, and then
//! writes to each peer with something to be sent: what is to be delivered first, and then what became of what
//! others had sent. After traffic it polls for a moment before it
//! sleeps: waking a sleeping thread costs more than the poll.

mod arrivals;
mod lanes;
mod links;
mod pace;
mod telling;
#[cfg(test)]
mod tests;
mod traffic;

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus_core::Door;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use self::pace::{Pace, Paced};
use self::telling::FramesOut;
use self::traffic::Readiness;
use crate::broker::{Broker, PeerId};
use crate::connection::{Connection, READ_BUFFER_BYTES};
use crate::gateway::Links;
use crate::lanes::{LaneStore, ToFreeze};
use crate::listener::Listener;
use crate::memory::MemoryHub;
use crate::reserve::Reserve;
use crate::sealer::Sealer;

/// What the loop needs to know besides the broker's rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoopOptions {
    /// What `CLOCK_MONOTONIC` said when the broker's time began, in nanoseconds.
    pub(crate) started_at_ns: u64,
    pub(crate) poll: Duration,
    pub(crate) idle_exit: Option<Duration>,
    pub(crate) drain: Duration,
    /// Sockets that are open at once; whoever comes then waits.
    pub(crate) connections_max: usize,
}

/// Who was there when the daemon ended, and comes back to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// No receiver.
    Nobody,
    /// Receivers, who may hold messages.
    Receivers,
}

/// Something that the loop watches besides its sockets.
pub(crate) trait Outside {
    /// Readable when there may be news.
    fn fd(&self) -> std::os::fd::BorrowedFd<'_>;

    /// Takes the news; `true` when the daemon is to end.
    fn wants_end(&mut self) -> bool;

    /// How often [`alive`](Self::alive) is to be called.
    fn alive_interval(&self) -> Option<Duration>;

    /// The loop is well.
    fn alive(&self);
}

pub(crate) struct EventLoop<O> {
    poll: Poll,
    listener: Option<Listener>,
    outside: O,
    broker: Broker,
    connections: Slab<Slot>,
    /// Connections that may have more to read than one turn took.
    unread: VecDeque<usize>,
    /// Senders that are not read until their receiver has caught up, or not for long.
    held_back: Vec<HeldBack>,
    /// Connections that are read by the clock.
    paced: Paced,
    options: LoopOptions,
    started: Instant,
    busy_until: Instant,
    idle_since: Instant,
    /// Accepting rests until then: there are no descriptors.
    accept_again_at: Option<Instant>,
    /// When the log was last told that accepting rests.
    accept_told_at: Option<Instant>,
    /// It was told, and nobody has been let in since.
    accept_rests: bool,
    /// For those who come when there are none.
    reserve: Reserve,
    ends_at: Option<Instant>,
    alive_at: Instant,
    /// Where sockets are read into, shared by all.
    buffer: Vec<u8>,
    /// Where what is written next is listed. Empty between two writes.
    slices: Vec<IoSlice<'static>>,
    /// By the place of a peer, the key of its connection.
    keys: Vec<usize>,
    memory: Arc<MemoryHub>,
    /// The memory of lanes.
    lanes: LaneStore,
    /// Freezes it, and lets it go.
    sealer: Sealer<ToFreeze>,
    /// Its own ends on pipes.
    links: Links,
    /// Sources of messages are given until then to hand on what they have read.
    sources_end_by: Option<Instant>,
    /// Connections by memory, by their numbers.
    by_number: HashMap<u64, usize>,
    to_write: Vec<usize>,
    lingering: usize,
    /// Connections with a socket that is open.
    open_sockets: usize,
}

/// A sender that is not read at the moment.
#[derive(Clone, Copy, Debug)]
struct HeldBack {
    key: usize,
    peer: PeerId,
    until: Instant,
}

struct Slot {
    connection: Connection,
    peer: PeerId,
    paused: bool,
    queued: bool,
    held_back: bool,
    /// The kernel is asked to tell when its socket takes more.
    watched_for_room: bool,
    pace: Pace,
    /// Its number, when it is by memory.
    number: Option<u64>,
    /// Closed as soon as what is to be said has been written.
    closing: Option<String>,
    /// Finds the frames in what it is sent, where the log tells of each.
    frames_out: Option<Box<FramesOut>>,
}

impl<O: Outside> EventLoop<O> {
    pub(crate) fn new(
        listener: Listener,
        outside: O,
        mut broker: Broker,
        links: Links,
        options: LoopOptions,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry();
        registry.register(&mut SourceFd(&listener.as_fd().as_raw_fd()), LISTENER, Interest::READABLE)?;
        registry.register(&mut SourceFd(&outside.fd().as_raw_fd()), OUTSIDE, Interest::READABLE)?;
        registry.register(&mut SourceFd(&links.as_fd().as_raw_fd()), LINKS, Interest::READABLE)?;
        let mut reserve = Reserve::default();
        reserve.fill();
        let sealer = Sealer::new()?;
        registry.register(&mut SourceFd(&sealer.as_fd().as_raw_fd()), SEALER, Interest::READABLE)?;
        let paced = Paced::new()?;
        registry.register(&mut SourceFd(&paced.as_fd().as_raw_fd()), PACED, Interest::READABLE)?;
        let memory = MemoryHub::new(Waker::new(registry, MEMORY)?);
        let lanes = LaneStore::default();
        broker.set_lane_books(Box::new(lanes.books()));
        let now = Instant::now();
        Ok(Self {
            poll,
            listener: Some(listener),
            outside,
            broker,
            connections: Slab::new(),
            unread: VecDeque::new(),
            held_back: Vec::new(),
            paced,
            options,
            started: now,
            busy_until: now,
            idle_since: now,
            accept_again_at: None,
            accept_told_at: None,
            accept_rests: false,
            reserve,
            ends_at: None,
            alive_at: now,
            buffer: vec![0; READ_BUFFER_BYTES],
            slices: Vec::new(),
            keys: Vec::new(),
            memory,
            lanes,
            sealer,
            links,
            sources_end_by: None,
            by_number: HashMap::new(),
            to_write: Vec::new(),
            lingering: 0,
            open_sockets: 0,
        })
    }

    pub(crate) fn door(&self) -> Door {
        self.memory.door()
    }

    /// Serves until the end is ordered, or nobody has come for long enough.
    pub(crate) fn run(mut self) -> io::Result<Left> {
        let mut events = Events::with_capacity(1024);
        let mut now = Instant::now();
        loop {
            now = self.turn(&mut events, now)?;
            if self.is_over(now) {
                return self.end();
            }
        }
    }

    /// Waits for events, and does what they ask for. Takes the time of the end of the turn before, and returns its own.
    fn turn(&mut self, events: &mut Events, now: Instant) -> io::Result<Instant> {
        self.wait(events, now)?;
        // Who comes may have left before, by a connection that is read by the clock.
        let comes = events.iter().any(|event| event.token() == LISTENER);
        let paced = self.read_paced(comes);
        let worked = paced || !events.is_empty() || !self.unread.is_empty();
        for event in events.iter() {
            match event.token() {
                LISTENER => self.accept(),
                MEMORY => self.look_into_memory(),
                LINKS => self.look_at_links(),
                SEALER => self.look_at_sealed(),
                PACED => {}
                OUTSIDE => {
                    if self.outside.wants_end() {
                        self.begin_end();
                    }
                }
                Token(token) => self.ready(token - FIRST_CONNECTION, Readiness::of(event)),
            }
        }
        self.read_unread();
        self.carry_out();
        self.read_held_back();
        self.refill_reserve();
        // Once for all that follows: reading the clock costs as much as taking in a message.
        let now = Instant::now();
        self.tick(now);
        if worked {
            self.busy_until = now + self.options.poll;
        }
        Ok(now)
    }

    /// Waits for events: not at all while there is more to read, asleep while the clock decides when that is, by polling
    /// shortly after traffic, else asleep.
    fn wait(&mut self, events: &mut Events, mut now: Instant) -> io::Result<()> {
        let paced = self.paced.set_timer(now)?;
        if !self.unread.is_empty() {
            return self.poll_once(events, Some(Duration::ZERO));
        }
        if paced {
            self.busy_until = now;
        }
        let mut looks = 0_u32;
        while now < self.busy_until {
            self.poll_once(events, Some(Duration::ZERO))?;
            now = Instant::now();
            if !events.is_empty() || self.tick_is_due(now) {
                return Ok(());
            }
            looks += 1;
            if looks.is_multiple_of(LOOKS_PER_YIELD) {
                std::thread::yield_now();
            }
        }
        // What lies between may have taken a while.
        now = Instant::now();
        let timeout = self.next_deadline(now).map(|at| round_up(at.saturating_duration_since(now)));
        self.poll_once(events, timeout)
    }

    fn poll_once(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            result => result,
        }
    }

    fn tick_is_due(&self, now: Instant) -> bool {
        self.broker.next_tick().is_some_and(|at| self.started + at <= now)
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let mut next = self.broker.next_tick().map(|at| self.started + at);
        let mut or = |at: Option<Instant>| {
            if let Some(at) = at {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        };
        or(self.options.idle_exit.filter(|_| self.broker.is_idle()).map(|idle| self.idle_since + idle));
        or(self.outside.alive_interval().map(|_| self.alive_at));
        or((self.lingering > 0).then(|| now + LINGER));
        or(self.held_back.iter().map(|held| held.until).min());
        or(self.accept_again_at);
        or(self.ends_at);
        or(self.sources_end_by);
        next
    }

    /// What time brings.
    fn tick(&mut self, now: Instant) {
        if self.tick_is_due(now) {
            self.broker.tick(now - self.started);
            self.look_at_processes();
            self.carry_out();
        }
        if let Some(interval) = self.outside.alive_interval()
            && self.alive_at <= now
        {
            self.outside.alive();
            self.alive_at = now + interval;
        }
        if self.accept_again_at.is_some_and(|at| at <= now) {
            self.accept_again_at = None;
            self.accept();
        }
        self.cut_lingering(now);
        self.end_sources(now);
        if self.broker.has_actions() {
            // Of a peer that went with that: nobody else may come for long.
            self.carry_out();
        }
        if !self.broker.is_idle() {
            self.idle_since = now;
        }
    }

    /// The end is ordered: no new ends, and receivers get a while to drain.
    fn begin_end(&mut self) {
        if self.ends_at.is_some() {
            return;
        }
        tracing::info!("ending: receivers have {} ms to drain", self.options.drain.as_millis());
        self.ends_at = Some(Instant::now() + self.options.drain);
        self.begin_end_of_sources();
    }

    fn is_over(&self, now: Instant) -> bool {
        let has_sources = self.sources_end_by.is_some();
        let ended = self.ends_at.is_some_and(|at| at <= now || (!has_sources && self.broker.is_drained()));
        let idle = self.options.idle_exit.is_some_and(|idle| self.broker.is_idle() && self.idle_since + idle <= now);
        ended || idle
    }

    fn end(mut self) -> io::Result<Left> {
        if self.ends_at.is_none() {
            tracing::info!("ending: nobody was connected and nothing was held for the time of idle-exit");
        }
        for leftover in self.broker.leftovers() {
            tracing::warn!(
                channel = %leftover.channel,
                messages = leftover.messages,
                "messages are left; living senders send theirs again to the next daemon"
            );
        }
        self.end_links();
        self.memory.end();
        let left = if self.broker.has_receivers_elsewhere() { Left::Receivers } else { Left::Nobody };
        self.broker.close_all();
        self.carry_out();
        Ok(left)
    }
}

const LISTENER: Token = Token(0);
const OUTSIDE: Token = Token(1);
const MEMORY: Token = Token(2);
const LINKS: Token = Token(3);
const SEALER: Token = Token(4);
const PACED: Token = Token(5);
const FIRST_CONNECTION: usize = 6;

/// How often to look while polling before others are let onto the processor: that costs as much as a look, and whoever
/// was woken has mostly taken the processor by itself.
const LOOKS_PER_YIELD: u32 = 4;

/// How long a peer that is being closed has to read why.
const LINGER: Duration = Duration::from_secs(1);

/// How long the senders of a receiver whose socket is full are left unread at most.
const HOLD_BACK: Duration = Duration::from_millis(2);

/// epoll counts whole milliseconds, and waking early would mean waking twice.
fn round_up(wait: Duration) -> Duration {
    wait + Duration::from_micros(999)
}
