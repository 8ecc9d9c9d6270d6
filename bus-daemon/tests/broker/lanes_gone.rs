//! Lanes that go while their senders have them, or wait for them; by plain calls.

use bus_core::wire::*;
use bus_daemon::broker::*;

use crate::bench::{PID, receiver_hello, sender_hello};
use crate::lanes::{Raw, with_a_receiver_that_leaves};
use crate::lanes_idle::Story;

/// The lane that is made for a sender, if one is.
fn made(raw: &mut Raw) -> Option<LaneId> {
    std::mem::take(&mut raw.lanes).into_iter().find_map(|action| match action {
        LaneAction::Make(lane, _) => Some(lane),
        _ => None,
    })
}

fn recalls(raw: &Raw, sender: PeerId) -> usize {
    raw.heard(sender).iter().filter(|(kind, _)| *kind == Kind::LaneRecalled).count()
}

/// It was closed for good, for a race that it had lost.
#[test]
fn a_sender_that_has_mapped_a_lane_that_is_gone_is_told_to_let_go_of_it() {
    let mut story = Story::new(Raw::new(5), LaneWish::WhenBusy);
    let lane = LaneId(77);
    story.raw.say(story.sender, Kind::Moved, &LaneNamed { lane });
    assert_eq!(story.raw.last(story.sender, Kind::LaneRecalled), Some(LaneNamed { lane }));
    story.raw.say(story.sender, Kind::LaneLeft, &LaneLeft { lane, sequence: 0 });
    assert_eq!(story.raw.last::<Closing>(story.sender, Kind::Closing), None);
    story.send_on_stream(1..=1);
    assert_eq!(story.show().ledger.accepted, 1);
}

/// Before that it can only say again that it has it, and would be told again, as fast as both can.
#[test]
fn a_sender_is_told_to_let_go_of_a_lane_when_nothing_that_it_sent_is_left() {
    let mut story = Story::new(Raw::new(5), LaneWish::WhenBusy);
    story.send_on_stream(1..=2);
    let lane = LaneId(77);
    story.raw.say(story.sender, Kind::Moved, &LaneNamed { lane });
    story.acknowledge_stream(1);
    story.wait_ms(1_000);
    assert_eq!(recalls(&story.raw, story.sender), 0);
    story.acknowledge_stream(2);
    story.wait_ms(1_000);
    assert_eq!(recalls(&story.raw, story.sender), 1);
    let settled: Settled = story.raw.last(story.sender, Kind::Settled).unwrap();
    assert_eq!(settled.acked, 2);
}

/// It stayed on the stream for all its life.
#[test]
fn a_sender_for_whose_lane_there_was_no_memory_gets_one_when_it_is_busy_again() {
    for wish in [LaneWish::WhenBusy, LaneWish::AtOnce] {
        let mut story = Story::new(Raw::new(5), wish);
        let first = if wish == LaneWish::WhenBusy { 64 } else { 0 };
        story.send_on_stream(1..=first);
        let lane = made(&mut story.raw).unwrap();
        story.raw.broker.lane_made(lane, Err(NoLane::Now));
        story.raw.turn();
        assert_eq!(made(&mut story.raw), None, "{wish:?}: not at once, or nothing else is done any more");
        story.send_on_stream(first + 1..=first + 64);
        assert!(made(&mut story.raw).is_some(), "{wish:?}");
    }
}

/// A flow of 1 MiB stayed on the stream for ever: of those there are never 64 within 10 ms.
#[test]
fn a_sender_of_long_messages_gets_a_lane_for_four_mebibytes_and_never_for_one_message_alone() {
    for (bytes, messages) in [(64 * 1024, 64), (1 << 20, 4), (4 << 20, 2)] {
        let mut story = Story::new(Raw::new(5), LaneWish::WhenBusy);
        story.send_long_on_stream(1..=messages - 1, bytes);
        assert_eq!(made(&mut story.raw), None, "{} of {bytes} bytes", messages - 1);
        story.send_long_on_stream(messages..=messages, bytes);
        assert!(made(&mut story.raw).is_some(), "{messages} of {bytes} bytes");
    }
    let mut story = Story::new(Raw::new(5), LaneWish::WhenBusy);
    for sequence in 1..=8 {
        story.send_long_on_stream(sequence..=sequence, 1 << 20);
        story.raw.now_ms += 20;
    }
    assert_eq!(made(&mut story.raw), None, "1 MiB now and then");
}

/// The longest messages take longer than 10 ms, each, where memory is slow.
#[test]
fn a_sender_of_the_longest_messages_gets_a_lane_for_as_many_bytes_in_a_longer_time() {
    let sent_every = |bytes, pause_ms, messages| {
        let mut story = Story::new(Raw::new(5), LaneWish::WhenBusy);
        for sequence in 1..=messages {
            story.send_long_on_stream(sequence..=sequence, bytes);
            if made(&mut story.raw).is_some() {
                return Some(sequence);
            }
            story.raw.now_ms += pause_ms;
        }
        None
    };
    assert_eq!(sent_every(8 << 20, 15, 2), Some(2));
    assert_eq!(sent_every(8 << 20, 50, 100), None, "less than 4 MiB in 10 ms");
    assert_eq!(sent_every(8 << 20, 200, 100), None, "now and then");
}

#[test]
fn where_the_system_has_no_such_memory_nobody_asks_again() {
    let mut story = Story::new(Raw::new(5), LaneWish::AtOnce);
    let lane = made(&mut story.raw).unwrap();
    story.raw.broker.lane_made(lane, Err(NoLane::Ever));
    story.raw.turn();
    story.send_on_stream(1..=200);
    assert_eq!(made(&mut story.raw), None);
}

#[test]
fn a_sender_gets_a_lane_when_a_receiver_that_reads_none_has_left() {
    let mut raw = Raw::new(5);
    let reads_none = raw.connect();
    raw.hello(reads_none, Role::Receiver(receiver_hello("jobs")));
    let sender = raw.connect();
    raw.hello(sender, Role::Sender(SenderHello { lane: LaneWish::WhenBusy, ..sender_hello("jobs") }));
    let now = raw.now();
    let mut story = Story::of(raw, sender);
    story.send_on_stream(1..=64);
    assert_eq!(made(&mut story.raw), None);
    story.raw.broker.disconnected(now, reads_none);
    story.raw.turn();
    story.send_on_stream(65..=128);
    assert!(made(&mut story.raw).is_some());
}

/// The sender kept what it had mapped, and never got another.
#[test]
fn a_sender_whose_unused_lane_is_taken_back_lets_go_of_it_and_may_have_another() {
    let mut story = Story::new(Raw::new(5), LaneWish::WhenBusy);
    story.send_on_stream(1..=64);
    story.acknowledge_stream(64);
    story.wait_ms(100);
    let lane = made(&mut story.raw).unwrap();
    story.raw.broker.lane_made(lane, Ok(42));
    story.raw.turn();
    story.raw.say(story.sender, Kind::Moved, &LaneNamed { lane });
    let fault = Some("no descriptors left".into());
    story.raw.say(story.receiver, Kind::LaneDone, &LaneDone { lane, messages: 0, fault });
    assert!(story.raw.lanes.contains(&LaneAction::Free(lane)));
    assert_eq!(story.raw.last(story.sender, Kind::LaneRecalled), Some(LaneNamed { lane }));
    let now = story.raw.now();
    story.raw.broker.disconnected(now, story.receiver);
    story.raw.turn();
    assert_eq!(made(&mut story.raw), None);
    story.send_on_stream(65..=128);
    assert!(made(&mut story.raw).is_some());
}

/// A receiver of a lane has acknowledged four messages and left; its sender has said that it honours it, or not.
fn with_acknowledged_messages(honours: bool) -> (Story, LaneStart) {
    let mut story = Story::begin(LaneWish::AtOnce);
    let lane = story.lane;
    story.raw.publish(lane, 10);
    let CursorGiven { generation, .. } = story.raw.last(story.sender, Kind::CursorGiven).unwrap();
    if honours {
        story.raw.say(story.sender, Kind::Turned, &Turned { lane, generation });
    }
    let now = story.raw.now();
    story.raw.broker.disconnected(now, story.receiver);
    story.raw.turn();
    let start = LaneStart { logical: 256, place: 256, messages: 4 };
    story.raw.broker.cursor_at_rest(now, lane, Some(AtRest { start: Some(start), taken: 4, given_back: 0 }));
    story.raw.turn();
    (story, start)
}

/// It was refused what nobody had any more, gave its lane up, and sent again what was acknowledged.
#[test]
fn a_sender_that_was_late_for_the_cursor_of_a_receiver_is_shown_where_that_stood() {
    let (mut story, start) = with_acknowledged_messages(false);
    let lane = story.lane;
    assert!(story.raw.lanes.contains(&LaneAction::StandIn(lane, start)));
    let CursorGiven { ticket, .. } = story.raw.last(story.sender, Kind::CursorGiven).unwrap();
    let fetch = story.raw.connect();
    story.raw.hello(fetch, Role::Lane(LaneHello { lane, ticket: ticket.unwrap() }));
    assert!(story.raw.lanes.contains(&LaneAction::HandOver(fetch, lane, LanePart::StandIn)));
}

#[test]
fn a_sender_that_honoured_a_receiver_knows_where_that_stood() {
    let (story, start) = with_acknowledged_messages(true);
    assert!(!story.raw.lanes.contains(&LaneAction::StandIn(story.lane, start)));
}

/// It asked a dozen times for what was forgotten, each of which the log told as a fault, and then gave up its lane.
#[test]
fn a_sender_that_was_late_for_the_cursor_of_a_receiver_that_took_nothing_asks_for_it_no_more() {
    let mut story = Story::begin(LaneWish::AtOnce);
    let lane = story.lane;
    story.raw.publish(lane, 10);
    let CursorGiven { generation, ticket, .. } = story.raw.last(story.sender, Kind::CursorGiven).unwrap();
    assert!(ticket.is_some());
    let now = story.raw.now();
    story.raw.broker.disconnected(now, story.receiver);
    story.raw.turn();
    story.raw.broker.cursor_at_rest(now, lane, Some(AtRest { start: None, taken: 0, given_back: 0 }));
    story.raw.turn();
    let last: CursorGiven = story.raw.last(story.sender, Kind::CursorGiven).unwrap();
    assert_eq!(last, CursorGiven { lane, generation, ticket: None });
}

/// The next receiver's cursor begins there, and until that one has it there is nothing to be fetched.
#[test]
fn a_sender_that_was_late_for_a_cursor_turns_to_nobody_until_the_next_receiver_has_its_own() {
    let (mut raw, sender, next, lane) = with_a_receiver_that_leaves();
    let now = raw.now();
    let start = LaneStart { logical: 256, place: 256, messages: 4 };
    raw.broker.cursor_at_rest(now, lane, Some(AtRest { start: Some(start), taken: 4, given_back: 0 }));
    raw.turn();
    let given: LaneGiven = raw.last(next, Kind::LaneGiven).unwrap();
    assert_eq!(given.start, start);
    let turn: CursorGiven = raw.last(sender, Kind::CursorGiven).unwrap();
    assert!(turn.ticket.is_none() && turn.generation < given.generation, "{turn:?}");
    raw.say(sender, Kind::Turned, &Turned { lane, generation: turn.generation });
    raw.say(next, Kind::Watching, &Watching { lane, generation: given.generation });
    let cursor: CursorGiven = raw.last(sender, Kind::CursorGiven).unwrap();
    assert!(cursor.ticket.is_some() && cursor.generation == given.generation, "{cursor:?}");
}

/// No receiver could open it, and its channel waited for a proof that nobody could give.
#[test]
fn a_sender_that_forbids_seals_is_ended_and_loses_its_lane_to_nobody_elses_harm() {
    let mut story = Story::begin(LaneWish::AtOnce);
    let (lane, now) = (story.lane, story.raw.now());
    story.raw.publish(lane, 10);
    story.raw.broker.lane_condemned(now, lane, "its data cannot be sealed");
    story.raw.turn();
    assert!(story.raw.lanes.contains(&LaneAction::Free(lane)));
    assert_eq!(story.raw.last(story.receiver, Kind::SenderGone), Some(LaneNamed { lane }));
    assert_eq!(story.raw.closed, [story.sender]);
    let reason = &story.raw.reasons[0];
    assert!(reason.contains("cannot be sealed") && reason.contains(&format!("(pid {PID})")), "{reason}");
    let ledger = story.show().ledger;
    assert!(ledger.balances() && ledger.dropped == 0, "what is in there its sender sends again: {ledger:?}");
    let again = story.raw.connect();
    story.raw.hello(again, Role::Sender(SenderHello { lane: LaneWish::Has(lane), ..sender_hello("jobs") }));
    let refused: Refused = story.raw.last(again, Kind::Refused).unwrap();
    assert_eq!(refused.code, RefusedCode::LaneUnknown);
}

#[test]
fn whoever_waits_for_a_dead_sender_that_forbade_seals_is_told_the_end() {
    let mut raw = Raw::new(10);
    let (sender, _, offered) = raw.in_lane();
    let lane = offered.lane;
    raw.publish(lane, 3);
    let receiver = raw.connect();
    let hello = ReceiverHello { reads_lanes: true, until_disconnected: true, ..receiver_hello("jobs") };
    raw.hello(receiver, Role::Receiver(hello));
    let now = raw.now();
    raw.broker.disconnected(now, sender);
    raw.turn();
    assert!(!raw.heard(receiver).iter().any(|(kind, _)| *kind == Kind::Ended));
    raw.broker.lane_condemned(now, lane, "its data cannot be frozen");
    raw.turn();
    assert!(raw.heard(receiver).iter().any(|(kind, _)| *kind == Kind::Ended));
    assert!(raw.lanes.contains(&LaneAction::Free(lane)));
}
