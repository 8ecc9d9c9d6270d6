//! What is read comes whole, in order, and within the limit, however the input is cut.

use super::*;
use proptest::prelude::*;

/// Gives its bytes in pieces of these sizes, over and over.
struct Pieces<'a> {
    bytes: &'a [u8],
    sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes.next().copied().unwrap_or(1).clamp(1, out.len()).min(self.bytes.len());
        let (piece, rest) = self.bytes.split_at(size);
        out[..size].copy_from_slice(piece);
        self.bytes = rest;
        Ok(size)
    }
}

fn read_all<R: Read>(mut reader: FrameReader<R>) -> (Vec<Vec<u8>>, Option<ReadError>) {
    let mut messages = Vec::new();
    loop {
        // The two ways take turns: what one leaves the other finds.
        if messages.len().is_multiple_of(2)
            && let Some(lines) = reader.ready_lines()
        {
            messages.extend(lines.map(<[u8]>::to_vec));
        }
        loop {
            match reader.next_ready() {
                Ok(Some(message)) => messages.push(message.to_vec()),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
        if reader.has_ended() {
            return (messages, None);
        }
        reader.read_more().unwrap();
    }
}

fn messages(input: &[u8], framing: &Framing) -> Vec<Vec<u8>> {
    let (messages, error) = read_all(FrameReader::new(input, framing, 1 << 20));
    assert!(error.is_none(), "{error:?}");
    messages
}

fn error(input: &[u8], framing: &Framing, limit: usize) -> (usize, String) {
    let (messages, error) = read_all(FrameReader::new(input, framing, limit));
    (messages.len(), error.unwrap().to_string())
}

/// The meaning of a delimiter, in three lines.
fn split(mut input: &[u8], delimiter: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(at) = input.windows(delimiter.len()).position(|window| window == delimiter) {
        messages.push(input[..at].to_vec());
        input = &input[at + delimiter.len()..];
    }
    if !input.is_empty() {
        messages.push(input.to_vec());
    }
    messages
}

#[test]
fn the_last_line_needs_no_newline() {
    assert_eq!(messages(b"a\n\nb", &Framing::lines()), [&b"a"[..], b"", b"b"]);
    assert_eq!(messages(b"a\n", &Framing::lines()), [b"a"]);
    assert_eq!(messages(b"", &Framing::lines()), [b""; 0]);
}

#[test]
fn a_whole_input_is_one_message_also_when_empty() {
    assert_eq!(messages(b"a\nb\n", &Framing::Whole), [b"a\nb\n"]);
    assert_eq!(messages(b"", &Framing::Whole), [b""]);
}

#[test]
fn lengths_stand_before_messages() {
    assert_eq!(messages(b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c", &Framing::Length32), [&b"ab"[..], b"", b"c"]);
}

#[test]
fn a_message_cut_off_is_an_error_with_both_figures() {
    let (count, text) = error(b"\x01\0\0\0a\x05\0\0\0bcd", &Framing::Length32, 100);
    assert_eq!((count, text.as_str()), (1, "the input ends within message 2: 3 of 5 bytes are there"));
    let (count, text) = error(b"\x01\0\0\0a\x05\0", &Framing::Length32, 100);
    assert_eq!((count, text.as_str()), (1, "the input ends within message 2: 2 of 4 bytes are there"));
}

#[test]
fn an_oversize_message_names_the_limit_and_keeps_those_before_it() {
    let limit = "is over the limit of 3 bytes: split it, or raise max-message";
    for input in [&b"abc\nabcd\nx"[..], b"abc\nabcd", b"abc\nabcdefgh"] {
        assert_eq!(error(input, &Framing::lines(), 3), (1, format!("message 2 {limit}")));
    }
    assert_eq!(error(b"\0\0\0\0\x04\0\0\0", &Framing::Length32, 3), (1, format!("message 2 of 4 bytes {limit}")));
    assert_eq!(error(b"abcd", &Framing::Whole, 3), (0, format!("message 1 {limit}")));
    assert_eq!(error(b"abcd", &Framing::Delimited(b"||".to_vec()), 3), (0, format!("message 1 {limit}")));
}

#[test]
fn an_endless_line_is_refused_before_it_is_read_to_its_end() {
    let limit = 1 << 20;
    let mut reader = FrameReader::new(io::repeat(b'x'), &Framing::lines(), limit);
    while let Ok(None) = reader.next_ready() {
        reader.read_more().unwrap();
    }
    assert!(reader.buffer.len() <= 4 * limit, "{} bytes are held", reader.buffer.len());
}

#[test]
fn a_message_as_large_as_the_limit_is_not_over_it() {
    for framing in [Framing::lines(), Framing::Delimited(b"abc".to_vec()), Framing::Whole] {
        for size in [READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES] {
            let input = vec![b'x'; size];
            let (messages, error) = read_all(FrameReader::new(&input[..], &framing, size));
            assert!(error.is_none() && messages == [input], "{framing:?} {size}");
        }
    }
}

#[test]
fn a_refused_message_is_skipped_and_the_next_ones_come() {
    for (framing, input) in [
        (Framing::lines(), &b"abc\nabcdefgh\nx\ny"[..]),
        (Framing::Delimited(b"||".to_vec()), b"abc||abcd|efgh||x||y"),
        (Framing::Length32, b"\x03\0\0\0abc\x07\0\0\0too bad\x01\0\0\0x\x01\0\0\0y"),
    ] {
        for size in 1..=input.len() {
            let sizes = [size];
            let pieces = Pieces { bytes: input, sizes: sizes.iter().cycle() };
            let mut reader = FrameReader::new(pieces, &framing, 3);
            let (mut messages, mut refused) = (Vec::new(), 0);
            loop {
                match reader.next_ready().map(|message| message.map(<[u8]>::to_vec)) {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) if reader.has_ended() => break,
                    Ok(None) => reader.read_more().unwrap(),
                    Err(_) => {
                        refused += 1;
                        reader.skip_message();
                    }
                }
            }
            assert_eq!((messages, refused), (vec![b"abc".to_vec(), b"x".to_vec(), b"y".to_vec()], 1), "{size}");
        }
    }
}

#[test]
fn an_input_that_goes_on_after_its_end_has_a_last_message_each_time() {
    for (framing, first, second) in [
        (Framing::lines(), &b"a\nb"[..], &b"c"[..]),
        (Framing::Whole, b"a\nb", b"c"),
        (Framing::Length32, b"\x01\0\0\0a\x09\0\0", b"\x01\0\0\0c"),
    ] {
        let mut reader = FrameReader::new(first, &framing, 100);
        let mut last = Vec::new();
        for _ in 0..2 {
            loop {
                match reader.next_ready().map(|message| message.map(<[u8]>::to_vec)) {
                    Ok(Some(message)) => last = message,
                    Ok(None) if reader.has_ended() => break,
                    Ok(None) => reader.read_more().unwrap(),
                    Err(_) => reader.skip_message(),
                }
            }
            reader.restart();
            *reader.input_mut() = second;
        }
        assert_eq!(last, b"c", "{framing:?}");
    }
}

proptest! {
    #[test]
    fn any_split_of_the_input_gives_the_same_messages(
        input in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'\n')], 0..200),
        delimiter in prop_oneof![Just(&b"\n"[..]), Just(&b"aa"[..]), Just(&b"aab"[..]), Just(&b"abab"[..])],
        sizes in proptest::collection::vec(1_usize..9, 1..9),
    ) {
        let framing = Framing::Delimited(delimiter.to_vec());
        let pieces = Pieces { bytes: &input, sizes: sizes.iter().cycle() };
        let (messages, error) = read_all(FrameReader::new(pieces, &framing, 1000));
        prop_assert!(error.is_none(), "{error:?}");
        prop_assert_eq!(messages, split(&input, delimiter));
    }

    #[test]
    fn any_split_gives_the_same_messages_with_lengths(
        sent in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..20),
        sizes in proptest::collection::vec(1_usize..9, 1..9),
    ) {
        let mut input = Vec::new();
        for message in &sent {
            input.extend_from_slice(&(message.len() as u32).to_le_bytes());
            input.extend_from_slice(message);
        }
        let pieces = Pieces { bytes: &input, sizes: sizes.iter().cycle() };
        let (messages, error) = read_all(FrameReader::new(pieces, &Framing::Length32, 1000));
        prop_assert!(error.is_none(), "{error:?}");
        prop_assert_eq!(messages, sent);
    }

    #[test]
    fn any_limit_keeps_what_comes_before_the_first_message_over_it(
        input in proptest::collection::vec(prop_oneof![3 => Just(b'a'), 1 => Just(b'\n')], 0..200),
        limit in 0_usize..6,
        sizes in proptest::collection::vec(1_usize..9, 1..9),
    ) {
        let pieces = Pieces { bytes: &input, sizes: sizes.iter().cycle() };
        let (messages, error) = read_all(FrameReader::new(pieces, &Framing::lines(), limit));
        let all = split(&input, b"\n");
        let fitting: Vec<_> = all.iter().take_while(|message| message.len() <= limit).cloned().collect();
        prop_assert_eq!(error.is_some(), fitting.len() < all.len());
        prop_assert_eq!(messages, fitting);
    }
}
