//! `busd`, the daemon that serves a bus, and a library to embed it.

mod args;
#[doc(hidden)]
pub mod broker;
mod claim;
mod config;
mod connection;
mod daemon;
mod event_loop;
mod gateway;
mod key;
mod lanes;
mod large_frame;
mod listener;
mod lock;
mod logging;
mod memory;
mod passing;
mod peer;
mod reserve;
mod runtime_dir;
mod sealer;
mod service;
mod signals;
mod socket_file;
mod systemd;

pub use args::Args;
pub use claim::ClaimError;
pub use config::{Config, ConfigError, InvalidConfig, PerUser, UnitError, parse_duration};
pub use daemon::{Daemon, StartError};
pub use key::KeyError;
pub use lock::LockError;
pub use logging::{LogFormat, LogLevel};
pub use peer::Credentials;
pub use runtime_dir::RuntimeDirError;
pub use service::run;
pub use socket_file::{Access, SocketError};
