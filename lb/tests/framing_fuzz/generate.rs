//! Bytes of client connections: requests that are almost right, put together by grammar and then damaged, and noise.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::words::{
    BYTES, FIELDS, ODD_EXTENSIONS, ODD_FIELDS, ODD_TARGETS, ODD_TRAILERS, SCRAPS, SIZE_PREFIXES, TEXTS,
};

/// What one client does.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) segments: Vec<Segment>,
    pub(crate) ending: Ending,
}

/// Bytes that are sent in one piece.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) bytes: Vec<u8>,
    /// The next one is sent when everything so far is answered.
    pub(crate) await_answers: bool,
    /// How often others may run before the next one.
    pub(crate) yields: u32,
}

/// What a client does when all is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It waits for its answers.
    Stay,
    /// It says that nothing more comes, and waits for its answers.
    HalfClose,
    /// It leaves.
    Close,
    /// It leaves, and drops what is on its way.
    Reset,
}

impl Case {
    pub(crate) fn new(seed: u64) -> Self {
        let mut generator = Gen { rng: SmallRng::seed_from_u64(seed), odd: 0 };
        let bytes = generator.stream();
        let segments = generator.segments(&bytes);
        let ending = match generator.below(20) {
            0..13 => Ending::Stay,
            13..17 => Ending::HalfClose,
            17..19 => Ending::Close,
            _ => Ending::Reset,
        };
        Self { seed, segments, ending }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.segments.iter().flat_map(|segment| segment.bytes.clone()).collect()
    }
}

struct Gen {
    rng: SmallRng,
    /// Of a thousand choices, so many are odd ones.
    odd: u32,
}

impl Gen {
    fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n.max(1))
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn is_odd(&mut self) -> bool {
        self.rng.random_range(0..1000) < self.odd
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// One of the first, or now and then of the others.
    fn choose<'a>(&mut self, usual: &[&'a str], odd: &[&'a str]) -> &'a str {
        if self.is_odd() { self.pick(odd) } else { self.pick(usual) }
    }

    fn stream(&mut self) -> Vec<u8> {
        match self.below(30) {
            0 => return self.noise(),
            1 => return self.scraps(),
            2..12 => {}
            _ => self.odd = [5, 20, 60][self.below(3)],
        }
        let mut bytes = Vec::new();
        for _ in 0..=self.below(4) {
            bytes.extend(self.request());
        }
        if self.odd > 0 && self.chance(60) {
            for _ in 0..=self.below(3) {
                self.damage(&mut bytes);
            }
        }
        bytes
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = self.below(200);
        (0..length).map(|_| self.rng.random::<u8>()).collect()
    }

    /// Pieces of requests in any order.
    fn scraps(&mut self) -> Vec<u8> {
        let mut text = String::new();
        for _ in 0..self.below(40) {
            text += self.pick(SCRAPS);
        }
        text.into_bytes()
    }

    fn request(&mut self) -> Vec<u8> {
        let method = self.choose(
            &["GET", "GET", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "PURGE"],
            &["get", "CONNECT", "", "G ET", "G\tET", "GET\0", "PRI", "(GET)", " GET"],
        );
        let target = self.target();
        let version = self.choose(
            &[
                "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1",
                "HTTP/1.0",
            ],
            &["HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.10", "HTTP/0.9", "", "HTTP/1.1 "],
        );
        let space = self.choose(&[" "], &["  ", "\t", "", "\r"]);
        let end = self.line_end();
        let before = self.choose(&["", "", "", "\r\n"], &["\n", "\r\n\r\n\r\n", " ", "\r", " \r\n"]);
        let mut bytes = format!("{before}{method} {target}{space}{version}{end}").into_bytes();
        let (framing, body) = self.body();
        let mut lines = framing;
        let host =
            self.choose(&["a", "a", "b.example:80", "[::1]"], &["", "a b", "a,b", "u@a", "a/b", "a\0", "a:", "127.1"]);
        let hosts = if self.is_odd() { self.below(3) } else { 1 };
        for _ in 0..hosts {
            lines.push(format!("Host: {host}"));
        }
        for _ in 0..self.below(4) {
            lines.push(self.field());
        }
        while !lines.is_empty() {
            let at = self.below(lines.len());
            let mut line = lines.swap_remove(at);
            if self.is_odd() {
                line = self.odd_line(&line);
            }
            bytes.extend(line.bytes());
            bytes.extend(self.line_end().bytes());
        }
        bytes.extend(self.line_end().bytes());
        bytes.extend(body);
        bytes
    }

    fn line_end(&mut self) -> &'static str {
        self.choose(&["\r\n"], &["\n", "\r", "\r\r\n", "\n\r", "", " \r\n", "\r\n ", "\r\n\t"])
    }

    fn target(&mut self) -> String {
        let number = self.below(1000);
        if self.is_odd() {
            return self.pick(ODD_TARGETS).to_owned();
        }
        match self.below(12) {
            0 => format!("http://c{number}.example/abs"),
            1 => format!("/q?n={number}&u=http://d/?e#").trim_end_matches('#').to_owned(),
            2 => "/rep".to_owned(),
            3 => "/".to_owned(),
            _ => format!("/p/{number}"),
        }
    }

    fn field(&mut self) -> String {
        self.choose(FIELDS, ODD_FIELDS).to_owned()
    }

    /// The same line, spoilt.
    fn odd_line(&mut self, line: &str) -> String {
        match self.below(6) {
            0 => line.replacen(':', " :", 1),
            1 => line.replacen(": ", ":\r\n ", 1),
            2 => line.to_ascii_uppercase(),
            3 => format!(" {line}"),
            4 => format!("{line}\r\n{line}"),
            _ => line.replacen(": ", ":\u{b}", 1),
        }
    }

    /// The field lines that frame a body, and its bytes.
    fn body(&mut self) -> (Vec<String>, Vec<u8>) {
        let text = self.text();
        let off = if self.is_odd() { [-2, -1, 1, 2, 40][self.below(5)] } else { 0 };
        let length = (text.len() as i64 + off).max(0);
        match self.below(10) {
            0..4 => (vec![], vec![]),
            4..7 => {
                let sign = self
                    .choose(&["", "", "", "0", "000"], &["+", "-", "0x", " ", "\t", "\"", "5,", "1844674407370955161"]);
                (vec![format!("Content-Length: {sign}{length}")], text)
            }
            _ => {
                let name = self.choose(
                    &["Transfer-Encoding", "transfer-encoding"],
                    &["Transfer-encoding ", "Transfer_Encoding", "Transfer-Encoding\0"],
                );
                let coding = self.choose(
                    &["chunked", "chunked", "Chunked"],
                    &["chunked;x", "chunked ", " chunked", "chunked,", "gzip, chunked", "chunk", "\"chunked\""],
                );
                let mut lines = vec![format!("{name}: {coding}")];
                if self.is_odd() {
                    lines.push(format!("Content-Length: {length}"));
                }
                (lines, self.chunks(&text))
            }
        }
    }

    /// What is in a body: text, or what looks like the end of it and another request.
    fn text(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        for _ in 0..self.below(4) {
            let piece = self.pick(TEXTS);
            text.extend(piece.bytes());
        }
        if self.chance(3) {
            let length = self.below(20_000);
            text.resize(length, b'y');
        }
        text
    }

    fn chunks(&mut self, mut text: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !text.is_empty() {
            let size = 1 + self.below(text.len());
            let (chunk, rest) = text.split_at(size);
            text = rest;
            let size = if self.is_odd() { size + 1 - self.below(3) } else { size };
            let digits = match self.below(4) {
                0 => format!("{size:X}"),
                1 => format!("{size:04x}"),
                _ => format!("{size:x}"),
            };
            bytes.extend(self.size_line(&digits).bytes());
            bytes.extend(chunk);
            bytes.extend(self.line_end().bytes());
        }
        let last = self.choose(&["0", "0", "000"], &["", "00000000000000000", "-0", "0x0", "g", "0 "]);
        bytes.extend(self.size_line(last).bytes());
        if self.chance(15) {
            let trailer = self.choose(&["X-Sum: 1", "X-Sum:", "X-Other: a b"], ODD_TRAILERS);
            bytes.extend(trailer.bytes());
            bytes.extend(self.line_end().bytes());
        }
        bytes.extend(self.line_end().bytes());
        bytes
    }

    fn size_line(&mut self, digits: &str) -> String {
        let prefix = self.choose(&[""], SIZE_PREFIXES);
        let extension = self.choose(&["", "", "", "", ";a=b", ";a"], ODD_EXTENSIONS);
        let end = self.line_end();
        format!("{prefix}{digits}{extension}{end}")
    }

    fn range(&mut self, length: usize, most: usize) -> std::ops::Range<usize> {
        let from = self.below(length);
        let to = from + 1 + self.below(most);
        from..to.min(length)
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        let at = self.below(length);
        match self.below(11) {
            0 => {
                let piece = self.pick(BYTES);
                bytes.splice(at..at, piece.bytes());
            }
            1 => {
                bytes.remove(at);
            }
            2 => {
                let range = self.range(length, 20);
                bytes.drain(range);
            }
            3 => {
                let copy = bytes[self.range(length, 60)].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => bytes[at] ^= 1 << self.below(8),
            5 => bytes[at] = self.rng.random(),
            6 => {
                let ends: Vec<usize> = (0..length).filter(|at| bytes[*at..].starts_with(b"\r\n")).collect();
                if !ends.is_empty() {
                    let at = ends[self.below(ends.len())];
                    let other = self.pick(&["\n", "\r", "\n\r", "\r\r\n", "\r\n\r\n", "", " \r\n", "\r\n "]);
                    bytes.splice(at..at + 2, other.bytes());
                }
            }
            7 => {
                let digits: Vec<usize> = (0..length).filter(|at| bytes[*at].is_ascii_hexdigit()).collect();
                if !digits.is_empty() {
                    bytes[digits[self.below(digits.len())]] = b"0123456789abcdefF"[self.below(17)];
                }
            }
            8 => {
                let other = self.request();
                let from = self.below(other.len());
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            9 => bytes.truncate(at),
            _ => {
                // A whole line once more, somewhere.
                let begin = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let end = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(length, |end| at + end + 1);
                let line = bytes[begin..end].to_vec();
                bytes.splice(begin..begin, line);
            }
        }
    }

    fn segments(&mut self, bytes: &[u8]) -> Vec<Segment> {
        let cuts = match self.below(10) {
            0..4 => 0,
            4..8 => 1 + self.below(3),
            8 => 4 + self.below(12),
            _ if bytes.len() < 500 => bytes.len(),
            _ => 3,
        };
        let mut at: Vec<usize> = if cuts == bytes.len() {
            (0..bytes.len()).collect()
        } else {
            (0..cuts).map(|_| self.below(bytes.len() + 1)).collect()
        };
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        at.dedup();
        let piece = |generator: &mut Self, bytes: &[u8]| Segment {
            bytes: bytes.to_vec(),
            await_answers: generator.chance(15),
            yields: generator.rng.random_range(0..20),
        };
        at.windows(2).map(|ends| piece(self, &bytes[ends[0]..ends[1]])).collect()
    }
}
