//! [`Codec`]: values to bytes and back. The only file that names bincode, postcard and serde_json.
//!
//! The daemon never comes here for a payload: payloads are decoded by the receiver alone.

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use bincode::de::read::Reader;
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
    ///
    /// ```
    /// use bus_core::Codec;
    ///
    /// assert!(Codec::ALL.iter().all(|codec| codec.name().parse() == Ok(*codec)));
    /// ```
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

impl Codec {
    /// Reads a value of `bytes` bytes from memory that another process may write to meanwhile: each byte once.
    pub(crate) fn decode_from<T: DeserializeOwned>(self, source: impl Read, bytes: usize) -> Result<T, DecodeError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| DecodeError { codec: self, source };
        let mut pieces = Pieces::new(source, bytes);
        match self {
            Self::Bincode => {
                let value = decode_bincode_from(&mut pieces, bytes).map_err(|source| failed(source.into()))?;
                match pieces.rest() {
                    0 => Ok(value),
                    rest => Err(failed(format!("{rest} bytes are left over after the value").into())),
                }
            }
            // Those look at bytes more than once.
            Self::Raw | Self::Postcard | Self::Json => {
                let mut copy = vec![0; bytes];
                pieces.read(&mut copy).map_err(|source| failed(source.into()))?;
                self.decode(&copy)
            }
        }
    }
}

/// A source of so many bytes, read in pieces that stay in the cache of a processor.
struct Pieces<R> {
    source: R,
    /// In the source still.
    unread: usize,
    piece: [u8; PIECE_BYTES],
    /// What of the piece is not used.
    from: usize,
    to: usize,
}

/// So long that reading it costs more than calling for it.
const PIECE_BYTES: usize = 1024;

impl<R: Read> Pieces<R> {
    fn new(source: R, bytes: usize) -> Self {
        Self { source, unread: bytes, piece: [0; PIECE_BYTES], from: 0, to: 0 }
    }

    fn rest(&self) -> usize {
        self.unread + self.to - self.from
    }

    /// Reads on: what is not used comes first.
    #[cold]
    fn refill(&mut self) {
        self.piece.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        let more = self.unread.min(PIECE_BYTES - self.to);
        // A source in memory gives what it has.
        if self.source.read_exact(&mut self.piece[self.to..self.to + more]).is_ok() {
            (self.unread, self.to) = (self.unread - more, self.to + more);
        }
    }
}

impl<R: Read> Reader for Pieces<R> {
    #[inline]
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), bincode::error::DecodeError> {
        if bytes.len() > self.to - self.from {
            if bytes.len() > self.rest() {
                return Err(bincode::error::DecodeError::UnexpectedEnd { additional: bytes.len() - self.rest() });
            }
            if bytes.len() >= PIECE_BYTES {
                let (here, direct) = bytes.split_at_mut(self.to - self.from);
                here.copy_from_slice(&self.piece[self.from..self.to]);
                (self.from, self.to) = (0, 0);
                let additional = direct.len();
                self.unread -= additional;
                let failed = |inner| bincode::error::DecodeError::Io { inner, additional };
                return self.source.read_exact(direct).map_err(failed);
            }
            self.refill();
        }
        let Some(piece) = self.piece[self.from..self.to].get(..bytes.len()) else {
            return Err(bincode::error::DecodeError::UnexpectedEnd { additional: bytes.len() });
        };
        bytes.copy_from_slice(piece);
        self.from += bytes.len();
        Ok(())
    }

    #[inline]
    fn peek_read(&mut self, bytes: usize) -> Option<&[u8]> {
        if bytes > self.to - self.from && self.unread > 0 && bytes <= PIECE_BYTES {
            self.refill();
        }
        self.piece[self.from..self.to].get(..bytes)
    }

    #[inline]
    fn consume(&mut self, bytes: usize) {
        self.from = self.to.min(self.from + bytes);
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
///
/// ```
/// let unknown = "xml".parse::<bus_core::Codec>().unwrap_err();
/// assert!(unknown.to_string().contains("postcard"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no codec is called {0:?}: choose raw, bincode, postcard or json")]
pub struct UnknownCodec(String);

/// A value that could not be encoded.
///
/// ```
/// use bus_core::{Codec, SendError};
///
/// let bus = bus_core::Bus::in_process();
/// let error = SendError::Encode { value: 7, source: bus_core::EncodeError { codec: Codec::Json, source: "no".into() } };
/// assert_eq!(error.to_string(), "the value does not encode as json: no");
/// assert_eq!(error.into_inner(), 7);
/// # let _ = bus;
/// ```
#[derive(Debug, thiserror::Error)]
#[error("the value does not encode as {codec}: {source}")]
pub struct EncodeError {
    /// The codec of the endpoint.
    pub codec: Codec,
    /// What the codec said.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Bytes that are not a value of the expected type.
///
/// ```
/// use bus_core::{Codec, DecodeError};
///
/// let error = DecodeError { codec: Codec::Bincode, source: "3 bytes are left over after the value".into() };
/// assert_eq!(error.to_string(), "the payload does not decode as bincode: 3 bytes are left over after the value");
/// ```
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

fn decode_bincode_from<T: DeserializeOwned>(
    reader: impl Reader,
    bytes: usize,
) -> Result<T, bincode::error::DecodeError> {
    let standard = bincode::config::standard();
    if bytes <= USUAL_PAYLOAD_MAX_BYTES {
        bincode::serde::decode_from_reader(reader, standard.with_limit::<{ 8 * USUAL_PAYLOAD_MAX_BYTES }>())
    } else {
        bincode::serde::decode_from_reader(reader, standard.with_limit::<{ 8 * LARGEST_PAYLOAD_BYTES }>())
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

    /// A source that gives each byte once, as memory does that is another's.
    fn read_in_pieces<T: DeserializeOwned>(codec: Codec, bytes: &[u8]) -> Result<T, DecodeError> {
        codec.decode_from(bytes, bytes.len())
    }

    #[test]
    fn a_value_that_is_read_in_pieces_is_the_same() {
        for codec in [Codec::Bincode, Codec::Postcard, Codec::Json] {
            for length in [0, 1, 100, 1015, 1016, 1017, 1018, 1023, 1024, 1025, 2048, 5000] {
                let name = "x".repeat(length);
                let value = (Shape::Named { name, sides: vec![u32::MAX; length], note: Some(-1) }, 2.5_f64, length);
                let mut bytes = Vec::new();
                codec.encode(&value, &mut bytes).unwrap();
                assert_eq!(read_in_pieces::<(Shape, f64, usize)>(codec, &bytes).unwrap(), value, "{codec}, {length}");
                assert!(read_in_pieces::<(Shape, f64, usize)>(codec, &bytes[..bytes.len() - 1]).is_err(), "{codec}");
                bytes.push(1);
                assert!(read_in_pieces::<(Shape, f64, usize)>(codec, &bytes).is_err(), "{codec}");
            }
        }
        assert!(read_in_pieces::<Vec<u8>>(Codec::Raw, b"raw").is_err());
    }

    proptest::proptest! {
        /// Whatever stands there: it is an error, or the same value.
        #[test]
        fn bytes_of_a_liar_are_the_same_value_or_error_in_pieces(
            start in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
            filler in proptest::num::u8::ANY,
            length in 0_usize..3000,
        ) {
            let mut bytes = start;
            bytes.resize(bytes.len().max(length), filler);
            type Nested = Vec<(String, Option<Vec<u32>>, Shape)>;
            let whole = Codec::Bincode.decode::<Nested>(&bytes).ok();
            proptest::prop_assert_eq!(read_in_pieces::<Nested>(Codec::Bincode, &bytes).ok(), whole);
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
        assert!(read_in_pieces::<String>(Codec::Bincode, &claims_a_gibibyte).is_err());
        assert!(read_in_pieces::<Vec<u8>>(Codec::Bincode, &claims_a_gibibyte).is_err());
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
