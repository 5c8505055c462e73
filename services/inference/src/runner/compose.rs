//! Encoded windows to conditions: windows side by side, weights, mixtures, and what holds for which calls.
//!
//! Pure: what the encoders made of a window is asked for. Invariant: equal prompts of a request give the very same conditions,
//! so that a guided picture whose two prompts are equal needs one row.

use std::collections::HashMap;
use std::sync::Arc;

use mobula_diffusion::{embedding, emphasis};

use super::cache::Text;
use super::prompt::{Emphasis, Prompt, Variant, Window};
use super::work::Draw;
use crate::engine::{Condition, Encoded, Error, Info};

/// What a prompt is over the calls of a trajectory.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Timeline(Vec<(Option<u32>, Arc<Condition>)>);

impl Timeline {
    /// The condition of a step, counted from 0.
    pub(super) fn at(&self, step: u32) -> Option<&Arc<Condition>> {
        let holds = |until: Option<u32>| until.is_none_or(|until| step < until);
        let held = self.0.iter().find(|(until, _)| holds(*until));
        held.or_else(|| self.0.last()).map(|(_, condition)| condition)
    }
}

/// A request's prompts, ready for the UNet.
#[derive(Debug, Clone)]
pub(super) struct Texts {
    pub(super) cond: Timeline,
    pub(super) uncond: Option<Timeline>,
    pub(super) tokens: usize,
}

/// Makes a request's conditions of what the encoders made of all its windows.
///
/// `zeros_for_empty` is the model's `force_zeros_for_empty_prompt`.
pub(super) fn texts(
    draw: &Draw,
    info: &Info,
    zeros_for_empty: bool,
    found: &HashMap<Text, Arc<Encoded>>,
) -> Result<Texts, Error> {
    Maker { info, found }.texts(draw, zeros_for_empty)
}

struct Maker<'a> {
    info: &'a Info,
    found: &'a HashMap<Text, Arc<Encoded>>,
}

/// What a prompt's conditions have besides its states.
struct Beside<'a> {
    skip: usize,
    time_ids: &'a Arc<[f32]>,
    guidance: &'a Arc<[f32]>,
    zeros: bool,
}

impl Maker<'_> {
    fn texts(&self, draw: &Draw, zeros_for_empty: bool) -> Result<Texts, Error> {
        let guidance: Arc<[f32]> = match self.info.guidance {
            0 => Arc::default(),
            values => embedding::guidance_scale_embedding(draw.guidance.scale - 1.0, values)?.into(),
        };
        let [prompt_ids, negative_ids] = &draw.time_ids;
        let [prompt_skip, negative_skip] = draw.clip_skip;
        let cond = self.timeline(
            &draw.prompt,
            &Beside {
                skip: prompt_skip,
                time_ids: prompt_ids,
                guidance: &guidance,
                zeros: false,
            },
        )?;
        let uncond = match &draw.negative {
            None => None,
            Some(negative) => {
                let zeros = zeros_for_empty && negative.is_empty;
                let same =
                    *negative == draw.prompt && negative_ids == prompt_ids && negative_skip == prompt_skip;
                if same && !zeros {
                    Some(cond.clone())
                } else {
                    let beside = Beside {
                        skip: negative_skip,
                        time_ids: negative_ids,
                        guidance: &guidance,
                        zeros,
                    };
                    Some(self.timeline(negative, &beside)?)
                }
            }
        };
        Ok(Texts {
            cond,
            uncond,
            tokens: draw.prompt.windows() * self.info.window,
        })
    }

    fn timeline(&self, prompt: &Prompt, beside: &Beside<'_>) -> Result<Timeline, Error> {
        let mut stretches: Vec<(Option<u32>, Arc<Condition>)> = Vec::with_capacity(prompt.stretches.len());
        for (nth, stretch) in prompt.stretches.iter().enumerate() {
            // Alternating prompts come back to the same few texts at every step.
            let earlier = prompt.stretches[..nth].iter();
            let same = earlier
                .zip(&stretches)
                .find(|(earlier, _)| earlier.variants == stretch.variants)
                .map(|(_, (_, condition))| Arc::clone(condition));
            if let Some(condition) = same {
                stretches.push((stretch.until, condition));
                continue;
            }
            let (mut states, mut pooled) = self.states(&stretch.variants, &prompt.emphasis, beside.skip)?;
            if beside.zeros {
                states.fill(0.0);
                pooled.fill(0.0);
            }
            let condition = Condition {
                states: states.into(),
                pooled: pooled.into(),
                time_ids: Arc::clone(beside.time_ids),
                guidance: Arc::clone(beside.guidance),
            };
            stretches.push((stretch.until, Arc::new(condition)));
        }
        Ok(Timeline(stretches))
    }

    /// The states of a mixture of texts, and the pooled text of the first one's first window.
    fn states(
        &self,
        variants: &[Variant],
        emphasis: &Emphasis,
        skip: usize,
    ) -> Result<(Vec<f32>, Vec<f32>), Error> {
        let pooled = variants
            .first()
            .and_then(|variant| variant.windows.first())
            .map_or_else(Vec::new, |window| self.encoded(&window.ids, skip).pooled.clone());
        let mut each = Vec::with_capacity(variants.len());
        for variant in variants {
            let mut states = Vec::with_capacity(variant.windows.len() * self.info.states());
            for window in &variant.windows {
                states.extend(self.window(window, emphasis, skip)?);
            }
            each.push((variant.share, states));
        }
        if let [(_, only)] = &mut each[..] {
            return Ok((std::mem::take(only), pooled));
        }
        let each: Vec<_> = each.iter().map(|(share, states)| (*share, &states[..])).collect();
        Ok((emphasis::mix(&each)?, pooled))
    }

    /// One window's states with its weights.
    fn window(&self, window: &Window, emphasis: &Emphasis, skip: usize) -> Result<Vec<f32>, Error> {
        let mut states = self.encoded(&window.ids, skip).states.clone();
        let Some(weights) = &window.weights else {
            return Ok(states);
        };
        let widths: Vec<usize> = self.info.encoders.iter().map(|encoder| encoder.width).collect();
        match emphasis {
            Emphasis::None => {}
            Emphasis::Mean => emphasis::mean(&mut states, weights, &widths)?,
            Emphasis::Empty(ids) => {
                let empty = &self.encoded(ids, skip).states;
                let mut from = 0;
                for (width, weights) in widths.iter().zip(weights.chunks_exact(self.info.window)) {
                    let columns = from..from + width;
                    let mut part = self.columns(&states, columns.clone());
                    emphasis::away_from_empty(&mut part, &self.columns(empty, columns.clone()), weights)?;
                    for (token, part) in states
                        .chunks_exact_mut(self.info.width)
                        .zip(part.chunks_exact(*width))
                    {
                        token[columns.clone()].copy_from_slice(part);
                    }
                    from += width;
                }
            }
        }
        Ok(states)
    }

    /// One encoder's part of states.
    fn columns(&self, states: &[f32], columns: std::ops::Range<usize>) -> Vec<f32> {
        states
            .chunks_exact(self.info.width)
            .flat_map(|token| &token[columns.clone()])
            .copied()
            .collect()
    }

    fn encoded(&self, ids: &Arc<[u32]>, skip: usize) -> &Encoded {
        let known = self.found.get(&(Arc::clone(ids), skip));
        // Who asks for conditions misses no window.
        known.expect("every window of a request was found")
    }
}
