//! The HTTP server: its name as JSON, work of a fixed size, 20 KB.
//!
//! Every answer has its name in the field `x-server`, too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router, middleware};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use super::work::{burn, milliseconds};
use crate::burst::NAME;
use crate::replica;

/// What `/20k` answers.
const LARGE: usize = 20 * 1024;

struct Server {
    name: String,
    field: HeaderValue,
    large: Bytes,
    answered: AtomicU64,
}

#[derive(Deserialize)]
struct Work {
    ms: u64,
}

/// A listener of the system's, which the server's thread takes over.
pub(super) fn listen(addr: SocketAddr) -> Result<std::net::TcpListener, String> {
    let listener = replica::listen(addr).and_then(tokio::net::TcpListener::into_std);
    listener.map_err(|error| format!("listening on {addr}: {error}"))
}

/// Serves until `stopped`, and finishes what is under way then.
pub(super) async fn serve(
    listener: std::net::TcpListener,
    name: String,
    stopped: watch::Receiver<bool>,
) -> Result<u64, String> {
    let field = HeaderValue::from_str(&name).map_err(|_| format!("the name {name:?} can't be a header's value"))?;
    let server = Server { name, field, large: Bytes::from(vec![b'x'; LARGE]), answered: AtomicU64::new(0) };
    let server = Arc::new(server);
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| error.to_string())?;
    // A connection that is gone already shows when it is read.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let serving = axum::serve(listener, router(Arc::clone(&server))).with_graceful_shutdown(super::stop(stopped));
    serving.await.map_err(|error| error.to_string())?;
    Ok(server.answered.load(Ordering::Relaxed))
}

fn router(server: Arc<Server>) -> Router {
    let routes = Router::new()
        .route("/", get(hello))
        .route("/work", get(work))
        .route("/20k", get(large))
        .layer(middleware::map_response_with_state(Arc::clone(&server), sign));
    routes.with_state(server)
}

/// Counts an answer, and puts the server's name on it.
async fn sign(State(server): State<Arc<Server>>, mut response: Response) -> Response {
    server.answered.fetch_add(1, Ordering::Relaxed);
    response.headers_mut().insert(NAME, server.field.clone());
    response
}

async fn hello(State(server): State<Arc<Server>>) -> Json<serde_json::Value> {
    Json(json!({ "server": server.name }))
}

/// Blocks its thread, as a process does that does one thing at a time.
async fn work(State(server): State<Arc<Server>>, Query(Work { ms }): Query<Work>) -> Response {
    let work = match milliseconds(ms) {
        Ok(work) => work,
        Err(why) => return (StatusCode::BAD_REQUEST, Json(json!({ "error": why }))).into_response(),
    };
    match burn(work) {
        Ok(()) => Json(json!({ "server": server.name, "worked_ms": ms })).into_response(),
        Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": why }))).into_response(),
    }
}

async fn large(State(server): State<Arc<Server>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain")], server.large.clone())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn it_answers_with_its_name_works_and_stops() {
        let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, "S1".into(), stopped));
        let client = crate::loopback::client().unwrap();
        let ask = async |path: &str| client.get(format!("http://{addr}{path}")).send().await.unwrap();
        let hello = ask("/").await;
        assert_eq!(hello.headers()[NAME], "S1");
        assert_eq!(hello.text().await.unwrap(), r#"{"server":"S1"}"#);
        assert_eq!(ask("/work?ms=1").await.text().await.unwrap(), r#"{"server":"S1","worked_ms":1}"#);
        assert_eq!(ask("/20k").await.bytes().await.unwrap().len(), LARGE);
        assert_eq!(ask("/work").await.status(), 400);
        assert_eq!(ask("/work?ms=99999999").await.status(), 400);
        assert_eq!(ask("/other").await.status(), 404);
        stop.send_replace(true);
        assert_eq!(server.await.unwrap(), Ok(6));
    }
}
