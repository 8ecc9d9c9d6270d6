//! [`Bench`]: a broker between simulated sockets, so that a test reads as a story.
//!
//! Every event is followed by what the event loop would do: take the actions, write, hand paused
//! frames in again, tell the senders. After each the broker is checked. Sockets take everything at
//! once unless a test gives them less room.

mod peers;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;

use bus_core::wire::{
    Closing, Flags, FrameHeader, FrameLimits, HEADER_BYTES, Hello, Kind, KnownSender, ORIGIN_BYTES, Origin, Progress,
    ReceiverHello, ReceiverWelcome, Receivers, Refused, Reply, Request, Resume, Returning, Role, SenderHello,
    SenderWelcome, Settled, TypeDeclaration, Want, Welcome, WelcomeRole, put_control, read_control,
};
use bus_core::{ChannelInfo, ChannelName, ChannelOptions, Codec, Ledger, Peers};
use bus_daemon::Credentials;
use bus_daemon::broker::{
    Action, Announced, Broker, Content, Handled, LARGE_BYTES, Leftover, PREFIX_BYTES, PeerId, Rules,
};

pub(crate) use self::peers::{
    Control, Outgoing, Peer, Receiver, Sender, data, declares, known, receiver_hello, returning, sender_hello,
};

pub(crate) const UID: u32 = 1_000;

/// The process of all peers, unless a test says another.
pub(crate) const PID: u32 = 100;

/// What a peer has been sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    Welcome(Welcome),
    Refused(Refused),
    Settled(Settled),
    Granted(Want),
    Full(Want),
    Receivers(u32),
    Delivery(Delivery),
    Recall,
    Seated,
    Ended,
    Peers(Peers),
    Reply(Reply),
    Closing(Closing),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) value: u64,
    pub(crate) sender: u64,
    pub(crate) pid: u32,
    pub(crate) sequence: u64,
    pub(crate) attempt: u32,
    pub(crate) redelivered: bool,
}

#[derive(Clone)]
pub(crate) struct Bench(Rc<RefCell<State>>);

struct State {
    broker: Broker,
    rules: Rules,
    now_ms: u64,
    busy: bool,
    wires: BTreeMap<PeerId, Wire>,
    /// Processes that have ended.
    ended: BTreeSet<u32>,
}

#[derive(Default)]
struct Wire {
    received: Vec<u8>,
    /// The next frame, a large one, was announced: it is whole now.
    announced: bool,
    /// How far `received` was decoded.
    decoded: usize,
    heard: VecDeque<Heard>,
    /// Frames that wait until the broker has room.
    paused: VecDeque<Vec<u8>>,
    /// Bytes that its socket still takes; `None` is no bound.
    room: Option<usize>,
    wants_write: bool,
    closing: Option<String>,
    closed: Option<String>,
    /// The daemon has closed it, and hands in what it held.
    hung_up: bool,
    /// Its process is stopped: of a large message nothing comes but the header.
    stopped: bool,
}

/// The rules of a small bus, so that limits are met early.
pub(crate) fn rules() -> Rules {
    Rules { allowed_uids: vec![UID], token_key: [7; 16], seed: 1, ..Rules::default() }
}

pub(crate) fn name(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

pub(crate) fn capacity(messages: u64) -> ChannelOptions {
    ChannelOptions { capacity: Some(messages), ..ChannelOptions::default() }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Rules)) -> Self {
        let mut rules = rules();
        change(&mut rules);
        let broker = Broker::new(rules.clone());
        let (wires, ended) = (BTreeMap::new(), BTreeSet::new());
        Self(Rc::new(RefCell::new(State { broker, rules, now_ms: 1_000, busy: false, wires, ended })))
    }

    /// The daemon dies, and the next begins with nothing but the key.
    pub(crate) fn next_daemon(&self) {
        let state = &mut *self.0.borrow_mut();
        state.rules.seed += 1;
        state.broker = Broker::new(state.rules.clone());
        state.wires.clear();
    }

    pub(crate) fn connect(&self) -> Peer {
        self.connect_as(UID)
    }

    pub(crate) fn connect_as(&self, uid: u32) -> Peer {
        self.connect_with(Credentials { pid: PID, uid })
    }

    /// Connects, and this is what the kernel tells of it.
    fn connect_with(&self, credentials: Credentials) -> Peer {
        let state = &mut *self.0.borrow_mut();
        let id = state.broker.connected(state.now(), credentials);
        state.wires.insert(id, Wire::default());
        state.turn();
        Peer { bench: self.clone(), id }
    }

    pub(crate) fn sender(&self, channel: &str) -> Sender {
        self.sender_hello(sender_hello(channel))
    }

    pub(crate) fn sender_hello(&self, hello: SenderHello) -> Sender {
        self.sender_hello_as(PID, hello)
    }

    /// Says that it is the process [`PID`], and the kernel says another.
    pub(crate) fn sender_hello_as(&self, pid: u32, hello: SenderHello) -> Sender {
        let peer = self.connect_with(Credentials { pid, uid: UID });
        peer.hello(Role::Sender(hello));
        peer.into_sender()
    }

    pub(crate) fn resume(&self, channel: &str, sender: &Sender, next_sequence: u64) -> Sender {
        self.resume_with(channel, sender, next_sequence, next_sequence - 1)
    }

    /// Comes back, and says that it will send again up to `last_sequence`.
    pub(crate) fn resume_with(&self, channel: &str, sender: &Sender, next_sequence: u64, last_sequence: u64) -> Sender {
        let SenderWelcome { sender, token, .. } = sender.welcome;
        let resume = Some(Resume { sender, token, next_sequence, last_sequence });
        let mut resumed = self.sender_hello(SenderHello { resume, ..sender_hello(channel) });
        resumed.next = next_sequence.into();
        resumed
    }

    pub(crate) fn receiver(&self, channel: &str) -> Receiver {
        self.receiver_hello(receiver_hello(channel))
    }

    pub(crate) fn standby(&self, channel: &str) -> Receiver {
        self.receiver_hello(ReceiverHello { standby: true, ..receiver_hello(channel) })
    }

    pub(crate) fn receiver_hello(&self, hello: ReceiverHello) -> Receiver {
        self.receiver_hello_as(PID, hello)
    }

    /// Says that it is the process [`PID`], and the kernel says another.
    pub(crate) fn receiver_hello_as(&self, pid: u32, hello: ReceiverHello) -> Receiver {
        let peer = self.connect_with(Credentials { pid, uid: UID });
        peer.hello(Role::Receiver(hello));
        let welcome = match peer.hear() {
            Heard::Welcome(Welcome { role: WelcomeRole::Receiver(welcome), .. }) => welcome,
            other => panic!("no welcome, but {other:?}"),
        };
        Receiver { peer, welcome, progress: Progress::default().into() }
    }

    pub(crate) fn control(&self) -> Control {
        self.control_as(UID)
    }

    pub(crate) fn control_as(&self, uid: u32) -> Control {
        let peer = self.connect_as(uid);
        peer.hello(Role::Control);
        assert!(matches!(peer.hear(), Heard::Welcome(Welcome { role: WelcomeRole::Control, .. })));
        Control { peer }
    }

    pub(crate) fn create(&self, channel: &str, options: ChannelOptions) {
        let control = self.control();
        assert_eq!(control.ask(Request::Create(name(channel), options)), Reply::Created(true));
        control.peer.cut();
    }

    pub(crate) fn ledger(&self, channel: &str) -> Ledger {
        self.show(channel).ledger
    }

    pub(crate) fn show(&self, channel: &str) -> ChannelInfo {
        let control = self.control();
        let reply = control.ask(Request::Show(name(channel)));
        control.peer.cut();
        let Reply::Channel(info) = reply else { panic!("no channel, but {reply:?}") };
        assert!(info.ledger.balances(), "{:?}", info.ledger);
        *info
    }

    pub(crate) fn channels(&self) -> Vec<String> {
        let control = self.control();
        let reply = control.ask(Request::List);
        control.peer.cut();
        let Reply::Channels(channels) = reply else { panic!("no channels, but {reply:?}") };
        channels.into_iter().map(|summary| summary.channel.to_string()).collect()
    }

    /// The daemon parts with the ends of its process that call themselves so.
    pub(crate) fn part_with(&self, name_prefix: &str) {
        self.event(|broker, _| broker.part_with(PID, name_prefix));
    }

    pub(crate) fn begin_shutdown(&self) {
        self.event(|broker, _| broker.begin_shutdown());
    }

    pub(crate) fn close_all(&self) {
        self.event(|broker, _| broker.close_all());
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.0.borrow().broker.is_drained()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.0.borrow().broker.is_idle()
    }

    /// What the user of all peers is charged for: connections, channels, bytes.
    pub(crate) fn usage(&self) -> Option<(u32, u32, u64)> {
        self.0.borrow().broker.usage(UID)
    }

    pub(crate) fn leftovers(&self) -> Vec<Leftover> {
        self.0.borrow().broker.leftovers()
    }

    /// From now on senders are told only what they wait for, and what time brings.
    pub(crate) fn be_busy(&self) {
        self.0.borrow_mut().busy = true;
    }

    /// Senders are told at once again.
    pub(crate) fn be_idle(&self) {
        self.0.borrow_mut().busy = false;
        self.event(|_, _| ());
    }

    /// Time passes, and the broker is ticked whenever it asks for it.
    pub(crate) fn wait_ms(&self, ms: u64) {
        let end_ms = self.0.borrow().now_ms + ms;
        loop {
            let due_ms = self.0.borrow().broker.next_tick().map(|at| at.as_millis() as u64);
            let Some(due_ms) = due_ms.filter(|due_ms| *due_ms <= end_ms) else { break };
            let now_ms = self.0.borrow().now_ms.max(due_ms);
            self.0.borrow_mut().now_ms = now_ms;
            self.event(|broker, now| broker.tick(now));
            self.look_at_processes();
            let again_ms = self.0.borrow().broker.next_tick().map(|at| at.as_millis() as u64);
            assert!(again_ms.is_none_or(|again_ms| again_ms > now_ms), "a tick must not be due again at once");
        }
        self.0.borrow_mut().now_ms = end_ms;
    }

    /// A process ends. The broker learns of it when it has the processes looked at.
    pub(crate) fn end_process(&self, pid: u32) {
        self.0.borrow_mut().ended.insert(pid);
    }

    fn look_at_processes(&self) {
        let state = &mut *self.0.borrow_mut();
        let looked_at = state.broker.processes_to_look_at();
        for pid in looked_at.into_iter().filter(|pid| state.ended.contains(pid)) {
            state.broker.process_gone(Duration::from_millis(state.now_ms), pid);
        }
        state.turn();
    }

    /// How long the daemon sleeps when nothing comes.
    pub(crate) fn sleeps_ms(&self) -> Option<u64> {
        let state = self.0.borrow();
        state.broker.next_tick().map(|at| (at.as_millis() as u64).saturating_sub(state.now_ms))
    }

    fn event(&self, event: impl FnOnce(&mut Broker, Duration)) {
        let state = &mut *self.0.borrow_mut();
        event(&mut state.broker, Duration::from_millis(state.now_ms));
        state.turn();
    }
}

impl State {
    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms)
    }

    fn turn(&mut self) {
        self.check();
        loop {
            let mut resumed = Vec::new();
            while let Some(action) = self.broker.poll_action() {
                match action {
                    Action::Write(id) => self.with_wire(id, |wire| wire.wants_write = true),
                    Action::Resume(id) => resumed.push(id),
                    Action::Close(id, reason) => self.with_wire(id, |wire| {
                        wire.wants_write = true;
                        wire.closing = Some(reason);
                    }),
                    Action::HangUp(id, reason) => self.hang_up(id, reason),
                    Action::Lane(action) => panic!("{action:?}: nobody here wishes a lane"),
                    // There are none here; that the order came through is all that is told.
                    Action::Link(id, _) => self.broker.answer(id, &Reply::Links(Vec::new())),
                }
            }
            self.broker.end_turn();
            if !self.busy {
                self.broker.tell_all();
            }
            let ready: Vec<PeerId> =
                self.wires.iter().filter(|(_, wire)| wire.wants_write).map(|(id, _)| *id).collect();
            let resumes = !resumed.is_empty();
            for id in resumed {
                let frames = self.wires.get_mut(&id).map(|wire| std::mem::take(&mut wire.paused)).unwrap_or_default();
                for frame in frames {
                    self.hand_in(id, frame);
                }
                self.drop_if_over(id);
            }
            let mut wrote = false;
            for id in ready {
                wrote |= self.write(id);
            }
            if !wrote && !resumes && !self.broker.has_actions() {
                return;
            }
        }
    }

    fn hang_up(&mut self, id: PeerId, reason: String) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        (wire.hung_up, wire.closed) = (true, Some(reason));
        self.broker.hung_up(id, wire.paused.iter().map(|frame| frame.len() as u64).sum());
        self.drop_if_over(id);
    }

    fn drop_if_over(&mut self, id: PeerId) {
        if self.wires.get(&id).is_some_and(|wire| wire.hung_up && wire.paused.is_empty()) {
            self.broker.disconnected(self.now(), id);
        }
    }

    fn with_wire(&mut self, id: PeerId, change: impl FnOnce(&mut Wire)) {
        if let Some(wire) = self.wires.get_mut(&id) {
            change(wire);
        }
    }

    /// As the event loop: until the socket is full or nothing is left, then closes what is to be closed.
    fn write(&mut self, id: PeerId) -> bool {
        let mut wrote = false;
        let Some(wire) = self.wires.get_mut(&id) else { return false };
        if wire.room == Some(0) && self.broker.has_output(id) {
            return false;
        }
        let blocked = loop {
            let mut slices: Vec<IoSlice<'_>> = Vec::new();
            self.broker.output(id, &mut slices);
            let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            if bytes.is_empty() {
                break false;
            }
            let took = bytes.len().min(wire.room.unwrap_or(usize::MAX));
            let blocked = took < bytes.len();
            bytes.truncate(took);
            wire.received.extend_from_slice(&bytes);
            wire.room = wire.room.map(|room| room - took);
            if took > 0 {
                self.broker.wrote(id, took);
                wrote = true;
            }
            if blocked {
                break true;
            }
        };
        wire.wants_write = blocked;
        wire.decode();
        if !blocked && let Some(reason) = wire.closing.take() {
            wire.closed = Some(reason);
            self.broker.disconnected(self.now(), id);
        }
        self.check();
        wrote
    }

    fn hand_in(&mut self, id: PeerId, frame: Vec<u8>) {
        let now = self.now();
        let Some(wire) = self.wires.get_mut(&id) else { return };
        if !wire.paused.is_empty() {
            wire.paused.push_back(frame);
            return;
        }
        let header = match FrameHeader::decode(&frame, self.broker.frame_limits()) {
            Ok(Some(header)) => header,
            Ok(None) => panic!("a test hands in whole frames"),
            Err(error) => {
                self.broker.malformed(now, id, &error);
                return self.check();
            }
        };
        // As the event loop does: what needs no decision goes in at once.
        let run = self.broker.run(now, id, &frame).bytes;
        if run == frame.len() {
            return self.check();
        }
        assert_eq!((run, frame.len()), (0, header.frame_bytes()), "a test hands in one frame, or a run of messages");
        let mut content = &frame[HEADER_BYTES..];
        if content.len() >= LARGE_BYTES && !std::mem::take(&mut wire.announced) {
            match self.broker.announced(now, id, &header) {
                Announced::Keep | Announced::Skip if wire.stopped => return self.check(),
                Announced::Keep => {}
                Announced::Skip => content = &[],
                Announced::NotNow => {
                    wire.paused.push_back(frame);
                    return self.check();
                }
            }
        }
        let content = if content.len() >= LARGE_BYTES && header.kind.carries_message() {
            Content::Owned([&[0; PREFIX_BYTES][..], content].concat())
        } else {
            Content::Borrowed(content)
        };
        if let Handled::NotNow(_) = self.broker.frame(now, id, &header, content) {
            wire.announced = true;
            wire.paused.push_back(frame);
        }
        self.check();
    }

    /// The header of a large frame comes, and the content later.
    fn announce(&mut self, id: PeerId, frame: &[u8]) -> Announced {
        let now = self.now();
        let header = FrameHeader::decode(frame, self.broker.frame_limits()).unwrap().unwrap();
        let announced = self.broker.announced(now, id, &header);
        if let Some(wire) = self.wires.get_mut(&id) {
            match announced {
                Announced::Keep => wire.announced = true,
                Announced::Skip => {}
                Announced::NotNow => wire.paused.push_back(frame.to_vec()),
            }
        }
        self.check();
        announced
    }

    fn check(&self) {
        if let Err(error) = self.broker.check() {
            panic!("{error}");
        }
    }
}

impl Wire {
    fn decode(&mut self) {
        let limits = FrameLimits { message_max_bytes: u32::MAX, control_max_bytes: u32::MAX };
        while let Some(header) = FrameHeader::decode(&self.received[self.decoded..], limits).unwrap() {
            let Some(frame) = self.received[self.decoded..].get(..header.frame_bytes()) else { return };
            self.heard.push_back(heard(&header, frame));
            self.decoded += header.frame_bytes();
        }
    }
}

fn heard(header: &FrameHeader, frame: &[u8]) -> Heard {
    let body = &frame[HEADER_BYTES..];
    match header.kind {
        Kind::Welcome => Heard::Welcome(read_control(header.kind, body).unwrap()),
        Kind::Refused => Heard::Refused(read_control(header.kind, body).unwrap()),
        Kind::Settled => Heard::Settled(read_control(header.kind, body).unwrap()),
        Kind::Granted => Heard::Granted(read_control(header.kind, body).unwrap()),
        Kind::Full => Heard::Full(read_control(header.kind, body).unwrap()),
        Kind::Receivers => Heard::Receivers(read_control::<Receivers>(header.kind, body).unwrap().count),
        Kind::Deliver => Heard::Delivery(delivery(header, body)),
        Kind::Recall => Heard::Recall,
        Kind::Seated => Heard::Seated,
        Kind::Ended => Heard::Ended,
        Kind::Peers => Heard::Peers(read_control(header.kind, body).unwrap()),
        Kind::Reply => Heard::Reply(read_control(header.kind, body).unwrap()),
        Kind::Closing => Heard::Closing(read_control(header.kind, body).unwrap()),
        kind => panic!("a {kind:?} frame goes up, not down"),
    }
}

fn delivery(header: &FrameHeader, body: &[u8]) -> Delivery {
    let (origin, payload) = body.split_first_chunk::<ORIGIN_BYTES>().unwrap();
    let Origin { sender, pid, attempt, .. } = Origin::decode(origin);
    let (value, filling) = payload.split_first_chunk::<8>().unwrap();
    assert!(filling.iter().all(|byte| *byte == value[0]), "the content of a message must not change");
    let (value, redelivered) = (u64::from_le_bytes(*value), header.flags.has(Flags::REDELIVERED));
    Delivery { value, sender, pid, sequence: header.sequence, attempt, redelivered }
}
