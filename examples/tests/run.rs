//! Every pair of examples, run as a user would: two programs and a daemon.

use std::io::Read as _;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bus_core::Bus;
use bus_tests::Daemon;

#[test]
fn many_producers_meet_one_consumer() {
    let bus = Shell::new();
    // As long as this end is open, the consumer waits for those who come late.
    let gate = bus.connect().raw_sender("greetings").open().expect("a sender opens");
    let consumer = bus.run(env!("CARGO_BIN_EXE_many_consume"), &[]);
    let producers = ["ann", "bob", "cid"].map(|name| bus.run(env!("CARGO_BIN_EXE_many_produce"), &[name]));
    for producer in producers {
        assert_eq!(said(producer), "");
    }
    drop(gate);
    assert_eq!(said(consumer), "ann greeted 1000 times\nbob greeted 1000 times\ncid greeted 1000 times\n");
}

#[test]
fn a_worker_signals_that_it_is_done() {
    let bus = Shell::new();
    let worker = bus.run(env!("CARGO_BIN_EXE_done_worker"), &[]);
    let boss = bus.run(env!("CARGO_BIN_EXE_done_boss"), &[]);
    assert_eq!(said(boss), "the worker is done with 3 jobs\n");
    assert_eq!(said(worker), "working on sweep\nworking on mop\nworking on dust\n");
}

#[test]
fn a_bounded_channel_pushes_back() {
    let bus = Shell::new();
    let sender = bus.run(env!("CARGO_BIN_EXE_full_send"), &[]);
    bus.wait_until(|bus| {
        bus.show("plates").is_ok_and(|info| info.senders.iter().any(|sender| sender.blocked_ms.is_some()))
    });
    let receiver = bus.run(env!("CARGO_BIN_EXE_full_receive"), &[]);
    let plates: String = (1..=6).map(|plate| format!("washed plate {plate}\n")).collect();
    assert_eq!(said(receiver), plates);
    let told = said(sender);
    assert!(told.starts_with("plate 1 found room\nplate 2 found room\nplate 3 has to wait\n"), "{told}");
    assert!(told.ends_with("all plates are on their way\n"), "{told}");
}

#[test]
fn a_pool_of_threads_shares_the_work() {
    let bus = Shell::new();
    let pool = bus.run(env!("CARGO_BIN_EXE_pool_work"), &[]);
    let feeder = bus.run(env!("CARGO_BIN_EXE_pool_feed"), &[]);
    assert_eq!(said(feeder), "100 numbers are accepted\n");
    assert_eq!(said(pool), "6 of them are prime\n");
}

#[test]
fn any_event_loop_watches_two_channels() {
    for watcher in [env!("CARGO_BIN_EXE_loop_poll"), env!("CARGO_BIN_EXE_loop_mio"), env!("CARGO_BIN_EXE_loop_tokio")] {
        let bus = Shell::new();
        let watcher = bus.run(watcher, &[]);
        // Only once both are watched is there something to wait for.
        bus.wait_until(|bus| {
            ["left", "right"].iter().all(|channel| bus.show(channel).is_ok_and(|info| info.receiver.is_some()))
        });
        assert_eq!(said(bus.run(env!("CARGO_BIN_EXE_loop_feed"), &[])), "");
        assert_eq!(said(watcher), "the sum is 165\n");
    }
}

#[test]
fn nobody_waits_for_ever_for_a_slow_value() {
    let bus = Shell::new();
    let mut impatient = bus.run(env!("CARGO_BIN_EXE_slow_ask"), &[]);
    // Who answers comes then: on a busy machine he could be faster than who asks.
    let mut first = [0; "no answer yet\n".len()];
    impatient.stdout.as_mut().expect("it is piped").read_exact(&mut first).expect("it says something");
    assert_eq!(&first, b"no answer yet\n");
    assert_eq!(said(bus.run(env!("CARGO_BIN_EXE_slow_answer"), &[])), "");
    let told = said(impatient);
    assert!(told.ends_with("the answer is 42\n"), "{told}");
}

#[test]
fn one_program_runs_with_threads_and_with_processes() {
    let bus = Shell::new();
    assert_eq!(said(bus.run(env!("CARGO_BIN_EXE_same_threads"), &[])), "the sum is 55\n");
    let adder = bus.run(env!("CARGO_BIN_EXE_same_processes"), &["add-up"]);
    assert_eq!(said(bus.run(env!("CARGO_BIN_EXE_same_processes"), &["count"])), "");
    assert_eq!(said(adder), "the sum is 55\n");
}

#[test]
fn a_value_that_is_none_is_an_error_and_not_the_end() {
    let bus = Shell::new();
    bus.connect().raw_sender("numbers").open().expect("a sender opens").send(b"hello".to_vec()).expect("it is sent");
    let adder = bus.run(env!("CARGO_BIN_EXE_same_processes"), &["add-up"]);
    let Output { status, stdout, stderr } = adder.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&stderr);
    assert!(!status.success() && stdout.is_empty(), "{told}");
    assert!(told.contains("Undecodable"), "{told}");
}

/// A shell in which `BUS_SOCKET` names a daemon of its own.
struct Shell {
    daemon: Daemon,
}

impl Shell {
    fn new() -> Self {
        Self { daemon: Daemon::start() }
    }

    fn connect(&self) -> Bus {
        Bus::connect_to(self.daemon.address()).expect("the daemon answers")
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Child {
        let mut command = Command::new(program);
        command.args(arguments).env("BUS_SOCKET", self.daemon.address().path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("an example starts")
    }

    fn wait_until(&self, condition: impl Fn(&Bus) -> bool) {
        let (bus, deadline) = (self.connect(), Instant::now() + PATIENCE);
        while !condition(&bus) {
            assert!(Instant::now() < deadline, "the example does not come that far");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What a program wrote, once it has ended well.
fn said(mut child: Child) -> String {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("a child can be waited for").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
        }
        thread::sleep(Duration::from_millis(1));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it has ended");
    assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("examples write text")
}

const PATIENCE: Duration = Duration::from_secs(20);
