//! `bus consume --peek`: copies of what a channel holds, without a seat.

use std::io;

use crate::args::ConsumeArgs;
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};
use crate::printer::Printer;

/// Writes the copies out, page by page.
pub(crate) fn run(args: &ConsumeArgs, around: &Surroundings) -> Result<Exit, Failure> {
    let bus = around.connect()?;
    let mut printer = Printer::new(args)?;
    let mut left = args.until.messages.unwrap_or(u64::MAX);
    let mut after = Some(0);
    while let (Some(position), 1..) = (after, left) {
        let page = u32::try_from(left.min(PAGE_MESSAGES)).unwrap_or(u32::MAX);
        let peeked = bus.peek(&args.channel, position, page)?;
        left -= peeked.messages.len() as u64;
        after = peeked.next;
        let printed = peeked
            .messages
            .iter()
            .try_for_each(|message| {
                printer.print(&message.payload, || message.info.clone(), || message.headers.clone())
            })
            .and_then(|()| printer.flush());
        match printed {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(Failure::io("cannot write the output", &error)),
        }
    }
    Ok(Exit::Done)
}

/// How many messages are asked for at once; the daemon bounds the bytes of an answer.
const PAGE_MESSAGES: u64 = 256;
