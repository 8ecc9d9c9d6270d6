//! The protocol on one page. Knows no socket: bytes in, frames out, and back.
//!
//! Everything is little endian. A frame is a fixed header, then what the header announces:
//!
//! ```text
//!   byte  0      1      2      3      4      5      6      7
//!       +------+------+------+------+------+------+-------------+
//!     0 | magic 'b''U'| vers | kind | flags| codec| reserved 0  |
//!       +------+------+------+------+------+------+-------------+
//!     8 | sequence                          of its sender, u64  |
//!       +-------------------------------------------------------+
//!    16 | sent_at        nanoseconds since the Unix epoch, u64  |
//!       +---------------------------+---------------------------+
//!    24 | body length, u32          | header-block length, u32  |
//!       +---------------------------+---------------------------+
//!    32 | origin: only in Deliver                               |
//!       |   sender id u64 | accepted at u64, CLOCK_MONOTONIC   |
//!       |   pid u32 | attempt u32                             |
//!       +-------------------------------------------------------+
//!       | header block: (key length u16, key, value length u32, |
//!       |   value) again and again, UTF-8                       |
//!       +-------------------------------------------------------+
//!       | body: the payload, or a control body in bincode       |
//!       +-------------------------------------------------------+
//! ```
//!
//! Who says what:
//!
//! ```text
//!   up (client to daemon)            down (daemon to client)
//!   Hello                            Welcome | Refused
//!   Data       sequence, payload     Settled   accepted and acknowledged, cumulative
//!   Want       room for one message  Granted | Full
//!   Unwant                           Receivers presence changed
//!   Progress   taken, acked          Deliver   a Data frame with its origin
//!   Recalled   answer to Recall      Recall    give back what you have not claimed
//!   Watch                            Peers     who is at the channel
//!   Request                          Reply
//!   Goodbye                          Seated, Ended, Closing
//! ```
//!
//! Lanes have frames of their own, drawn in `lane.rs`. `Settled` is the two cumulative answers `Accepted` and `Acked` in one frame. Tags of deliveries
//! are not sent: both sides count the `Deliver` frames of a connection from 1.

mod control;
mod frame;
mod headers;
mod lane;

pub use control::*;
pub use frame::*;
pub use headers::*;
pub use lane::*;
