//! Nothing is allocated for a message: neither at its ends nor in the daemon, which are all in this process, on the stream
//! and in a lane. A buffer that grows is allocated now and then, and not once for each message.
//!
//! What is counted is what a message costs, and not a turn of the daemon: so many are written to the stream at once, whoever
//! gets a processor when.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use bus_core::{Address, Bus};
use bus_daemon::{Config, Daemon};
use bus_tests::{PATIENCE, watch};

use counting::ALLOCATIONS;

#[expect(unsafe_code, reason = "an allocator is unsafe to write, and nothing else sees every allocation")]
mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// How often memory was asked for, by whatever thread.
    pub(crate) static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

    struct Counting;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    // SAFETY: all is done by the allocator of the system.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the caller's promise.
            unsafe { System.alloc(layout) }
        }

        unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the caller's promise.
            unsafe { System.realloc(memory, layout, bytes) }
        }

        unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
            // SAFETY: the caller's promise.
            unsafe { System.dealloc(memory, layout) }
        }
    }
}

/// Sent before it is counted, until every buffer is as large as it gets.
const WARM_UP: u64 = 50_000;

const MESSAGES: u64 = 200_000;

/// Of the tests of this process there is one, so that what is counted is its own.
#[test]
fn nothing_is_allocated_for_a_message_at_its_ends_or_in_the_daemon() {
    let body = || {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = Address::new(folder.path().join("bus.sock")).expect("a short path");
        let daemon = Daemon::start(Config { socket: Some(socket.clone()), ..Config::default() }).expect("it starts");
        let bus = Bus::connect_to(&socket).expect("it answers");
        for lane in [false, true] {
            for payload_bytes in [64, 1_024] {
                let allocations = count_for_bytes(&bus, lane, payload_bytes);
                expect_few(allocations, lane, payload_bytes as u64);
            }
            expect_few(count_for_values(&bus, lane), lane, 8);
        }
        daemon.shutdown().expect("it ends");
    };
    watch("allocations", body, || ());
}

/// Fewer than one for twenty messages, wherever: a buffer's growth and a turn of the daemon must not come near that.
fn expect_few(allocations: u64, lane: bool, payload_bytes: u64) {
    let bound = MESSAGES / 20;
    let what = format!("{allocations} allocations for {MESSAGES} messages of {payload_bytes} bytes, lane {lane}");
    println!("{what}");
    assert!(allocations < bound, "{what}: {bound} or more");
}

fn count_for_bytes(bus: &Bus, lane: bool, payload_bytes: usize) -> u64 {
    let channel = format!("bytes.{payload_bytes}.{lane}");
    let sender = bus.raw_sender(&channel);
    let sender = if lane { sender.lane() } else { sender.no_lane() }.open().expect("a sender opens");
    let mut receiver = bus.raw_receiver(&channel).open().expect("a receiver opens");
    let payload = vec![7; payload_bytes];
    let sending = thread::spawn(move || {
        for _ in 0..WARM_UP + MESSAGES {
            sender.outgoing().feed_bytes(&payload, None).expect("the channel is there");
        }
        sender.flush().expect("all is accepted");
        sender
    });
    let mut take = |messages: u64| {
        let mut taken = 0;
        while taken < messages {
            let most = (messages - taken).min(64) as usize;
            let batch = receiver.next_batch(most, Some(Instant::now() + PATIENCE)).expect("they come");
            taken += batch.len() as u64;
            batch.ack();
        }
    };
    take(WARM_UP);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    take(MESSAGES);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let sender = sending.join().expect("the sender does not panic");
    assert_eq!(sender.has_lane(), lane);
    allocations
}

fn count_for_values(bus: &Bus, lane: bool) -> u64 {
    let channel = format!("values.{lane}");
    let sender = bus.sender::<u64>(&channel);
    let sender = if lane { sender.lane() } else { sender.no_lane() }.open().expect("a sender opens");
    let receiver = bus.receiver::<u64>(&channel).open().expect("a receiver opens");
    let sending = thread::spawn(move || {
        (0..WARM_UP + MESSAGES).for_each(|number| sender.feed(number).expect("the channel is there"));
        sender.flush().expect("all is accepted");
        sender
    });
    let take = |numbers: std::ops::Range<u64>| {
        numbers.for_each(|number| assert_eq!(receiver.recv_timeout(PATIENCE).expect("it comes"), number));
    };
    take(0..WARM_UP);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    take(WARM_UP..WARM_UP + MESSAGES);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let sender = sending.join().expect("the sender does not panic");
    assert_eq!(sender.has_lane(), lane);
    allocations
}
