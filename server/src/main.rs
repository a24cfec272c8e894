//! The sample replica.
//!
//! | request | answer |
//! |---|---|
//! | `GET /home` | 200 `{"message":"Hello from Server: S1","status":"successful"}` |
//! | `GET /heartbeat`, `GET /heatbeat` | 200, empty body |
//! | another method on these | 405 with `Allow` |
//! | any method, `CRASH_PATH` | none: the process crashes |
//! | any other path | 404 `{"message":"<Error> …","status":"failure"}` |
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `SERVER_ID` | the host name | what `/home` says |
//! | `PORT` | 5000 | where to listen; 0 takes any free port |
//! | `BIND` | `0.0.0.0` | the address to listen on |
//! | `RUST_LOG` | `info` | what is logged; `debug` logs each request |
//! | `SERVICE_TIME` | `0s` | how long `/home` takes, such as `10ms`, at most `60s`; it costs no CPU time |
//! | `SERVICE_CONCURRENCY` | no limit | how many `/home` requests are served at a time, 1 to 10000; the others wait in order, heartbeats never |
//! | `CRASH_PATH` | none | a path, such as `/crash`, where a request makes the process crash (`abort`) |
//!
//! The last three are there to try things out. What can't be used ends the process with exit status 64. The first line on
//! standard output is `listening on ADDR`; everything else goes to standard error. `SIGTERM` and `SIGINT` end the process at
//! once with exit 0.

mod answers;
mod settings;

use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpSocket;
use tokio::signal::unix::{SignalKind, signal};

use answers::Answers;
use settings::Settings;

/// Exit status for a setting that can't be used (`EX_USAGE`).
const BAD_CONFIGURATION: u8 = 64;
/// Connections that may wait to be accepted. The usual 128 overflow in a burst, which costs a client a second each.
const BACKLOG: u32 = 4096;
/// An accept error (say, no file descriptors left) is not cured by trying again at once.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    // Bytes that are no text are no number, address, time or path either.
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let settings = match Settings::read(variable) {
        Ok(settings) => settings,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    let listen = settings.listen;
    let answers = Answers::new(&settings.server_id.unwrap_or_else(host_name), settings.trial);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(listen, answers)) {
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
async fn serve(listen: SocketAddr, answers: Answers) -> std::io::Result<()> {
    // Handlers first: as process 1 of a container, a signal without a handler would be ignored.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let socket = if listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    let listener = socket.listen(BACKLOG)?;
    let answers = Arc::new(answers);
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
                let answers = Arc::clone(&answers);
                async move {
                    let (method, path) = (request.method(), request.uri().path());
                    // Dropped with the connection when the client leaves.
                    let response = answers.answer(method, path).await;
                    tracing::debug!(%method, path, status = response.status().as_u16());
                    Ok::<_, Infallible>(response)
                }
            });
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!("connection: {error}");
            }
        });
    }
}
