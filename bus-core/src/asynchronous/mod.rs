//! The async face, behind the feature `tokio`: [`AsyncSender`] and [`AsyncReceiver`] around the ends that there
//! are. Nothing of what they promise is written again.
//!
//! A receiver is polled by its descriptor, and takes in the same poll in which its future ends. A sender tries,
//! and what has to wait is waited for by a thread of its own.

mod receiver;
mod sender;

pub use receiver::AsyncReceiver;
pub use sender::{AsyncSender, SinkError};
