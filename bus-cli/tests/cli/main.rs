//! Every verb of `bus` against a daemon: exact output, exact exit code.
// Everything here is test code: a panic is how it fails.
#![allow(clippy::unwrap_used)]

mod admin;
mod bad_input;
mod consume;
mod demo;
mod exec;
mod finding;
mod foreign;
mod generated;
mod interrupted;
mod limits;
mod links;
mod output;
mod pipes;
mod progress;
mod publish;
mod readme;
mod real_input;
mod run;
mod survival;
mod world;
