//! Two channels in an event loop of `mio`, beside whatever else it watches.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin loop_mio
//!     shell 2: cargo run --bin loop_feed

use std::error::Error;
use std::os::fd::{AsFd, AsRawFd};

use bus_core::{Bus, TryRecvError};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

fn main() -> Result<(), Box<dyn Error>> {
    let bus = Bus::connect()?;
    let open = |channel| bus.receiver::<u32>(channel).until_disconnected().open();
    let receivers = [open("left")?, open("right")?];
    let mut poll = Poll::new()?;
    for (number, receiver) in receivers.iter().enumerate() {
        let descriptor = receiver.as_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&descriptor), Token(number), Interest::READABLE)?;
    }
    let (mut sum, mut open_ends) = (0, receivers.len());
    let mut events = Events::with_capacity(16);
    while open_ends > 0 {
        poll.poll(&mut events, None)?;
        for event in &events {
            let receiver = &receivers[event.token().0];
            // mio tells of each change once: everything is taken, until there is no more.
            let end = loop {
                match receiver.try_recv() {
                    Ok(number) => sum += number,
                    Err(end) => break end,
                }
            };
            match end {
                TryRecvError::Empty | TryRecvError::Away => {}
                TryRecvError::Disconnected => {
                    poll.registry().deregister(&mut SourceFd(&receiver.as_fd().as_raw_fd()))?;
                    open_ends -= 1;
                }
                error => return Err(error.into()),
            }
        }
    }
    println!("the sum is {sum}");
    Ok(())
}
