//! Ends that die between the moment when they are handed the memory of a lane and that when they say that they have it.

use std::time::{Duration, Instant};

use bus_core::wire::{Kind, LaneGiven, LaneNamed, LaneOffered, Watching};

use crate::busd::{Running, busd, place};
use crate::peer::Peer;

/// How far a sender comes before it dies.
#[derive(Clone, Copy, Debug)]
enum Sender {
    IsOffered,
    AsksForDescriptors,
    HasDescriptors,
    Moves,
}

/// And a receiver whose sender came as far as can be.
#[derive(Clone, Copy, Debug)]
enum Receiver {
    IsGiven,
    AsksForDescriptors,
    HasDescriptors,
    Watches,
}

#[test]
fn a_sender_that_dies_with_a_lane_in_its_hands_leaves_nothing_behind() {
    use Sender::{AsksForDescriptors, HasDescriptors, IsOffered, Moves};
    leaves_nothing([IsOffered, AsksForDescriptors, HasDescriptors, Moves], |socket, dies| {
        let mut sender = Peer::lane_sender(socket, "jobs");
        sender.hear_welcome();
        let LaneOffered { lane, ticket, .. } = sender.hear_of(Kind::LaneOffered);
        if matches!(dies, IsOffered) {
            return;
        }
        let mut fetching = Peer::fetching(socket, lane, ticket);
        if matches!(dies, AsksForDescriptors) {
            return;
        }
        fetching.hear_welcome();
        if matches!(dies, Moves) {
            sender.say(Kind::Moved, &LaneNamed { lane });
            sender.hear_of::<LaneNamed>(Kind::LaneKept);
        }
    });
}

#[test]
fn a_receiver_that_dies_with_a_lane_in_its_hands_leaves_nothing_behind() {
    use Receiver::{AsksForDescriptors, HasDescriptors, IsGiven, Watches};
    leaves_nothing([IsGiven, AsksForDescriptors, HasDescriptors, Watches], |socket, dies| {
        let mut sender = Peer::lane_sender(socket, "jobs");
        sender.hear_welcome();
        let LaneOffered { lane, ticket, .. } = sender.hear_of(Kind::LaneOffered);
        Peer::fetching(socket, lane, ticket).hear_welcome();
        let mut receiver = Peer::lane_receiver(socket, "jobs");
        receiver.hear_welcome();
        sender.say(Kind::Moved, &LaneNamed { lane });
        // One that an earlier round has left may be given as well, until it is found to be empty.
        let given = std::iter::repeat_with(|| receiver.hear_of::<LaneGiven>(Kind::LaneGiven));
        let LaneGiven { ticket, generation, .. } = given.into_iter().find(|given| given.lane == lane).unwrap();
        if matches!(dies, IsGiven) {
            return;
        }
        let mut fetching = Peer::fetching(socket, lane, ticket);
        if matches!(dies, AsksForDescriptors) {
            return;
        }
        fetching.hear_welcome();
        if matches!(dies, Watches) {
            receiver.say(Kind::Watching, &Watching { lane, generation });
        }
    });
}

/// Lets `die` happen in each way, again and again: what the daemon holds is the same after that.
fn leaves_nothing<W: Copy + std::fmt::Debug>(ways: [W; 4], die: impl Fn(&std::path::Path, W)) {
    let (place, socket) = place();
    let running = Running::start(place.path(), busd(&socket));
    let mut control = Peer::control(&socket);
    // What it has once and for all it has from the first lane on.
    die(&socket, ways[3]);
    control.ask_until_connections_are(1);
    let held = || (running.descriptors(), running.memory_files());
    let until = Instant::now() + Duration::from_secs(20);
    while held().1 > 0 {
        assert!(Instant::now() < until, "maps of memory files are left: {:?}", held());
        control.connections();
    }
    let before = held();
    for way in ways {
        for _ in 0..10 {
            die(&socket, way);
        }
        control.ask_until_connections_are(1);
        let until = Instant::now() + Duration::from_secs(20);
        while held().0 > before.0 || held().1 > before.1 {
            assert!(Instant::now() < until, "{way:?} leaves something: {:?}, and {before:?} before", held());
            control.connections();
        }
    }
}
