//! A message as one line of JSON: what `consume --jsonl` writes and `publish --jsonl` takes, and gateways with
//! [`Framing::JsonLines`](super::Framing).
//!
//! ```json
//! {"channel":"jobs","sender":{"id":"00000000000000ff","pid":7},"sequence":1,
//!  "sent_at":"2026-01-31T12:00:00.000000001Z","redelivered":false,"attempt":1,"codec":"raw",
//!  "headers":{"trace":"7f"},"payload":"hello"}
//! ```
//!
//! A payload that is not UTF-8 stands in `payload_base64` instead. Of what `publish` takes, only
//! `payload` or `payload_base64` is needed; `codec` and `headers` are used, and the rest is ignored
//! because the bus assigns it anew.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::codec::Codec;
use crate::limits;
use crate::message::{Headers, MessageInfo};

/// A message read from a line.
///
/// ```
/// use bus_core::framing::jsonl::parse;
///
/// let message = parse(br#"{"payload":"hello","headers":{"trace":"7f"}}"#)?;
/// assert_eq!(message.payload, b"hello");
/// assert_eq!(message.headers.value("trace"), Some("7f"));
/// # Ok::<(), bus_core::framing::jsonl::NoMessage>(())
/// ```
#[derive(Debug, PartialEq)]
pub struct Incoming {
    /// Its headers, in their order.
    pub headers: Headers,
    /// `None` when the line does not say.
    pub codec: Option<Codec>,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Why a line is no message, for people.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoMessage(String);

/// Reads one line.
///
/// ```
/// use bus_core::framing::jsonl::parse;
///
/// assert_eq!(parse(br#"{"payload_base64":"/wA="}"#)?.payload, [0xff, 0]);
/// assert_eq!(parse(b"{}").unwrap_err().to_string(), "the object has neither payload nor payload_base64");
/// # Ok::<(), bus_core::framing::jsonl::NoMessage>(())
/// ```
///
/// # Errors
/// [`NoMessage`], with the column where there is one.
pub fn parse(line: &[u8]) -> Result<Incoming, NoMessage> {
    parsed(line).map_err(NoMessage)
}

fn parsed(line: &[u8]) -> Result<Incoming, String> {
    match line.trim_ascii_start().first() {
        Some(b'{') => {}
        // Seen here, because the parser would take a list for an object without its keys.
        Some(_) => return Err(r#"a message is an object, such as {"payload":"text"}"#.to_owned()),
        None => return Err("the line is empty".to_owned()),
    }
    let line: Line = serde_json::from_slice(line).map_err(|error| plain(&error))?;
    let payload = match (line.payload, line.payload_base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(text)) => STANDARD.decode(&text).map_err(|error| format!("payload_base64: {error}"))?,
        (None, None) => return Err("the object has neither payload nor payload_base64".to_owned()),
        (Some(_), Some(_)) => return Err("the object has both payload and payload_base64: keep one".to_owned()),
    };
    Ok(Incoming { headers: line.headers.0, codec: line.codec, payload })
}

/// Appends the object, without a newline.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// # let mut receiver = bus.raw_receiver("jobs").open()?;
/// # bus.raw_sender("jobs").open()?.send(b"hello".to_vec())?;
/// use bus_core::framing::jsonl;
///
/// let delivery = receiver.next_delivery()?;
/// let mut line = Vec::new();
/// jsonl::write("jobs", delivery.info(), delivery.headers(), &delivery, &mut line);
/// assert_eq!(jsonl::parse(&line)?.payload, b"hello");
/// # delivery.ack();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(channel: &str, info: &MessageInfo, headers: &Headers, payload: &[u8], out: &mut Vec<u8>) {
    let (text, base64) = match std::str::from_utf8(payload) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(STANDARD.encode(payload))),
    };
    let object = Outgoing {
        channel,
        sender: Sender { id: info.sender.to_string(), pid: info.pid },
        sequence: info.sequence,
        sent_at: time(info.sent_at),
        redelivered: info.redelivered,
        attempt: info.attempt,
        codec: info.codec,
        headers: Pairs(headers),
        payload: text,
        payload_base64: base64,
    };
    // Strings and numbers always have a form in JSON, and a Vec takes every byte.
    let _ = serde_json::to_writer(out, &object);
}

/// Appends the headers alone, as an object.
///
/// ```
/// use bus_core::Headers;
/// use bus_core::framing::jsonl::write_headers;
///
/// let mut out = Vec::new();
/// write_headers(&Headers::new().with("trace", "7f"), &mut out);
/// assert_eq!(out, br#"{"trace":"7f"}"#);
/// ```
pub fn write_headers(headers: &Headers, out: &mut Vec<u8>) {
    let _ = serde_json::to_writer(out, &Pairs(headers));
}

/// A time by RFC 3339, in UTC with nanoseconds; one before 1970 as the first of that year.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use bus_core::framing::jsonl::time;
///
/// let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 1);
/// assert_eq!(time(at), "2023-11-14T22:13:20.000000001Z");
/// ```
#[must_use]
pub fn time(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / DAY_SECONDS, since.as_secs() % DAY_SECONDS);
    let (year, month, day) = civil(days);
    let (hour, minute, second, nanosecond) = (second / 3_600, second / 60 % 60, second % 60, since.subsec_nanos());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanosecond:09}Z")
}

const DAY_SECONDS: u64 = 86_400;

/// The year, month and day so many days after the first of January 1970. Years are counted from the first of March,
/// so that the day of leap years is their last (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[derive(serde::Serialize)]
struct Outgoing<'a> {
    channel: &'a str,
    sender: Sender,
    sequence: u64,
    sent_at: String,
    redelivered: bool,
    attempt: u32,
    codec: Codec,
    headers: Pairs<&'a Headers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

#[derive(serde::Serialize)]
struct Sender {
    id: String,
    pid: u32,
}

/// A misspelt field is an error rather than a message without it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    headers: Pairs<Headers>,
    codec: Option<Codec>,
    payload: Option<String>,
    payload_base64: Option<String>,
    #[serde(default, rename = "channel")]
    _channel: IgnoredAny,
    #[serde(default, rename = "sender")]
    _sender: IgnoredAny,
    #[serde(default, rename = "sequence")]
    _sequence: IgnoredAny,
    #[serde(default, rename = "sent_at")]
    _sent_at: IgnoredAny,
    #[serde(default, rename = "redelivered")]
    _redelivered: IgnoredAny,
    #[serde(default, rename = "attempt")]
    _attempt: IgnoredAny,
}

/// Headers as an object of strings, in their order.
#[derive(Default)]
struct Pairs<H>(H);

impl Serialize for Pairs<&Headers> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Pairs<Headers> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Headers, M::Error> {
                let mut headers = Headers::new();
                let mut bytes = 0;
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if headers.value(&key).is_some() {
                        return Err(M::Error::custom(format!("duplicate header {key:?}")));
                    }
                    // A line may hold far more than a message, and each is compared with those before.
                    bytes += key.len() + value.len();
                    if bytes > limits::HEADER_BLOCK_MAX_BYTES as usize {
                        let limit = limits::HEADER_BLOCK_MAX_BYTES;
                        let text = format!("headers are over the limit of {limit} bytes: put content into the payload");
                        return Err(M::Error::custom(text));
                    }
                    headers.insert(key, value);
                }
                Ok(headers)
            }
        }

        deserializer.deserialize_map(Entries).map(Pairs)
    }
}

/// The parser counts lines within its input, which is one line: only the column tells something.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} at column {}", error.column()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message that has passed through a bus in this process.
    fn received(payload: &[u8], headers: &Headers) -> String {
        let bus = crate::Bus::in_process();
        let sender = bus.raw_sender("c").open().unwrap();
        let mut receiver = bus.raw_receiver("c").open().unwrap();
        sender.outgoing().headers(headers).send(payload.to_vec()).unwrap();
        let delivery = receiver.next_delivery().unwrap();
        let mut line = Vec::new();
        write("c", delivery.info(), delivery.headers(), &delivery, &mut line);
        delivery.ack();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn the_fields_stand_in_their_order() {
        let line = received(b"hi", &Headers::new().with("b", "1").with("a", "\"2\""));
        let keys =
            ["channel", "sender", "sequence", "sent_at", "redelivered", "attempt", "codec", "headers", "payload"];
        let places: Vec<_> = keys.iter().map(|key| line.find(&format!("\"{key}\":")).unwrap()).collect();
        assert!(places.is_sorted(), "{line}");
        assert!(line.ends_with(r#""codec":"raw","headers":{"b":"1","a":"\"2\""},"payload":"hi"}"#), "{line}");
    }

    #[test]
    fn a_time_has_nanoseconds() {
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(1_700_000_000_000_000_001);
        assert_eq!(time(at), "2023-11-14T22:13:20.000000001Z");
        assert_eq!(time(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000000000Z");
        // Around the ends of years and of February, leap or not, as `date -u -d @N` has them.
        for (seconds, day) in [
            (951_782_399, "2000-02-28T23:59:59"),
            (951_868_799, "2000-02-29T23:59:59"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_677_628_799, "2023-02-28T23:59:59"),
            (1_677_628_800, "2023-03-01T00:00:00"),
            (1_704_067_199, "2023-12-31T23:59:59"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_735_689_600, "2025-01-01T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (253_402_300_799, "9999-12-31T23:59:59"),
        ] {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(time(at), format!("{day}.000000000Z"));
        }
    }

    #[test]
    fn a_payload_is_enough() {
        let incoming = parse(br#"{"payload":"x"}"#).unwrap();
        assert_eq!(incoming, Incoming { headers: Headers::new(), codec: None, payload: b"x".to_vec() });
    }

    #[test]
    fn a_bad_line_is_told_apart() {
        let error = |line: &str| parse(line.as_bytes()).unwrap_err().to_string();
        assert_eq!(error("{}"), "the object has neither payload nor payload_base64");
        assert_eq!(
            error(r#"{"payload":"a","payload_base64":""}"#),
            "the object has both payload and payload_base64: keep one"
        );
        assert!(error(r#"{"payload_base64":"*"}"#).starts_with("payload_base64: "));
        assert!(error(r#"{"paylod":"a"}"#).starts_with("unknown field `paylod`"));
        assert!(error(r#"{"payload":"a","headers":{"k":1}}"#).contains("expected a string at column"));
        assert!(error(r#"{"payload":"a","codec":"xml"}"#).contains("unknown variant `xml`"));
        assert_eq!(error(" "), "the line is empty");
        assert_eq!(error("[]"), r#"a message is an object, such as {"payload":"text"}"#);
        assert!(error(r#"{"payload":"a","headers":{"k":"","k":""}}"#).starts_with("duplicate header \"k\" at column"));
        let long = format!(r#"{{"payload":"a","headers":{{"k":"{}"}}}}"#, "v".repeat(65_536));
        assert!(error(&long).starts_with("headers are over the limit of 65536 bytes"));
        assert!(error(r#"{"payload":"a"} x"#).contains("trailing characters"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            payload in proptest::collection::vec(any::<u8>(), 0..40),
            pairs in proptest::collection::vec((".{1,8}", ".{0,8}"), 0..4),
        ) {
            let headers: Headers = pairs.into_iter().collect();
            let incoming = parse(received(&payload, &headers).as_bytes()).unwrap();
            prop_assert_eq!(incoming, Incoming { headers, codec: Some(Codec::Raw), payload });
        }
    }
}
