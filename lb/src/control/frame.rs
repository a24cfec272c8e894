//! The control channel's frames: JSON objects one after another, or MessagePack maps behind their lengths. Pure.
//!
//! What a peer speaks shows in its first bytes: `{` followed by anything but a zero byte is JSON; everything else is the
//! 4-byte little-endian length of a MessagePack map. A map of 123 bytes has a length that begins with `{`, too, but then
//! with a zero byte.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Bytes of a frame at most, its length not counted.
pub const MAX_FRAME: usize = 64 * 1024;
/// Bytes of a MessagePack frame's length.
const LENGTH: usize = 4;
/// Maps and lists inside each other, at most; as with `serde_json`.
const MAX_DEPTH: usize = 128;

/// How a peer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Objects one after another; each ends with a newline on the way out.
    Json,
    /// Maps, each behind its length.
    MessagePack,
}

/// What a peer sent is no frame. Nothing that follows can be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is too long.
    #[error("a message may have {MAX_FRAME} bytes at most")]
    TooLong,
    /// It is no JSON object.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// It is no MessagePack map.
    #[error("not a MessagePack map: {0}")]
    MessagePack(String),
}

/// Bytes as they come in, messages as they go out.
#[derive(Debug, Default)]
pub struct Decoder {
    encoding: Option<Encoding>,
    bytes: Vec<u8>,
    scan: Scan,
    failed: Option<FrameError>,
}

/// How far into a JSON object it was looked, and in what state.
#[derive(Debug, Default)]
struct Scan {
    at: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Looks on; the object's length once its end is found.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(byte) = bytes.get(self.at) {
            self.at += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(self.at);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

impl Decoder {
    /// Takes in what was read. All messages are to be taken out before more is put in, so that it never holds much more than
    /// one.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// How the peer writes, once that has shown.
    pub fn encoding(&self) -> Option<Encoding> {
        self.encoding
    }

    /// Is there a message of which something is missing?
    pub fn is_partial(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The next whole message, if there is one. After an error there is nothing but that error.
    pub fn next_message(&mut self) -> Result<Option<Map<String, Value>>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let next = self.look_for_message();
        self.failed = next.as_ref().err().cloned();
        next
    }

    fn look_for_message(&mut self) -> Result<Option<Map<String, Value>>, FrameError> {
        if self.encoding.is_none() {
            self.encoding = match self.bytes[..] {
                [b'{', 0, ..] => Some(Encoding::MessagePack),
                [b'{', _, ..] => Some(Encoding::Json),
                [] | [b'{'] => None,
                _ => Some(Encoding::MessagePack),
            };
        }
        match self.encoding {
            None => Ok(None),
            Some(Encoding::Json) => self.next_json(),
            Some(Encoding::MessagePack) => self.next_message_pack(),
        }
    }

    fn next_json(&mut self) -> Result<Option<Map<String, Value>>, FrameError> {
        if self.scan.at == 0 {
            let blank = self.bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.bytes.drain(..blank);
            match self.bytes.first() {
                None => return Ok(None),
                Some(b'{') => {}
                Some(byte) => {
                    let found = char::from(*byte).escape_default();
                    return Err(FrameError::Json(format!("it begins with '{found}'")));
                }
            }
        }
        let Some(end) = self.scan.end(&self.bytes) else {
            return if self.bytes.len() > MAX_FRAME { Err(FrameError::TooLong) } else { Ok(None) };
        };
        if end > MAX_FRAME {
            return Err(FrameError::TooLong);
        }
        let message =
            serde_json::from_slice(&self.bytes[..end]).map_err(|error| FrameError::Json(error.to_string()))?;
        self.bytes.drain(..end);
        self.scan = Scan::default();
        Ok(Some(message))
    }

    fn next_message_pack(&mut self) -> Result<Option<Map<String, Value>>, FrameError> {
        let Some(length) = self.bytes.first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong);
        }
        let Some(frame) = self.bytes.get(LENGTH..LENGTH + length) else { return Ok(None) };
        let bad = |error: rmp_serde::decode::Error| FrameError::MessagePack(error.to_string());
        let mut decoder = rmp_serde::Deserializer::new(frame);
        decoder.set_max_depth(MAX_DEPTH);
        let message = Map::deserialize(&mut decoder).map_err(bad)?;
        let left = decoder.into_inner().len();
        if left > 0 {
            return Err(FrameError::MessagePack(format!("{left} of its {length} bytes are left over")));
        }
        self.bytes.drain(..LENGTH + length);
        Ok(Some(message))
    }
}

/// A message as bytes.
pub fn encode(encoding: Encoding, message: &impl Serialize) -> Vec<u8> {
    match encoding {
        Encoding::Json => {
            // What is sent is made of texts and numbers, which can always be written.
            let mut bytes = serde_json::to_vec(message).unwrap_or_default();
            bytes.push(b'\n');
            bytes
        }
        Encoding::MessagePack => {
            let map = rmp_serde::to_vec_named(message).unwrap_or_default();
            let mut bytes = (map.len() as u32).to_le_bytes().to_vec();
            bytes.extend(map);
            bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn all(decoder: &mut Decoder) -> Result<Vec<Value>, FrameError> {
        let mut messages = Vec::new();
        while let Some(message) = decoder.next_message()? {
            messages.push(Value::Object(message));
        }
        Ok(messages)
    }

    /// What comes out when the bytes come in these pieces.
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Value>, FrameError> {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            messages.extend(all(&mut decoder)?);
        }
        assert!(!decoder.is_partial(), "{decoder:?}");
        Ok(messages)
    }

    fn register() -> Value {
        json!({"cmd": "register", "protocol": "tcp", "port": 30000, "relay_port": 50000})
    }

    #[test]
    fn frames_split_at_every_byte_are_the_same_frames() {
        let messages = [register(), json!({"a": "}{\"\\", "b": [{}, [1, "]"]], "ü": "ö{"}), json!({})];
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let bytes: Vec<u8> = messages.iter().flat_map(|message| encode(encoding, message)).collect();
            for first in 0..=bytes.len() {
                for second in [first, bytes.len().min(first + 1), bytes.len()] {
                    let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    assert_eq!(decode(pieces).unwrap(), messages, "{encoding:?} split at {first}, {second}");
                }
            }
            assert_eq!(decode(bytes.chunks(1)).unwrap(), messages);
        }
    }

    #[test]
    fn json_objects_need_nothing_between_them() {
        let bytes = b"{\"cmd\":\"hello\"}{\"cmd\" : \"hello\"}\r\n \t{\"cmd\":\"hello\"}\n";
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        assert_eq!(all(&mut decoder).unwrap(), vec![json!({"cmd": "hello"}); 3]);
        assert_eq!((decoder.encoding(), decoder.is_partial()), (Some(Encoding::Json), false));
    }

    #[test]
    fn a_map_of_123_bytes_is_not_taken_for_json() {
        let fill = "x".repeat(200);
        // A length of exactly '{' = 0x7b, and its neighbours.
        for length in 122..=124 {
            let text = &fill[..length - 6];
            let message = json!({"k": text});
            let bytes = encode(Encoding::MessagePack, &message);
            assert_eq!(bytes[0] as usize, bytes.len() - 4);
            let mut decoder = Decoder::default();
            for byte in &bytes {
                decoder.push(&[*byte]);
            }
            assert_eq!(all(&mut decoder).unwrap(), [message], "{length}");
            assert_eq!(decoder.encoding(), Some(Encoding::MessagePack));
        }
        let lengths =
            (122..=124).map(|length: usize| encode(Encoding::MessagePack, &json!({"k": &fill[..length - 6]}))[0]);
        assert!(lengths.into_iter().any(|length| length == b'{'), "none of them is the one");
    }

    #[test]
    fn rubbish_is_an_error_and_says_why() {
        let error = |bytes: &[u8]| decode([bytes]).unwrap_err().to_string();
        assert!(error(b"{\"cmd\":}").starts_with("not a JSON object: "));
        assert!(error(b"{\"a\":1}x").contains("begins with 'x'"));
        assert!(error(b"{]").starts_with("not a JSON object"));
        assert!(error(b"GET / HTTP/1.1\r\n\r\n").contains("65536 bytes at most"), "a length of 542393671");
        assert!(error(b"\x01\0\0\0\x07").starts_with("not a MessagePack map"), "a number");
        assert!(error(b"\x00\0\0\0").starts_with("not a MessagePack map"), "nothing");
        assert!(error(b"\x02\0\0\0\x80\xc0").contains("1 of its 2 bytes are left over"));
        assert!(error(b"\x05\0\0\0\xdf\xff\xff\xff\xff").starts_with("not a MessagePack map"), "a map of 4 billion");
        let deep = [vec![0x81, 0xa1, b'k'], vec![0x91; 2000], vec![0xc0]].concat();
        let framed = [(deep.len() as u32).to_le_bytes().to_vec(), deep].concat();
        assert!(error(&framed).starts_with("not a MessagePack map"), "too deep");
        assert!(
            error(format!("{{\"a\":{}", "[".repeat(500) + &"]".repeat(500) + "}").as_bytes()).contains("recursion")
        );
    }

    #[test]
    fn after_an_error_nothing_is_understood_any_more() {
        let mut decoder = Decoder::default();
        decoder.push(b"{]");
        let error = decoder.next_message().unwrap_err();
        decoder.push(b"}{\"cmd\":\"hello\"}");
        assert_eq!(decoder.next_message(), Err(error));
    }

    #[test]
    fn frames_are_as_long_as_they_may_be() {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let longest = |text: usize| encode(encoding, &json!({"k": "x".repeat(text)}));
            let frame = |bytes: &[u8]| if encoding == Encoding::Json { bytes.len() - 1 } else { bytes.len() - LENGTH };
            let overhead = frame(&longest(60_000)) - 60_000;
            assert_eq!(decode(longest(MAX_FRAME - overhead).chunks(1000)).unwrap().len(), 1);
            let over = longest(MAX_FRAME - overhead + 1);
            assert_eq!(decode(over.chunks(1000)), Err(FrameError::TooLong));
            assert_eq!(decode([&over[..]]), Err(FrameError::TooLong));
        }
        let mut decoder = Decoder::default();
        decoder.push(b"{\"");
        let mut fed = 0;
        while decoder.next_message() == Ok(None) {
            decoder.push(&[b'x'; 1000]);
            fed += 1000;
            assert!(fed < MAX_FRAME + 2000, "an endless string is not kept for ever");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            r#"[\\{}\[\]":,]{0,12}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(".{0,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_messages_in_any_pieces_come_out_as_they_went_in(
            messages in prop::collection::vec(prop::collection::hash_map(".{0,8}", value(), 0..5), 1..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            is_json in any::<bool>(),
        ) {
            let messages: Vec<Value> =
                messages.into_iter().map(|map| Value::Object(map.into_iter().collect())).collect();
            let encoding = if is_json { Encoding::Json } else { Encoding::MessagePack };
            let bytes: Vec<u8> = messages.iter().flat_map(|message| encode(encoding, message)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
            prop_assert_eq!(decode(pieces).unwrap(), messages);
        }

        #[test]
        fn no_bytes_make_it_panic_or_hoard(bytes in prop::collection::vec(any::<u8>(), 0..600), piece in 1_usize..40) {
            let mut decoder = Decoder::default();
            for piece in bytes.chunks(piece) {
                decoder.push(piece);
                while let Ok(Some(_)) = decoder.next_message() {}
            }
            prop_assert!(decoder.bytes.len() <= bytes.len());
        }
    }
}
