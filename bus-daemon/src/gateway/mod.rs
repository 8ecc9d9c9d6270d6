//! Gateways: the daemon's own ends on FIFOs and on the pipes of commands.
//!
//! **A gateway is an ordinary client.** A thread holds a raw sender or receiver, which has connected to the
//! daemon's socket as any other program would, and a pipe. So it is listed and counted as any end is, has the
//! channel to itself when it receives, and is read no further than the channel has room: then the pipe fills,
//! and whoever writes to it waits in `write`. By the socket, not by memory, because an end in the daemon's own
//! process cannot read lanes.
//!
//! **Nothing is taken that is not handed on.** What is read from a pipe is accepted by the channel before much
//! more is read; what is taken from a channel is acknowledged when it is read out of the pipe.
//!
//! **A gateway can always be woken**: while it waits for its pipe by the descriptor of its [`Stop`], while it
//! waits for the reader of a FIFO by a reader that [`Fifo::release`] opens, while it waits for the bus by the
//! broker, which parts with its end ([`Links::part_with`]), and by deadlines besides.
//!
//! **Want ends nothing.** Where descriptors, memory or processes are short, a gateway that was up, and one of the
//! config, keeps what it has and tries again; whoever has just ordered one is told at once.
//!
//! **What is kept is written before it is up**, and taken out again should it not come up: by the gateway's own
//! thread, or by one of its own at `unlink`, as a disk may take its time.
//!
//! [`registry`](Links) starts, lists and ends them; `fifo` and `child` make the pipes; `source` and `sink` move
//! messages. The event loop hands orders in and takes answers out, and never waits here.
//!
//! [`Stop`]: stop::Stop
//! [`Fifo::release`]: fifo::Fifo::release
//! [`Links::part_with`]: registry::Links::part_with

mod child;
mod fifo;
mod link;
mod log_lines;
mod pipe_end;
mod registry;
mod scarcity;
mod sink;
mod source;
mod stop;

pub(crate) use registry::{Links, News};

/// Looks at an order for a gateway, as far as that is possible without its pipe.
pub(crate) fn check(spec: &bus_core::LinkSpec) -> Result<(), String> {
    link::Link::check(spec).map_err(|not_up| not_up.text)
}
