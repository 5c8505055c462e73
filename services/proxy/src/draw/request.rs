//! What a replica is asked for.

use bytes::Bytes;
use mobula_proto::{
    common::v1::{Prompt, PromptSpan},
    image::v1::PromptSyntax,
    inference::v1 as inference,
};

use super::{Draw, Half, whole};
use crate::{infotext, validate::Plan};

/// Guidance that is none.
const UNGUIDED: f32 = 1.0;

impl Draw<'_> {
    /// The request to a replica that draws: what this half has not brought yet.
    pub(super) fn request(&self, replica: &str) -> inference::GenerateRequest {
        let (tokens, behind) = (&self.drawer().tokens, self.steps_behind());
        let prompt = |prompt: &Option<Prompt>| prompt.as_ref().map(|prompt| rest(prompt, behind));
        inference::GenerateRequest {
            prompt: prompt(&tokens.prompt.prompt),
            negative_prompt: prompt(&tokens.negative.prompt),
            ..self.promptless(replica)
        }
    }

    /// The same request, with its prompts as they were written before where they are the whole ones.
    pub(super) fn asked(&self, replica: &str) -> whole::Asked {
        if self.steps_behind() > 0 {
            return whole::Asked {
                request: Box::new(self.request(replica)),
                prompts: Bytes::new(),
            };
        }
        whole::Asked {
            request: Box::new(self.promptless(replica)),
            prompts: self.drawer().tokens.written(),
        }
    }

    /// The request without its prompts.
    fn promptless(&self, replica: &str) -> inference::GenerateRequest {
        let plan = self.plan;
        let drawer = self.drawer();
        let (from, to) = match &self.half {
            Half::Whole => (0.0, 1.0),
            Half::First(until, _) => (0.0, *until),
            Half::Last(from, _) => (*from, 1.0),
        };
        let interval = plan.interval(from, to);
        let mut request = inference::GenerateRequest {
            replica_id: replica.to_owned(),
            request_id: self.job.id.as_ref().to_owned(),
            model_id: drawer.served.id().to_owned(),
            guidance_scale: match interval {
                Some(_) => plan.guidance_scale,
                None => UNGUIDED.min(plan.guidance_scale),
            },
            guidance_interval: interval.flatten(),
            text_chunks: self.chunks(),
            skip_images: (0u32..)
                .zip(self.has())
                .filter_map(|(i, has)| has.then_some(i))
                .collect(),
            ..common(plan)
        };
        if let Half::First(until, _) = &self.half {
            request.denoising_end = Some(*until);
        }
        if let Half::Last(from, latents) = &self.half {
            request.denoising_start = Some(*from);
            request.init_latents.clone_from(latents);
        } else if let Some(source) = &plan.source {
            request.init_image.clone_from(&self.ready.inputs.image);
            request.mask_image.clone_from(&self.ready.inputs.mask);
            request.strength = source.strength;
        }
        request
    }

    /// Steps of the whole that are behind this half: replicas count the steps of a half from its begin.
    fn steps_behind(&self) -> u32 {
        match (&self.half, &self.plan.refine) {
            // As the first half's replica counted them, which knows the noise levels. A scheduler that calls twice in a step
            // is stopped after the first call of its last one (Heun always, the others by half), with which the refiner
            // begins again.
            (Half::Last(..), _) if self.steps_before > 0 => {
                self.steps_before - u32::from(self.plan.chosen.calls.each > 1)
            }
            (Half::Last(..), Some(refine)) => refine.before,
            (Half::Whole | Half::First(..) | Half::Last(..), _) => 0,
        }
    }

    pub(super) fn chunks(&self) -> Vec<inference::TextChunk> {
        let first = &self.ready.first;
        let model = infotext::Model {
            name: first.served.name(),
            digest: &first.model.digest,
        };
        let refiner = self.ready.refiner.as_ref().map(|refiner| infotext::Model {
            name: refiner.served.name(),
            digest: &refiner.model.digest,
        });
        infotext::chunks(self.plan, model, refiner)
    }
}

/// What holds of a prompt when `behind` of its steps are taken, counted from there. Its last span never ends before the
/// steps do.
fn rest(prompt: &Prompt, behind: u32) -> Prompt {
    if behind == 0 {
        return prompt.clone();
    }
    let last = prompt.spans.len().saturating_sub(1);
    let spans = prompt.spans.iter().enumerate();
    let spans = spans
        .filter(|(at, span)| span.until_step == 0 || span.until_step > behind || *at == last)
        .map(|(_, span)| PromptSpan {
            // What is over already, as only the last one can be here, becomes 0: to the end.
            until_step: span.until_step.saturating_sub(behind),
            variants: span.variants.clone(),
        });
    Prompt {
        spans: spans.collect(),
        emphasis: prompt.emphasis,
        empty: prompt.empty.clone(),
        is_empty: prompt.is_empty,
    }
}

/// What is asked of every model alike.
pub(crate) fn common(plan: &Plan) -> inference::GenerateRequest {
    inference::GenerateRequest {
        width: plan.width,
        height: plan.height,
        steps: plan.steps,
        scheduler: plan.chosen.asked.clone(),
        sigma_schedule: plan.chosen.schedule.clone(),
        sampler_options: plan.options,
        clip_skip: plan.clip_skip,
        // diffusers leaves layers out for the prompt alone, AUTOMATIC1111 for both.
        negative_clip_skip: if plan.syntax == PromptSyntax::A1111 {
            plan.clip_skip
        } else {
            0
        },
        guidance_rescale: plan.guidance_rescale,
        seeds: plan.seeds.clone(),
        preview_interval: plan.preview_interval,
        random_source: plan.random.into(),
        priority: plan.priority.into(),
        determinism: plan.determinism.into(),
        format: plan.output.format.into(),
        quality: plan.output.quality,
        size_conditions: plan.conditions,
        negative_size_conditions: plan.negative_conditions,
        ..inference::GenerateRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use mobula_proto::common::v1::PromptVariant;
    use proptest::prelude::*;

    use super::*;

    /// A prompt of spans until these steps, each with its own text.
    fn prompt(until: &[u32]) -> Prompt {
        let span = |(text, until_step): (usize, &u32)| PromptSpan {
            until_step: *until_step,
            variants: vec![PromptVariant {
                weight: text as f32 + 1.0,
                windows: Vec::new(),
            }],
        };
        Prompt {
            spans: until.iter().enumerate().map(span).collect(),
            is_empty: true,
            ..Prompt::default()
        }
    }

    /// Which text a step, counted from 1, sees: the first span that holds, or the last one.
    fn seen(prompt: &Prompt, step: u32) -> f32 {
        let spans = &prompt.spans;
        let held = spans
            .iter()
            .find(|span| span.until_step == 0 || step <= span.until_step);
        held.or_else(|| spans.last()).unwrap().variants[0].weight
    }

    #[test]
    fn spans_go_on_where_the_first_half_left_them() {
        let ends = |until: &[u32], behind| -> Vec<(u32, f32)> {
            let rest = rest(&prompt(until), behind);
            let spans = rest.spans.iter();
            spans
                .map(|span| (span.until_step, span.variants[0].weight))
                .collect()
        };
        assert_eq!(ends(&[5, 18, 20], 15), [(3, 2.0), (5, 3.0)]);
        assert_eq!(ends(&[5, 15, 0], 15), [(0, 3.0)]);
        assert_eq!(ends(&[5, 16], 15), [(1, 2.0)]);
        assert_eq!(ends(&[5, 10], 15), [(0, 2.0)], "the last one is kept");
        assert_eq!(ends(&[0], 15), [(0, 1.0)]);
        assert_eq!(ends(&[], 15), []);
        assert_eq!(rest(&prompt(&[5, 20]), 0), prompt(&[5, 20]));
        assert!(rest(&prompt(&[5]), 3).is_empty);
    }

    proptest! {
        #[test]
        fn every_step_of_the_last_half_sees_what_it_sees_of_the_whole(
            until in prop::collection::btree_set(1u32..40, 1..8), open: bool, behind in 0u32..45,
        ) {
            let mut until: Vec<_> = until.into_iter().collect();
            if open {
                until.push(0);
            }
            let whole = prompt(&until);
            let last = rest(&whole, behind);
            prop_assert!(!last.spans.is_empty());
            for step in 1..=50 {
                prop_assert_eq!(seen(&last, step), seen(&whole, behind + step));
            }
        }
    }
}
