//! The chunked transfer coding (RFC 9112, section 7.1).
//!
//! The decoder takes bytes as they come and leaves the payload where they were. Chunk extensions are dropped, so a piece is
//! always sent on with a size line of our own.

use std::io::Write;

use super::Refusal;
use super::fields::may_trail;

/// Longest extension of a chunk, semicolon included.
const MAX_EXTENSION: u16 = 256;
/// Largest trailer section.
const MAX_TRAILERS: usize = 8 * 1024;
/// Fields in it.
const MAX_TRAILER_FIELDS: usize = 64;
/// Hexadecimal digits of a chunk's size.
const MAX_DIGITS: u8 = 16;
/// Ends a body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// Ends a chunk.
pub const CRLF: &[u8] = b"\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the digits of a size; none seen yet if `digits` is 0.
    Size,
    /// In an extension.
    Extension,
    /// The size line's CR was seen.
    SizeLf,
    /// In a chunk's data.
    Data,
    /// Behind a chunk's data.
    DataCr,
    /// Behind the CR there.
    DataLf,
    /// In the trailer section.
    Trailers,
    /// Behind the last byte of the body.
    Done,
}

/// Decodes one body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes left of the chunk.
    left: u64,
    digits: u8,
    extension: u16,
    trailers: Vec<u8>,
}

/// What became of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the body among them; those behind belong to the next message.
    pub consumed: usize,
    /// Bytes of payload, which now are the first ones.
    pub payload: usize,
    /// Is the body over?
    pub done: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Size, left: 0, digits: 0, extension: 0, trailers: Vec::new() }
    }
}

impl Decoder {
    /// Is the body over?
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes what has arrived, in place.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, Refusal> {
        let (mut at, mut payload) = (0, 0);
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                if payload != at {
                    bytes.copy_within(at..at + here, payload);
                }
                payload += here;
                at += here;
                self.left -= here as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.framing_byte(bytes[at])?;
            at += 1;
        }
        Ok(Decoded { consumed: at, payload, done: self.is_done() })
    }

    fn framing_byte(&mut self, byte: u8) -> Result<(), Refusal> {
        const SIZE: Refusal = Refusal::Malformed("the size of a chunk is not a hexadecimal number");
        self.state = match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Size, b';') if self.digits > 0 => {
                self.extension = 1;
                State::Extension
            }
            (State::Size, byte) => {
                let digit = (byte as char).to_digit(16).ok_or(SIZE)?;
                self.digits += 1;
                if self.digits > MAX_DIGITS {
                    return Err(SIZE);
                }
                // Sixteen digits are just what fits.
                self.left = (self.left << 4) | u64::from(digit);
                State::Size
            }
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension += 1;
                if self.extension > MAX_EXTENSION {
                    return Err(Refusal::Malformed("the extension of a chunk is longer than 256 bytes"));
                }
                State::Extension
            }
            (State::Extension, _) => return Err(Refusal::Malformed("the extension of a chunk has a control byte")),
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                if self.left == 0 { State::Trailers } else { State::Data }
            }
            (State::SizeLf, _) => return Err(Refusal::Malformed("the size line of a chunk does not end in CRLF")),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::DataCr | State::DataLf, _) => {
                return Err(Refusal::Malformed("the data of a chunk is not followed by CRLF"));
            }
            (State::Trailers, byte) => {
                if self.trailers.len() == MAX_TRAILERS {
                    return Err(Refusal::TrailersTooLarge { limit: MAX_TRAILERS });
                }
                self.trailers.push(byte);
                if byte == b'\n' && !self.trailers.ends_with(CRLF) {
                    return Err(Refusal::Malformed("a line of the trailers does not end in CRLF"));
                }
                if self.trailers == CRLF || self.trailers.ends_with(b"\r\n\r\n") {
                    self.check_trailers()?;
                    State::Done
                } else {
                    State::Trailers
                }
            }
            (state @ (State::Data | State::Done), _) => state,
        };
        Ok(())
    }

    fn check_trailers(&self) -> Result<(), Refusal> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
        match httparse::parse_headers(&self.trailers, &mut fields) {
            Ok(httparse::Status::Complete((end, _))) if end == self.trailers.len() => Ok(()),
            _ => Err(Refusal::Malformed("the trailers are malformed")),
        }
    }

    /// Writes what ends the body: the last chunk, with the trailers that may be passed on.
    pub fn finish(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"0\r\n");
        let mut slots = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
        if let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(&self.trailers, &mut slots) {
            for field in fields.iter().filter(|field| may_trail(field.name.as_bytes())) {
                out.extend_from_slice(field.name.as_bytes());
                out.extend_from_slice(b": ");
                out.extend_from_slice(field.value);
                out.extend_from_slice(CRLF);
            }
        }
        out.extend_from_slice(CRLF);
    }
}

/// A size line.
#[derive(Debug, Clone, Copy)]
pub struct SizeLine {
    bytes: [u8; MAX_DIGITS as usize + 2],
    len: usize,
}

impl SizeLine {
    /// The line in front of so many bytes.
    pub fn new(size: usize) -> Self {
        let mut bytes = [0; MAX_DIGITS as usize + 2];
        let mut rest = &mut bytes[..];
        // It has room for the largest size there is.
        let _ = write!(rest, "{size:x}\r\n");
        let left = rest.len();
        let len = bytes.len() - left;
        Self { bytes, len }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Outcome = (Vec<u8>, Vec<u8>, Vec<u8>, bool);

    /// Decodes `wire` in pieces of these sizes; gives the payload, what was left behind, and the end as it would be sent on.
    fn decode(wire: &[u8], pieces: &[usize]) -> Result<Outcome, Refusal> {
        let (mut decoder, mut payload, mut rest) = (Decoder::default(), Vec::new(), wire);
        let mut sizes = pieces.iter().copied().cycle();
        while !rest.is_empty() && !decoder.is_done() {
            let here = sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len());
            let mut piece = rest[..here].to_vec();
            let decoded = decoder.decode(&mut piece)?;
            payload.extend_from_slice(&piece[..decoded.payload]);
            assert_eq!(decoded.done, decoder.is_done());
            rest = &rest[decoded.consumed..];
        }
        let mut end = Vec::new();
        decoder.finish(&mut end);
        Ok((payload, rest.to_vec(), end, decoder.is_done()))
    }

    #[test]
    fn chunks_become_payload_and_what_is_behind_stays() {
        let wire = b"5;a=b;c=\"d\"\r\nhello\r\n1\r\n \r\n0005\r\nworld\r\n000\r\nX-Sum: 1\r\nHost: evil\r\n\r\nGET /";
        for pieces in [&[usize::MAX][..], &[1], &[2, 7], &[13]] {
            let (payload, rest, end, done) = decode(wire, pieces).unwrap();
            assert_eq!((&payload[..], &rest[..], done), (&b"hello world"[..], &b"GET /"[..], true));
            assert_eq!(end, b"0\r\nX-Sum: 1\r\n\r\n");
        }
        let (payload, _, end, done) = decode(LAST_CHUNK, &[1]).unwrap();
        assert!(payload.is_empty() && done);
        assert_eq!(end, LAST_CHUNK);
        assert!(!decode(b"5\r\nhell", &[1]).unwrap().3, "more is to come");
    }

    #[test]
    fn whatever_is_not_exactly_chunked_is_refused() {
        let long = format!("1;{}\r\n", "a".repeat(256));
        let trailers = format!("0\r\na: {}\r\n\r\n", "b".repeat(8192));
        for wire in [
            "\r\n",
            ";a\r\n",
            "g\r\n",
            "0x5\r\n",
            "-1\r\n",
            "+1\r\n",
            " 5\r\n",
            "5 \r\n",
            "5\t;a\r\n",
            "5\n",
            "5\rx",
            "5;a\n",
            "5;a\rb\r\n",
            "5;\0\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na\r\r\n",
            "1\r\naa",
            "10000000000000000\r\n",
            "0\r\n\n",
            "0\r\na\r\n\r\n",
            "0\r\na : b\r\n\r\n",
            "0\r\n a: b\r\n\r\n",
            "0\r\na: b\r\n c\r\n\r\n",
            "0\r\na: b\n\r\n",
            "0\r\n\r\r\n\r\n",
            "5_0\r\n",
            "5,5\r\n",
            &long,
            &trailers,
        ] {
            assert!(decode(wire.as_bytes(), &[usize::MAX]).is_err(), "{wire:?}");
            assert!(decode(wire.as_bytes(), &[1]).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn size_lines_are_hexadecimal() {
        for (size, line) in [(1, "1\r\n"), (255, "ff\r\n"), (usize::MAX, "ffffffffffffffff\r\n")] {
            assert_eq!(SizeLine::new(size).as_bytes(), line.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_however_it_is_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..10),
            pieces in prop::collection::vec(1_usize..30, 1..10),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(SizeLine::new(chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(CRLF);
            }
            wire.extend_from_slice(LAST_CHUNK);
            let (payload, rest, _, done) = decode(&wire, &pieces).unwrap();
            prop_assert!(done && rest.is_empty());
            prop_assert_eq!(payload, chunks.concat());
        }

        #[test]
        fn no_bytes_make_it_panic(wire in prop::collection::vec(any::<u8>(), 0..200), pieces in prop::collection::vec(1_usize..30, 1..10)) {
            let _ = decode(&wire, &pieces);
        }
    }
}
