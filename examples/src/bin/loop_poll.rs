//! Two channels in one thread, by `poll`: the descriptor of a receiver is readable while a message waits.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin loop_poll
//!     shell 2: cargo run --bin loop_feed

use std::error::Error;

use bus_core::{Bus, Receiver, TryRecvError};
use rustix::event::{PollFd, PollFlags, poll};

fn main() -> Result<(), Box<dyn Error>> {
    let bus = Bus::connect()?;
    let open = |channel| bus.receiver::<u32>(channel).until_disconnected().open();
    let mut receivers = vec![open("left")?, open("right")?];
    let mut sum = 0;
    while !receivers.is_empty() {
        let mut polled: Vec<_> = receivers.iter().map(|receiver| PollFd::new(receiver, PollFlags::IN)).collect();
        poll(&mut polled, None)?;
        let mut ended = Vec::new();
        for (receiver, polled) in receivers.iter().zip(&polled) {
            ended.push(!polled.revents().is_empty() && drain(receiver, &mut sum)?);
        }
        drop(polled);
        let mut ended = ended.into_iter();
        receivers.retain(|_| !ended.next().unwrap_or(false));
    }
    println!("the sum is {sum}");
    Ok(())
}

/// Takes what is there; `true` at the end of the channel.
fn drain(receiver: &Receiver<u32>, sum: &mut u32) -> Result<bool, TryRecvError> {
    loop {
        match receiver.try_recv() {
            Ok(number) => *sum += number,
            Err(TryRecvError::Empty | TryRecvError::Away) => return Ok(false),
            Err(TryRecvError::Disconnected) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}
