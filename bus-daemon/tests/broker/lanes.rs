//! Lanes by plain calls: what ends bring from an earlier daemon, and what is ordered while they are away.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus_core::Ledger;
use bus_core::lane::ring::Counts;
use bus_core::wire::*;
use bus_daemon::Credentials;
use bus_daemon::broker::*;

use crate::bench::{Bench, Outgoing, PID, UID, data, receiver_hello, rules, sender_hello};

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
pub(crate) struct Books(Arc<Mutex<HashMap<LaneId, Counts>>>);
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

pub(crate) struct Raw {
    pub(crate) broker: Broker,
    books: Books,
    pub(crate) now_ms: u64,
    received: HashMap<PeerId, Vec<u8>>,
    pub(crate) lanes: Vec<LaneAction>,
    pub(crate) closed: Vec<PeerId>,
    /// Why they were.
    pub(crate) reasons: Vec<String>,
}

impl Raw {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, |_| {})
    }
    pub(crate) fn with(seed: u64, change: impl FnOnce(&mut Rules)) -> Self {
        let mut rules = Rules { seed, ..rules() };
        change(&mut rules);
        let mut broker = Broker::new(rules);
        let books = Books::default();
        broker.set_lane_books(Box::new(books.clone()));
        Self {
            broker,
            books,
            now_ms: 1_000,
            received: HashMap::new(),
            lanes: Vec::new(),
            closed: Vec::new(),
            reasons: Vec::new(),
        }
    }
    pub(crate) fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms)
    }
    pub(crate) fn connect(&mut self) -> PeerId {
        let now = self.now();
        self.broker.connected(now, Credentials { pid: PID, uid: UID })
    }
    pub(crate) fn say<T: serde::Serialize>(&mut self, id: PeerId, kind: Kind, body: &T) {
        self.say_only(id, kind, body);
        self.turn();
    }
    pub(crate) fn say_only<T: serde::Serialize>(&mut self, id: PeerId, kind: Kind, body: &T) {
        let mut frame = Vec::new();
        put_control(kind, body, &mut frame);
        let header = FrameHeader::decode(&frame, self.broker.frame_limits()).unwrap().unwrap();
        let now = self.now();
        let _ = self.broker.frame(now, id, &header, Content::Borrowed(&frame[HEADER_BYTES..]));
    }
    pub(crate) fn hello(&mut self, id: PeerId, role: Role) {
        self.say(id, Kind::Hello, &Hello { name: "x".into(), pid: PID, role, clock: 0 });
    }
    pub(crate) fn turn(&mut self) {
        // As the event loop does it: a turn ends also when there was nothing to do.
        loop {
            while let Some(action) = self.broker.poll_action() {
                match action {
                    Action::Lane(action) => self.lanes.push(action),
                    Action::Close(id, reason) => {
                        self.closed.push(id);
                        self.reasons.push(reason);
                    }
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
            if !self.broker.has_actions() {
                return;
            }
        }
    }
    pub(crate) fn heard(&self, id: PeerId) -> Vec<(Kind, Vec<u8>)> {
        let mut rest = self.received.get(&id).map(|b| &b[..]).unwrap_or_default();
        let limits = FrameLimits { message_max_bytes: 1 << 20, control_max_bytes: 1 << 20 };
        let mut all = Vec::new();
        while let Ok(Some(header)) = FrameHeader::decode(rest, limits) {
            all.push((header.kind, rest[HEADER_BYTES..header.frame_bytes()].to_vec()));
            rest = &rest[header.frame_bytes()..];
        }
        all
    }
    pub(crate) fn last<T: serde::de::DeserializeOwned>(&self, id: PeerId, kind: Kind) -> Option<T> {
        let found = self.heard(id).into_iter().rev().find(|(k, _)| *k == kind)?;
        read_control(kind, &found.1).ok()
    }
    pub(crate) fn publish(&mut self, lane: LaneId, published: u64) {
        self.counts(lane, Counts { published, ..Counts::default() });
    }
    pub(crate) fn counts(&mut self, lane: LaneId, counts: Counts) {
        self.books.0.lock().unwrap().insert(lane, counts);
    }
    /// A sender in its lane.
    pub(crate) fn in_lane(&mut self) -> (PeerId, SenderWelcome, LaneOffered) {
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
    pub(crate) fn receiver(&mut self) -> PeerId {
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

/// Somebody who has not heard that another read it to its end brings it once more: it was handed out again.
#[test]
fn a_lane_that_is_no_more_is_not_taken_again() {
    let (mut raw, brought, _) = next_daemon();
    let lane = brought.lane;
    raw.counts(lane, Counts { published: 10, taken: 10, acknowledged: 10, ..Counts::default() });
    let bring = |raw: &mut Raw| {
        let id = raw.connect();
        raw.hello(id, Role::LaneBrought(Box::new(LaneBrought { by: LaneEnd::Receiver, ..brought.clone() })));
        raw.say(id, Kind::Brought, &());
        adopt(raw, &mut Vec::new())
    };
    assert_eq!(bring(&mut raw), [true]);
    let receiver = raw.receiver();
    let given: LaneGiven = raw.last(receiver, Kind::LaneGiven).unwrap();
    raw.say(receiver, Kind::Watching, &Watching { lane, generation: given.generation });
    let now = raw.now();
    raw.broker.data_at_rest(now, lane, true);
    raw.turn();
    assert!(raw.lanes.contains(&LaneAction::Free(lane)), "its sender is gone, and it is read");
    assert!(bring(&mut raw).is_empty());
}

/// Before its next receiver had it mapped, all that ever went through a lane was shown to be held.
#[test]
fn what_is_acknowledged_is_not_held_although_the_next_receiver_has_not_begun() {
    let (mut raw, brought, _) = next_daemon();
    let start = LaneStart { logical: 1_000, place: 0, messages: 10 };
    raw.counts(brought.lane, Counts { published: 10, published_bytes: 1_000, bytes: 1_000, ..Counts::default() });
    let id = raw.connect();
    raw.hello(id, Role::LaneBrought(Box::new(LaneBrought { by: LaneEnd::Receiver, start, ..brought })));
    raw.say(id, Kind::Brought, &());
    assert_eq!(adopt(&mut raw, &mut Vec::new()), [true]);
    let control = raw.connect();
    raw.hello(control, Role::Control);
    raw.say(control, Kind::Request, &Request::Show("jobs".parse().unwrap()));
    let Some(Reply::Channel(info)) = raw.last(control, Kind::Reply) else { panic!("no answer") };
    assert_eq!(info.held_bytes, 0);
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
    let resume = Some(Resume { sender: welcome.sender, token: welcome.token, next_sequence: 1, last_sequence: 0 });
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

/// The oldest were forgotten, and after a restart beside many lanes their ends fetched in vain.
#[test]
fn what_waits_for_one_end_is_kept_however_many_others_have_lanes() {
    let mut raw = Raw::with(5, |rules| {
        (rules.user_lanes_max, rules.user_lane_bytes_max, rules.user_channels_max) = (10_000, u64::MAX, 10_000);
        rules.user_connections_max = 10_000;
    });
    let senders: Vec<PeerId> = (0..1_500)
        .map(|number| {
            let sender = raw.connect();
            let hello = sender_hello(&format!("jobs.{number}"));
            raw.hello(sender, Role::Sender(SenderHello { lane: LaneWish::AtOnce, ..hello }));
            sender
        })
        .collect();
    for action in std::mem::take(&mut raw.lanes) {
        if let LaneAction::Make(lane, _) = action {
            raw.broker.lane_made(lane, Ok(42));
        }
    }
    raw.turn();
    for sender in senders {
        let LaneOffered { lane, ticket, .. } = raw.last(sender, Kind::LaneOffered).unwrap();
        let fetch = raw.connect();
        raw.hello(fetch, Role::Lane(LaneHello { lane, ticket }));
        assert!(raw.lanes.contains(&LaneAction::HandOver(fetch, lane, LanePart::ForSender)));
    }
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
    let resume = Some(Resume { sender: welcome.sender, token: welcome.token, next_sequence: 1, last_sequence: 0 });
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
    let resume = Resume { sender: welcome.sender, token: welcome.token, next_sequence: 1, last_sequence: 0 };
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

/// A sender in its lane, and a receiver that was given that.
fn with_a_given_lane() -> (Raw, PeerId, PeerId, LaneId) {
    let mut raw = Raw::new(10);
    let (sender, _, offered) = raw.in_lane();
    raw.publish(offered.lane, 10);
    let receiver = raw.receiver();
    assert!(raw.last::<LaneGiven>(receiver, Kind::LaneGiven).is_some());
    (raw, sender, receiver, offered.lane)
}

/// The receiver had not said so when its sender left, and it counted as acknowledged.
#[test]
fn what_was_passed_over_in_a_lane_that_is_gone_is_counted_as_purged() {
    let (mut raw, sender, receiver, lane) = with_a_given_lane();
    let generation = raw.last::<LaneGiven>(receiver, Kind::LaneGiven).unwrap().generation;
    raw.say(receiver, Kind::Watching, &Watching { lane, generation });
    let control = raw.connect();
    raw.hello(control, Role::Control);
    raw.counts(lane, Counts { published: 10, taken: 3, acknowledged: 3, ..Counts::default() });
    raw.say(control, Kind::Request, &Request::Purge("jobs".parse().unwrap()));
    // As their memory shows it, before anybody says a word.
    raw.counts(lane, Counts { published: 10, taken: 3, acknowledged: 10, ..Counts::default() });
    let now = raw.now();
    raw.broker.disconnected(now, sender);
    raw.turn();
    raw.broker.data_at_rest(now, lane, true);
    raw.turn();
    assert!(raw.lanes.contains(&LaneAction::Free(lane)), "nobody has to say that it is read");
    // A liar has acknowledged no more than it was given.
    for (said, purged) in [(7, 7), (1, 8), (u64::MAX, 10), (1, 10)] {
        raw.say(receiver, Kind::LaneSkipped, &LaneSkipped { lane, messages: said });
        raw.say(control, Kind::Request, &Request::Show("jobs".parse().unwrap()));
        let Some(Reply::Channel(shown)) = raw.last::<Reply>(control, Kind::Reply) else { panic!("no reply") };
        let expected = Ledger { accepted: 10, acknowledged: 10 - purged, purged, ..Ledger::default() };
        assert_eq!(shown.ledger, expected, "{said}");
    }
    raw.say(receiver, Kind::LaneDone, &LaneDone { lane, messages: 10, fault: None });
    assert!(!raw.closed.contains(&receiver));
}

/// What others sent later was handed out before what was sent in a lane that its receiver did not know.
#[test]
fn a_lane_is_open_when_the_present_receiver_watches_it() {
    let mut raw = Raw::new(10);
    let receiver = raw.receiver();
    let (sender, _, offered) = raw.in_lane();
    let lane = offered.lane;
    let given: LaneGiven = raw.last(receiver, Kind::LaneGiven).unwrap();
    assert!(!given.in_use, "nothing was sent there");
    assert_eq!(raw.last::<LaneNamed>(sender, Kind::LaneKept), None, "its receiver does not know it");
    raw.say(receiver, Kind::Watching, &Watching { lane, generation: given.generation });
    assert_eq!(raw.last(sender, Kind::LaneKept), Some(LaneNamed { lane }));
}

#[test]
fn a_lane_is_open_when_the_only_receiver_has_gone_before_it_watched_it() {
    let mut raw = Raw::new(10);
    let receiver = raw.receiver();
    let (sender, _, offered) = raw.in_lane();
    let lane = offered.lane;
    let now = raw.now();
    raw.broker.disconnected(now, receiver);
    raw.turn();
    assert_eq!(raw.last::<LaneNamed>(sender, Kind::LaneKept), None, "it may be alive still");
    raw.broker.cursor_at_rest(now, lane, Some(AtRest { start: None, taken: 0, given_back: 0 }));
    raw.turn();
    assert_eq!(raw.last(sender, Kind::LaneKept), Some(LaneNamed { lane }));
    let next = raw.receiver();
    assert!(raw.last::<LaneGiven>(next, Kind::LaneGiven).unwrap().in_use, "something may have been sent by now");
}

#[test]
fn a_lane_that_its_receiver_cannot_have_goes_back_to_the_stream_with_its_sender() {
    let (mut raw, sender, receiver, lane) = with_a_given_lane();
    let fault = Some("no descriptors left".into());
    raw.say(receiver, Kind::LaneDone, &LaneDone { lane, messages: 0, fault });
    assert!(raw.lanes.contains(&LaneAction::Free(lane)));
    assert_eq!(raw.last(receiver, Kind::SenderGone), Some(LaneNamed { lane }));
    assert_eq!(raw.closed, [sender], "it comes back without its lane, and sends again what is in there");
}

/// Its pid was nowhere: the next one found no message where it had said that it stood, and the sender was blamed.
#[test]
fn a_receiver_that_has_lied_of_where_it_stood_is_named_once_it_is_gone() {
    let (mut raw, _, receiver, lane) = with_a_given_lane();
    raw.broker.disconnected(raw.now(), receiver);
    raw.turn();
    while raw.broker.poll_note().is_some() {}
    let start = Some(LaneStart { logical: 1 << 40, place: 8, messages: 1 << 30 });
    let now = raw.now();
    raw.broker.cursor_at_rest(now, lane, Some(AtRest { start, taken: 0, given_back: 0 }));
    let notes: Vec<_> = std::iter::from_fn(|| raw.broker.poll_note()).collect();
    let named = notes.iter().any(|note| matches!(note, Note::Disbelieved { who, .. } if who.pid == PID));
    assert!(named, "{notes:?}");
    let next = raw.receiver();
    let given = raw.last::<LaneGiven>(next, Kind::LaneGiven).unwrap();
    assert_eq!((given.lane, given.start), (lane, LaneStart::default()));
}

#[test]
fn a_receiver_that_cannot_have_the_lane_of_a_dead_sender_leaves_it_to_the_next() {
    let (mut raw, sender, receiver, lane) = with_a_given_lane();
    let now = raw.now();
    raw.broker.disconnected(now, sender);
    raw.turn();
    raw.broker.data_at_rest(now, lane, true);
    let fault = Some("no descriptors left".into());
    raw.say(receiver, Kind::LaneDone, &LaneDone { lane, messages: 0, fault });
    let closing: Closing = raw.last(receiver, Kind::Closing).unwrap();
    assert_eq!(closing.code, ClosingCode::Fault);
    assert!(closing.text.contains("no descriptors left") && closing.text.contains("ulimit"), "{}", closing.text);
    assert!(!raw.lanes.contains(&LaneAction::Free(lane)), "what is in there is lost");
    raw.broker.disconnected(now, receiver);
    raw.turn();
    raw.broker.cursor_at_rest(now, lane, Some(AtRest { start: None, taken: 0, given_back: 0 }));
    raw.turn();
    let next = raw.receiver();
    assert_eq!(raw.last::<LaneGiven>(next, Kind::LaneGiven).map(|given| given.lane), Some(lane));
}

#[test]
fn descriptors_are_fetched_again_when_the_answer_was_lost() {
    let (mut raw, _, receiver, lane) = with_a_given_lane();
    let LaneGiven { ticket, generation, .. } = raw.last(receiver, Kind::LaneGiven).unwrap();
    let handed_over = |raw: &mut Raw| {
        raw.lanes.clear();
        let fetch = raw.connect();
        raw.hello(fetch, Role::Lane(LaneHello { lane, ticket }));
        raw.lanes.iter().any(|action| matches!(action, LaneAction::HandOver(..)))
    };
    assert!(handed_over(&mut raw) && handed_over(&mut raw));
    raw.say(receiver, Kind::Watching, &Watching { lane, generation });
    assert!(!handed_over(&mut raw), "what is in use is nobody else's");
}

/// It never got another.
#[test]
fn a_sender_that_comes_back_without_its_lane_gets_another_once_that_is_read() {
    let mut raw = Raw::new(10);
    let (sender, welcome, offered) = raw.in_lane();
    let now = raw.now();
    raw.broker.disconnected(now, sender);
    raw.turn();
    raw.lanes.clear();
    let again = raw.connect();
    let resume = Some(Resume { sender: welcome.sender, token: welcome.token, next_sequence: 1, last_sequence: 0 });
    raw.hello(again, Role::Sender(SenderHello { resume, lane: LaneWish::AtOnce, ..sender_hello("jobs") }));
    let made = |action: &LaneAction| matches!(action, LaneAction::Make(lane, _) if *lane != offered.lane);
    assert!(raw.lanes.contains(&LaneAction::FreezeData(offered.lane)), "it is to be read to its end");
    assert!(!raw.lanes.iter().any(made), "{:?}", raw.lanes);
    let now = raw.now();
    raw.broker.data_at_rest(now, offered.lane, true);
    raw.turn();
    assert!(raw.lanes.iter().any(made), "{:?}", raw.lanes);
}

/// It stood in line, as if nothing had happened to what it held.
#[test]
fn a_receiver_of_lanes_whose_place_another_process_has_is_refused_when_it_comes_back() {
    let mut raw = Raw::new(10);
    let _holder = raw.receiver();
    let returning = Some(Returning { senders: Vec::new(), sender_seen: true, seated: true, lanes: true });
    let hello = ReceiverHello { returning, reads_lanes: true, ..receiver_hello("jobs") };
    let now = raw.now();
    let late = raw.broker.connected(now, Credentials { pid: PID + 1, uid: UID });
    raw.hello(late, Role::Receiver(hello.clone()));
    let refused: Refused = raw.last(late, Kind::Refused).unwrap();
    assert_eq!(refused.code, RefusedCode::ReceiverTaken);
    assert!(refused.text.contains(&PID.to_string()), "{}", refused.text);
    // What the daemon takes for another may be its own connection that broke.
    let own = raw.connect();
    raw.hello(own, Role::Receiver(hello));
    assert!(raw.last::<Welcome>(own, Kind::Welcome).is_some());
}

/// A receiver of lanes that waits for the seat.
fn standby(raw: &mut Raw) -> PeerId {
    let id = raw.connect();
    let hello = ReceiverHello { standby: true, reads_lanes: true, ..receiver_hello("jobs") };
    raw.hello(id, Role::Receiver(hello));
    id
}

/// A receiver that read the lane has left, and may have it mapped still; another is in line.
pub(crate) fn with_a_receiver_that_leaves() -> (Raw, PeerId, PeerId, LaneId) {
    let (mut raw, sender, receiver, lane) = with_a_given_lane();
    let generation = raw.last::<LaneGiven>(receiver, Kind::LaneGiven).unwrap().generation;
    raw.say(receiver, Kind::Watching, &Watching { lane, generation });
    let next = standby(&mut raw);
    let now = raw.now();
    raw.broker.disconnected(now, receiver);
    raw.turn();
    (raw, sender, next, lane)
}

/// The daemon ended at once, and the receiver in line got nothing of what was left.
#[test]
fn a_daemon_that_ends_waits_for_whoever_is_in_line_while_the_last_receiver_leaves_its_lanes() {
    let (mut raw, _, next, lane) = with_a_receiver_that_leaves();
    raw.broker.begin_shutdown();
    assert_eq!(raw.last::<LaneGiven>(next, Kind::LaneGiven), None);
    assert!(!raw.broker.is_drained(), "it is about to have the seat");
    let now = raw.now();
    raw.broker.cursor_at_rest(now, lane, Some(AtRest { start: None, taken: 0, given_back: 0 }));
    raw.turn();
    assert!(raw.last::<LaneGiven>(next, Kind::LaneGiven).is_some());
    assert!(!raw.broker.is_drained(), "and has all of it to read");
    raw.broker.disconnected(now, next);
    assert!(raw.broker.is_drained(), "nobody is left who could");
}

/// The seat stayed free for ever: nobody asks for the cursor of a lane that is gone.
#[test]
fn whoever_is_in_line_has_the_seat_when_the_lane_that_kept_it_free_is_given_up() {
    let (mut raw, sender, next, lane) = with_a_receiver_that_leaves();
    assert!(!raw.heard(next).iter().any(|(kind, _)| *kind == Kind::Seated));
    raw.say(sender, Kind::LaneDone, &LaneDone { lane, messages: 0, fault: Some("nonsense in its cursor".into()) });
    assert!(raw.lanes.contains(&LaneAction::Free(lane)));
    assert!(raw.heard(next).iter().any(|(kind, _)| *kind == Kind::Seated));
}

/// It was put in line, and waited for as long as the first one stayed.
#[test]
fn a_second_receiver_is_refused_also_while_the_last_one_leaves_its_lanes() {
    let (mut raw, _, _, _) = with_a_receiver_that_leaves();
    let late = raw.receiver();
    let refused: Refused = raw.last(late, Kind::Refused).unwrap();
    assert_eq!(refused.code, RefusedCode::ReceiverTaken);
    assert!(refused.text.contains(&format!("(pid {PID})")) && refused.text.contains("--standby"), "{}", refused.text);
    let waits = standby(&mut raw);
    let WelcomeRole::Receiver(welcome) = raw.last::<Welcome>(waits, Kind::Welcome).unwrap().role else { panic!() };
    assert_eq!(welcome.place_in_line, 1);
}

/// It was shown nothing of that, and read on in its lanes until it looked for another reason.
#[test]
fn a_receiver_of_lanes_is_due_the_end_of_its_channel() {
    let mut raw = Raw::new(10);
    let _ = raw.in_lane();
    let receiver = raw.receiver();
    let control = raw.connect();
    raw.hello(control, Role::Control);
    let _ = raw.broker.dues();
    raw.say(control, Kind::Request, &Request::Delete("jobs".parse().unwrap()));
    assert_eq!(raw.broker.dues(), [(receiver, raw.heard(receiver).len() as u64 - 1)], "all but the Welcome");
    assert_eq!(raw.broker.dues(), [], "once");
}

/// It counted as read while its daemon had not heard that it came back, so lanes were handed out past it.
#[test]
fn what_a_receiver_gives_back_it_is_due_until_it_comes_again_or_is_removed() {
    let mut raw = Raw::new(10);
    let _ = raw.in_lane();
    let receiver = raw.receiver();
    let streamed = raw.connect();
    raw.hello(streamed, Role::Sender(sender_hello("jobs")));
    for sequence in 1..=3 {
        let frame = data(Outgoing { sequence, value: sequence, bytes: 8, flags: 0 });
        let header = FrameHeader::decode(&frame, raw.broker.frame_limits()).unwrap().unwrap();
        let now = raw.now();
        let _ = raw.broker.frame(now, streamed, &header, Content::Borrowed(&frame[HEADER_BYTES..]));
        raw.turn();
    }
    let control = raw.connect();
    raw.hello(control, Role::Control);
    // As the receiver counts: all but the Welcome, less what it gave back.
    let received = |raw: &Raw| raw.heard(receiver).len() as u64 - 1;
    let due = |raw: &mut Raw| raw.broker.dues().into_iter().find(|(of, _)| *of == receiver).map(|(_, due)| due);
    assert_eq!(due(&mut raw), Some(received(&raw)));
    raw.say(control, Kind::Request, &Request::Skip("jobs".parse().unwrap()));
    assert_eq!(due(&mut raw), Some(received(&raw)), "with the order to give back");
    raw.say(receiver, Kind::Recalled, &Progress::default());
    assert_eq!(received(&raw) - 3, due(&mut raw).unwrap(), "two came again");
    raw.say(control, Kind::Request, &Request::Purge("jobs".parse().unwrap()));
    assert_eq!(due(&mut raw), Some(received(&raw) - 3));
    raw.say(receiver, Kind::Recalled, &Progress::default());
    assert_eq!(due(&mut raw), Some(received(&raw) - 3 - 2), "nothing came again");
}
