//! What travels: [`Message`], its [`Headers`] and what the bus knows about it, [`MessageInfo`].

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::codec::Codec;

/// Identifies a sender on its bus, also over reconnection and a change of daemon.
///
/// ```
/// let id: bus_core::SenderId = "00000000000000ff".parse().unwrap();
/// assert_eq!(id.to_string(), "00000000000000ff");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SenderId(pub u64);

impl fmt::Display for SenderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for SenderId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// What the bus knows about a message besides its payload.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// let sender = bus.sender::<u32>("numbers").open()?;
/// sender.send(7)?;
/// let mut receiver = bus.receiver::<u32>("numbers").open()?;
/// let delivery = receiver.next_delivery()?;
/// let info = delivery.info();
/// assert_eq!((info.sender, info.sequence, info.attempt), (sender.id(), 1, 1));
/// assert!(!info.redelivered);
/// # delivery.ack();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageInfo {
    /// Who sent it.
    pub sender: SenderId,
    /// The process of the sender; 0 where the operating system would not tell.
    pub pid: u32,
    /// The place among the messages of its sender, from 1.
    pub sequence: u64,
    /// When `send` was called, by the sender's wall clock.
    pub sent_at: SystemTime,
    /// How often it has been handed out, this time included: 1 at first.
    pub attempt: u32,
    /// Whether it may have been handed out before.
    pub redelivered: bool,
    /// How the payload is encoded.
    pub codec: Codec,
}

impl MessageInfo {
    pub(crate) fn from_wire(
        sender: u64,
        pid: u32,
        sequence: u64,
        sent_at_ns: u64,
        attempt: u32,
        redelivered: bool,
        codec: Codec,
    ) -> Self {
        let sent_at = UNIX_EPOCH + Duration::from_nanos(sent_at_ns);
        Self { sender: SenderId(sender), pid, sequence, sent_at, attempt, redelivered, codec }
    }
}

/// A message as bytes: what raw ends exchange, and what an error about a message carries.
///
/// ```no_run
/// for message in bus_core::Bus::connect()?.peek("jobs", 0, 10)?.messages {
///     println!("{}: {} bytes of {}", message.info.sequence, message.payload.len(), message.info.codec);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Sender, sequence, send time and attempt.
    pub info: MessageInfo,
    /// The headers that the sender set.
    pub headers: Headers,
    /// The encoded payload.
    pub payload: Vec<u8>,
}

/// Notes on a message: keys and values, in the order in which they were set.
///
/// ```
/// use bus_core::Headers;
///
/// let headers = Headers::new().with("trace", "7f").with("tenant", "acme");
/// assert_eq!(headers.value("tenant"), Some("acme"));
/// assert_eq!(headers.len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No headers.
    ///
    /// ```
    /// assert!(bus_core::Headers::new().is_empty());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// These headers and one more.
    ///
    /// ```
    /// let headers = bus_core::Headers::new().with("k", "v");
    /// assert_eq!(headers.value("k"), Some("v"));
    /// ```
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.insert(key, value);
        self
    }

    /// Sets `key` to `value`, in the place of an earlier value of that key.
    ///
    /// ```
    /// let mut headers = bus_core::Headers::new();
    /// headers.insert("k", "1");
    /// headers.insert("k", "2");
    /// assert_eq!(headers.value("k"), Some("2"));
    /// ```
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// The value of `key`.
    ///
    /// ```
    /// assert_eq!(bus_core::Headers::new().value("k"), None);
    /// ```
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// Keys and values in order.
    ///
    /// ```
    /// let headers = bus_core::Headers::new().with("k", "v");
    /// assert_eq!(headers.iter().collect::<Vec<_>>(), [("k", "v")]);
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// How many there are.
    ///
    /// ```
    /// assert_eq!(bus_core::Headers::new().len(), 0);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    ///
    /// ```
    /// assert!(bus_core::Headers::new().is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut headers = Self::new();
        for (key, value) in pairs {
            headers.insert(key, value);
        }
        headers
    }
}
