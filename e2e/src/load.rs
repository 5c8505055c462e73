//! A constant load: so many callers, each asking again as soon as it has its picture, and a count of what they met.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mobula_proto::image::v1::GenerateRequest;
use mobula_proto::image::v1::image_service_client::ImageServiceClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::client::{Drawn, draw, was_cut};
use crate::wait::PATIENCE;

/// What callers do when the connection to their proxy breaks: what any gRPC client with a retry policy does.
const AFTER_A_CUT: Duration = Duration::from_millis(20);

/// Callers at work.
#[derive(Debug)]
pub struct Load {
    callers: JoinSet<Report>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
}

/// What they met.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Pictures that came.
    pub drawn: usize,
    /// Requests that the mesh started again by itself.
    pub restarted: usize,
    /// Requests whose connection broke and that the caller sent again.
    pub cut: usize,
    /// Everything else, in words.
    pub failures: Vec<String>,
}

impl Load {
    /// Sends `callers` to ask for what `request` makes of a running number.
    pub fn start(
        client: &ImageServiceClient<Channel>,
        callers: usize,
        request: impl Fn(usize) -> GenerateRequest + Clone + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let work = Caller {
                client: client.clone(),
                stop: stop.clone(),
                done: done.clone(),
            };
            let request = request.clone();
            tasks.spawn(async move { work.run((caller..).step_by(callers).map(request)).await });
        }
        Self {
            callers: tasks,
            stop,
            done,
        }
    }

    /// Pictures that came so far.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until `n` more pictures have come.
    ///
    /// # Errors
    /// When they do not come.
    pub async fn more(&self, n: usize) -> anyhow::Result<()> {
        let goal = self.done() + n;
        crate::wait::until(&format!("{n} more pictures"), || async {
            (self.done() >= goal).then_some(())
        })
        .await
    }

    /// Lets every caller finish its request and adds up what they met.
    pub async fn finish(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Report::default();
        while let Some(report) = self.callers.join_next().await {
            match report {
                Ok(report) => total.add(report),
                Err(error) => total.failures.push(error.to_string()),
            }
        }
        total
    }
}

impl Report {
    fn add(&mut self, other: Self) {
        self.drawn += other.drawn;
        self.restarted += other.restarted;
        self.cut += other.cut;
        self.failures.extend(other.failures);
    }
}

struct Caller {
    client: ImageServiceClient<Channel>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
}

impl Caller {
    async fn run(self, requests: impl Iterator<Item = GenerateRequest>) -> Report {
        let mut report = Report::default();
        for request in requests {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let asked = tokio::time::timeout(PATIENCE, self.ask(request, &mut report.cut)).await;
            match asked.map(|outcome| outcome.map(|drawn| (drawn.picture().map(drop), drawn.restarts))) {
                Ok(Ok((Ok(()), restarts))) => {
                    report.drawn += 1;
                    report.restarted += restarts;
                    self.done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Ok((Err(error), _))) => report.failures.push(error.to_string()),
                Ok(Err(status)) => report.failures.push(format!("{status:?}")),
                Err(_) => report.failures.push(format!("no answer within {PATIENCE:?}")),
            }
        }
        report
    }

    /// Asks once more after a cut, until the proxy is back; counts the request once.
    async fn ask(&self, request: GenerateRequest, cuts: &mut usize) -> Result<Drawn, tonic::Status> {
        let mut cut = 0;
        loop {
            match draw(&self.client, request.clone()).await {
                Err(status) if was_cut(&status) => {
                    *cuts += 1 - std::mem::replace(&mut cut, 1);
                    tokio::time::sleep(AFTER_A_CUT).await;
                }
                outcome => return outcome,
            }
        }
    }
}
