//! What the processes of a [`Stage`](super::Stage) do until they are killed.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{process, thread};

use bus_core::{Address, Bus, ConnectError, OpenError, SendTimeoutError, Sender, TrySendError};

use super::journal::{Journal, Received, Sent, now_ns};
use super::{CHANNEL, Parcel};
use crate::PATIENCE;

/// Sends parcel after parcel, each as soon as the one before it is written down, until its standard
/// input ends. Then it flushes.
///
/// # Panics
/// When the bus refuses what it promises.
pub fn send_parcels(address: &Address, journal: &Path, producer: u64, lane: bool) {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    when_told_to_end(move || told.store(true, Ordering::Relaxed));
    let journal = Journal::open(journal);
    let builder = |bus: &Bus| {
        let builder = bus.sender::<Parcel>(CHANNEL);
        if lane { builder.lane() } else { builder.no_lane() }
    };
    let sender = open(address, |bus| builder(bus).open());
    let mut in_lane = false;
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if lane && number % LOOK_PARCELS == 0 {
            in_lane = sender.is_in_lane();
        }
        let called_at_ns = now_ns();
        send(&sender, Parcel::new(producer, number));
        Sent { number, called_at_ns, in_lane }.write(&journal);
    }
    sender.flush().expect("everything that was sent is accepted");
}

/// By one of the three forms. A parcel that comes back was never sent, so it may be sent again.
fn send(sender: &Sender<Parcel>, mut parcel: Parcel) {
    loop {
        parcel = match parcel.producer % 3 {
            0 => return sender.send(parcel).expect("the channel is there"),
            1 => match sender.send_timeout(parcel, SHORT) {
                Err(SendTimeoutError::Timeout(parcel)) => parcel,
                sent => return sent.expect("the channel is there"),
            },
            _ => match sender.try_send(parcel) {
                Err(TrySendError::Full(parcel) | TrySendError::Away(parcel)) => {
                    thread::sleep(SHORT);
                    parcel
                }
                sent => return sent.expect("the channel is there"),
            },
        };
    }
}

/// Takes parcel after parcel, and writes each down before it acknowledges it.
///
/// # Panics
/// When the bus ends what it should not.
pub fn receive_parcels(address: &Address, journal: &Path, receiver: u64, standby: bool) {
    when_told_to_end(|| process::exit(0));
    let journal = Journal::open(journal);
    let builder = |bus: &Bus| {
        let builder = bus.receiver::<Parcel>(CHANNEL);
        if standby { builder.standby() } else { builder }
    };
    let mut parcels = open(address, |bus| builder(bus).open());
    loop {
        let parcel = parcels.next_delivery().expect("the channel is there");
        let redelivered = parcel.info().redelivered;
        let (producer, number, whole) = (parcel.producer, parcel.number, parcel.is_whole());
        Received { receiver, producer, number, redelivered, whole }.write(&journal);
        parcel.ack();
    }
}

/// Opens an end, also when the daemon is away at the moment.
fn open<T>(address: &Address, end: impl Fn(&Bus) -> Result<T, OpenError>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let opened = Bus::connect_to(address).map_err(OpenError::Connect).and_then(|bus| end(&bus));
        match opened {
            Err(OpenError::Connect(ConnectError::Unreachable { .. })) if Instant::now() < deadline => {
                thread::sleep(SHORT);
            }
            opened => return opened.expect("an end opens"),
        }
    }
}

/// The end of the standard input is the order to end. It also comes when the test has died, so that
/// no process is left behind.
fn when_told_to_end(end: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        let _ = io::stdin().read(&mut [0]);
        end();
        // With the test its daemon may have died: what is not at its end by now never will be.
        thread::sleep(6 * PATIENCE);
        process::exit(1);
    });
}

const SHORT: Duration = Duration::from_millis(1);

/// After how many parcels a sender looks whether it is in a lane: the look would be seen in its rhythm.
const LOOK_PARCELS: u64 = 16;
