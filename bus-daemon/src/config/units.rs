//! How a value is written in the file and on the command line: sizes as `16MiB` or a number of
//! bytes, durations as `5s`. Each reader says what it wants instead of what it got.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bus_core::{Address, ChannelName, ChannelOptions, WhenFull};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::check::MESSAGE_LIMIT_BYTES;

/// Why a text is no size or duration.
///
/// ```
/// use bus_daemon::{UnitError, parse_duration};
///
/// assert_eq!(parse_duration("5"), Err(UnitError::Duration("5".to_owned())));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Neither a number nor a number with a known unit.
    #[error("{0:?} is no size: write a number of bytes, or one with B, KiB, MiB, GiB, TiB, kB, MB, GB or TB")]
    Size(String),
    /// More bytes than can be counted.
    #[error("{0:?} is over {max} bytes: write a smaller size", max = u64::MAX)]
    SizeTooLarge(String),
    /// Nothing that [`jiff`] reads as a duration.
    #[error("{0:?} is no duration: write a number with its unit, such as \"5s\", \"250ms\" or \"10m\"")]
    Duration(String),
    /// A duration before now.
    #[error("{0:?} is negative: write a duration of 0s or more")]
    NegativeDuration(String),
    /// A duration with a fraction of the unit that the setting is counted in.
    #[error("{text:?} has a part below one {unit}: write whole {unit}s")]
    TooFine {
        /// What was given.
        text: String,
        /// `millisecond` or `microsecond`.
        unit: &'static str,
    },
}

/// Reads a duration such as `5s`, `250ms` or `1h30m`.
///
/// ```
/// use std::time::Duration;
///
/// assert_eq!(bus_daemon::parse_duration("250ms")?, Duration::from_millis(250));
/// # Ok::<(), bus_daemon::UnitError>(())
/// ```
///
/// # Errors
/// [`UnitError`] when `text` is no duration, or a negative one.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let signed = jiff::SignedDuration::from_str(text).map_err(|_| UnitError::Duration(text.to_owned()))?;
    Duration::try_from(signed).map_err(|_| UnitError::NegativeDuration(text.to_owned()))
}

fn parse_size(text: &str) -> Result<u64, UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(UnitError::Size(text.to_owned())),
    };
    if digits == 0 {
        return Err(UnitError::Size(text.to_owned()));
    }
    let number: Option<u64> = number.parse().ok();
    number.and_then(|number| number.checked_mul(scale)).ok_or_else(|| UnitError::SizeTooLarge(text.to_owned()))
}

/// `duration` in whole units of `unit_ns`, so that `1500us` never silently becomes `1ms`.
fn whole(text: &str, unit_ns: u128, unit: &'static str) -> Result<u64, UnitError> {
    let duration_ns = parse_duration(text)?.as_nanos();
    if duration_ns % unit_ns != 0 {
        return Err(UnitError::TooFine { text: text.to_owned(), unit });
    }
    u64::try_from(duration_ns / unit_ns).map_err(|_| UnitError::Duration(text.to_owned()))
}

type FromInteger<T> = fn(i64) -> Result<T, String>;
type FromText<T> = fn(&str) -> Result<T, String>;

/// Takes a TOML integer or string and turns either into a `T`.
struct Written<T> {
    expected: &'static str,
    from_integer: Option<FromInteger<T>>,
    from_text: Option<FromText<T>>,
}

impl<T> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        match self.from_integer {
            Some(read) => read(value).map_err(E::custom),
            None => Err(E::invalid_type(serde::de::Unexpected::Signed(value), &self)),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<T, E> {
        match self.from_text {
            Some(read) => read(value).map_err(E::custom),
            None => Err(E::invalid_type(serde::de::Unexpected::Str(value), &self)),
        }
    }
}

fn integer<'de, T, D>(deserializer: D, expected: &'static str, read: FromInteger<T>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    let written = Written { expected, from_integer: Some(read), from_text: None };
    deserializer.deserialize_any(written)
}

fn text<'de, T, D>(deserializer: D, expected: &'static str, read: FromText<T>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    let written = Written { expected, from_integer: None, from_text: Some(read) };
    deserializer.deserialize_any(written)
}

fn either<'de, T, D>(
    deserializer: D,
    expected: &'static str,
    from_integer: FromInteger<T>,
    from_text: FromText<T>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    let written = Written { expected, from_integer: Some(from_integer), from_text: Some(from_text) };
    deserializer.deserialize_any(written)
}

fn in_range<T: TryFrom<i64>>(value: i64, max: u128) -> Result<T, String> {
    T::try_from(value).map_err(|_| format!("{value} is out of range: give a whole number from 0 to {max}"))
}

fn shown(error: impl fmt::Display) -> String {
    error.to_string()
}

const A_COUNT: &str = "a whole number";
const A_SIZE: &str = "a size such as 1048576 or \"1MiB\"";
const A_DURATION: &str = "a duration with its unit, such as \"5s\" or \"250ms\"";

pub(super) fn count_u32<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    integer(deserializer, A_COUNT, |value| in_range(value, u32::MAX.into()))
}

/// TOML has no integer above `i64::MAX`.
pub(super) fn count_u64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    integer(deserializer, A_COUNT, |value| in_range(value, i64::MAX.unsigned_abs().into()))
}

pub(super) fn count_usize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    integer(deserializer, A_COUNT, |value| in_range(value, usize::MAX as u128))
}

pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    either(
        deserializer,
        A_SIZE,
        |value| in_range(value, i64::MAX.unsigned_abs().into()),
        |text| parse_size(text).map_err(shown),
    )
}

/// Refuses here what [`Config::check`](super::Config::check) would, because the field is too narrow
/// to carry the figure there.
pub(super) fn message_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let size = bytes(deserializer)?;
    u32::try_from(size)
        .map_err(|_| D::Error::custom(format!("{size} bytes is out of range: give 1 to {MESSAGE_LIMIT_BYTES} bytes")))
}

pub(super) fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    text(deserializer, A_DURATION, |text| whole(text, 1_000_000, "millisecond").map_err(shown))
}

pub(super) fn optional_milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    milliseconds(deserializer).map(Some)
}

pub(super) fn microseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    text(deserializer, A_DURATION, |text| whole(text, 1_000, "microsecond").map_err(shown))
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
    text(deserializer, "the path of a socket", |text| {
        // Taken from the working folder, a path in a file would mean another place every time.
        if !text.is_empty() && !PathBuf::from(text).is_absolute() {
            return Err(format!("socket path {text:?} is relative: write it from /"));
        }
        Address::new(text).map(Some).map_err(shown)
    })
}

pub(super) fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    either(
        deserializer,
        "permission bits such as \"0600\"",
        |value| in_range(value, u32::MAX.into()),
        |text| u32::from_str_radix(text, 8).map_err(|_| format!("{text:?} is no octal number: write it as \"0600\"")),
    )
}

pub(super) fn group<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    either(
        deserializer,
        "the name or id of a group",
        |value| in_range(value, u32::MAX.into()).map(Some),
        |name| match nix::unistd::Group::from_name(name) {
            Ok(Some(group)) => Ok(Some(group.gid.as_raw())),
            Ok(None) => Err(format!("no group is called {name:?}: create it, or give its id as a number")),
            Err(error) => Err(format!("group {name:?} cannot be looked up ({error}): give its id as a number")),
        },
    )
}

#[derive(Clone, Copy)]
struct Uid(u32);

impl<'de> Deserialize<'de> for Uid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        integer(deserializer, "the id of a user", |value| in_range(value, u32::MAX.into())).map(Self)
    }
}

pub(super) fn uids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    Ok(Vec::<Uid>::deserialize(deserializer)?.into_iter().map(|uid| uid.0).collect())
}

/// [`ChannelOptions`] as the file writes them; the wire's form is less strict and takes no units.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Channel {
    #[serde(deserialize_with = "optional_count_u64")]
    capacity: Option<u64>,
    #[serde(deserialize_with = "optional_bytes")]
    capacity_bytes: Option<u64>,
    #[serde(deserialize_with = "optional_count_u32")]
    window: Option<u32>,
    #[serde(deserialize_with = "optional_message_bytes")]
    message_max_bytes: Option<u32>,
    #[serde(deserialize_with = "when_full")]
    when_full: WhenFull,
}

fn optional_count_u64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    count_u64(deserializer).map(Some)
}

fn optional_count_u32<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    count_u32(deserializer).map(Some)
}

fn optional_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    bytes(deserializer).map(Some)
}

fn optional_message_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    message_bytes(deserializer).map(Some)
}

fn when_full<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WhenFull, D::Error> {
    text(deserializer, "a policy such as \"block\"", |name| name.parse().map_err(shown))
}

pub(super) fn channels<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<ChannelName, ChannelOptions>, D::Error> {
    let channels = BTreeMap::<ChannelName, Channel>::deserialize(deserializer)?;
    let options = |channel: Channel| {
        let Channel { capacity, capacity_bytes, window, message_max_bytes, when_full } = channel;
        ChannelOptions { capacity, capacity_bytes, window, message_max_bytes, when_full }
    };
    Ok(channels.into_iter().map(|(name, channel)| (name, options(channel))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_or_without_a_unit() {
        for (text, size) in [("0", 0), ("17", 17), ("17B", 17), ("16 MiB", 16 << 20), ("2GiB", 2 << 30), ("3kB", 3_000)]
        {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "1mib", "1M", "0x10", "1 2", "1MiB "] {
            assert_eq!(parse_size(text), Err(UnitError::Size(text.to_owned())));
        }
        for text in ["18446744073709551616", "16777216TiB"] {
            assert_eq!(parse_size(text), Err(UnitError::SizeTooLarge(text.to_owned())));
        }
        assert_eq!(parse_size("18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn a_duration_needs_its_unit() {
        let ms = Duration::from_millis;
        for (text, duration) in [("5s", ms(5_000)), ("250ms", ms(250)), ("10m", ms(600_000)), ("1h30m", ms(5_400_000))]
        {
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
        }
        for text in ["", "5", "s", "5 parsecs"] {
            assert_eq!(parse_duration(text), Err(UnitError::Duration(text.to_owned())));
        }
        assert_eq!(parse_duration("-5s"), Err(UnitError::NegativeDuration("-5s".to_owned())));
    }

    #[test]
    fn a_fraction_of_the_unit_is_refused_rather_than_rounded() {
        assert_eq!(whole("50us", 1_000, "microsecond"), Ok(50));
        let error = whole("1500us", 1_000_000, "millisecond").unwrap_err();
        assert_eq!(error.to_string(), "\"1500us\" has a part below one millisecond: write whole milliseconds");
    }
}
