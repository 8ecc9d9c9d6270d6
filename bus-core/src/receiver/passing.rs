//! Messages handed on to a channel of crossbeam, as many at once as that takes.

use std::sync::Arc;

use crossbeam_channel::{Sender, TrySendError};

use super::delivery::{Lender, OwnedDelivery};
use super::{Nothing, Receiver, Route};
use crate::error::TryRecvError;
use crate::local::Envelope;
use crate::message::Headers;
use crate::stream::receiver::Wait;

/// What came of handing messages on.
pub(crate) enum Passed<T> {
    /// The sink has taken some: they are acknowledged.
    Taken,
    /// This one is to be handed on by itself, where need be when there is room.
    Lent(OwnedDelivery<T>),
    /// Nobody takes anything any more; what was in hand is given back.
    Gone,
}

/// How many messages are handed on at once at most, to be acknowledged together.
const PASSED_MESSAGES: usize = 256;

impl<T: Send + 'static> Receiver<T> {
    /// Hands the next message to `sink`, with those that are here behind it.
    pub(crate) fn try_pass(&mut self, sink: &Sender<T>) -> Result<Passed<T>, TryRecvError> {
        self.pass(Wait::Never, sink).map_err(Into::into)
    }

    fn pass(&mut self, wait: Wait, sink: &Sender<T>) -> Result<Passed<T>, Nothing> {
        let stream = match &self.route {
            Route::Stream(stream) => stream,
            Route::Local(_) => return Ok(Passed::Lent(self.lend(wait)?.into_owned())),
        };
        let mut loan = stream.lend_next(wait, true)?;
        let value = match self.decode(&loan.frame()) {
            Ok((value, _)) => value,
            Err(undecodable) => {
                // The error owns the message now.
                loan.settle(1);
                return Err(undecodable);
            }
        };
        match sink.try_send(value) {
            Ok(()) => {}
            Err(TrySendError::Disconnected(_)) => return Ok(Passed::Gone),
            Err(TrySendError::Full(value)) => {
                let envelope = Envelope { value, headers: Headers::new(), info: loan.frame().info() };
                loan.keep();
                return Ok(Passed::Lent(OwnedDelivery::new(Lender::Stream(Arc::clone(stream)), envelope)));
            }
        }
        loan.extend(PASSED_MESSAGES);
        // One that is not taken, or does not decode, says why when it is the first.
        let takes = |frame| self.decode(&frame).is_ok_and(|(value, _)| sink.try_send(value).is_ok());
        let taken = 1 + loan.frames().skip(1).take_while(|frame| takes(*frame)).count();
        loan.settle_first(taken);
        Ok(Passed::Taken)
    }
}
