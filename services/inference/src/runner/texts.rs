//! The text encoder's part of the loop: what is not known yet is encoded, and requests whose texts are known get trajectories.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use mobula_diffusion::{Spec, Trajectory};
use tokio::time::Instant;

use super::job::Job;
use super::thread::{Loop, Track};
use crate::engine::{Error, Shape};
use crate::metrics::Outcome;

/// Texts encoded in one call: as many as a full tick of guided rows can need.
const MAX_TEXTS: usize = 16;

impl Loop {
    /// Makes a request's trajectories when all its texts are known, fresh or cached; else gives it back.
    pub(super) fn start(
        &mut self,
        job: Arc<Job>,
        fresh: &HashMap<Arc<[u32]>, Arc<[f32]>>,
    ) -> Option<Arc<Job>> {
        let mut states = |ids: &Arc<[u32]>| fresh.get(ids).cloned().or_else(|| self.cache.get(ids));
        let Some(cond) = states(&job.work.prompt) else {
            return Some(job);
        };
        let uncond = match &job.work.negative {
            None => None,
            Some(ids) => match states(ids) {
                Some(states) => Some(states),
                None => return Some(job),
            },
        };
        let (cached, encoded) = job.work.texts().fold((0, 0), |(cached, encoded), ids| {
            if fresh.contains_key(ids) {
                (cached, encoded + 1)
            } else {
                (cached + 1, encoded)
            }
        });
        self.metrics.texts_cached.increment(cached);
        self.metrics.texts_encoded.increment(encoded);
        let Shape {
            channels,
            height,
            width,
        } = job.work.shape;
        for (place, (_, seed)) in job.work.pictures.iter().enumerate() {
            let guidance_scale = job.work.guidance_scale;
            let spec = Spec {
                channels,
                height,
                width,
                guidance_scale,
                seed: *seed,
                eta: 0.0,
            };
            match Trajectory::new(spec, Arc::clone(&job.work.sampler)) {
                Ok(trajectory) => self.tracks.push(Track {
                    job: Arc::clone(&job),
                    place,
                    trajectory,
                    cond: Arc::clone(&cond),
                    uncond: uncond.clone(),
                    arrival: self.arrivals,
                    times: None,
                }),
                Err(error) => {
                    // Requests are checked before they come here, so this is about the spec as a whole.
                    self.metrics.ended(Outcome::Failed);
                    job.outbox.fail(error.into());
                    self.tracks.retain(|track| !Arc::ptr_eq(&track.job, &job));
                    return None;
                }
            }
            self.arrivals += 1;
        }
        None
    }

    /// One call of the text encoder, for the requests that wait longest.
    pub(super) fn encode(&mut self) -> Result<(), Error> {
        let mut missing: Vec<Arc<[u32]>> = Vec::new();
        'jobs: for job in &self.waiting {
            for ids in job.work.texts() {
                if !missing.contains(ids) && self.cache.get(ids).is_none() {
                    if missing.len() == MAX_TEXTS {
                        break 'jobs;
                    }
                    missing.push(Arc::clone(ids));
                }
            }
        }
        let jobs = std::mem::take(&mut self.waiting);
        let takes_part = |job: &Arc<Job>| job.work.texts().any(|ids| missing.contains(ids));
        let spans: Vec<_> = jobs
            .iter()
            .filter(|job| takes_part(job))
            .map(|job| tracing::debug_span!(parent: &job.work.span, "encode_text", texts = missing.len()))
            .collect();
        let ids: Vec<u32> = missing.iter().flat_map(|ids| ids.iter().copied()).collect();
        let begun = Instant::now();
        let encoded = self.engine.encode(&ids, &mut self.values);
        let took = begun.elapsed();
        drop(spans);
        if let Err(error) = encoded {
            let (failed, others): (VecDeque<_>, VecDeque<_>) =
                jobs.into_iter().partition(|job| takes_part(job));
            self.waiting = others;
            return self.run_failed(&error, failed.iter());
        }
        let states = self
            .values
            .chunks_exact(self.info.states())
            .map(Arc::<[f32]>::from);
        let fresh: HashMap<_, _> = missing.iter().cloned().zip(states).collect();
        for (ids, states) in &fresh {
            self.cache.insert(ids, states);
        }
        for job in jobs {
            if takes_part(&job) {
                job.text_encoded(took);
            }
            if let Some(job) = self.start(job, &fresh) {
                self.waiting.push_back(job);
            }
        }
        Ok(())
    }
}
