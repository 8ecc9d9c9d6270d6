//! Gateways with real programs at their other side, which know nothing of a bus.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod commands;
mod ends;
mod fifos;
mod json_lines;
mod kept;
mod paths;
mod place;
mod scarcity;
mod workers;
