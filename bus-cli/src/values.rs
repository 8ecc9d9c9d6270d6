//! Values as they are typed: durations, sizes, headers, delimiters.

use std::num::{IntErrorKind, NonZero, ParseIntError};
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;

/// A duration: `5s`, `250ms`, `1m30s`, or a bare number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bare = text.parse::<f64>().ok();
    let parsed = match bare {
        Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        None => text.parse::<SignedDuration>().ok().and_then(|signed| Duration::try_from(signed).ok()),
    };
    // An Instant of now plus a century is still an Instant; one plus `u64::MAX` seconds is not.
    match parsed {
        Some(duration) if duration <= LONGEST => Ok(duration),
        Some(_) => Err("longer than 100 years: leave the option out to wait forever".to_owned()),
        None => Err("not a duration: write 5s, 250ms, 1m30s, or a number of seconds".to_owned()),
    }
}

const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A size in bytes above 0, in the units of the daemon's settings: `1000`, `64KiB`, `16MiB`, `1GB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(NO_SIZE.to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| NO_SIZE.to_owned())?;
    if number == 0 {
        return Err("0 would let nothing through: give 1 or more".to_owned());
    }
    number.checked_mul(factor).ok_or_else(|| "more than 16 EiB".to_owned())
}

const NO_SIZE: &str = "not a size: write 1000, 64KiB, 16MiB or 1GB";

/// A size that a message may have.
pub(crate) fn message_size(text: &str) -> Result<u32, String> {
    u32::try_from(size(text)?).map_err(|_| "a message has less than 4 GiB".to_owned())
}

/// A number of messages above 0.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    above_zero::<NonZero<u64>>(text, "0 would do nothing", u64::MAX).map(NonZero::get)
}

/// How many messages a channel holds.
pub(crate) fn capacity(text: &str) -> Result<u64, String> {
    above_zero::<NonZero<u64>>(text, "0 would let nothing through", u64::MAX).map(NonZero::get)
}

/// How many messages a sender may have unacknowledged.
pub(crate) fn window(text: &str) -> Result<u32, String> {
    above_zero::<NonZero<u32>>(text, "0 would let nothing through", u32::MAX.into()).map(NonZero::get)
}

/// How often a command is tried.
pub(crate) fn attempts(text: &str) -> Result<u32, String> {
    above_zero::<NonZero<u32>>(text, "0 would do nothing", u32::MAX.into()).map(NonZero::get)
}

fn above_zero<N: FromStr<Err = ParseIntError>>(text: &str, zero: &str, most: u64) -> Result<N, String> {
    text.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::Zero => format!("{zero}: give 1 or more"),
        IntErrorKind::PosOverflow => format!("over the limit of {most}: give less"),
        _ => "not a number: give 1 or more".to_owned(),
    })
}

/// A positive number of messages a second.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("not a rate: write a number of messages a second above 0".to_owned()),
    }
}

/// A header: `key=value`.
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("not a header: write key=value".to_owned()),
    }
}

/// A delimiter: any text, in which `\n \r \t \0 \\` and `\xHH` stand for the bytes that they name.
pub(crate) fn delimiter(text: &str) -> Result<Vec<u8>, String> {
    let bytes = unescape(text)?;
    if bytes.is_empty() { Err("a delimiter has at least one byte".to_owned()) } else { Ok(bytes) }
}

/// The bytes of a text with escapes.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let mut characters = after.chars();
        match characters.next() {
            Some('n') => bytes.push(b'\n'),
            Some('r') => bytes.push(b'\r'),
            Some('t') => bytes.push(b'\t'),
            Some('0') => bytes.push(0),
            Some('\\') => bytes.push(b'\\'),
            Some('x') => {
                // The parser of numbers would take a sign for a digit.
                let is_hex = |digits: &&str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                let digits = after.get(1..3).filter(is_hex).ok_or(NO_ESCAPE)?;
                bytes.push(u8::from_str_radix(digits, 16).map_err(|_| NO_ESCAPE)?);
                characters = after[3..].chars();
            }
            _ => return Err(NO_ESCAPE.to_owned()),
        }
        rest = characters.as_str();
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

const NO_ESCAPE: &str = r"unknown escape: \n \r \t \0 \\ and \xHH are known";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_people_write_them() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for text in ["", "x", "-1", "-5s", "5 parsecs", "NaN", "inf", "1e300", "9999999h"] {
            assert!(duration(text).is_err(), "{text:?} is {:?}", duration(text));
        }
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        assert_eq!(size("1000"), Ok(1000));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("16MiB"), Ok(16 << 20));
        assert_eq!(size("2 GB"), Ok(2_000_000_000));
        for text in ["", "0", "0KiB", "KiB", "1.5KiB", "-1", "1K", "1XB", "18446744073709551615GiB"] {
            assert!(size(text).is_err(), "{text:?}");
        }
        assert!(message_size("4GiB").is_err());
    }

    #[test]
    fn a_header_has_a_key() {
        assert_eq!(header("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(header("a="), Ok(("a".to_owned(), String::new())));
        assert!(header("=b").is_err());
        assert!(header("ab").is_err());
    }

    #[test]
    fn a_delimiter_may_name_any_byte() {
        assert_eq!(delimiter(r"\r\n"), Ok(b"\r\n".to_vec()));
        assert_eq!(delimiter(r"a\\\x00\xffb"), Ok(b"a\\\0\xffb".to_vec()));
        assert_eq!(delimiter("ä|"), Ok("ä|".as_bytes().to_vec()));
        for text in ["", r"\q", "\\", r"\x1", r"\xzz", r"\xä", r"\x+1"] {
            assert!(delimiter(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_rate_is_above_zero() {
        assert_eq!(rate("1.5"), Ok(1.5));
        for text in ["0", "-1", "inf", "NaN", ""] {
            assert!(rate(text).is_err(), "{text:?}");
        }
    }
}
