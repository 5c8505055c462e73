//! The decoder's part of the loop: finished latents become pictures, or go out as they are.
//!
//! Latents that are no numbers never come here, and planes that are none fail their own request only.

use std::sync::Arc;

use mobula_diffusion::Trajectory;
use mobula_proto::common::v1::Latents;
use mobula_proto::inference::v1::LatentsDone;
use mobula_proto::inference::v1::generate_response::Event;
use tokio::time::Instant;

use super::encoders::Picture;
use super::job::{Job, PictureTimes};
use super::outbox::Unread;
use super::thread::Loop;
use super::track::Track;
use super::work::Unit;
use crate::engine::{Error, finite};

/// Pictures decoded in one call, and pixels: larger calls are not faster, and would hold up the next tick.
const MAX_DECODE: usize = 4;
const MAX_DECODE_PIXELS: usize = 512 * 512;

/// Latents that wait for the decoder.
pub(super) struct Finished {
    pub(super) job: Arc<Job>,
    /// Index in the request.
    index: u32,
    latents: Source,
    /// When they were drawn, where that was here.
    times: Option<PictureTimes>,
}

/// Where latents are.
enum Source {
    Drawn(Box<Trajectory>),
    Given(Arc<[f32]>),
}

impl Finished {
    /// Those of a picture that has all its steps.
    pub(super) fn of(track: Track) -> Self {
        Self {
            index: track.job.work.pictures[track.place].0,
            job: track.job,
            latents: Source::Drawn(Box::new(track.trajectory)),
            times: track.times,
        }
    }

    /// Those that were drawn elsewhere.
    pub(super) fn given(job: &Arc<Job>, index: u32, latents: &Arc<[f32]>) -> Self {
        Self {
            job: Arc::clone(job),
            index,
            latents: Source::Given(Arc::clone(latents)),
            times: None,
        }
    }

    fn latents(&self) -> &[f32] {
        match &self.latents {
            Source::Drawn(trajectory) => trajectory.latents(),
            Source::Given(latents) => latents,
        }
    }
}

impl Loop {
    /// Sends the latents of a picture whose request asked for them.
    pub(super) fn send_latents(&mut self, track: &Track) {
        let (job, shape) = (&track.job, track.job.work.shape);
        // One that shares its request with a picture that failed is nobody's any more.
        if job.outbox.has_ended() {
            return;
        }
        let data: Vec<u8> = track
            .trajectory
            .latents()
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let event = Event::Latents(LatentsDone {
            index: job.work.pictures[track.place].0,
            latents: Some(Latents {
                channels: shape.channels as u32,
                height: shape.height as u32,
                width: shape.width as u32,
                data: data.into(),
            }),
        });
        if let Some(timings) = job.picture_done(event, std::time::Duration::ZERO, false) {
            self.metrics.finished(&timings);
        }
    }

    /// One call of the decoder, for pictures of one shape that are finished longest.
    pub(super) fn decode(&mut self) -> Result<(), Error> {
        let Some(first) = self.finished.front() else {
            return Ok(());
        };
        let (shape, fast) = (first.job.work.shape, first.job.work.fast);
        let (width, height) = (shape.width * self.info.scale, shape.height * self.info.scale);
        let most = if self.info.bucket.is_some() && !fast {
            // Kernels are chosen by the batch here, so a strict picture is alone.
            1
        } else {
            (MAX_DECODE_PIXELS / (width * height)).clamp(1, MAX_DECODE)
        };
        let mut pictures = Vec::with_capacity(most);
        while pictures.len() < most
            && let Some(picture) = self.finished.pop_front_if(|picture| {
                let work = &picture.job.work;
                work.shape == shape && (work.fast == fast || self.info.bucket.is_none())
            })
        {
            // One that shares its request with a picture that failed is nobody's any more.
            if !picture.job.outbox.has_ended() {
                pictures.push(picture);
            }
        }
        if pictures.is_empty() {
            return Ok(());
        }
        self.values.clear();
        for picture in &pictures {
            self.values.extend_from_slice(picture.latents());
        }
        let spans: Vec<_> = pictures
            .iter()
            .map(
                |picture| tracing::debug_span!(parent: &picture.job.work.span, "decode", pictures = pictures.len()),
            )
            .collect();
        let begun = Instant::now();
        pictures
            .iter()
            .for_each(|picture| picture.job.decode_begins(begun));
        let more = self.has_more();
        let decode = || self.engine.decode(&self.values, shape, &mut self.planes);
        let decoded = self.place.run(more, decode);
        let took = begun.elapsed();
        self.decoder_took(took, pictures.len() * width * height);
        if self.unit == Unit::Pictures {
            self.stats.measured(pictures.len() as f64, took);
        }
        drop(spans);
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(error) => return self.run_failed(&error, pictures.iter().map(|picture| &picture.job)),
        };
        let mut last: Option<Arc<Job>> = None;
        let mut unread = Unread::default();
        for (nth, (picture, planes)) in pictures
            .into_iter()
            .zip(self.planes.chunks_exact(3 * width * height))
            .enumerate()
        {
            let Finished {
                job, index, times, ..
            } = picture;
            // diffusers gives a black picture here; a caller is better served by the reason. The others of the call are sound.
            if finite("vae_decoder", planes).is_err() {
                self.undecodable(&job);
                continue;
            }
            let mut times = times.unwrap_or_else(|| PictureTimes::begin(begun));
            times.decode = took;
            // A call counts once for a request, however many of its pictures were in it.
            if !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &job)) {
                job.decoded(took);
            }
            let picture = Picture {
                job: Arc::clone(&job),
                index,
                times,
                planes: planes.to_vec(),
                width,
                height,
                decoded_again: decoded.again.contains(&nth),
            };
            self.encoders.picture(picture, &mut unread);
            last = Some(job);
        }
        Ok(())
    }
}
