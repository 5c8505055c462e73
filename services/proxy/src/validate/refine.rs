//! The second model, for the last steps.

use mobula_proto::{
    control::v1::ModelInfo,
    image::v1::{self as image, Task},
};
use mobula_serving::route::Cost;

use super::{
    Models,
    picture::can,
    problems::Problems,
    sampling::{self, Chosen},
    work::{self, Calls, Share},
};
use crate::problem::Rule;

/// Bytes of latents that may go to a refiner in one message: half of a message, so that its prompts have room whatever
/// they are.
const LATENT_BYTES_MAX: u64 = mobula_kit::grpc::MAX_MESSAGE_BYTES as u64 / 2;
/// Pixels per byte of latents: four channels of float32 for 8 x 8 pixels.
pub(super) const PIXELS_PER_LATENT_BYTE: u64 = 4;

/// What the second model does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refine {
    /// Name by which it was asked for: the application's, or the model's where there are several.
    pub(crate) model: String,
    /// The part of the steps that the first model takes.
    pub(crate) switch_at: f32,
    /// Steps of the first model, as far as they can be told without its noise levels.
    pub(crate) before: u32,
    /// True when guidance makes two rows of every picture.
    pub(crate) is_guided: bool,
    /// What it costs a replica.
    pub(crate) cost: Cost,
}

/// A request's pictures, as the first model was checked to draw them.
#[derive(Debug, Clone, Copy)]
pub(super) struct First<'a> {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) images: u32,
    pub(super) steps: u32,
    /// It starts from a picture.
    pub(super) has_source: bool,
    pub(super) chosen: &'a Chosen,
}

/// Checks what is asked of the second model; `model` is absent when there is none of its name, which was said already.
pub(super) fn refiner(
    problems: &mut Problems,
    request: &image::GenerateRequest,
    model: Option<&ModelInfo>,
    first: First<'_>,
) {
    let Some(asked) = &request.refiner else { return };
    if asked.model.is_empty() {
        problems.add("refiner.model", Rule::TooShort { min: 1 });
    }
    let part = asked.switch_at;
    if !part.is_finite() {
        problems.add("refiner.switch_at", Rule::NotFinite);
    } else if part <= 0.0 || part >= 1.0 {
        problems.wrong(
            "refiner.switch_at",
            format!("is {part} and must be above 0 and below 1"),
        );
    }
    if first.has_source {
        problems.wrong(
            "refiner",
            "goes with pictures from prompts only, not with init_image",
        );
    }
    if first.steps == 1 {
        problems.wrong("refiner", "needs 2 steps at least, one for each model");
    }
    let pixels = u64::from(first.width) * u64::from(first.height);
    let pixels = pixels.saturating_mul(first.images.into());
    if pixels / PIXELS_PER_LATENT_BYTE > LATENT_BYTES_MAX {
        let most = LATENT_BYTES_MAX * PIXELS_PER_LATENT_BYTE;
        problems.wrong(
            "refiner",
            format!(
                "has {pixels} pixels in all pictures together and takes {most} at most; ask for fewer at a time"
            ),
        );
    }
    let Some(model) = model else { return };
    if !can(model, Task::Refine) {
        problems.wrong("refiner.model", format!("{:?} cannot refine", asked.model));
        return;
    }
    let largest = first.width.max(first.height);
    if model.max_size > 0 && largest > model.max_size {
        let why = format!(
            "draws sides of {} pixels at most, not of {largest}",
            model.max_size
        );
        problems.wrong("refiner.model", why);
    }
    if model.max_steps > 0 && first.steps > model.max_steps {
        problems.wrong(
            "refiner.model",
            format!("takes {} steps at most, not {}", model.max_steps, first.steps),
        );
    }
    if request.clip_skip > model.max_clip_skip {
        let why = format!(
            "has clip_skip {} at most, not {}",
            model.max_clip_skip, request.clip_skip
        );
        problems.wrong("refiner.model", why);
    }
    // A scheduler that is asked for is for both; without one each model has its own.
    let mut found = Problems::default();
    let chosen = sampling::scheduler(&mut found, request, model);
    if !found.0.is_empty() && !first.chosen.asked.is_empty() {
        let there = model.schedulers.join(", ");
        problems.wrong(
            "refiner.model",
            format!("does not have scheduler {}; it has {there}", chosen.scheduler),
        );
    }
}

/// What is drawn, as far as it costs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn {
    pub(super) images: u32,
    pub(super) pixels: u64,
    /// Steps that are taken.
    pub(super) steps: u32,
    /// Calls of the model.
    pub(super) calls: Calls,
    pub(super) guidance_scale: f32,
}

impl Drawn {
    /// True when guidance makes two rows of every picture.
    pub(super) fn is_guided(&self, model: &ModelInfo) -> bool {
        self.guidance_scale > 1.0 && !model.guidance_embedded
    }
}

/// Divides the steps among the models: what the first one costs, and what the second one does.
pub(super) fn divide(
    request: &image::GenerateRequest,
    models: Models<'_>,
    drawn: Drawn,
) -> (Cost, Option<Refine>) {
    let cost = |steps, (from, to): (f32, f32), model: &ModelInfo| {
        let interval = request.guidance_interval;
        let within = interval.and_then(|interval| work::within(interval, from, to));
        let share = Share {
            steps,
            calls: if from > 0.0 {
                drawn.calls.without_first()
            } else {
                drawn.calls
            },
            guided: drawn.is_guided(model) && (interval.is_none() || within.is_some()),
            interval: within,
        };
        work::cost(share, drawn.images, drawn.pixels, model)
    };
    let Some((asked, refiner)) = request.refiner.as_ref().zip(models.refiner) else {
        return (cost(drawn.steps, (0.0, 1.0), models.first), None);
    };
    let at = asked.switch_at;
    let before = work::switch(drawn.steps, at);
    let refine = Refine {
        model: match asked.model_id.as_str() {
            "" => asked.model.clone(),
            model_id => model_id.to_owned(),
        },
        switch_at: at,
        before,
        is_guided: drawn.is_guided(refiner),
        cost: cost(drawn.steps - before, (at, 1.0), refiner),
    };
    (cost(before, (0.0, at), models.first), Some(refine))
}
