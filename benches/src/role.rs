//! What a process of a measurement plays: the bench binary starts itself with one of these.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::bridged::{ConsumeValues, ProduceValues};
use crate::idle::{BlockedSender, IdleReceiver, IdleSenders, StoppedReceiver};
use crate::lane::flow;
use crate::lane::instructions::Instructions;
use crate::lane::pingpong::Pong as RingPong;
use crate::lane::threads::Threads;
use crate::lane::wake::Pong as WakePong;
use crate::traffic::{Consume, ConsumeLines, Ping, Pong, Produce, ProduceLines};

/// One part, as JSON on the command line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// The floor, until it is killed.
    Relay {
        /// Where it listens.
        socket: PathBuf,
        /// How long it polls after traffic, in microseconds.
        poll_us: u64,
    },
    Produce(Produce),
    Consume(Consume),
    Ping(Ping),
    Pong(Pong),
    ProduceLines(ProduceLines),
    ConsumeLines(ConsumeLines),
    ProduceValues(ProduceValues),
    ConsumeValues(ConsumeValues),
    IdleReceiver(IdleReceiver),
    IdleSenders(IdleSenders),
    StoppedReceiver(StoppedReceiver),
    BlockedSender(BlockedSender),
    RingProduce(flow::Produce),
    RingConsume(flow::Consume),
    RingPong(RingPong),
    Threads(Threads),
    WakePong(WakePong),
    Instructions(Instructions),
}

impl Role {
    /// What the benchmark calls the process when something is wrong with it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Relay { .. } => "the relay",
            Self::Produce(_) => "a producer",
            Self::Consume(_) => "the consumer",
            Self::Ping(_) => "the ping process",
            Self::Pong(_) => "the pong process",
            Self::ProduceLines(_) => "the line producer",
            Self::ConsumeLines(_) => "the line consumer",
            Self::ProduceValues(_) => "the producer of values",
            Self::ConsumeValues(_) => "the consumer of values",
            Self::IdleReceiver(_) => "the idle consumer",
            Self::IdleSenders(_) => "the idle senders",
            Self::StoppedReceiver(_) => "the stopped consumer",
            Self::BlockedSender(_) => "the blocked sender",
            Self::RingProduce(_) => "a producer at a ring",
            Self::RingConsume(_) => "the consumer of the rings",
            Self::RingPong(_) => "the process that answers by a ring",
            Self::Threads(_) => "the process of threads",
            Self::WakePong(_) => "the process that is woken",
            Self::Instructions(_) => "the process whose instructions are counted",
        }
    }

    pub(crate) fn play(self) -> Result<()> {
        // Whoever started this process ends it; if it cannot any more, nothing may be left behind.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        match self {
            Self::Relay { socket, poll_us } => crate::relay::serve(&socket, poll_us),
            Self::Produce(role) => role.play(),
            Self::Consume(role) => role.play(),
            Self::Ping(role) => role.play(),
            Self::Pong(role) => role.play(),
            Self::ProduceLines(role) => role.play(),
            Self::ConsumeLines(role) => role.play(),
            Self::ProduceValues(role) => role.play(),
            Self::ConsumeValues(role) => role.play(),
            Self::IdleReceiver(role) => role.play(),
            Self::IdleSenders(role) => role.play(),
            Self::StoppedReceiver(role) => role.play(),
            Self::BlockedSender(role) => role.play(),
            Self::RingProduce(role) => role.play(),
            Self::RingConsume(role) => role.play(),
            Self::RingPong(role) => role.play(),
            Self::Threads(role) => role.play(),
            Self::WakePong(role) => role.play(),
            Self::Instructions(role) => role.play(),
        }
    }
}
