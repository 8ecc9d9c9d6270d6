//! Lanes that are taken back, by plain calls.

use std::time::Duration;

use bus_core::lane::ring::Counts;
use bus_core::wire::*;
use bus_daemon::broker::*;

use crate::bench::{Outgoing, data, receiver_hello, sender_hello};
use crate::lanes::Raw;

/// A sender that has become busy, in its lane, and its receiver.
pub(crate) struct Story {
    pub(crate) raw: Raw,
    pub(crate) sender: PeerId,
    pub(crate) receiver: PeerId,
    pub(crate) lane: LaneId,
    welcome: SenderWelcome,
}

impl Story {
    pub(crate) fn begin(wish: LaneWish) -> Self {
        let mut story = Self::new(Raw::new(5), wish);
        let on_stream = if wish == LaneWish::WhenBusy { 64 } else { 0 };
        story.send_on_stream(1..=on_stream);
        story.acknowledge_stream(on_stream);
        story.move_to_lane();
        story
    }

    pub(crate) fn new(mut raw: Raw, wish: LaneWish) -> Self {
        let receiver = raw.receiver();
        let sender = raw.connect();
        raw.hello(sender, Role::Sender(SenderHello { lane: wish, ..sender_hello("jobs") }));
        let WelcomeRole::Sender(welcome) = raw.last::<Welcome>(sender, Kind::Welcome).unwrap().role else { panic!() };
        Self { raw, sender, receiver, lane: LaneId(0), welcome }
    }

    /// A sender that is there already.
    pub(crate) fn of(mut raw: Raw, sender: PeerId) -> Self {
        let receiver = raw.receiver();
        let WelcomeRole::Sender(welcome) = raw.last::<Welcome>(sender, Kind::Welcome).unwrap().role else { panic!() };
        Self { raw, sender, receiver, lane: LaneId(0), welcome }
    }

    fn move_to_lane(&mut self) {
        self.offer_lane();
        self.raw.say(self.sender, Kind::Moved, &LaneNamed { lane: self.lane });
        let given: LaneGiven = self.raw.last(self.receiver, Kind::LaneGiven).unwrap();
        self.raw.say(self.receiver, Kind::Watching, &Watching { lane: self.lane, generation: given.generation });
    }

    fn offer_lane(&mut self) {
        let made = std::mem::take(&mut self.raw.lanes).into_iter().find_map(|action| match action {
            LaneAction::Make(lane, _) => Some(lane),
            _ => None,
        });
        self.lane = made.expect("a lane is made");
        self.raw.broker.lane_made(self.lane, Ok(42));
        self.raw.turn();
    }

    pub(crate) fn send_on_stream(&mut self, sequences: std::ops::RangeInclusive<u64>) {
        self.send_long_on_stream(sequences, 8);
    }

    /// Each of so many bytes.
    pub(crate) fn send_long_on_stream(&mut self, sequences: std::ops::RangeInclusive<u64>, bytes: usize) {
        for sequence in sequences {
            let frame = data(Outgoing { sequence, value: sequence, bytes, flags: 0 });
            let header = FrameHeader::decode(&frame, self.raw.broker.frame_limits()).unwrap().unwrap();
            let now = Duration::from_millis(self.raw.now_ms);
            let _ = self.raw.broker.frame(now, self.sender, &header, Content::Borrowed(&frame[HEADER_BYTES..]));
        }
        self.raw.turn();
    }

    pub(crate) fn acknowledge_stream(&mut self, messages: u64) {
        let progress = Progress { taken: messages, acked: messages, ..Progress::default() };
        self.raw.say(self.receiver, Kind::Progress, &progress);
    }

    /// So many messages in all went through the lane, and so many of them are acknowledged.
    fn in_lane(&mut self, published: u64, acknowledged: u64) {
        self.raw.counts(self.lane, Counts { published, taken: acknowledged, acknowledged, ..Counts::default() });
    }

    pub(crate) fn wait_ms(&mut self, milliseconds: u64) {
        let until_ms = self.raw.now_ms + milliseconds;
        while let Some(at) = self.raw.broker.next_tick().filter(|at| at.as_millis() as u64 <= until_ms) {
            self.raw.now_ms = self.raw.now_ms.max(at.as_millis() as u64);
            self.raw.broker.tick(at);
            self.raw.turn();
        }
        self.raw.now_ms = until_ms;
    }

    fn recalls(&self) -> usize {
        self.raw.heard(self.sender).iter().filter(|(kind, _)| *kind == Kind::LaneRecalled).count()
    }

    fn is_freed(&self) -> bool {
        self.raw.lanes.contains(&LaneAction::Free(self.lane))
    }

    pub(crate) fn show(&mut self) -> bus_core::ChannelInfo {
        let control = self.raw.connect();
        self.raw.hello(control, Role::Control);
        self.raw.say(control, Kind::Request, &Request::Show("jobs".parse().unwrap()));
        let Some(Reply::Channel(info)) = self.raw.last(control, Kind::Reply) else { panic!("no answer") };
        self.raw.broker.disconnected(Duration::from_millis(self.raw.now_ms), control);
        *info
    }

    fn route(&mut self) -> (String, bus_core::Ledger) {
        let info = self.show();
        (info.senders[0].route.clone(), info.ledger)
    }
}

/// Its memory was charged to its user for as long as the sender was there.
#[test]
fn a_lane_that_its_sender_never_looks_at_is_taken_back_and_offered_anew_when_it_is_busy_again() {
    let mut story = Story::new(Raw::new(5), LaneWish::WhenBusy);
    story.send_on_stream(1..=64);
    story.acknowledge_stream(64);
    story.offer_lane();
    story.wait_ms(60_000);
    assert!(story.is_freed());
    let first = story.lane;
    story.send_on_stream(65..=128);
    story.offer_lane();
    assert_ne!(story.lane, first);
}

#[test]
fn a_sender_leaves_a_lane_in_which_nothing_was_sent_and_goes_on_by_its_stream() {
    let mut story = Story::begin(LaneWish::WhenBusy);
    story.in_lane(10, 10);
    story.wait_ms(60_000);
    assert_eq!(story.recalls(), 1, "it is told once, not every time that somebody looks");
    assert_eq!(story.route().0, "lane", "until it says that it has left");

    story.raw.say(story.sender, Kind::LaneLeft, &LaneLeft { lane: story.lane, sequence: 74 });
    assert!(story.raw.lanes.contains(&LaneAction::FreezeData(story.lane)), "nobody writes there: to be proved");
    story.raw.broker.data_at_rest(Duration::from_millis(story.raw.now_ms), story.lane, true);
    story.raw.turn();
    assert_eq!(story.raw.last::<LaneNamed>(story.receiver, Kind::SenderGone), Some(LaneNamed { lane: story.lane }));
    assert!(story.is_freed());

    story.send_on_stream(75..=76);
    let info = story.show();
    assert_eq!((info.senders[0].messages, info.receiver.unwrap().messages), (76, 74), "of both ways");
    let (route, ledger) = story.route();
    assert_eq!((route.as_str(), ledger.accepted, ledger.acknowledged), ("stream", 76, 74));
    assert!(ledger.balances(), "{ledger:?}");
}

#[test]
fn a_sender_that_left_its_lane_gets_another_when_it_is_busy_again() {
    let mut story = Story::begin(LaneWish::WhenBusy);
    story.in_lane(10, 10);
    story.wait_ms(20_000);
    story.raw.say(story.sender, Kind::LaneLeft, &LaneLeft { lane: story.lane, sequence: 74 });
    let first = story.lane;
    story.send_on_stream(75..=140);
    assert!(!story.raw.lanes.iter().any(|action| matches!(action, LaneAction::Make(..))), "two lanes of one sender");
    story.raw.broker.data_at_rest(Duration::from_millis(story.raw.now_ms), first, true);
    story.raw.turn();
    story.send_on_stream(141..=210);
    story.move_to_lane();
    assert_ne!(story.lane, first);
}

#[test]
fn a_lane_that_was_asked_for_stays() {
    let mut story = Story::begin(LaneWish::AtOnce);
    story.in_lane(10, 10);
    story.wait_ms(600_000);
    assert_eq!((story.recalls(), story.raw.broker.next_tick()), (0, None), "and nobody looks after it");
}

#[test]
fn a_lane_with_messages_in_it_stays_and_so_does_one_that_is_used() {
    let mut story = Story::begin(LaneWish::WhenBusy);
    story.in_lane(10, 9);
    story.wait_ms(60_000);
    assert_eq!(story.recalls(), 0, "what is in it has no better place");
    for sent in 11..40 {
        story.in_lane(sent, sent);
        story.wait_ms(4_000);
    }
    assert_eq!(story.recalls(), 0, "a message every four seconds");
    story.wait_ms(20_000);
    assert_eq!(story.recalls(), 1);
}

#[test]
fn a_sender_that_sent_something_before_it_heard_is_asked_again_when_its_lane_rests_again() {
    let mut story = Story::begin(LaneWish::WhenBusy);
    story.in_lane(10, 10);
    story.wait_ms(20_000);
    assert_eq!(story.recalls(), 1);
    story.in_lane(11, 10);
    story.raw.say(story.sender, Kind::Moved, &LaneNamed { lane: story.lane });
    story.in_lane(11, 11);
    story.wait_ms(30_000);
    assert_eq!(story.recalls(), 2);
}

/// Its last word over the old connection was lost with that: it comes without the lane that it had.
#[test]
fn a_sender_that_comes_back_without_its_lane_has_left_it() {
    let mut story = Story::begin(LaneWish::WhenBusy);
    story.in_lane(10, 10);
    story.wait_ms(20_000);
    let SenderWelcome { sender, token, .. } = story.welcome;
    let again = story.raw.connect();
    let resume = Some(Resume { sender, token, next_sequence: 75, last_sequence: 0 });
    let hello = SenderHello { lane: LaneWish::WhenBusy, resume, ..sender_hello("jobs") };
    story.raw.hello(again, Role::Sender(hello));
    story.raw.broker.data_at_rest(Duration::from_millis(story.raw.now_ms), story.lane, true);
    story.raw.turn();
    assert!(story.is_freed(), "{:?}", story.raw.lanes);
    story.sender = again;
    story.send_on_stream(75..=75);
    let (route, ledger) = story.route();
    assert_eq!((route.as_str(), ledger.accepted, ledger.queued), ("stream", 75, 1));
}

/// What it says of itself is no reason to believe less than was there.
#[test]
fn a_sender_that_leaves_its_lane_before_what_it_has_sent_is_closed() {
    let mut story = Story::begin(LaneWish::WhenBusy);
    story.in_lane(10, 10);
    story.raw.say(story.sender, Kind::LaneLeft, &LaneLeft { lane: story.lane, sequence: 63 });
    let closing: Closing = story.raw.last(story.sender, Kind::Closing).unwrap();
    assert_eq!(closing.code, ClosingCode::Fault);
    let standby = ReceiverHello { standby: true, ..receiver_hello("jobs") };
    let next = story.raw.connect();
    story.raw.hello(next, Role::Receiver(standby));
    assert!(story.raw.broker.check().is_ok());
}
