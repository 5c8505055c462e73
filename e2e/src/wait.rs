//! Waiting for something to become true, within bounds.

use std::future::Future;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

/// The longest wait for anything: far above what a loaded two-core machine needs, so that only a fault reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Looks again and again until `probe` gives something, and gives up with the name of what was waited for.
///
/// # Errors
/// When [`PATIENCE`] is over.
pub async fn until<T, F, Fut>(what: &str, mut probe: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("waited {PATIENCE:?} in vain: {what}");
        }
        sleep(LOOK_AGAIN).await;
    }
}
