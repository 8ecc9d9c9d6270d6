//! [`Unsent`]: a value that could not be sent, sorted into the error of each operation.

use crate::codec::EncodeError;
use crate::error::{ConfirmError, SendError, SendTimeoutError, TrySendError};
use crate::stream::sender::PushError;
use crate::wire::HeaderBlockError;

/// A message that could not be sent, and why.
pub(super) struct Unsent<T> {
    pub(super) value: T,
    pub(super) why: Why,
}

pub(super) enum Why {
    Timeout,
    Full,
    Away,
    Disconnected,
    TooLarge { bytes: u64, limit: u32 },
    Encode(EncodeError),
    Headers(HeaderBlockError),
    Forked,
}

impl From<PushError> for Why {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Timeout => Self::Timeout,
            PushError::Full => Self::Full,
            PushError::Away => Self::Away,
            PushError::Disconnected => Self::Disconnected,
            PushError::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
        }
    }
}

/// Sorts a failure into an operation's own error. What cannot happen there falls to the nearest.
macro_rules! from_unsent {
    ($error:ident: $timeout:ident, $away:ident) => {
        impl<T> From<Unsent<T>> for $error<T> {
            fn from(Unsent { value, why }: Unsent<T>) -> Self {
                match why {
                    Why::Timeout => Self::$timeout(value),
                    Why::Full => Self::Full(value),
                    Why::Away => Self::$away(value),
                    Why::Disconnected => Self::Disconnected(value),
                    Why::TooLarge { bytes, limit } => Self::TooLarge { value, bytes, limit },
                    Why::Encode(source) => Self::Encode { value, source },
                    Why::Headers(source) => Self::Headers { value, source },
                    Why::Forked => Self::Forked(value),
                }
            }
        }
    };
}

from_unsent!(SendError: Full, Disconnected);
from_unsent!(TrySendError: Full, Away);
from_unsent!(SendTimeoutError: Timeout, Timeout);
from_unsent!(ConfirmError: Timeout, Timeout);
