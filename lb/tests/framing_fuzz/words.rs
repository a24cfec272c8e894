//! The vocabulary of the generator.

/// Pieces of requests.
pub(crate) const SCRAPS: &[&str] = &[
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    ":",
    ": ",
    "GET ",
    "POST ",
    "/",
    "/x ",
    "HTTP/1.1",
    "HTTP/1.0",
    "GET /x HTTP/1.1\r\n",
    "Host: a\r\n",
    "Content-Length: ",
    "Transfer-Encoding: ",
    "chunked",
    "0",
    "5",
    "1",
    "hello",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    ";",
    ",",
    "\0",
    "Connection: close\r\n",
    "*",
    "http://a/",
];

/// Targets that are rare, wrong, or more than a target.
pub(crate) const ODD_TARGETS: &[&str] = &[
    "*",
    "x",
    "",
    "//",
    "/#x",
    "http://",
    "http://a",
    "http://a?x",
    "https://b:80/x",
    "HTTP://a/x",
    "http://u@a/x",
    "ftp://a/x",
    "http:///x",
    "/a b",
    "/\0",
    "/\u{7f}",
    "/\t",
    "/caf\u{e9}",
    "a:80",
    "/x HTTP/1.1\r\nHost: b\r\n\r\nGET /y",
    "/rep?x",
    "/%0d%0a",
    "/a\\b\"<>{}|",
];

/// Field lines of usual requests.
pub(crate) const FIELDS: &[&str] = &[
    "X-A: b",
    "X-A:b",
    "X-Empty:",
    "X-Tab:\tb\t",
    "Accept: */*",
    "Connection: keep-alive",
    "Connection: keep-alive",
    "Connection: keep-alive",
    "Connection: x-a",
    "Cookie: a=b; c=d",
    "X-Long: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "User-Agent: fuzz",
    "X-Forwarded-For: 10.0.0.1",
    "TE: trailers",
    "Expect: 100-continue",
    "X-8bit: \u{e9}",
];

/// Field lines that frame, route, change the protocol, or are none.
pub(crate) const ODD_FIELDS: &[&str] = &[
    "Connection: close",
    "Connection: close, x-a",
    "Connection: content-length",
    "Connection: transfer-encoding, host",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "Expect: x",
    "Expect: 100-continue, y",
    "Content_Length: 5",
    "Transfer_Encoding: chunked",
    "X_Forwarded_For: 1.2.3.4",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: close",
    "Content-Length: 0",
    "Content-Length: 5",
    "Content-Length: 3",
    "Content-Length: +5",
    "Content-Length: 5, 5",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding:\u{b}chunked",
    "Transfer-Encoding: xchunked",
    "Host: c",
    "host: a",
    "X",
    ": x",
    "X Y: z",
    "X-Nul: \0",
    "X-Cr: a\rb",
    "X-Lf: a\nContent-Length: 7",
    "GET /y HTTP/1.1",
    " X-Fold: a",
    "Transfer-Encoding : chunked",
    "Content-Length : 5",
    "Content-Length\t: 5",
];

/// What bodies are made of.
pub(crate) const TEXTS: &[&str] = &[
    "hello",
    "x",
    "\r\n",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\n\r\n",
    "POST /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "\0\u{ff}",
    "sixteen bytes!!!",
    "HTTP/1.1 200 OK\r\n\r\n",
];

/// What a slip of the finger puts in.
pub(crate) const BYTES: &[&str] =
    &["\r", "\n", "\r\n", " ", "\t", "\0", ":", ",", ";", "0", "5", "\u{b}", "\u{7f}", "\u{ff}", "#", "a", "-", "_"];

/// What may stand before a chunk's size.
pub(crate) const SIZE_PREFIXES: &[&str] =
    &["0x", "+", "-", " ", "\t", "fffffffffffffff", "ffffffffffffffff", "00000000000000000", "1000000000000000"];

/// What may stand behind it.
pub(crate) const ODD_EXTENSIONS: &[&str] =
    &[" ", "\t", ";", " ;a", ";\n", ";a=\"\r\n\"", ";\r", ";a\0", ",", ";a;;b", "\u{b}"];

/// Trailers that are wrong, or must not get through.
pub(crate) const ODD_TRAILERS: &[&str] = &[
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "X",
    "X : y",
    " X: y",
    "X: \0",
    "Host: b",
    "GET /y HTTP/1.1",
    "X-Forwarded-For: 1.1.1.1",
];
