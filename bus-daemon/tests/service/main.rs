//! `busd` as a process, and peers that speak to its socket byte by byte.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod bounds;
mod busd;
mod descriptors;
mod lanes;
mod leaving;
mod logs;
mod no_memory_files;
mod peer;
mod program;
mod returning;
