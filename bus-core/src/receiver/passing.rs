//! Messages handed on to a channel of crossbeam, as many at once as that takes.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

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
        self.pass(sink).map_err(Into::into)
    }

    fn pass(&mut self, sink: &Sender<T>) -> Result<Passed<T>, Nothing> {
        self.route.check_here()?;
        let stream = match &self.route {
            Route::Stream(stream) => stream,
            Route::Local(_) => return Ok(Passed::Lent(self.lend(Wait::Never)?.into_owned())),
        };
        let mut loan = stream.lend_soon()?;
        let value = match self.decode(&loan.frame()) {
            Ok(value) => value,
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
                return Ok(Passed::Lent(OwnedDelivery::new(Lender::Stream(stream.clone()), envelope)));
            }
        }
        loan.extend(PASSED_MESSAGES);
        let mut taken = 1;
        let passing = catch_unwind(AssertUnwindSafe(|| {
            for frame in loan.frames().skip(1) {
                // One that is not taken, or does not decode, says why when it is the first.
                let Ok(value) = (self.decode)(frame.codec(), frame.payload()) else { break };
                if sink.try_send(value).is_err() {
                    break;
                }
                taken += 1;
            }
        }));
        // Also when the next one's own code has panicked: what the sink has taken does not come again.
        loan.settle_first(taken);
        passing.unwrap_or_else(|panic| resume_unwind(panic));
        Ok(Passed::Taken)
    }
}
