//! [`Closing`]: tells that a channel of the bus is closed to those who wait on channels within the process.

use std::convert::Infallible;

use crossbeam_channel::{Receiver, Sender, bounded};

/// Whether a channel is closed. Costs nothing until somebody watches it.
#[derive(Debug, Default)]
pub(crate) enum Closing {
    #[default]
    Unwatched,
    /// The sender stands for the channel: when it goes, all receivers wake.
    Watched((Sender<Infallible>, Receiver<Infallible>)),
    Closed,
}

impl Closing {
    /// Nothing ever comes from it; it is disconnected once the channel is closed.
    pub(crate) fn watch(&mut self) -> Receiver<Infallible> {
        let (open, watch) = bounded(0);
        match self {
            Self::Unwatched => {
                *self = Self::Watched((open, watch.clone()));
                watch
            }
            Self::Watched((_, watch)) => watch.clone(),
            Self::Closed => watch,
        }
    }

    pub(crate) fn close(&mut self) {
        *self = Self::Closed;
    }
}
