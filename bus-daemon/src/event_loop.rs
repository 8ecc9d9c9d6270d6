//! [`EventLoop`]: the one thread that owns the sockets and the broker.
//!
//! A turn reads every ready peer, a bounded amount each, hands each frame to the broker, and then
//! writes once to each peer with something to be sent. After traffic it polls for a moment before it
//! sleeps: waking a sleeping thread costs more than the poll.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus_core::Door;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use crate::broker::{Action, Broker, Handled, PeerId};
use crate::connection::{self, Connection, READ_BUFFER_BYTES, Read};
use crate::listener::{Accepted, Listener};
use crate::memory::MemoryHub;
use crate::peer::Credentials;

/// What the loop needs to know besides the broker's rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoopOptions {
    pub(crate) poll: Duration,
    pub(crate) idle_exit: Option<Duration>,
    pub(crate) drain: Duration,
    pub(crate) connections_max: usize,
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
    options: LoopOptions,
    started: Instant,
    busy_until: Instant,
    idle_since: Instant,
    /// Accepting rests until then: there are no descriptors.
    accept_again_at: Option<Instant>,
    ends_at: Option<Instant>,
    alive_at: Instant,
    /// Where sockets are read into, shared by all.
    buffer: Vec<u8>,
    by_peer: HashMap<PeerId, usize>,
    memory: Arc<MemoryHub>,
    /// Connections by memory, by their numbers.
    by_number: HashMap<u64, usize>,
    to_write: Vec<usize>,
    lingering: usize,
}

struct Slot {
    connection: Connection,
    peer: PeerId,
    paused: bool,
    queued: bool,
    /// Its number, when it is by memory.
    number: Option<u64>,
    /// Closed as soon as what is to be said has been written.
    closing: Option<String>,
}

impl<O: Outside> EventLoop<O> {
    pub(crate) fn new(listener: Listener, outside: O, broker: Broker, options: LoopOptions) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry();
        registry.register(&mut SourceFd(&listener.as_fd().as_raw_fd()), LISTENER, Interest::READABLE)?;
        registry.register(&mut SourceFd(&outside.fd().as_raw_fd()), OUTSIDE, Interest::READABLE)?;
        let memory = MemoryHub::new(Waker::new(registry, MEMORY)?);
        let now = Instant::now();
        Ok(Self {
            poll,
            listener: Some(listener),
            outside,
            broker,
            connections: Slab::new(),
            unread: VecDeque::new(),
            options,
            started: now,
            busy_until: now,
            idle_since: now,
            accept_again_at: None,
            ends_at: None,
            alive_at: now,
            buffer: vec![0; READ_BUFFER_BYTES],
            by_peer: HashMap::new(),
            memory,
            by_number: HashMap::new(),
            to_write: Vec::new(),
            lingering: 0,
        })
    }

    /// Serves until the end is ordered, or nobody has come for long enough.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            self.wait(&mut events)?;
            let mut worked = !events.is_empty() || !self.unread.is_empty();
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    MEMORY => self.look_into_memory(),
                    OUTSIDE => {
                        if self.outside.wants_end() {
                            self.begin_end();
                        }
                    }
                    Token(token) => self.ready(token - FIRST_CONNECTION, event),
                }
            }
            self.read_unread();
            self.carry_out();
            worked |= self.tick();
            if worked {
                self.busy_until = Instant::now() + self.options.poll;
            }
            if self.is_over() {
                return self.end();
            }
        }
    }

    /// Waits for events: not at all while there is more to read, by polling shortly after traffic,
    /// else asleep.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        if !self.unread.is_empty() {
            return self.poll_once(events, Some(Duration::ZERO));
        }
        if self.options.poll > Duration::ZERO {
            while Instant::now() < self.busy_until {
                self.poll_once(events, Some(Duration::ZERO))?;
                if !events.is_empty() {
                    return Ok(());
                }
                self.be_idle();
                std::hint::spin_loop();
            }
        }
        self.be_idle();
        if !self.unread.is_empty() {
            return self.poll_once(events, Some(Duration::ZERO));
        }
        let timeout = self.next_deadline().map(|at| round_up(at.saturating_duration_since(Instant::now())));
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

    /// Nothing is ready: the moment to tell senders what they do not wait for.
    fn be_idle(&mut self) {
        self.broker.end_turn(true);
        self.carry_out();
    }

    fn next_deadline(&self) -> Option<Instant> {
        let broker = self.broker.next_tick().map(|at| self.started + at);
        let idle = self.options.idle_exit.filter(|_| self.broker.is_idle()).map(|idle| self.idle_since + idle);
        let alive = self.outside.alive_interval().map(|_| self.alive_at);
        let linger = (self.lingering > 0).then(|| Instant::now() + LINGER);
        [broker, idle, alive, linger, self.accept_again_at, self.ends_at].into_iter().flatten().min()
    }

    /// What time brings. Returns whether anything was due.
    fn tick(&mut self) -> bool {
        let now = Instant::now();
        let since_start = now - self.started;
        let due = self.broker.next_tick().is_some_and(|at| at <= since_start);
        if due {
            self.broker.tick(since_start);
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
        if !self.broker.is_idle() {
            self.idle_since = now;
        }
        due
    }

    fn accept(&mut self) {
        while let Some(listener) = &self.listener {
            if self.connections.len() >= self.options.connections_max {
                // Whoever waits in the backlog is let in when another leaves.
                self.accept_again_at = Some(Instant::now() + ACCEPT_PAUSE);
                return;
            }
            match listener.accept() {
                Ok(Accepted::Nobody) => return,
                Ok(Accepted::Connection(connection, credentials)) => {
                    self.admit(connection, credentials, None);
                }
                Err(error) => {
                    // Above all a full descriptor table: the others go on, and this one waits.
                    tracing::warn!(%error, "accepting rests for {} ms", ACCEPT_PAUSE.as_millis());
                    self.accept_again_at = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Takes a connection in. Returns its key.
    fn admit(&mut self, connection: Connection, credentials: Credentials, number: Option<u64>) -> Option<usize> {
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        if let Some(fd) = connection.fd() {
            let token = Token(key + FIRST_CONNECTION);
            if let Err(error) = self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE) {
                tracing::warn!(%error, "a connection could not be watched and is closed");
                return None;
            }
        }
        let peer = self.broker.connected(self.started.elapsed(), credentials);
        entry.insert(Slot { connection, peer, paused: false, queued: false, number, closing: None });
        self.by_peer.insert(peer, key);
        // It may have spoken before it was watched.
        self.queue(key);
        Some(key)
    }

    /// Connections by memory: new ones, and those with something to read or room to write again.
    fn look_into_memory(&mut self) {
        let (arrived, ready) = self.memory.take();
        let credentials = Credentials { pid: std::process::id(), uid: rustix::process::geteuid().as_raw() };
        for (number, end) in arrived {
            let connection = Connection::new(connection::Stream::Memory(end));
            if let Some(key) = self.admit(connection, credentials, Some(number)) {
                self.by_number.insert(number, key);
            }
        }
        for number in ready {
            let Some(key) = self.by_number.get(&number).copied() else { continue };
            self.connections[key].connection.write_blocked = false;
            self.write(key);
            if self.connections.contains(key) {
                self.read(key);
            }
        }
    }

    pub(crate) fn door(&self) -> Door {
        self.memory.door()
    }

    fn slot_of(&self, peer: PeerId) -> Option<usize> {
        self.by_peer.get(&peer).copied()
    }

    fn ready(&mut self, key: usize, event: &mio::event::Event) {
        if !self.connections.contains(key) {
            return;
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            // No further event follows a hang-up: its end has to be read now, or after a pause.
            self.connections[key].connection.hung_up |= event.is_read_closed() || event.is_error();
            self.read(key);
        }
        if event.is_writable() && self.connections.contains(key) {
            self.connections[key].connection.write_blocked = false;
            self.watch(key, Interest::READABLE);
            self.write(key);
        }
    }

    fn queue(&mut self, key: usize) {
        if !std::mem::replace(&mut self.connections[key].queued, true) {
            self.unread.push_back(key);
        }
    }

    fn read_unread(&mut self) {
        for _ in 0..self.unread.len() {
            let Some(key) = self.unread.pop_front() else { return };
            if let Some(slot) = self.connections.get_mut(key) {
                slot.queued = false;
                self.read(key);
            }
        }
    }

    /// Reads what a peer has sent, and hands it to the broker frame by frame.
    fn read(&mut self, key: usize) {
        let limits = self.broker.frame_limits();
        let now = self.started.elapsed();
        let slot = &mut self.connections[key];
        if slot.paused || slot.queued {
            return;
        }
        let (peer, broker) = (slot.peer, &mut self.broker);
        let mut fault = None;
        let outcome = slot.connection.read(&mut self.buffer, limits, &mut |frame| match frame {
            Ok((header, content)) => broker.frame(now, peer, &header, content),
            Err(error) => {
                fault = Some(error);
                Handled::Taken
            }
        });
        if let Some(error) = fault {
            self.broker.malformed(now, peer, &error);
        }
        match outcome {
            Read::Drained => {}
            Read::More => self.queue(key),
            Read::Paused => self.connections[key].paused = true,
            Read::Closed => self.drop_connection(key, None),
        }
    }

    /// Does what the broker has ordered.
    fn carry_out(&mut self) {
        loop {
            while let Some(action) = self.broker.poll_action() {
                match action {
                    Action::Write(peer) => {
                        if let Some(key) = self.slot_of(peer) {
                            self.to_write.push(key);
                        }
                    }
                    Action::Resume(peer) => {
                        if let Some(key) = self.slot_of(peer) {
                            self.connections[key].paused = false;
                            self.queue(key);
                        }
                    }
                    Action::Close(peer, reason) => {
                        if let Some(key) = self.slot_of(peer) {
                            self.connections[key].closing = Some(reason);
                            self.to_write.push(key);
                        }
                    }
                }
            }
            self.broker.end_turn(false);
            let mut to_write = std::mem::take(&mut self.to_write);
            for key in to_write.drain(..) {
                if self.connections.contains(key) {
                    self.write(key);
                }
            }
            self.to_write = to_write;
            if !self.broker.has_actions() {
                return;
            }
        }
    }

    /// Asks to be told when a socket is ready. Room to write is asked for only while it is missing:
    /// else each message that a peer reads would wake the loop.
    fn watch(&mut self, key: usize, interest: Interest) {
        let Some(fd) = self.connections[key].connection.fd() else { return };
        if let Err(error) = self.poll.registry().reregister(&mut SourceFd(&fd), Token(key + FIRST_CONNECTION), interest)
        {
            tracing::warn!(%error, "a connection could not be watched and is closed");
            self.drop_connection(key, None);
        }
    }

    /// Writes what there is for a peer, until its socket is full.
    fn write(&mut self, key: usize) {
        let slot = &mut self.connections[key];
        let peer = slot.peer;
        if slot.connection.write_blocked {
            return;
        }
        while !slot.connection.write_blocked && !slot.connection.write_closed {
            let mut slices = Vec::with_capacity(8);
            self.broker.output(peer, &mut slices);
            if slices.is_empty() {
                break;
            }
            let written = slot.connection.write(&slices);
            drop(slices);
            if written > 0 {
                self.broker.wrote(peer, written);
            }
        }
        let blocked = slot.connection.write_blocked;
        if slot.closing.is_some() {
            if blocked && slot.connection.close_by.is_none() {
                slot.connection.close_by = Some(Instant::now() + LINGER);
                self.lingering += 1;
            } else if !blocked {
                let reason = slot.closing.take();
                return self.drop_connection(key, reason);
            }
        }
        if blocked {
            self.watch(key, Interest::READABLE | Interest::WRITABLE);
        }
    }

    /// Cuts peers that are to be closed and do not read what they are told.
    fn cut_lingering(&mut self, now: Instant) {
        if self.lingering == 0 {
            return;
        }
        let overdue = |slot: &Slot| slot.connection.close_by.is_some_and(|at| at <= now);
        let keys: Vec<usize> = self.connections.iter().filter(|(_, slot)| overdue(slot)).map(|(key, _)| key).collect();
        for key in keys {
            let reason = self.connections[key].closing.take();
            self.drop_connection(key, reason);
        }
    }

    fn drop_connection(&mut self, key: usize, reason: Option<String>) {
        let Some(slot) = self.connections.try_remove(key) else { return };
        if slot.connection.close_by.is_some() {
            self.lingering -= 1;
        }
        if let Some(reason) = reason {
            tracing::info!(peer = %self.broker.describe(slot.peer), reason, "closed a peer");
        }
        if let Some(fd) = slot.connection.fd() {
            // It leaves the poll by being closed; deregistering first keeps late events away.
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        }
        if let Some(number) = slot.number {
            self.by_number.remove(&number);
        }
        self.by_peer.remove(&slot.peer);
        self.broker.disconnected(self.started.elapsed(), slot.peer);
    }

    /// The end is ordered: no new ends, and receivers get a while to drain.
    fn begin_end(&mut self) {
        if self.ends_at.is_some() {
            return;
        }
        tracing::info!("ending: receivers have {} ms to drain", self.options.drain.as_millis());
        self.ends_at = Some(Instant::now() + self.options.drain);
        self.broker.begin_shutdown();
    }

    fn is_over(&self) -> bool {
        let now = Instant::now();
        let ended = self.ends_at.is_some_and(|at| at <= now || self.broker.is_drained());
        let idle = self.options.idle_exit.is_some_and(|idle| self.broker.is_idle() && self.idle_since + idle <= now);
        ended || idle
    }

    fn end(mut self) -> io::Result<()> {
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
        self.memory.end();
        self.broker.close_all();
        self.carry_out();
        Ok(())
    }
}

const LISTENER: Token = Token(0);
const OUTSIDE: Token = Token(1);
const MEMORY: Token = Token(2);
const FIRST_CONNECTION: usize = 3;

/// How long a peer that is being closed has to read why.
const LINGER: Duration = Duration::from_secs(1);

/// How long accepting rests when there are no descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// epoll counts whole milliseconds, and waking early would mean waking twice.
fn round_up(wait: Duration) -> Duration {
    wait + Duration::from_micros(999)
}
