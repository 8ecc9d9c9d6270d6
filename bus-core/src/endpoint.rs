//! The receiving end without its socket, for simulations. No part of the interface for apps.

pub use crate::stream::control_queue::ControlQueue;
pub use crate::stream::inbox::Inbox;
pub use crate::stream::receiver::LentFrame;
pub use crate::stream::receiver::receiving::{Broken, Head, Receiving};
