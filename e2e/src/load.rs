//! A constant load: so many callers, each asking again as soon as it has its picture, and a count of what they met. A
//! request that was drawn before must bring the same picture.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
    failed: Arc<AtomicUsize>,
}

/// Digests of pictures, by the request in words.
type Album = Arc<Mutex<HashMap<String, String>>>;

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
        let failed = Arc::new(AtomicUsize::new(0));
        let album = Album::default();
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let work = Caller {
                client: client.clone(),
                stop: stop.clone(),
                done: done.clone(),
                failed: failed.clone(),
                album: album.clone(),
            };
            let request = request.clone();
            tasks.spawn(async move { work.run((caller..).step_by(callers).map(request)).await });
        }
        Self {
            callers: tasks,
            stop,
            done,
            failed,
        }
    }

    /// Pictures that came so far.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Requests that failed so far, and pictures that were not as before.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
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
    failed: Arc<AtomicUsize>,
    album: Album,
}

impl Caller {
    async fn run(self, requests: impl Iterator<Item = GenerateRequest>) -> Report {
        let mut report = Report::default();
        for request in requests {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let asked = tokio::time::timeout(PATIENCE, self.ask(request.clone(), &mut report.cut)).await;
            let failure = match asked {
                Ok(Ok(drawn)) => match self.compare(&request, &drawn) {
                    Ok(()) => {
                        report.drawn += 1;
                        report.restarted += drawn.restarts;
                        self.done.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    Err(error) => error.to_string(),
                },
                Ok(Err(status)) => format!("{status:?}"),
                Err(_) => format!("no answer within {PATIENCE:?}"),
            };
            self.failed.fetch_add(1, Ordering::Relaxed);
            report.failures.push(failure);
        }
        report
    }

    /// Keeps a picture, or compares it with the one that the same request brought before.
    fn compare(&self, request: &GenerateRequest, drawn: &Drawn) -> anyhow::Result<()> {
        let digest = drawn.picture()?.digest.clone();
        let mut album = self.album.lock().unwrap_or_else(PoisonError::into_inner);
        let before = album
            .entry(format!("{request:?}"))
            .or_insert_with(|| digest.clone())
            .clone();
        drop(album);
        anyhow::ensure!(
            before == digest,
            "another picture ({digest}, before {before}) for {request:?} by {:?}",
            drawn.replicas
        );
        Ok(())
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
