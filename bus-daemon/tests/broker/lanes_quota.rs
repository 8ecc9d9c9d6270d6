//! How many lanes a user has, and what is told of what passes through them; by plain calls.

use std::time::Duration;

use bus_core::lane::ring::Counts;
use bus_core::wire::*;
use bus_daemon::broker::*;

use crate::bench::sender_hello;
use crate::lanes::Raw;
use crate::lanes_idle::Story;

fn wishes_at_once(raw: &mut Raw) -> PeerId {
    let sender = raw.connect();
    raw.hello(sender, Role::Sender(SenderHello { lane: LaneWish::AtOnce, ..sender_hello("jobs") }));
    sender
}

fn made(raw: &mut Raw) -> usize {
    std::mem::take(&mut raw.lanes).iter().filter(|action| matches!(action, LaneAction::Make(..))).count()
}

fn why_none(raw: &mut Raw) -> Option<String> {
    let control = raw.connect();
    raw.hello(control, Role::Control);
    raw.say(control, Kind::Request, &Request::Show("jobs".parse().unwrap()));
    let Some(Reply::Channel(info)) = raw.last(control, Kind::Reply) else { panic!("no answer") };
    info.no_lane
}

#[test]
fn a_sender_over_the_number_of_its_users_lanes_stays_on_the_stream_and_show_says_why() {
    let mut raw = Raw::with(5, |rules| rules.user_lanes_max = 1);
    let first = wishes_at_once(&mut raw);
    assert_eq!((made(&mut raw), why_none(&mut raw)), (1, None));
    let second = wishes_at_once(&mut raw);
    assert_eq!(made(&mut raw), 0);
    let why = why_none(&mut raw).unwrap();
    assert!(why.contains("has 1 lanes, and the limit is 1") && why.contains("per_user.lanes_max"), "{why}");
    raw.broker.check().unwrap();

    let mut story = Story::of(raw, second);
    story.send_on_stream(1..=70);
    assert_eq!(made(&mut story.raw), 0, "however busy it is");
    // The other gives its lane back.
    story.raw.broker.disconnected(Duration::from_millis(story.raw.now_ms), first);
    story.raw.turn();
    story.send_on_stream(71..=140);
    assert_eq!(made(&mut story.raw), 1, "its turn has come");
    story.raw.broker.check().unwrap();
}

#[test]
fn a_sender_over_the_bytes_of_its_users_lanes_stays_on_the_stream() {
    let mut raw = Raw::with(5, |rules| rules.user_lane_bytes_max = 100 << 20);
    wishes_at_once(&mut raw);
    wishes_at_once(&mut raw);
    assert_eq!(made(&mut raw), 1, "two rings of 64 MiB are more than 100 MiB");
    let why = why_none(&mut raw).unwrap();
    assert!(
        why.contains("67108864 bytes") && why.contains("104857600") && why.contains("per_user.lane_bytes_max"),
        "{why}"
    );
}

#[test]
fn show_tells_what_passes_through_a_lane_in_a_second() {
    let mut story = Story::begin(LaneWish::WhenBusy);
    let passed = |published: u64| Counts {
        published,
        taken: published,
        acknowledged: published - 100,
        published_bytes: 96 * published,
        bytes: 9_600,
        ..Counts::default()
    };
    for tenth in 1..=100 {
        story.raw.counts(story.lane, passed(1_000 + 100 * tenth));
        story.wait_ms(100);
    }
    let info = story.show();
    let rates = info.rates.unwrap();
    assert_eq!(info.lanes, 1);
    assert!((900..=1_100).contains(&rates.messages_in) && (900..=1_100).contains(&rates.messages_out), "{rates:?}");
    assert!((86_000..=106_000).contains(&rates.bytes_in), "{rates:?}");
    story.wait_ms(30_000);
    let rates = story.show().rates.unwrap();
    assert_eq!((rates.messages_in, rates.bytes_out), (0, 0), "nothing moves any more");
}

#[test]
fn show_tells_what_passes_through_a_stream_in_a_second() {
    let raw = Raw::new(5);
    let mut story = Story::new(raw, LaneWish::Never);
    for tenth in 0..100 {
        story.send_on_stream(1 + 50 * tenth..=50 + 50 * tenth);
        story.acknowledge_stream(50 * (tenth + 1));
        story.wait_ms(100);
    }
    let rates = story.show().rates.unwrap();
    assert!((450..=550).contains(&rates.messages_in) && (450..=550).contains(&rates.messages_out), "{rates:?}");
    assert!((3_600..=4_400).contains(&rates.bytes_in) && (3_600..=4_400).contains(&rates.bytes_out), "{rates:?}");
}
