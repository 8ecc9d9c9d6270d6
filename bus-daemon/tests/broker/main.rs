//! The broker by plain calls, told as stories: who connects, who sends, who hears what.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod attach;
mod awaited;
mod bench;
mod bounds;
mod delivery;
mod ends;
mod flow;
mod lanes;
mod lanes_clock;
mod lanes_gone;
mod lanes_idle;
mod lanes_quota;
mod large;
mod links;
mod orders;
mod resume;
mod runs;
mod turns;
