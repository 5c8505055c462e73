//! The decoder's part of the loop: finished latents become pictures, or go out as they are.
//!
//! Latents that are no numbers never come here, and planes that are none fail their own request only.

use std::sync::Arc;

use mobula_proto::common::v1::Latents;
use mobula_proto::inference::v1::LatentsDone;
use mobula_proto::inference::v1::generate_response::Event;
use tokio::time::Instant;

use super::encoders::Picture;
use super::job::Job;
use super::thread::Loop;
use super::track::Track;
use crate::engine::{Error, finite};

/// Pictures decoded in one call, and pixels: larger calls are not faster, and would hold up the next tick.
const MAX_DECODE: usize = 4;
const MAX_DECODE_PIXELS: usize = 512 * 512;

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
        if let Some(timings) = job.picture_done(event, std::time::Duration::ZERO) {
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
        let mut tracks = Vec::with_capacity(most);
        while tracks.len() < most
            && let Some(track) = self.finished.pop_front_if(|track| {
                let work = &track.job.work;
                work.shape == shape && (work.fast == fast || self.info.bucket.is_none())
            })
        {
            // One that shares its request with a picture that failed is nobody's any more.
            if !track.job.outbox.has_ended() {
                tracks.push(track);
            }
        }
        if tracks.is_empty() {
            return Ok(());
        }
        self.values.clear();
        for track in &tracks {
            self.values.extend_from_slice(track.trajectory.latents());
        }
        let spans: Vec<_> = tracks
            .iter()
            .map(
                |track| tracing::debug_span!(parent: &track.job.work.span, "decode", pictures = tracks.len()),
            )
            .collect();
        let begun = Instant::now();
        let more = self.has_more();
        let decode = || self.engine.decode(&self.values, shape, &mut self.planes);
        let decoded = self.place.run(more, decode);
        let took = begun.elapsed();
        self.decoder_took(took, tracks.len() * width * height);
        drop(spans);
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(error) => return self.run_failed(&error, tracks.iter().map(|track| &track.job)),
        };
        let mut last: Option<Arc<Job>> = None;
        for (nth, (track, planes)) in tracks
            .into_iter()
            .zip(self.planes.chunks_exact(3 * width * height))
            .enumerate()
        {
            let Track {
                job, place, times, ..
            } = track;
            // diffusers gives a black picture here; a caller is better served by the reason. The others of the call are sound.
            if finite("vae_decoder", planes).is_err() {
                self.undecodable(&job);
                continue;
            }
            let Some(mut times) = times else { continue };
            times.decode = took;
            // A call counts once for a request, however many of its pictures were in it.
            if !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &job)) {
                job.decoded(took);
            }
            let index = job.work.pictures[place].0;
            let picture = Picture {
                job: Arc::clone(&job),
                index,
                times,
                planes: planes.to_vec(),
                width,
                height,
                decoded_again: decoded.again.contains(&nth),
            };
            self.encoders.picture(picture);
            last = Some(job);
        }
        Ok(())
    }
}
