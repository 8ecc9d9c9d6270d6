//! The processes that do next to nothing: what is measured is what they cost.

use std::io::Read as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use bus_core::SendTimeoutError;
use serde::{Deserialize, Serialize};

use crate::child::{say, tell};
use crate::ends::{Channel, Inlet, bus, name};
use crate::payload::Maker;
use crate::traffic::Place;

/// A receiver to whom nobody sends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IdleReceiver {
    pub(crate) place: Place,
    pub(crate) channel: Channel,
}

impl IdleReceiver {
    pub(crate) fn play(self) -> Result<()> {
        let mut inlet = Inlet::open(self.place.route, &self.place.socket, self.channel)?;
        say("ready")?;
        loop {
            inlet.take(|_| Ok(()))?;
        }
    }
}

/// Many senders that send nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IdleSenders {
    pub(crate) place: Place,
    pub(crate) channel: Channel,
    pub(crate) count: usize,
}

impl IdleSenders {
    pub(crate) fn play(self) -> Result<()> {
        let bus = bus(&self.place.socket)?;
        let open = |_| bus.raw_sender(name(self.channel)).open();
        let senders = (0..self.count).map(open).collect::<Result<Vec<_>, _>>()?;
        say("ready")?;
        wait_for_the_end()?;
        drop(senders);
        Ok(())
    }
}

/// A receiver that is there and reads nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoppedReceiver {
    pub(crate) place: Place,
    pub(crate) channel: Channel,
}

impl StoppedReceiver {
    pub(crate) fn play(self) -> Result<()> {
        let mut receiver = bus(&self.place.socket)?.raw_receiver(name(self.channel)).open()?;
        say("ready")?;
        // It has taken one and never comes to the next.
        let delivery = receiver.next_bytes(None)?;
        wait_for_the_end()?;
        delivery.ack();
        Ok(())
    }
}

/// Sends until nothing goes any more, and stays.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BlockedSender {
    pub(crate) place: Place,
    pub(crate) channel: Channel,
    pub(crate) payload_bytes: usize,
}

impl BlockedSender {
    /// Reports how many messages went.
    pub(crate) fn play(self) -> Result<()> {
        let sender = bus(&self.place.socket)?.raw_sender(name(self.channel)).open()?;
        let mut maker = Maker::new(0, self.payload_bytes);
        say("ready")?;
        let mut sent: u64 = 0;
        loop {
            match sender.outgoing().feed_bytes(maker.next(0), Some(Instant::now() + BLOCKED_AFTER)) {
                Ok(()) => sent += 1,
                Err(SendTimeoutError::Timeout(())) => break,
                Err(error) => return Err(error.into()),
            }
        }
        tell(&sent)?;
        wait_for_the_end()
    }
}

/// A send that takes so long is blocked.
const BLOCKED_AFTER: Duration = Duration::from_millis(500);

/// Waits until the benchmark closes this process's input, or kills it.
fn wait_for_the_end() -> Result<()> {
    std::io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}
