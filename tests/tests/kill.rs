//! Real processes, killed as by `kill -9` at random moments: nothing whose `send` returned `Ok` is
//! lost, nothing comes twice without a mark, and everything comes in order.
//!
//! `BUS_KILL_ROUNDS=5000` kills more often; `BUS_KILL_SEED=...` makes the same choices again.

use std::time::{Duration, Instant};
use std::{env, thread};

use bus_tests::processes::{CHANNEL, Dice, Stage};
use bus_tests::{PATIENCE, Route};

/// Makes a `#[test]` of each campaign, over one route.
macro_rules! over {
    ($route:ident as $name:ident: $($test:ident)*) => {
        mod $name {
            $(#[test]
            fn $test() {
                super::$test(bus_tests::Route::$route);
            })*
        }
    };
}

macro_rules! over_both_routes {
    ($($tests:tt)*) => {
        over!(Stream as stream: $($tests)*);
        over!(Lane as lane: $($tests)*);
    };
}

over_both_routes! {
    senders_that_are_killed_lose_nothing_that_they_had_sent
    a_receiver_that_is_killed_loses_nothing_to_the_next
    a_receiver_that_is_killed_loses_nothing_to_its_standby
    a_daemon_that_is_killed_loses_nothing_that_living_senders_sent
    whoever_is_killed_nothing_is_lost_that_anybody_held
}

fn senders_that_are_killed_lose_nothing_that_they_had_sent(route: Route) {
    campaigns("senders", route, false, |stage, _| {
        stage.kill_sender();
        stage.add_sender();
    });
}

fn a_receiver_that_is_killed_loses_nothing_to_the_next(route: Route) {
    campaigns("receiver", route, false, |stage, _| {
        stage.kill_receiver();
        stage.add_receiver(false);
    });
}

fn a_receiver_that_is_killed_loses_nothing_to_its_standby(route: Route) {
    campaigns("standby", route, true, |stage, _| {
        stage.kill_receiver();
        stage.add_receiver(true);
    });
}

fn a_daemon_that_is_killed_loses_nothing_that_living_senders_sent(route: Route) {
    campaigns("daemon", route, false, |stage, _| {
        stage.kill_daemon();
        stage.pass_time(Duration::from_millis(20));
        stage.start_daemon();
    });
}

/// One stage for each subset of those who can die, and each time some of them: so what is lost where one of the three
/// was never touched, its life would have saved.
fn whoever_is_killed_nothing_is_lost_that_anybody_held(route: Route) {
    campaigns("whoever", route, true, |stage, number| {
        let mortal = number % 7 + 1;
        let mut victims = 0;
        while victims == 0 {
            victims = stage.dice.roll(8) & mortal;
        }
        let first = stage.dice.roll(3);
        let mut senders = 0;
        for victim in (first..first + 3).map(|place| 1 << (place % 3)).filter(|victim| victims & victim != 0) {
            match victim {
                SENDERS_DIE => {
                    senders = 1 + stage.dice.roll(SENDERS);
                    (0..senders).for_each(|_| stage.kill_sender());
                }
                RECEIVER_DIES => stage.kill_receiver(),
                _ => stage.kill_daemon(),
            }
            // Sometimes what the others do in between matters.
            stage.pass_time(Duration::from_millis(1));
        }
        if victims & RECEIVER_DIES != 0 {
            stage.add_receiver(true);
        }
        if victims & DAEMON_DIES != 0 {
            stage.pass_time(Duration::from_millis(20));
            stage.start_daemon();
        }
        (0..senders).for_each(|_| stage.add_sender());
    });
}

const SENDERS_DIE: u64 = 1;
const RECEIVER_DIES: u64 = 2;
const DAEMON_DIES: u64 = 4;

#[test]
fn a_standby_takes_over_within_a_second() {
    let mut stage = Stage::new(Dice::from_environment(), Route::Stream);
    let bus = stage.bus();
    let seated = || bus.show(CHANNEL).ok().and_then(|info| info.receiver).map(|receiver| receiver.pid);
    stage.add_sender();
    stage.add_receiver(true);
    let mut took = Vec::new();
    for _ in 0..8 {
        wait_until(PATIENCE, || seated() == Some(stage.receiver_pids()[0]));
        stage.add_receiver(true);
        wait_until(PATIENCE, || bus.show(CHANNEL).is_ok_and(|info| info.standby.len() == 1));
        stage.kill_receiver();
        let begin = Instant::now();
        wait_until(PATIENCE, || seated() == Some(stage.receiver_pids()[0]));
        took.push(begin.elapsed());
        stage.wait_for_progress();
    }
    stage.finish();
    // A busy machine may hold one of them up, and does not do that to all.
    took.sort();
    assert!(took[took.len() / 2] < Duration::from_secs(1), "the takeovers took {took:?}");
}

/// Several stages, one after the other, on each of which `kill` does its work again and again. It is told which stage.
fn campaigns(name: &str, route: Route, standby: bool, kill: fn(&mut Stage, u64)) {
    let rounds = match env::var("BUS_KILL_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("BUS_KILL_ROUNDS is a number"),
        Err(_) => ROUNDS,
    };
    let mut done = 0;
    let mut number = Dice::from_environment().roll(7);
    while done < rounds {
        number += 1;
        let dice = Dice::from_environment();
        let seed = dice.seed();
        let mut stage = Stage::new(dice, route);
        for _ in 0..SENDERS {
            stage.add_sender();
        }
        stage.add_receiver(standby);
        if standby {
            stage.add_receiver(true);
        }
        for _ in 0..ROUNDS_PER_STAGE.min(rounds - done) {
            // Mostly when traffic has come up again, and sometimes in the middle of that.
            if stage.dice.roll(4) > 0 {
                stage.wait_for_progress();
            }
            stage.pass_time(Duration::from_millis(20));
            kill(&mut stage, number);
            done += 1;
        }
        println!("{name} over {route:?}: {} by round {done}, seed {seed}", stage.finish());
    }
}

fn wait_until(patience: Duration, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < patience, "it took longer than {patience:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// How often each test kills in an ordinary run.
const ROUNDS: u64 = 120;

/// After how many kills everything is compared.
const ROUNDS_PER_STAGE: u64 = 12;

/// More than there are cores here, so that they stop each other in the middle.
const SENDERS: u64 = 3;
