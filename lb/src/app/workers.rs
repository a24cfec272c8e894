//! The threads of the data path: one for each core, with a single-threaded runtime that belongs to it alone.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;

/// Starts worker number `at`, which does what `serve` gives until that is done. It sends to `ended` then, or when it has
/// panicked.
pub(super) fn spawn<F: Future<Output = ()>>(
    at: usize,
    ended: mpsc::Sender<()>,
    serve: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    struct OnEnd(mpsc::Sender<()>);
    impl Drop for OnEnd {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }
    std::thread::Builder::new().name(format!("worker-{at}")).spawn(move || {
        let _on_end = OnEnd(ended);
        // It belongs to this thread alone, so what its tasks share needs no locks.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => runtime.block_on(async { serve().await }),
            Err(error) => tracing::error!("worker {at} has no runtime: {error}"),
        }
    })
}
