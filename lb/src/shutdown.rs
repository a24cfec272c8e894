//! The one signal that says: finish what is under way, take nothing new.

use tokio::sync::watch;

/// Begins the shutdown; dropping it begins it too.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

/// Waits for the shutdown; cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// A trigger and what it triggers.
pub fn shutdown() -> (ShutdownTrigger, Shutdown) {
    let (trigger, shutdown) = watch::channel(false);
    (ShutdownTrigger(trigger), Shutdown(shutdown))
}

impl ShutdownTrigger {
    /// Begins the shutdown.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Has it begun?
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the shutdown has begun.
    pub async fn begun(&self) {
        // An error means that the trigger is gone.
        let _ = self.0.clone().wait_for(|begun| *begun).await;
    }
}
