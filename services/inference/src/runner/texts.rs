//! The text encoders' part of the loop: what is not known yet is encoded, and requests that have all they need get trajectories.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use mobula_diffusion::{Spec, Trajectory, trajectory};
use tokio::time::Instant;

use super::cache::Text;
use super::compose;
use super::job::Job;
use super::pending::{Begin, Pending};
use super::plan;
use super::thread::Loop;
use super::track::{Order, Track};
use super::work::{Draw, Output, Task, Unit};
use crate::engine::{Encoded, Error, Shape, finite};
use crate::metrics::Outcome;

/// Windows encoded in one call: as many as a full tick of guided rows can need.
const MAX_WINDOWS: usize = 16;

impl Loop {
    /// Starts the request at this place of the line if it has all it needs.
    pub(super) fn start_at(&mut self, at: usize) {
        if let Some(pending) = self.waiting.remove(at)
            && let Some(pending) = self.start(pending)
        {
            self.waiting.insert(at, pending);
        }
    }

    /// Makes a request's trajectories when its texts and its picture are known; else gives it back.
    pub(super) fn start(&mut self, pending: Pending) -> Option<Pending> {
        let Some(begin) = pending.begin.as_ref().filter(|_| pending.missing.is_empty()) else {
            return Some(pending);
        };
        let draw = match &pending.job.work.task {
            Task::Draw(draw) => Arc::clone(draw),
            Task::Texts(texts) => {
                // None is missing.
                let states = texts.iter().filter_map(|text| pending.found.get(text).cloned());
                let timings = pending.job.answered(Output::Texts(states.collect()));
                self.metrics.finished(&timings);
                return None;
            }
            // Both are answered where they are made.
            Task::Picture { .. } | Task::Decode(_) => return None,
        };
        let texts = compose::texts(&draw, &self.info, self.zeros_for_empty, &pending.found);
        let started = texts.and_then(|texts| self.tracks_of((&pending.job, &draw), begin, texts));
        match started {
            Ok(tracks) => {
                if let Some(track) = tracks.first() {
                    self.groups.need(plan::key(track), &self.info);
                }
                self.tracks.extend(tracks);
            }
            Err(error) => {
                // Requests are checked before they come here, so this is about the request as a whole.
                self.metrics.ended(Outcome::Failed);
                pending.job.outbox.fail(error);
            }
        }
        None
    }

    fn tracks_of(
        &mut self,
        (job, draw): (&Arc<Job>, &Arc<Draw>),
        begin: &Begin,
        texts: compose::Texts,
    ) -> Result<Vec<Track>, Error> {
        let Shape {
            channels,
            height,
            width,
        } = job.work.shape;
        let texts = Arc::new(texts);
        let request = self.arrivals;
        let mut tracks = Vec::with_capacity(job.work.pictures.len());
        for (place, (index, seed)) in job.work.pictures.iter().enumerate() {
            let start = match begin {
                Begin::Noise => trajectory::Start::Noise,
                Begin::Picture { image, mask } => trajectory::Start::Image {
                    image: image.clone(),
                    mask: mask.clone(),
                },
                Begin::Latents(latents) => {
                    trajectory::Start::Latents(latents.get(*index as usize).cloned().unwrap_or_default())
                }
            };
            let spec = Spec {
                channels,
                height,
                width,
                guidance: draw.guidance,
                seed: *seed,
                source: draw.source,
                start,
            };
            let trajectory = Trajectory::new(spec, Arc::clone(&draw.sampler))?;
            let order = Order {
                request,
                picture: self.arrivals,
            };
            tracks.push(Track::new((job, draw), place, trajectory, &texts, order));
            self.arrivals += 1;
        }
        Ok(tracks)
    }

    /// Whether a request waits for the text encoders.
    pub(super) fn wants_texts(&self) -> bool {
        self.waiting.iter().any(|pending| !pending.missing.is_empty())
    }

    /// One call of the text encoders, for the requests that wait longest.
    pub(super) fn encode(&mut self) -> Result<(), Error> {
        // One call leaves out so many layers for all, so those who want the same as the first go with it.
        let mut missing = self.waiting.iter().flat_map(|pending| &pending.missing);
        let Some((_, skip)) = missing.next().cloned() else {
            return Ok(());
        };
        // What is encoded is kept for strict requests too, and where kernels are chosen by the batch those are not to see how
        // many windows came at the same time.
        let most = if self.info.bucket.is_some() {
            1
        } else {
            MAX_WINDOWS
        };
        let mut wanted: Vec<Text> = Vec::with_capacity(most);
        for text in self.waiting.iter().flat_map(|pending| &pending.missing) {
            if wanted.len() == most {
                break;
            }
            if text.1 == skip && !wanted.contains(text) {
                wanted.push(text.clone());
            }
        }
        let takes_part = |pending: &Pending| pending.missing.iter().any(|text| wanted.contains(text));
        let waiting = std::mem::take(&mut self.waiting);
        let spans: Vec<_> = waiting
            .iter()
            .filter(|pending| takes_part(pending))
            .map(|pending| {
                tracing::debug_span!(parent: &pending.job.work.span, "encode_text", windows = wanted.len())
            })
            .collect();
        let ids: Vec<u32> = wanted.iter().flat_map(|(ids, _)| ids.iter().copied()).collect();
        let begun = Instant::now();
        let mut out = std::mem::take(&mut self.encoded);
        let encoded = self
            .place
            .run(true, || self.engine.encode(&ids, skip, &mut out))
            .and_then(|()| finite("text_encoder", &out.states));
        let took = begun.elapsed();
        if self.unit == Unit::Windows {
            self.stats.measured(wanted.len() as f64, took);
        }
        drop(spans);
        if let Err(error) = encoded {
            let (failed, others): (VecDeque<_>, _) = waiting.into_iter().partition(takes_part);
            self.waiting = others;
            return self.run_failed(&error, failed.iter().map(|pending| &pending.job));
        }
        let (states, pooled) = (self.info.states(), self.info.pooled);
        let each = (0..wanted.len()).map(|n| {
            Arc::new(Encoded {
                states: out.states[n * states..][..states].to_vec(),
                pooled: out.pooled[n * pooled..][..pooled].to_vec(),
            })
        });
        let fresh: HashMap<_, _> = wanted.iter().cloned().zip(each).collect();
        self.encoded = out;
        self.metrics.texts_encoded.increment(fresh.len() as u64);
        for (text, states) in &fresh {
            self.cache.insert(text, states);
        }
        for mut pending in waiting {
            if pending.take(&fresh) {
                pending.job.encoded(took);
            }
            if let Some(pending) = self.start(pending) {
                self.waiting.push_back(pending);
            }
        }
        Ok(())
    }
}
