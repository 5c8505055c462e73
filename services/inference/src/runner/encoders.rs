//! The threads that turn planes into PNG files, so that the engine thread does not.
//!
//! Pictures are never dropped: the queue has room for all that a replica may have in work. Previews are dropped when the threads
//! are behind. Tiny pictures are encoded where they are: handing them over would cost more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use mobula_diffusion::image;
use mobula_diffusion::preview::LatentRgb;
use mobula_proto::inference::v1::generate_response::Event;
use mobula_proto::inference::v1::{Image, Preview};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::MAX_PICTURES;
use super::job::{Job, PictureTimes};
use super::outbox::Unread;
use crate::encode;
use crate::error::Error;
use crate::metrics::{Metrics, Outcome};

/// Previews that may wait; more would be old when they are made.
const MAX_PREVIEWS: usize = 32;
/// Encoding this many pixels takes about as long as waking a thread.
const INLINE_PIXELS: usize = 64 * 64;
/// Two threads encode a hundred 512 by 512 pictures a second, more than any device draws.
const THREADS: usize = 2;

/// What a caller is told of a decoder that overflowed.
const DECODED_AGAIN: &str = "the VAE decoder overflowed in float16 and was run again in float32";

/// A finished picture.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) job: Arc<Job>,
    /// Index in the request.
    pub(super) index: u32,
    pub(super) times: PictureTimes,
    /// `[3, height, width]` in [-1, 1].
    pub(super) planes: Vec<f32>,
    pub(super) width: usize,
    pub(super) height: usize,
    /// The decoder overflowed in float16 and was run in float32.
    pub(super) decoded_again: bool,
}

/// A look at a picture on its way.
#[derive(Debug)]
pub(super) struct Glimpse {
    pub(super) job: Arc<Job>,
    pub(super) index: u32,
    pub(super) step: u32,
    /// Predicted latents.
    pub(super) latents: Vec<f32>,
}

#[derive(Debug)]
enum Task {
    Picture(Picture),
    Glimpse(Glimpse),
}

/// What the threads need to work.
#[derive(Debug)]
struct Tools {
    latent_rgb: LatentRgb,
    metrics: Metrics,
    previews: AtomicUsize,
}

/// The handle; dropping it lets the threads finish what waits and end.
#[derive(Debug)]
pub(super) struct Encoders {
    sender: Option<SyncSender<Task>>,
    tools: Arc<Tools>,
    threads: Vec<JoinHandle<()>>,
}

impl Encoders {
    pub(super) fn start(latent_rgb: LatentRgb, metrics: Metrics) -> Result<Self, Error> {
        let (sender, receiver) = sync_channel(MAX_PICTURES + MAX_PREVIEWS);
        let receiver = Arc::new(Mutex::new(receiver));
        let tools = Arc::new(Tools {
            latent_rgb,
            metrics,
            previews: AtomicUsize::new(0),
        });
        let spawn = |_| {
            let (receiver, tools) = (Arc::clone(&receiver), Arc::clone(&tools));
            std::thread::Builder::new()
                .name("mobula-image".to_owned())
                .spawn(move || work(&receiver, &tools))
                .map_err(Error::Thread)
        };
        let threads = (0..THREADS).map(spawn).collect::<Result<_, _>>()?;
        Ok(Self {
            sender: Some(sender),
            tools,
            threads,
        })
    }

    /// Encodes a picture and sends it to its reader; a tiny one at once, whose reader is told with the others.
    pub(super) fn picture(&self, picture: Picture, unread: &mut Unread) {
        if picture.width * picture.height <= INLINE_PIXELS {
            let job = Arc::clone(&picture.job);
            self.tools.picture(picture, true);
            return unread.add(&job.outbox, Instant::now());
        }
        let Some(sender) = &self.sender else { return };
        // There is room for all pictures of a replica; were there none, or no thread, the picture would still be made.
        if let Err(TrySendError::Full(task) | TrySendError::Disconnected(task)) =
            sender.try_send(Task::Picture(picture))
            && let Task::Picture(picture) = task
        {
            self.tools.picture(picture, false);
        }
    }

    /// Encodes a preview and sends it, or drops it when too many wait.
    pub(super) fn glimpse(&self, glimpse: Glimpse) {
        let Some(sender) = &self.sender else { return };
        if self.tools.previews.fetch_add(1, Ordering::Relaxed) >= MAX_PREVIEWS
            || sender.try_send(Task::Glimpse(glimpse)).is_err()
        {
            self.tools.previews.fetch_sub(1, Ordering::Relaxed);
            self.tools.metrics.previews_dropped.increment(1);
        }
    }
}

impl Drop for Encoders {
    fn drop(&mut self) {
        self.sender = None;
        for thread in self.threads.drain(..) {
            // A panic there was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn work(receiver: &Mutex<Receiver<Task>>, tools: &Tools) {
    loop {
        // The lock is held while waiting, and given on when a task is there.
        let task = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match task {
            Ok(Task::Picture(picture)) => tools.picture(picture, false),
            Ok(Task::Glimpse(glimpse)) => {
                tools.glimpse(&glimpse);
                tools.previews.fetch_sub(1, Ordering::Relaxed);
            }
            Err(_) => return,
        }
    }
}

impl Tools {
    /// Encodes a picture and sends it, or leaves it for a reader who is told `later`.
    fn picture(&self, picture: Picture, later: bool) {
        let Picture {
            job,
            index,
            times,
            planes,
            width,
            height,
            decoded_again,
        } = picture;
        if job.outbox.reader_gone() {
            // The engine thread does not see this job any more, so it is counted here, by its last picture.
            if !job.outbox.has_ended() {
                job.outbox.fail(Error::Stopping);
                self.metrics.ended(Outcome::Cancelled);
            }
            return;
        }
        let begun = Instant::now();
        let span = tracing::debug_span!(parent: &job.work.span, "encode_image", index, width, height);
        let encoded = image::to_rgb8(&planes, height, width)
            .map_err(Error::from)
            .and_then(|rgb| {
                let texts = encode::texts_of(&job.work.text, index);
                Ok(encode::encode(job.work.format, &rgb, width, height, &texts)?)
            })
            .map(|file| (format!("{:x}", Sha256::digest(&file.bytes)), file));
        drop(span);
        match encoded {
            Ok((digest, file)) => {
                let now = Instant::now();
                let took = now - begun;
                let timings = Some(job.picture_timings(&times, took, now));
                let event = Event::Image(Image {
                    index,
                    data: Bytes::from(file.bytes),
                    digest,
                    timings,
                    notes: decoded_again
                        .then(|| DECODED_AGAIN.to_owned())
                        .into_iter()
                        .chain(file.notes)
                        .collect(),
                });
                self.metrics.images.increment(1);
                if let Some(timings) = job.picture_done(event, took, later) {
                    self.metrics.finished(&timings);
                }
            }
            // Another picture of the request failed before it.
            Err(_) if job.outbox.has_ended() => {}
            Err(error) => {
                tracing::error!(request_id = job.work.request_id, %error, "a picture cannot be encoded");
                job.outbox.fail(error);
                self.metrics.ended(Outcome::Failed);
            }
        }
    }

    fn glimpse(&self, glimpse: &Glimpse) {
        let Glimpse {
            job,
            index,
            step,
            latents,
        } = glimpse;
        if job.outbox.reader_gone() {
            return;
        }
        let (width, height) = (job.work.shape.width, job.work.shape.height);
        let file = self
            .latent_rgb
            .to_rgb8(latents, height, width)
            .map_err(Error::from)
            .and_then(|rgb| Ok(encode::preview(&rgb, width, height)?));
        match file {
            Ok(file) => {
                self.metrics.previews.increment(1);
                let png = Bytes::from(file);
                job.outbox.send(Event::Preview(Preview {
                    image_index: *index,
                    step: *step,
                    png,
                }));
            }
            Err(error) => {
                tracing::warn!(request_id = job.work.request_id, %error, "a preview cannot be made")
            }
        }
    }
}
