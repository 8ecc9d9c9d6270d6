//! Lanes by plain calls: what ends bring from an earlier daemon, and what is ordered while they are away.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus_core::lane::ring::Counts;
use bus_core::wire::*;
use bus_daemon::Credentials;
use bus_daemon::broker::*;

use crate::bench::{Bench, PID, UID, receiver_hello, rules, sender_hello};

#[test]
fn an_early_receiver_that_says_hello_twice_leaves_no_seat_behind() {
    let bench = Bench::with(|rules| rules.former_receivers_ms = 1_300);
    let peer = bench.connect();
    peer.hello(Role::Receiver(receiver_hello("jobs.a")));
    peer.hello(Role::Receiver(receiver_hello("jobs.b")));
    bench.wait_ms(400);
    peer.cut();
    let next = bench.receiver("jobs.a");
    assert_eq!(next.welcome.place_in_line, 0);
}

#[test]
fn an_early_receiver_that_becomes_a_sender_leaves_nothing_behind() {
    let bench = Bench::with(|rules| rules.former_receivers_ms = 1_300);
    let peer = bench.connect();
    peer.hello(Role::Receiver(receiver_hello("jobs.a")));
    peer.hello(Role::Sender(sender_hello("jobs.b")));
    bench.wait_ms(400);
    peer.cut();
    assert!(bench.channels().is_empty());
    let _ = bench.receiver("jobs.b");
    let _ = bench.sender("jobs.b");
}

#[derive(Clone, Debug, Default)]
struct Books(Arc<Mutex<HashMap<LaneId, Counts>>>);
impl LaneBooks for Books {
    fn counts(&self, lane: LaneId) -> Counts {
        self.0.lock().unwrap().get(&lane).copied().unwrap_or_default()
    }
    fn position(&self, _: LaneId) -> Option<LaneStart> {
        None
    }
    fn walk(
        &self,
        lane: LaneId,
        from: LaneStart,
        _: u32,
        _: &mut dyn FnMut(LaneMessage<'_>) -> bool,
    ) -> Option<LaneStart> {
        let published = self.counts(lane).published;
        Some(LaneStart { logical: 64 * published, place: 64 * published, messages: published.max(from.messages) })
    }
}

struct Raw {
    broker: Broker,
    books: Books,
    now_ms: u64,
    received: HashMap<PeerId, Vec<u8>>,
    lanes: Vec<LaneAction>,
}

impl Raw {
    fn new(seed: u64) -> Self {
        let mut broker = Broker::new(Rules { seed, ..rules() });
        let books = Books::default();
        broker.set_lane_books(Box::new(books.clone()));
        Self { broker, books, now_ms: 1_000, received: HashMap::new(), lanes: Vec::new() }
    }
    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms)
    }
    fn connect(&mut self) -> PeerId {
        let now = self.now();
        self.broker.connected(now, Credentials { pid: PID, uid: UID })
    }
    fn say<T: serde::Serialize>(&mut self, id: PeerId, kind: Kind, body: &T) {
        self.say_only(id, kind, body);
        self.turn();
    }
    fn say_only<T: serde::Serialize>(&mut self, id: PeerId, kind: Kind, body: &T) {
        let mut frame = Vec::new();
        put_control(kind, body, &mut frame);
        let header = FrameHeader::decode(&frame, self.broker.frame_limits()).unwrap().unwrap();
        let now = self.now();
        let _ = self.broker.frame(now, id, &header, Content::Borrowed(&frame[HEADER_BYTES..]));
    }
    fn hello(&mut self, id: PeerId, role: Role) {
        self.say(id, Kind::Hello, &Hello { name: "x".into(), pid: PID, role });
    }
    fn turn(&mut self) {
        while self.broker.has_actions() {
            while let Some(action) = self.broker.poll_action() {
                match action {
                    Action::Lane(action) => self.lanes.push(action),
                    Action::Write(id) => {
                        let mut slices = Vec::new();
                        self.broker.output(id, &mut slices);
                        let bytes: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
                        self.received.entry(id).or_default().extend_from_slice(&bytes);
                        self.broker.wrote(id, bytes.len());
                    }
                    _ => {}
                }
            }
            self.broker.end_turn();
        }
    }
    fn heard(&self, id: PeerId) -> Vec<(Kind, Vec<u8>)> {
        let mut rest = self.received.get(&id).map(|b| &b[..]).unwrap_or_default();
        let limits = FrameLimits { message_max_bytes: 1 << 20, control_max_bytes: 1 << 20 };
        let mut all = Vec::new();
        while let Ok(Some(header)) = FrameHeader::decode(rest, limits) {
            all.push((header.kind, rest[HEADER_BYTES..header.frame_bytes()].to_vec()));
            rest = &rest[header.frame_bytes()..];
        }
        all
    }
    fn last<T: serde::de::DeserializeOwned>(&self, id: PeerId, kind: Kind) -> Option<T> {
        let found = self.heard(id).into_iter().rev().find(|(k, _)| *k == kind)?;
        read_control(kind, &found.1).ok()
    }
    fn publish(&mut self, lane: LaneId, published: u64) {
        self.books.0.lock().unwrap().insert(lane, Counts { published, ..Counts::default() });
    }
    /// A sender in its lane.
    fn in_lane(&mut self) -> (PeerId, SenderWelcome, LaneOffered) {
        let id = self.connect();
        self.hello(id, Role::Sender(SenderHello { lane: LaneWish::AtOnce, ..sender_hello("jobs") }));
        let Some(LaneAction::Make(lane, _)) = self.lanes.pop() else { panic!() };
        self.broker.lane_made(lane, Ok(42));
        self.turn();
        let offered: LaneOffered = self.last(id, Kind::LaneOffered).unwrap();
        let WelcomeRole::Sender(welcome) = self.last::<Welcome>(id, Kind::Welcome).unwrap().role else { panic!() };
        self.say(id, Kind::Moved, &LaneNamed { lane });
        (id, welcome, offered)
    }
    fn receiver(&mut self) -> PeerId {
        let id = self.connect();
        let lanes = ReceiverHello { reads_lanes: true, ..receiver_hello("jobs") };
        self.hello(id, Role::Receiver(lanes));
        id
    }
}

fn brought(welcome: &SenderWelcome, offered: &LaneOffered) -> LaneBrought {
    LaneBrought {
        lane: offered.lane,
        proof: offered.proof,
        channel: "jobs".parse().unwrap(),
        sender: welcome.sender,
        pid: PID,
        by: LaneEnd::Sender,
        ring_bytes: offered.ring_bytes,
        generation: 3,
        not_before_ns: 0,
        start: LaneStart::default(),
        attempts: Vec::new(),
    }
}

fn next_daemon() -> (Raw, LaneBrought, SenderWelcome) {
    let mut first = Raw::new(10);
    let (_, welcome, offered) = first.in_lane();
    (Raw::new(1_000), brought(&welcome, &offered), welcome)
}

/// As the event loop does it.
fn adopt(raw: &mut Raw, store: &mut Vec<LaneId>) -> Vec<bool> {
    let now = raw.now();
    let mut kept = Vec::new();
    for action in std::mem::take(&mut raw.lanes) {
        if let LaneAction::Adopt(peer, lane, ..) = action {
            let memory: io::Result<Option<u64>> = if store.contains(&lane) {
                Ok(None)
            } else {
                store.push(lane);
                Ok(Some(42))
            };
            let k = raw.broker.lane_adopted(now, peer, memory);
            if !k {
                store.retain(|l| *l != lane);
            }
            kept.push(k);
        }
    }
    raw.turn();
    kept
}

#[test]
fn brought_said_twice_does_not_free_the_lane() {
    let (mut raw, brought, _) = next_daemon();
    let lane = brought.lane;
    let id = raw.connect();
    raw.hello(id, Role::LaneBrought(Box::new(brought)));
    raw.say_only(id, Kind::Brought, &());
    raw.say_only(id, Kind::Brought, &());
    raw.turn();
    let mut store = Vec::new();
    adopt(&mut raw, &mut store);
    assert_eq!(store, vec![lane], "the memory is freed, and the broker has the lane");
}

fn hostile(change: impl FnOnce(&mut LaneBrought)) -> (Raw, PeerId) {
    let (mut raw, mut brought, _) = next_daemon();
    change(&mut brought);
    let id = raw.connect();
    raw.publish(brought.lane, 10);
    raw.hello(id, Role::LaneBrought(Box::new(brought.clone())));
    raw.say(id, Kind::Brought, &());
    adopt(&mut raw, &mut Vec::new());
    let now = raw.now();
    raw.broker.data_at_rest(now, brought.lane, true);
    raw.turn();
    let receiver = raw.receiver();
    (raw, receiver)
}

#[test]
fn a_generation_beyond_the_clock_is_refused() {
    let (raw, receiver) = hostile(|brought| brought.generation = u64::MAX);
    assert_eq!(raw.last::<LaneGiven>(receiver, Kind::LaneGiven), None);
}

#[test]
fn attempts_do_not_add_up_to_more_than_a_number_holds() {
    let (raw, receiver) =
        hostile(|brought| brought.attempts = vec![LaneAttempts { before: u64::MAX, times: u32::MAX }; 3]);
    let given: LaneGiven = raw.last(receiver, Kind::LaneGiven).unwrap();
    let sum: u64 = given.attempts.iter().map(|a| u64::from(a.times)).sum();
    assert!(sum < u64::from(u32::MAX), "the receiver adds {sum} up in a u32");
}

#[test]
fn a_sender_that_comes_back_is_told_to_turn_from_a_stopped_receiver() {
    let mut raw = Raw::new(10);
    let (sender, welcome, offered) = raw.in_lane();
    let lane = offered.lane;
    let receiver = raw.receiver();
    let given: LaneGiven = raw.last(receiver, Kind::LaneGiven).unwrap();
    raw.say(receiver, Kind::Watching, &Watching { lane, generation: given.generation });
    // The sender's connection breaks; the receiver, stopped, is kicked, and has its cursor mapped still.
    let now = raw.now();
    raw.broker.disconnected(now, sender);
    raw.broker.disconnected(now, receiver);
    raw.turn();
    raw.broker.cursor_at_rest(now, lane, None);
    raw.turn();
    let again = raw.connect();
    let resume = Some(Resume { sender: welcome.sender, token: welcome.token, next_sequence: 1 });
    raw.hello(again, Role::Sender(SenderHello { resume, lane: LaneWish::Has(lane), ..sender_hello("jobs") }));
    for _ in 0..100 {
        raw.now_ms += 20;
        let now = raw.now();
        raw.broker.tick(now);
        raw.broker.cursor_at_rest(now, lane, None);
        raw.turn();
    }
    assert!(raw.last::<CursorGiven>(again, Kind::CursorGiven).is_some(), "nobody tells it to turn");
}

#[test]
fn the_ticket_of_a_stand_in_does_not_give_out_the_next_receivers_cursor() {
    let mut raw = Raw::new(10);
    let (sender, _, offered) = raw.in_lane();
    let lane = offered.lane;
    raw.publish(lane, 10);
    let control = raw.connect();
    raw.hello(control, Role::Control);
    raw.say(control, Kind::Request, &Request::Purge("jobs".parse().unwrap()));
    let stand_in: CursorGiven = raw.last(sender, Kind::CursorGiven).unwrap();
    let _receiver = raw.receiver();
    let fetch = raw.connect();
    raw.hello(fetch, Role::Lane(LaneHello { lane, ticket: stand_in.ticket.unwrap() }));
    let handed = raw.lanes.iter().position(|a| matches!(a, LaneAction::HandOver(_, _, LanePart::StandIn)));
    let new = raw.lanes.iter().position(|a| matches!(a, LaneAction::NewCursor(_)));
    assert!(handed.is_none() || new.is_none() || handed < new, "handed over is what the receiver is about to map");
}

#[test]
fn a_purge_while_the_sender_is_away_makes_room_for_it() {
    let mut raw = Raw::new(10);
    let (sender, welcome, offered) = raw.in_lane();
    let lane = offered.lane;
    raw.publish(lane, 10);
    let now = raw.now();
    raw.broker.disconnected(now, sender);
    raw.turn();
    raw.broker.data_at_rest(now, lane, false);
    let control = raw.connect();
    raw.hello(control, Role::Control);
    raw.say(control, Kind::Request, &Request::Purge("jobs".parse().unwrap()));
    let again = raw.connect();
    let resume = Some(Resume { sender: welcome.sender, token: welcome.token, next_sequence: 1 });
    raw.hello(again, Role::Sender(SenderHello { resume, lane: LaneWish::Has(lane), ..sender_hello("jobs") }));
    raw.say(again, Kind::Moved, &LaneNamed { lane });
    assert!(raw.last::<CursorGiven>(again, Kind::CursorGiven).is_some(), "its window stays full");
}

/// The lane was freed with the second connection, and what had said that it was in use lay in the first.
#[test]
fn a_lane_waits_for_what_its_sender_said_over_an_earlier_connection() {
    let mut raw = Raw::new(7);
    let first = raw.connect();
    raw.hello(first, Role::Sender(SenderHello { lane: LaneWish::AtOnce, ..sender_hello("jobs") }));
    let Some(LaneAction::Make(lane, _)) = raw.lanes.pop() else { panic!("no lane is made") };
    raw.broker.lane_made(lane, Ok(42));
    raw.turn();
    let WelcomeRole::Sender(welcome) = raw.last::<Welcome>(first, Kind::Welcome).unwrap().role else { panic!() };
    // What it sent over the first is not handed in yet when the second has come, and gone.
    let resume = Resume { sender: welcome.sender, token: welcome.token, next_sequence: 1 };
    let second = raw.connect();
    let hello = SenderHello { lane: LaneWish::Has(lane), resume: Some(resume), ..sender_hello("jobs") };
    raw.hello(second, Role::Sender(hello));
    let now = raw.now();
    raw.broker.disconnected(now, second);
    raw.turn();
    assert!(!raw.lanes.contains(&LaneAction::Free(lane)), "{:?}", raw.lanes);
    raw.say(first, Kind::Moved, &LaneNamed { lane });
    raw.publish(lane, 3);
    assert!(!raw.lanes.contains(&LaneAction::FreezeData(lane)), "its end is not known before all is handed in");
    let now = raw.now();
    raw.broker.disconnected(now, first);
    raw.turn();
    assert!(raw.lanes.contains(&LaneAction::FreezeData(lane)), "{:?}", raw.lanes);
    let receiver = raw.receiver();
    assert_eq!(raw.last::<LaneGiven>(receiver, Kind::LaneGiven).unwrap().lane, lane);
}
