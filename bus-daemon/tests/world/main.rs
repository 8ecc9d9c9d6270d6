//! The simulated world: one seed drives time, senders, receivers, hostile peers, the daemon and all
//! that goes wrong with them, and the promises are checked after every step.
//!
//! `WORLD_SEED=7` runs the world of one seed, `WORLD_STEPS=100000` makes each world longer.

mod daemon;
mod hostile;
mod model;
mod options;
mod receiver;
mod rng;
mod sender;
mod shrink;
mod wire;
#[allow(clippy::module_inception, reason = "the world is what this test is about")]
mod world;

use options::{Bug, Fault, Options};
use shrink::{run, run_or_explain};

/// Worlds of an ordinary run, and how long each is: five million steps together.
const SEEDS: u64 = 1_000;
const STEPS: u64 = 5_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn worlds(seeds: std::ops::Range<u64>) {
    let steps = variable("WORLD_STEPS").unwrap_or(STEPS);
    let seeds = variable("WORLD_SEED").map_or(seeds, |seed| seed..seed + 1);
    let (mut all_steps, mut deliveries, mut daemons) = (0, 0, 0);
    for seed in seeds.clone() {
        let summary = run_or_explain(seed, steps);
        all_steps += summary.steps;
        deliveries += summary.deliveries;
        daemons += summary.daemons;
    }
    println!("seeds {seeds:?}: {all_steps} steps, {deliveries} deliveries, {daemons} daemons");
    assert!(deliveries > 0 || seeds.end - seeds.start == 1, "worlds without deliveries prove nothing");
}

// Two halves, so that two cores are used; `WORLD_SEED` runs in the first alone.

#[test]
fn promises_hold_in_the_first_half_of_the_worlds() {
    worlds(0..SEEDS / 2);
}

#[test]
fn promises_hold_in_the_second_half_of_the_worlds() {
    if variable("WORLD_SEED").is_none() {
        worlds(SEEDS / 2..SEEDS);
    }
}

#[test]
fn a_world_is_the_same_whenever_it_is_run() {
    let options = Options { faults: Fault::ALL.to_vec(), ..Options::draw(3, 4_000) };
    let told = |_| run(&options).map_or_else(|failure| failure.error, |summary| format!("{summary:?}"));
    assert_eq!(told(1), told(2));
}

/// A bug is planted in a peer of the world; in some world the checks must say what is broken.
fn is_noticed(bug: Bug, invariants: &[&str]) {
    let noticed = (0..40).find_map(|seed| {
        let drawn = Options::draw(seed, 3_000);
        let options = Options { bug: Some(bug), faults: Vec::new(), window_messages: 8, window_bytes: 2_000, ..drawn };
        run(&options).err()
    });
    let error = noticed.unwrap_or_else(|| panic!("{bug:?} was not noticed")).error;
    assert!(
        invariants.iter().any(|invariant| error.starts_with(invariant)),
        "{bug:?} was noticed as something else: {error}"
    );
}

#[test]
fn a_sender_that_loses_a_message_is_noticed() {
    is_noticed(Bug::SenderLosesOne, &["I1"]);
}

#[test]
fn a_receiver_that_swaps_two_messages_is_noticed() {
    is_noticed(Bug::ReceiverSwapsTwo, &["I4", "order"]);
}

#[test]
fn a_receiver_that_loses_a_message_is_noticed() {
    is_noticed(Bug::ReceiverLosesOne, &["I2", "I4"]);
}

#[test]
fn a_receiver_that_repeats_a_message_is_noticed() {
    is_noticed(Bug::ReceiverRepeatsOne, &["I5"]);
}

#[test]
fn a_receiver_that_changes_a_message_is_noticed() {
    is_noticed(Bug::ReceiverChangesOne, &["I1"]);
}

#[test]
fn a_sender_that_ignores_its_window_is_noticed() {
    is_noticed(Bug::SenderIgnoresWindow, &["window"]);
}
