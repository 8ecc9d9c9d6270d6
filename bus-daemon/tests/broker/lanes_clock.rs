//! Ends in another time namespace, whose clock is not the daemon's; by plain calls.

use bus_core::wire::*;
use bus_daemon::broker::*;

use crate::bench::{PID, receiver_hello, sender_hello};
use crate::lanes::Raw;

const OURS: u64 = 4_026_531_834;
const THEIRS: u64 = 4_026_532_900;

fn hello(raw: &mut Raw, role: Role, clock: u64) -> PeerId {
    let id = raw.connect();
    raw.say(id, Kind::Hello, &Hello { name: "x".into(), pid: PID, role, clock });
    id
}

fn sender(raw: &mut Raw, lane: LaneWish, clock: u64) -> PeerId {
    hello(raw, Role::Sender(SenderHello { lane, ..sender_hello("jobs") }), clock)
}

fn lanes_made(raw: &mut Raw) -> usize {
    std::mem::take(&mut raw.lanes).iter().filter(|action| matches!(action, LaneAction::Make(..))).count()
}

fn daemon() -> Raw {
    Raw::with(5, |rules| rules.clock = OURS)
}

#[test]
fn a_sender_with_another_clock_stays_on_the_stream() {
    let mut raw = daemon();
    let theirs = sender(&mut raw, LaneWish::AtOnce, THEIRS);
    assert!(raw.last::<Welcome>(theirs, Kind::Welcome).is_some());
    assert_eq!(lanes_made(&mut raw), 0);
    sender(&mut raw, LaneWish::AtOnce, 0);
    assert_eq!(lanes_made(&mut raw), 0, "nor does one of which nobody knows");
    sender(&mut raw, LaneWish::AtOnce, OURS);
    assert_eq!(lanes_made(&mut raw), 1);
}

#[test]
fn beside_a_receiver_with_another_clock_all_senders_stay_on_the_stream() {
    let mut raw = daemon();
    let reads = ReceiverHello { reads_lanes: true, ..receiver_hello("jobs") };
    let receiver = hello(&mut raw, Role::Receiver(reads), THEIRS);
    assert!(raw.last::<Welcome>(receiver, Kind::Welcome).is_some());
    sender(&mut raw, LaneWish::AtOnce, OURS);
    assert_eq!(lanes_made(&mut raw), 0);
}

/// The next daemon was started in another container: it can put no stamp of this lane in order.
#[test]
fn a_lane_of_another_clock_is_not_taken_and_its_sender_comes_without() {
    let mut raw = daemon();
    let had = sender(&mut raw, LaneWish::Has(LaneId(7)), THEIRS);
    let refused: Refused = raw.last(had, Kind::Refused).unwrap();
    assert_eq!(refused.code, RefusedCode::LaneUnknown);
    let brought = LaneBrought {
        lane: LaneId(7),
        proof: LaneProof { uid: 0, token: [0; 16] },
        channel: "jobs".parse().unwrap(),
        sender: 1,
        pid: PID,
        by: LaneEnd::Sender,
        ring_bytes: 64 << 20,
        generation: 1,
        not_before_ns: 0,
        start: LaneStart::default(),
        attempts: Vec::new(),
    };
    let brings = hello(&mut raw, Role::LaneBrought(Box::new(brought)), THEIRS);
    let refused: Refused = raw.last(brings, Kind::Refused).unwrap();
    assert!(refused.code == RefusedCode::Denied && refused.text.contains("another clock"), "{refused:?}");
}
