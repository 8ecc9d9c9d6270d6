//! Several values at less than each would cost alone: encoded one behind the other, and fed under one lock.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::outgoing::SCRATCH;
use super::unsent::Unsent;
use super::{Route, Sender};
use crate::error::SendError;
use crate::stream::sender::{PushError, Until};

/// So many that a lock counts for little.
const FED_TOGETHER: usize = 128;

/// How much is encoded before it is fed, in bytes: what a processor keeps at hand.
const ENCODED_BYTES: usize = 64 * 1024;

impl<T: Send + 'static> Sender<T> {
    /// How many values to feed together at most: where a channel counts each one, no others are taken from where
    /// they wait.
    pub(crate) fn feeds_together(&self) -> usize {
        match &self.route {
            Route::Stream(stream) if self.route.is_here() && !stream.0.is_exact() => FED_TOGETHER,
            Route::Stream(_) | Route::Local(_) => 1,
        }
    }

    /// Feeds all values in order, and takes those out that are fed; those behind the one in the error stay. While there is
    /// no daemon the rest stays, and there is no error.
    pub(crate) fn feed_values(&self, values: &mut Vec<T>) -> Result<(), SendError<T>> {
        let stream = match &self.route {
            Route::Stream(stream) if self.route.is_here() => stream,
            Route::Stream(_) | Route::Local(_) => return self.feed_each(values),
        };
        let outgoing = self.outgoing();
        // Taken, not borrowed: encoding may run code that sends on its own.
        let mut scratch = SCRATCH.take();
        let mut ends = Vec::with_capacity(values.len());
        let mut fed = 0;
        let outcome = loop {
            scratch.clear();
            ends.clear();
            let encoded = catch_unwind(AssertUnwindSafe(|| {
                for value in &values[fed..] {
                    outgoing.encode(value, &mut scratch)?;
                    ends.push(scratch.len());
                    if scratch.len() >= ENCODED_BYTES {
                        break;
                    }
                }
                Ok(())
            }));
            let mut from = 0;
            let payloads = ends.iter().map(|to| &scratch[std::mem::replace(&mut from, *to)..*to]);
            match stream.0.feed_all(outgoing.codec, b"", payloads, Until::BufferedWhileUp) {
                Ok(()) => fed += ends.len(),
                Err((more, PushError::Away)) => {
                    fed += more as usize;
                    SCRATCH.set(scratch);
                    values.drain(..fed);
                    return Ok(());
                }
                Err((more, error)) => {
                    fed += more as usize;
                    break Err(error.into());
                }
            }
            match encoded {
                Ok(Err(why)) => break Err(why),
                Ok(Ok(())) if fed == values.len() => break Ok(()),
                Ok(Ok(())) => {}
                // Of a value's own code: those before it are fed.
                Err(panic) => resume_unwind(panic),
            }
        };
        SCRATCH.set(scratch);
        let Err(why) = outcome else {
            values.clear();
            return Ok(());
        };
        let rest = values.split_off(fed + 1);
        let unsent = std::mem::replace(values, rest).pop();
        unsent.map_or(Ok(()), |value| Err(Unsent { value, why }.into()))
    }

    fn feed_each(&self, values: &mut Vec<T>) -> Result<(), SendError<T>> {
        let mut rest = std::mem::take(values).into_iter();
        while let Some(value) = rest.next() {
            if let Err(error) = self.feed(value) {
                values.extend(rest);
                return Err(error);
            }
        }
        Ok(())
    }
}
