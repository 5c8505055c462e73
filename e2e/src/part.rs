//! One service of a mesh in a runtime of its own, so that killing it is like `kill -9`: all its tasks and sockets are gone
//! at once, nothing is drained, nobody is told.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, anyhow};
use mobula_kit::Stop;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long a part may take to drain when it is stopped: no test leaves longer requests behind.
const GRACE: Duration = Duration::from_secs(5);

/// A running service.
pub struct Part {
    name: &'static str,
    runtime: Option<Runtime>,
    stop: Stop,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Part {
    /// Starts a service. `body` binds its listeners, tells about them through the sender, and runs.
    ///
    /// # Errors
    /// When `body` fails before it has told.
    pub async fn start<T, F, Fut>(name: &'static str, body: F) -> anyhow::Result<(Self, T)>
    where
        T: Send + 'static,
        F: FnOnce(Stop, oneshot::Sender<T>) -> Fut,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name(name)
            .build()?;
        let stop = Stop::new(GRACE);
        let (tell, told) = oneshot::channel();
        let running = runtime.spawn(body(stop.clone(), tell));
        let mut part = Self {
            name,
            runtime: Some(runtime),
            stop,
            running,
        };
        match told.await {
            Ok(told) => Ok((part, told)),
            Err(_) => match (&mut part.running).await {
                Ok(Err(error)) => Err(error.context(format!("{name} did not start"))),
                Ok(Ok(())) => Err(anyhow!("{name} ended at once")),
                Err(error) => Err(anyhow!("{name} did not start: {error}")),
            },
        }
    }

    /// Stops it gracefully and waits until it has drained.
    ///
    /// # Errors
    /// When the service failed, or does not end in time.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.trigger();
        // Twice the grace: the service keeps the deadline itself, and the test machine may be slow.
        let ended = tokio::time::timeout(GRACE * 2, &mut self.running).await;
        ended
            .with_context(|| format!("{} does not stop", self.name))?
            .with_context(|| self.name)?
    }

    /// Ends it as `kill -9` would.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
