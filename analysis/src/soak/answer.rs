//! Answers, checked to the last byte.

/// What is asked, and so what the answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Put,
}

impl Method {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }

    /// The sample replica knows GET and HEAD; it refuses the others, body read or not.
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Get | Self::Head => 200,
            Self::Post | Self::Put => 405,
        }
    }

    fn body_is_right(self, body: &[u8]) -> bool {
        let text = std::str::from_utf8(body).unwrap_or_default();
        match self {
            Self::Head => body.is_empty(),
            Self::Get => {
                let name = text
                    .strip_prefix(r#"{"message":"Hello from Server: "#)
                    .and_then(|rest| rest.strip_suffix(r#"","status":"successful"}"#));
                name.is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            }
            Self::Post | Self::Put => {
                let name = self.name();
                text == format!(
                    r#"{{"message":"<Error> {name} is not allowed on '/home', only GET and HEAD are","status":"failure"}}"#
                )
            }
        }
    }
}

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The connection will be closed.
    pub(super) close: bool,
}

/// The answer at the front of `bytes`; `None` while it is not whole. Nothing may follow it.
pub(super) fn parse(bytes: &[u8], method: Method) -> Result<Option<Answer>, String> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut fields);
    let status = answer.parse(bytes).map_err(|error| format!("not HTTP: {error}: {:?}", start(bytes)))?;
    let httparse::Status::Complete(head) = status else { return Ok(None) };
    let field = |name: &str| {
        let mut found = answer.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        let value = found.next().map(|field| String::from_utf8_lossy(field.value).trim().to_ascii_lowercase());
        if found.next().is_some() { Err(format!("two fields {name}")) } else { Ok(value) }
    };
    let length = field("content-length")?.ok_or("no content-length")?;
    let length: usize = length.parse().map_err(|_| format!("content-length: {length}"))?;
    if field("transfer-encoding")?.is_some() {
        return Err("both content-length and transfer-encoding".into());
    }
    let end = if method == Method::Head { head } else { head + length };
    if bytes.len() < end {
        return Ok(None);
    }
    let status = answer.code.unwrap_or_default();
    if status != method.status() {
        return Err(format!("status {status}: {:?}", start(&bytes[head..])));
    }
    if bytes.len() > end {
        return Err(format!("bytes behind the answer: {:?}", start(&bytes[end..])));
    }
    if !method.body_is_right(&bytes[head..end]) {
        return Err(format!("a wrong body: {:?}", start(&bytes[head..end])));
    }
    if method == Method::Head && length == 0 {
        return Err("a HEAD must tell the length a GET has".into());
    }
    if answer.version != Some(1) {
        return Err("not HTTP/1.1".into());
    }
    Ok(Some(Answer { status, close: field("connection")?.is_some_and(|value| value == "close") }))
}

/// Enough of it for a message.
fn start(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = r#"{"message":"Hello from Server: S1","status":"successful"}"#;

    fn answer(status: &str, fields: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{fields}\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn a_right_answer_is_whole_at_its_last_byte_only() {
        let good = answer("200 OK", "", HELLO);
        assert_eq!(parse(&good, Method::Get), Ok(Some(Answer { status: 200, close: false })));
        assert!((0..good.len()).all(|end| parse(&good[..end], Method::Get) == Ok(None)));
        let closing = answer("200 OK", "Connection: close\r\n", HELLO);
        assert!(parse(&closing, Method::Get).unwrap().unwrap().close);
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 57\r\n\r\n";
        assert_eq!(parse(head, Method::Head).unwrap().unwrap().status, 200);
    }

    #[test]
    fn everything_else_is_refused() {
        let cases = [
            (answer("502 Bad Gateway", "", HELLO), Method::Get),
            (answer("200 OK", "", &HELLO.replace("S1", "")), Method::Get),
            (answer("200 OK", "", &HELLO.replace("Hello", "hello")), Method::Get),
            ([answer("200 OK", "", HELLO), b"x".to_vec()].concat(), Method::Get),
            (answer("200 OK", "Content-Length: 57\r\n", HELLO), Method::Get),
            (answer("200 OK", "Transfer-Encoding: chunked\r\n", HELLO), Method::Get),
            (b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), Method::Get),
            (answer("200 OK", "", HELLO), Method::Head),
            (answer("200 OK", "", ""), Method::Head),
            (answer("200 OK", "", HELLO), Method::Post),
            (b"nonsense\r\n\r\n".to_vec(), Method::Get),
        ];
        for (bytes, method) in cases {
            assert!(parse(&bytes, method).is_err(), "{method:?} {:?}", String::from_utf8_lossy(&bytes));
        }
    }
}
