//! [`Codec`]: values to bytes and back. The only file that names bincode, postcard and serde_json.
//!
//! The daemon never comes here for a payload: payloads are decoded by the receiver alone.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How values become bytes. Fixed for a channel by its first typed end.
///
/// ```
/// use bus_core::Codec;
///
/// assert_eq!(Codec::default(), Codec::Bincode);
/// assert_eq!("json".parse::<Codec>().unwrap(), Codec::Json);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Codec {
    /// Bytes as they are.
    Raw,
    /// bincode 2, little endian, variable-length integers: compact and fast.
    #[default]
    Bincode,
    /// postcard 1: compact, with a written specification.
    Postcard,
    /// JSON: readable in the shell.
    Json,
}

impl Codec {
    /// Every codec, in the order of their numbers on the wire.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Bincode, Self::Postcard, Self::Json];

    /// The number on the wire.
    #[must_use]
    pub(crate) const fn id(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Bincode => 1,
            Self::Postcard => 2,
            Self::Json => 3,
        }
    }

    /// The codec of a number on the wire.
    #[must_use]
    pub(crate) fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// The name: `raw`, `bincode`, `postcard` or `json`.
    ///
    /// ```
    /// assert_eq!(bus_core::Codec::Json.name(), "json");
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Bincode => "bincode",
            Self::Postcard => "postcard",
            Self::Json => "json",
        }
    }

    pub(crate) fn encode<T: Serialize + ?Sized>(self, value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| EncodeError { codec: self, source };
        match self {
            Self::Raw => Err(failed("raw channels carry bytes: use raw_sender".into())),
            Self::Bincode => bincode::serde::encode_into_std_write(value, out, payload_config())
                .map(drop)
                .map_err(|source| failed(source.into())),
            Self::Postcard => {
                let start = std::mem::take(out);
                *out = postcard::to_extend(value, start).map_err(|source| failed(source.into()))?;
                Ok(())
            }
            Self::Json => serde_json::to_writer(out, value).map_err(|source| failed(source.into())),
        }
    }

    pub(crate) fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, DecodeError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| DecodeError { codec: self, source };
        let (value, rest) = match self {
            Self::Raw => return Err(failed("raw channels carry bytes: use raw_receiver".into())),
            Self::Bincode => {
                let (value, used) = decode_bincode(bytes).map_err(|source| failed(source.into()))?;
                (value, bytes.len() - used)
            }
            Self::Postcard => {
                let (value, rest) = postcard::take_from_bytes(bytes).map_err(|source| failed(source.into()))?;
                (value, rest.len())
            }
            Self::Json => (serde_json::from_slice(bytes).map_err(|source| failed(source.into()))?, 0),
        };
        if rest > 0 {
            return Err(failed(format!("{rest} bytes are left over after the value").into()));
        }
        Ok(value)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Codec {
    type Err = UnknownCodec;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|codec| codec.name() == name).ok_or_else(|| UnknownCodec(name.to_owned()))
    }
}

/// A text that names no codec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no codec is called {0:?}: choose raw, bincode, postcard or json")]
pub struct UnknownCodec(String);

/// A value that could not be encoded.
#[derive(Debug, thiserror::Error)]
#[error("the value does not encode as {codec}: {source}")]
pub struct EncodeError {
    /// The codec of the endpoint.
    pub codec: Codec,
    /// What the codec said.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Bytes that are not a value of the expected type.
#[derive(Debug, thiserror::Error)]
#[error("the payload does not decode as {codec}: {source}")]
pub struct DecodeError {
    /// The codec that the message names.
    pub codec: Codec,
    /// What the codec said.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Appends the body of a control frame.
pub(crate) fn encode_control<T: Serialize>(body: &T, out: &mut Vec<u8>) {
    bincode::serde::encode_into_std_write(body, out, payload_config())
        .expect("control bodies are plain structs, and a Vec takes every byte");
}

/// Reads the whole body of a control frame; bytes that are left over are refused.
pub(crate) fn decode_control<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let config = bincode::config::standard().with_limit::<CONTROL_DECODED_MAX_BYTES>();
    let (body, used) = bincode::serde::decode_from_slice(bytes, config).map_err(|error| error.to_string())?;
    match bytes.len() - used {
        0 => Ok(body),
        rest => Err(format!("{rest} bytes are left over")),
    }
}

fn decode_bincode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), bincode::error::DecodeError> {
    // bincode's limit counts decoded bytes, not those on the wire: eight times is what a list of
    // small integers needs, and a false length beyond it is refused before it is allocated.
    let standard = bincode::config::standard();
    if bytes.len() <= USUAL_PAYLOAD_MAX_BYTES {
        bincode::serde::decode_from_slice(bytes, standard.with_limit::<{ 8 * USUAL_PAYLOAD_MAX_BYTES }>())
    } else {
        bincode::serde::decode_from_slice(bytes, standard.with_limit::<{ 8 * LARGEST_PAYLOAD_BYTES }>())
    }
}

fn payload_config() -> impl bincode::config::Config {
    bincode::config::standard()
}

const USUAL_PAYLOAD_MAX_BYTES: usize = crate::limits::MESSAGE_MAX_BYTES as usize;
const LARGEST_PAYLOAD_BYTES: usize = u32::MAX as usize;
const CONTROL_DECODED_MAX_BYTES: usize = 8 * crate::limits::REPLY_MAX_BYTES as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Empty,
        Circle(f64),
        Named { name: String, sides: Vec<u32>, note: Option<i64> },
    }

    fn corpus() -> Vec<Shape> {
        vec![
            Shape::Empty,
            Shape::Circle(1.5),
            Shape::Named { name: "tri".into(), sides: vec![3, 250, 251, 65_536], note: Some(-129) },
            Shape::Named { name: String::new(), sides: vec![], note: None },
        ]
    }

    #[test]
    fn every_codec_gives_the_value_back() {
        for codec in [Codec::Bincode, Codec::Postcard, Codec::Json] {
            for value in corpus() {
                let mut bytes = b"before".to_vec();
                codec.encode(&value, &mut bytes).unwrap();
                assert_eq!(codec.decode::<Shape>(&bytes[6..]).unwrap(), value, "{codec}");
            }
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        for codec in [Codec::Bincode, Codec::Postcard, Codec::Json] {
            let mut bytes = Vec::new();
            codec.encode(&7_u32, &mut bytes).unwrap();
            bytes.push(1);
            assert!(codec.decode::<u32>(&bytes).is_err(), "{codec}");
        }
    }

    #[test]
    fn a_false_length_is_refused_before_it_is_allocated() {
        let claims_a_gibibyte = [0xfc, 0, 0, 0, 0x40];
        assert!(Codec::Bincode.decode::<String>(&claims_a_gibibyte).is_err());
        assert!(Codec::Bincode.decode::<Vec<u8>>(&claims_a_gibibyte).is_err());
    }

    #[test]
    fn bincode_bytes_are_as_they_always_were() {
        let golden: [&[u8]; 4] = [
            &[0],
            &[1, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f],
            &[2, 3, b't', b'r', b'i', 4, 3, 250, 251, 251, 0, 252, 0, 0, 1, 0, 1, 251, 1, 1],
            &[2, 0, 0, 0],
        ];
        for (value, golden) in corpus().iter().zip(golden) {
            let mut bytes = Vec::new();
            Codec::Bincode.encode(value, &mut bytes).unwrap();
            assert_eq!(bytes, golden, "{value:?}");
        }
    }
}
