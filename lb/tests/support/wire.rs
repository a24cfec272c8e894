//! HTTP/1 as bytes: what the tests take messages apart with. Strict, so that what the balancer writes is checked by
//! reading it. Knows nothing of sockets.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Where the head at the start of `bytes` ends: behind its empty line.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The value of a header field, the first one if there are several.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    fields(head, name).first().copied()
}

/// The values of all header fields of this name.
pub fn fields<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter_map(|(field, value)| field.eq_ignore_ascii_case(name).then_some(value.trim()))
        .collect()
}

/// A decoded chunked body.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunked {
    pub body: Vec<u8>,
    /// Its trailer section, line by line.
    pub trailers: Vec<String>,
    /// How many bytes it took.
    pub length: usize,
}

/// The chunked body at the start of `bytes`, once it is there as a whole. Chunk extensions fail the test: nothing that the
/// balancer sends has any.
pub fn dechunk(bytes: &[u8]) -> Option<Chunked> {
    let mut pieces = Vec::new();
    let mut at = 0;
    loop {
        let line = bytes[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).expect("a chunk's size");
        let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(digits, "no plain chunk size: {size:?}");
        let size = usize::from_str_radix(size, 16).expect("a size");
        at += line + 2;
        if size == 0 {
            break;
        }
        let data = at..at + size;
        at += size + 2;
        assert_eq!(bytes.get(at - 2..at)?, b"\r\n", "behind a chunk");
        pieces.push(data);
    }
    let section = &bytes[at..];
    let length = if section.starts_with(b"\r\n") { 2 } else { head_end(section)? };
    let text = String::from_utf8_lossy(&section[..length]);
    Some(Chunked {
        trailers: text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect(),
        body: pieces.into_iter().flat_map(|data| bytes[data].iter().copied()).collect(),
        length: at + length,
    })
}

/// `body` in chunks of these sizes, which are gone through again and again.
pub fn chunk(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut chunks = Vec::new();
    let mut left = body;
    for size in sizes.iter().cycle() {
        let (piece, rest) = left.split_at((*size).min(left.len()));
        if piece.is_empty() {
            break;
        }
        chunks.extend(format!("{:x}\r\n", piece.len()).as_bytes());
        chunks.extend(piece);
        chunks.extend(b"\r\n");
        left = rest;
    }
    chunks.extend(b"0\r\n\r\n");
    chunks
}

/// Bytes in which no two places look alike, so that lost, doubled or swapped ones show.
pub fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SmallRng::seed_from_u64(0x9e37_79b9_7f4a_7c15).fill_bytes(&mut bytes);
    bytes
}

/// Fails the test if two long bodies differ, and says where rather than showing both.
#[track_caller]
pub fn assert_same(got: &[u8], expected: &[u8]) {
    if got == expected {
        return;
    }
    let same = got.iter().zip(expected).take_while(|(one, other)| one == other).count();
    panic!("{} bytes where {} were expected, the same up to {same}", got.len(), expected.len());
}
