//! What a replica is asked for.

use mobula_proto::{image::v1::PromptSyntax, inference::v1 as inference};

use super::{Draw, Half};
use crate::{infotext, permit::Permit, validate::Plan};

/// Guidance that is none.
const UNGUIDED: f32 = 1.0;

impl Draw<'_> {
    /// The request to the replica that a permit is for: what this half has not brought yet.
    pub(super) fn request(&self, permit: &Permit) -> inference::GenerateRequest {
        let plan = self.plan;
        let drawer = self.drawer();
        let (from, to) = match &self.half {
            Half::Whole => (0.0, 1.0),
            Half::First(until) => (0.0, *until),
            Half::Last(from, _) => (*from, 1.0),
        };
        let interval = plan.interval(from, to);
        let mut request = inference::GenerateRequest {
            replica_id: permit.replica().id.clone(),
            request_id: self.job.id.as_ref().to_owned(),
            prompt: drawer.tokens.prompt.prompt.clone(),
            negative_prompt: drawer.tokens.negative.prompt.clone(),
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
        if let Half::First(until) = &self.half {
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

    fn chunks(&self) -> Vec<inference::TextChunk> {
        let first = &self.ready.first;
        let model = infotext::Model {
            name: &first.served.application.name,
            digest: &first.model.digest,
        };
        let refiner = self.ready.refiner.as_ref().map(|refiner| infotext::Model {
            name: &refiner.served.application.name,
            digest: &refiner.model.digest,
        });
        infotext::chunks(self.plan, model, refiner)
    }
}

/// What is asked of every model alike.
fn common(plan: &Plan) -> inference::GenerateRequest {
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
        size_conditions: plan.conditions,
        negative_size_conditions: plan.negative_conditions,
        ..inference::GenerateRequest::default()
    }
}
