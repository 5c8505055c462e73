//! The timesteps of latent consistency models and trajectory consistency models: some of the few that the model was distilled for.
//!
//! Shared by [`lcm`](super::lcm) and [`tcd`](super::tcd); neither knows a spacing.

use super::keys::Keys;
use super::sampler::Plan;
use super::span::decimal;
use crate::Error;

/// Reads `original_inference_steps`.
pub(super) fn read_original_steps(keys: &mut Keys<'_>) -> Result<usize, Error> {
    keys.whole("original_inference_steps", 50, (1, 100_000))
}

/// Falling timesteps, evenly taken from the first `strength` of the `original` ones.
pub(super) fn timesteps(plan: &Plan<'_>, original: usize, strength: f32) -> Result<Vec<usize>, Error> {
    if original > plan.train {
        return Err(Error::Value {
            key: "original_inference_steps",
            value: original.to_string(),
            expected: format!("at most num_train_timesteps, {}", plan.train),
        });
    }
    let known = (original as f64 * decimal(strength)) as usize;
    if known < plan.steps {
        return Err(plan.bad_steps("they are more than original_inference_steps times the strength"));
    }
    let ratio = plan.train / original;
    // np.linspace(0, known, steps, endpoint=False), floored.
    let stride = known as f64 / plan.steps as f64;
    let at = |i: usize| (known - (i as f64 * stride) as usize) * ratio - 1;
    Ok((0..plan.steps).map(at).collect())
}
