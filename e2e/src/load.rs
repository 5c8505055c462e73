//! A constant load: so many callers, each asking again as soon as it has its picture, and a count of what they met. A
//! request that was drawn before must bring the same picture.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mobula_proto::image::v1::GenerateRequest;
use mobula_proto::image::v1::image_service_client::ImageServiceClient;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

use crate::client::{Drawn, draw_into, was_cut};
use crate::doors::Doors;
use crate::wait::PATIENCE;
use crate::ways::{Way, ask};

/// What callers do when the connection to their proxy breaks: what any gRPC client with a retry policy does. They wait so
/// long, and send the request again under its id, to the next proxy where there are several.
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
    /// Pictures that had come before the connection broke, and came again.
    pub again: usize,
    /// Requests that ended well without a picture or the end of their stream.
    pub lost: usize,
    /// Requests that brought more pictures than were asked for.
    pub doubled: usize,
    /// Pictures that were not as before.
    pub different: usize,
    /// Everything that a request failed with, the last three included, in words.
    pub failures: Vec<String>,
}

impl Load {
    /// Sends `callers` to ask for what `request` makes of a running number. The proxy may be killed at any time.
    pub fn start(
        client: &ImageServiceClient<Channel>,
        callers: usize,
        request: impl Fn(usize) -> GenerateRequest + Clone + Send + 'static,
    ) -> Self {
        Self::through(&Doors::one(client.clone()), callers, request)
    }

    /// The same through several proxies in turns; each request has an id of its own, under which it is sent again. A
    /// connection that breaks at a proxy of which nobody said that it falls is a failure.
    pub fn through(
        doors: &Doors,
        callers: usize,
        request: impl Fn(usize) -> GenerateRequest + Clone + Send + 'static,
    ) -> Self {
        Self::by(doors, &[Way::Grpc], callers, request)
    }

    /// The same with callers that ask in these ways, in turns; a request is the same picture whichever way it is asked for.
    pub fn by(
        doors: &Doors,
        ways: &[Way],
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
                way: ways[caller % ways.len()],
                doors: doors.clone(),
                stop: stop.clone(),
                done: done.clone(),
                failed: failed.clone(),
                album: album.clone(),
            };
            let request = request.clone();
            let requests = (caller..).step_by(callers).map(move |n| (n, request(n)));
            tasks.spawn(async move { work.run(requests).await });
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
        self.again += other.again;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.different += other.different;
        self.failures.extend(other.failures);
    }
}

struct Caller {
    way: Way,
    doors: Doors,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    album: Album,
}

impl Caller {
    async fn run(self, requests: impl Iterator<Item = (usize, GenerateRequest)>) -> Report {
        let mut report = Report::default();
        for (n, request) in requests {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let asked = tokio::time::timeout(PATIENCE, self.ask((n, &request), &mut report)).await;
            let outcome = match asked {
                Ok(Ok(drawn)) => self.judge(&request, &drawn, &mut report),
                Ok(Err(status)) => Err(format!("{:?}: {status:?}", self.way)),
                Err(_) => Err(format!("{:?}: no answer within {PATIENCE:?}", self.way)),
            };
            match outcome {
                Ok(()) => {
                    report.drawn += 1;
                    self.done.fetch_add(1, Ordering::Relaxed);
                }
                Err(failure) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    report.failures.push(format!("{n}: {failure}"));
                }
            }
        }
        report
    }

    /// Counts what a request brought that ended well: one picture, as whenever it was drawn.
    fn judge(&self, request: &GenerateRequest, drawn: &Drawn, report: &mut Report) -> Result<(), String> {
        report.restarted += drawn.restarts;
        match drawn.picture() {
            Ok(picture) => self.compare(request, &picture.digest).map_err(|error| {
                report.different += 1;
                format!("{error} by {:?}", drawn.replicas)
            }),
            Err(error) if drawn.pictures.len() > 1 => {
                report.doubled += 1;
                Err(error.to_string())
            }
            Err(error) => {
                report.lost += 1;
                Err(error.to_string())
            }
        }
    }

    /// Keeps a picture, or compares it with the one that the same request brought before.
    fn compare(&self, request: &GenerateRequest, digest: &str) -> Result<(), String> {
        let mut album = self.album.lock().unwrap_or_else(PoisonError::into_inner);
        let before = album
            .entry(format!("{request:?}"))
            .or_insert_with(|| digest.to_owned())
            .clone();
        drop(album);
        if before == digest {
            Ok(())
        } else {
            Err(format!(
                "another picture ({digest}, before {before}) for {request:?}"
            ))
        }
    }

    /// Asks one proxy, once.
    async fn ask_at(&self, door: usize, sent: &GenerateRequest, drawn: &mut Drawn) -> Result<(), Status> {
        if self.way == Way::Grpc {
            return draw_into(self.doors.client(door), sent.clone(), drawn).await;
        }
        let address = self.doors.http(door);
        let address = address.ok_or_else(|| Status::internal("nobody said where the proxy speaks HTTP"))?;
        *drawn = ask(address, self.way, sent).await?;
        Ok(())
    }

    /// Asks once more after a cut, under the same id, until a proxy answers; counts the request once.
    async fn ask(
        &self,
        (n, request): (usize, &GenerateRequest),
        report: &mut Report,
    ) -> Result<Drawn, Status> {
        let mut sent = request.clone();
        if self.doors.count() > 1 && sent.request_id.is_empty() {
            sent.request_id = format!("load-{n}");
        }
        let mut attempt = 0;
        loop {
            let door = (n + attempt) % self.doors.count();
            let before = self.doors.before(door);
            let mut drawn = Drawn::default();
            let status = match self.ask_at(door, &sent, &mut drawn).await {
                Ok(()) if sent.request_id.is_empty() || drawn.request_id == sent.request_id => {
                    return Ok(drawn);
                }
                Ok(()) => {
                    return Err(Status::internal(format!(
                        "it was answered as {:?}",
                        drawn.request_id
                    )));
                }
                Err(status) => status,
            };
            if !was_cut(&status) || !self.doors.was_killed(door, before) {
                return Err(status);
            }
            report.cut += usize::from(attempt == 0);
            for picture in &drawn.pictures {
                report.again += 1;
                if let Err(error) = self.compare(request, &picture.digest) {
                    report.different += 1;
                    return Err(Status::internal(error));
                }
            }
            attempt += 1;
            tokio::time::sleep(AFTER_A_CUT).await;
        }
    }
}
