//! A process that forks in the middle of its work, for `tests/forked.rs`: `forked stream|lane SOCKET`, or `forked local`.
//!
//! What its child does with the ends that it was born with comes to nothing, and those that it opens itself work.
//! Ends with 0 when all of that was seen.

use std::time::{Duration, Instant};
use std::{env, process, thread};

use bus_core::{
    Address, Bus, ConfirmError, Delivery, FlushError, OwnedDelivery, PeersError, Receiver, RecvError, RecvTimeoutError,
    SendError, SendTimeoutError, Sender, TryRecvError, TrySendError,
};
use bus_tests::{PATIENCE, eventually};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// The channel of the parent.
const JOBS: &str = "jobs";

/// The channel of the child, where there is a daemon for both.
const NEWS: &str = "news";

#[expect(unsafe_code, reason = "nothing else makes a child that goes on with the same memory")]
mod system {
    unsafe extern "C" {
        fn fork() -> i32;
    }

    /// Whether this is the child; the parent is told its number.
    pub(crate) fn fork_here() -> Option<i32> {
        // SAFETY: it takes nothing. The child runs one thread, of code that waits for no lock of the others: it is what
        // this program tests, and should it wait all the same its parent fails.
        let child = unsafe { fork() };
        assert!(child >= 0, "no child can be made");
        (child > 0).then_some(child)
    }
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let socket = arguments.get(1).map(|path| Address::new(path).expect("a short path"));
    let bus = match &socket {
        Some(address) => Bus::connect_to(address).expect("busd answers"),
        None => Bus::in_process(),
    };
    let lane = arguments[0] == "lane";
    let sender = bus.sender::<u64>(JOBS);
    let sender = if lane { sender.lane() } else { sender.no_lane() }.open().expect("a sender opens");
    let mut receiver = bus.receiver::<u64>(JOBS).open().expect("a receiver opens");
    let mut sent = 0;
    while sent < 10 || lane && !sender.is_in_lane() {
        sender.send(sent).expect("the channel is there");
        assert_eq!(receiver.recv_timeout(PATIENCE).expect("it comes"), sent);
        sent += 1;
    }
    (0..10).for_each(|more| sender.send(sent + more).expect("the channel is there"));
    let held = receiver.next_delivery_deadline(Instant::now() + PATIENCE).map(Delivery::into_owned).expect("it comes");
    match system::fork_here() {
        None => {
            // A panic in it must not run the parent's part.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| child(sender, receiver, held)));
            if let Some(address) = socket {
                let own = Bus::connect_to(&address).expect("busd answers");
                own.sender::<u64>(NEWS).open().expect("a sender opens").send_confirmed(7).expect("it is accepted");
                let own = own.receiver::<u64>(NEWS).open().expect("a receiver opens");
                assert_eq!(own.recv_timeout(PATIENCE).expect("it comes"), 7);
            }
            process::exit(if outcome.is_ok() { 0 } else { 1 });
        }
        Some(child) => await_end(child),
    }
    // Nothing of this has changed.
    assert_eq!(*held, sent);
    held.ack();
    for number in sent + 1..sent + 10 {
        let delivery = receiver.next_delivery_deadline(Instant::now() + PATIENCE).expect("it comes");
        assert_eq!((*delivery, delivery.info().redelivered), (number, false));
        delivery.ack();
    }
    for number in 0..1_000 {
        sender.send(number).expect("the channel is there");
        assert_eq!(receiver.recv_timeout(PATIENCE).expect("it comes"), number);
    }
    assert!(receiver.is_seated());
    eventually("everything is acknowledged", || sender.is_empty());
    if socket.is_some() {
        let ledger = bus.show(JOBS).expect("the channel is there").ledger;
        assert_eq!((ledger.accepted, ledger.acknowledged, ledger.balances()), (sent + 1_010, sent + 1_010, true));
    }
}

/// Every call of every end says that it is another process's.
fn child(sender: Sender<u64>, mut receiver: Receiver<u64>, held: OwnedDelivery<u64>) {
    let soon = Instant::now() + Duration::from_millis(1);
    assert!(matches!(sender.send(1), Err(SendError::Forked(1))));
    assert!(matches!(sender.try_send(2), Err(TrySendError::Forked(2))));
    assert!(matches!(sender.send_deadline(3, soon), Err(SendTimeoutError::Forked(3))));
    assert!(matches!(sender.feed(4), Err(SendError::Forked(4))));
    assert!(matches!(sender.send_confirmed(5), Err(SendError::Forked(5))));
    assert!(matches!(sender.send_confirmed_deadline(6, soon), Err(ConfirmError::Forked(6))));
    assert!(matches!(sender.flush(), Err(FlushError::Forked)));
    assert!(matches!(sender.peers(), Err(PeersError::Forked)));
    assert!(sender.refused().is_empty() && sender.is_empty() && !sender.has_lane());
    sender.push_buffered();
    drop(sender.clone());
    drop(sender);

    assert!(matches!(receiver.recv(), Err(RecvError::Forked)));
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Forked)));
    assert!(matches!(receiver.recv_deadline(soon), Err(RecvTimeoutError::Forked)));
    assert!(matches!(receiver.next_delivery(), Err(RecvError::Forked)));
    assert!(matches!(receiver.peers(), Err(PeersError::Forked)));
    assert!(receiver.is_empty() && !receiver.is_seated() && receiver.readiness().is_err());
    assert_eq!(receiver.iter().count(), 0);
    drop(held);
    drop(receiver);
}

fn await_end(child: i32) {
    let child = Pid::from_raw(child).expect("a child has a number");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some((_, status)) = waitpid(Some(child), WaitOptions::NOHANG).expect("it is ours") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = kill_process(child, Signal::KILL);
            panic!("the child waits for something");
        }
        thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(status.exit_status(), Some(0), "the child ended with {status:?}");
}
