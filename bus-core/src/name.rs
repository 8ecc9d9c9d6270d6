//! [`ChannelName`]: the one checked form of a channel's name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::CHANNEL_NAME_MAX_BYTES;

/// A channel's name: 1 to 128 bytes of `[A-Za-z0-9_-]` tokens joined by single dots.
///
/// Names that begin with `_sys.` belong to the daemon.
///
/// ```
/// use bus_core::ChannelName;
///
/// let name: ChannelName = "orders.eu-1".parse()?;
/// assert_eq!(name.as_str(), "orders.eu-1");
/// assert!("orders..eu".parse::<ChannelName>().is_err());
/// # Ok::<(), bus_core::ChannelNameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelName(Arc<str>);

impl ChannelName {
    /// Checks `name` and keeps it.
    ///
    /// ```
    /// assert!(bus_core::ChannelName::new("jobs").is_ok());
    /// ```
    ///
    /// # Errors
    /// [`ChannelNameError`] says which rule is broken, and where.
    pub fn new(name: impl AsRef<str>) -> Result<Self, ChannelNameError> {
        let name = name.as_ref();
        check(name)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    ///
    /// ```
    /// # use bus_core::ChannelName;
    /// assert_eq!(ChannelName::new("jobs")?.as_str(), "jobs");
    /// # Ok::<(), bus_core::ChannelNameError>(())
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(name: &str) -> Result<(), ChannelNameError> {
    let shown = || name.chars().take(CHANNEL_NAME_MAX_BYTES).collect::<String>();
    if name.is_empty() {
        return Err(ChannelNameError::Empty);
    }
    if name.len() > CHANNEL_NAME_MAX_BYTES {
        return Err(ChannelNameError::TooLong { bytes: name.len() });
    }
    for (at, character) in name.char_indices() {
        if !(character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')) {
            return Err(ChannelNameError::Character { name: shown(), character, at });
        }
    }
    if name.split('.').any(str::is_empty) {
        return Err(ChannelNameError::EmptyToken { name: shown() });
    }
    if name.starts_with("_sys.") {
        return Err(ChannelNameError::Reserved { name: shown() });
    }
    Ok(())
}

impl FromStr for ChannelName {
    type Err = ChannelNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl TryFrom<String> for ChannelName {
    type Error = ChannelNameError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(name)
    }
}

impl From<ChannelName> for String {
    fn from(name: ChannelName) -> Self {
        name.as_str().to_owned()
    }
}

impl AsRef<str> for ChannelName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Why a text is no channel name.
///
/// ```
/// use bus_core::{ChannelName, ChannelNameError};
///
/// assert_eq!(ChannelName::new(""), Err(ChannelNameError::Empty));
/// assert!(ChannelName::new("a b").unwrap_err().to_string().contains("at byte 1"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelNameError {
    /// Nothing was given.
    #[error("a channel name must not be empty: give 1 to {CHANNEL_NAME_MAX_BYTES} bytes, such as orders.eu")]
    Empty,
    /// Over the limit.
    #[error("channel name of {bytes} bytes is over the limit of {CHANNEL_NAME_MAX_BYTES}: shorten it")]
    TooLong {
        /// The length of what was given, in bytes.
        bytes: usize,
    },
    /// A character outside the alphabet.
    #[error(
        "channel name {name:?} has {character:?} at byte {at}: use A-Z a-z 0-9 _ - in tokens joined by single dots"
    )]
    Character {
        /// What was given.
        name: String,
        /// The first character that is not allowed.
        character: char,
        /// Where it stands, in bytes.
        at: usize,
    },
    /// Two dots together, or a dot at an end.
    #[error("channel name {name:?} has an empty token: join tokens by single dots, with none at the ends")]
    EmptyToken {
        /// What was given.
        name: String,
    },
    /// `_sys.` is the daemon's.
    #[error("channel name {name:?} is reserved: names that begin with _sys. belong to the daemon")]
    Reserved {
        /// What was given.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_tokens_joined_by_dots() {
        for name in ["a", "orders", "orders.eu-1", "A_b.C-9", "_sys", "_system.x", &"x".repeat(128)] {
            assert_eq!(ChannelName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_the_rule_that_is_broken() {
        assert_eq!(ChannelName::new(""), Err(ChannelNameError::Empty));
        assert_eq!(ChannelName::new("x".repeat(129)), Err(ChannelNameError::TooLong { bytes: 129 }));
        for name in [".a", "a.", "a..b", "."] {
            assert!(matches!(ChannelName::new(name), Err(ChannelNameError::EmptyToken { .. })), "{name}");
        }
        for name in ["a b", "a/b", "../x", "a\0b", "ä", "a*", "a>"] {
            assert!(matches!(ChannelName::new(name), Err(ChannelNameError::Character { .. })), "{name}");
        }
        assert!(matches!(ChannelName::new("_sys.log"), Err(ChannelNameError::Reserved { .. })));
    }

    proptest! {
        #[test]
        fn agrees_with_the_grammar(name in "[ab._ /-]{0,8}|[a.]{120,135}") {
            let legal = name.len() <= 128
                && name.split('.').all(|token| {
                    !token.is_empty()
                        && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
                });
            prop_assert_eq!(ChannelName::new(&name).is_ok(), legal);
        }
    }
}
