//! Ends beside a daemon that is slow, stopped or gone: what they say, what they never do. The daemon
//! is a script, so that each moment can be had.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lanes;
mod receiver;
mod script;
mod sender;
