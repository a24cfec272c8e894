//! The sample replica.
//!
//! | request | answer |
//! |---|---|
//! | `GET /home` | 200 `{"message":"Hello from Server: S1","status":"successful"}` |
//! | `GET /heartbeat`, `GET /heatbeat` | 200, empty body |
//! | another method on these | 405 with `Allow` |
//! | any other path | 404 `{"message":"<Error> …","status":"failure"}` |
//!
//! Environment: `SERVER_ID` (default: the host name), `PORT` (default 5000; 0 takes any free port), `BIND` (the address to
//! listen on, default `0.0.0.0`), `RUST_LOG` (default `info`; `debug` logs each request). The first line on standard output is `listening on ADDR`; everything else
//! goes to standard error. `SIGTERM` and `SIGINT` end the process at once with exit 0.

use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpSocket;
use tokio::signal::unix::{SignalKind, signal};

/// Exit status for a setting that can't be used (`EX_USAGE`).
const BAD_CONFIGURATION: u8 = 64;
/// Connections that may wait to be accepted. The usual 128 overflow in a burst, which costs a client a second each.
const BACKLOG: u32 = 4096;
/// An accept error (say, no file descriptors left) is not cured by trying again at once.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// What the server answers with, rendered once at the start.
struct Answers {
    home: Bytes,
}

impl Answers {
    fn new(server_id: &str) -> Self {
        Self { home: message(&format!("Hello from Server: {server_id}"), "successful") }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let body = match path {
            "/home" => self.home.clone(),
            "/heartbeat" | "/heatbeat" => Bytes::new(),
            _ => {
                let text = format!("<Error> '{path}' endpoint does not exist in this server");
                return json(StatusCode::NOT_FOUND, message(&text, "failure"));
            }
        };
        if method != Method::GET && method != Method::HEAD {
            let text = format!("<Error> {method} is not allowed on '{path}', only GET and HEAD are");
            let mut refused = json(StatusCode::METHOD_NOT_ALLOWED, message(&text, "failure"));
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        if body.is_empty() {
            return Response::new(Full::default());
        }
        json(StatusCode::OK, body)
    }
}

/// `{"message":…,"status":…}`, keys in this order.
fn message(text: &str, status: &str) -> Bytes {
    let text = serde_json::Value::from(text);
    Bytes::from(format!(r#"{{"message":{text},"status":"{status}"}}"#))
}

fn json(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[allow(clippy::disallowed_methods, reason = "these few variables are all the configuration there is")]
fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let port = match std::env::var("PORT") {
        Err(_) => 5000,
        Ok(text) => match text.parse::<u16>() {
            Ok(port) => port,
            Err(_) => {
                tracing::error!("PORT is '{text}': a port is a whole number from 0 (any free one) to 65535");
                return ExitCode::from(BAD_CONFIGURATION);
            }
        },
    };
    let bind = match std::env::var("BIND") {
        Err(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        Ok(text) => match text.parse::<IpAddr>() {
            Ok(bind) => bind,
            Err(_) => {
                tracing::error!("BIND is '{text}': an IP address such as 127.0.0.1 or :: is wanted");
                return ExitCode::from(BAD_CONFIGURATION);
            }
        },
    };
    let server_id = std::env::var("SERVER_ID").ok().filter(|id| !id.is_empty()).unwrap_or_else(host_name);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let listen = SocketAddr::from((bind, port));
    match runtime.block_on(serve(listen, &server_id)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("cannot serve on {listen}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "server".into(), |name| name.trim().to_owned())
}

/// Serves until a signal comes.
async fn serve(listen: SocketAddr, server_id: &str) -> std::io::Result<()> {
    // Handlers first: as process 1 of a container, a signal without a handler would be ignored.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let socket = if listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    let listener = socket.listen(BACKLOG)?;
    let answers = Arc::new(Answers::new(server_id));
    // A closed pipe is no reason to end: whoever started us may not read.
    let _ = writeln!(std::io::stdout(), "listening on {}", listener.local_addr()?);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        let _ = stream.set_nodelay(true);
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answers.answer(request.method(), request.uri().path());
                tracing::debug!(method = %request.method(), path = request.uri().path(), status = response.status().as_u16());
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!("connection: {error}");
            }
        });
    }
}
