//! How messages are cut out of the stream and framed: lines, or lengths of four bytes.

use std::io;

use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec, LinesCodec, LinesCodecError};

use super::Encoding;

/// The longest message, either way.
pub(super) const MAX_FRAME: usize = 64 * 1024;

/// Cuts the stream into messages, and frames them.
pub(super) enum Codec {
    Lines(LinesCodec),
    Lengths(LengthDelimitedCodec),
}

impl Codec {
    pub(super) fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Json => Self::Lines(LinesCodec::new_with_max_length(MAX_FRAME)),
            Encoding::MessagePack => {
                let lengths = LengthDelimitedCodec::builder().little_endian().max_frame_length(MAX_FRAME).new_codec();
                Self::Lengths(lengths)
            }
        }
    }
}

impl Decoder for Codec {
    type Item = BytesMut;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        match self {
            Self::Lines(lines) => Ok(lines.decode(bytes).map_err(line)?.map(|line| BytesMut::from(line.as_str()))),
            Self::Lengths(lengths) => lengths.decode(bytes),
        }
    }
}

impl Encoder<Bytes> for Codec {
    type Error = io::Error;

    fn encode(&mut self, message: Bytes, bytes: &mut BytesMut) -> io::Result<()> {
        match self {
            Self::Lines(_) => {
                bytes.extend_from_slice(&message);
                bytes.extend_from_slice(b"\n");
                Ok(())
            }
            Self::Lengths(lengths) => lengths.encode(message, bytes),
        }
    }
}

fn line(error: LinesCodecError) -> io::Error {
    match error {
        LinesCodecError::Io(error) => error,
        LinesCodecError::MaxLineLengthExceeded => io::Error::new(io::ErrorKind::InvalidData, "a line over 64 KiB"),
    }
}
