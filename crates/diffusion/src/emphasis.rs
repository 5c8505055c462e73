//! Weights on the words of a prompt, put on the text encoder's states; and prompts mixed from several.
//!
//! Two ways to weight: [`mean`] keeps the mean of the states, as AUTOMATIC1111's web UI does, and [`away_from_empty`] moves states
//! away from those of an empty prompt, as compel does. [`mix`] is compel's blend, which its weights below 1 use too. States lie
//! token after token, `[tokens, width]`; who parsed the prompt and who encoded it is not known here.
//!
//! Invariant: weights of 1 change nothing, and a refusal leaves the states as they were.

use crate::Error;

/// Smallest absolute mean that is still divided by, as part of the mean absolute state; below it the mean is rounding noise.
const SMALLEST_MEAN: f64 = 1e-6;

/// Multiplies the states of each token by its weight, then all of them by one number so that their mean is what it was.
///
/// This is `EmphasisOriginal` of AUTOMATIC1111's web UI (modules/sd_emphasis.py). `widths` are the widths of the text encoders
/// whose states lie side by side in a token (one for most models, two for SDXL); each has a mean of its own. `weights` are one per
/// token for the first encoder, then one per token for the next. The web UI takes the mean over one window of 77 tokens, so the
/// states of a longer prompt are given window by window.
///
/// The web UI divides by whatever mean there is. Here states whose weighted mean is zero (next to their size) or of the other sign
/// than before keep the multiplied values: the quotient would blow them up or turn them round.
///
/// # Errors
/// [`Error::Length`] when the slices do not fit together, [`Error::Field`] naming `prompt` when a weight is not finite.
pub fn mean(states: &mut [f32], weights: &[f32], widths: &[usize]) -> Result<(), Error> {
    let width = widths
        .iter()
        .try_fold(0_usize, |sum, width| sum.checked_add(*width))
        .unwrap_or(usize::MAX);
    let tokens = tokens_of(states, width)?;
    expect(
        "prompt weights",
        weights.len(),
        tokens.saturating_mul(widths.len()),
    )?;
    finite(weights)?;
    let mut start = 0;
    for (index, part) in widths.iter().enumerate() {
        let weights = &weights[index * tokens..(index + 1) * tokens];
        if weights.iter().any(|weight| *weight != 1.0) {
            weigh(states, weights, width, start..start + part);
        }
        start += part;
    }
    Ok(())
}

/// Weighs one encoder's part of every token and brings its mean back.
fn weigh(states: &mut [f32], weights: &[f32], width: usize, part: std::ops::Range<usize>) {
    let (mut before, mut after, mut size) = (0.0_f64, 0.0_f64, 0.0_f64);
    for (state, weight) in states.chunks_exact_mut(width).zip(weights) {
        for value in &mut state[part.clone()] {
            before += f64::from(*value);
            *value *= weight;
            after += f64::from(*value);
            size += f64::from(value.abs());
        }
    }
    let ratio = before / after;
    if ratio.is_finite() && ratio > 0.0 && after.abs() > SMALLEST_MEAN * size {
        for state in states.chunks_exact_mut(width) {
            state[part.clone()]
                .iter_mut()
                .for_each(|value| *value *= ratio as f32);
        }
    }
}

/// Moves the states of each token away from those of the empty prompt: `empty + (state - empty) * weight`.
///
/// This is compel's `EmbeddingsProvider.build_weighted_embedding_tensor`; a token of weight 1 keeps its states bit for bit. For
/// each fragment whose weight is below 1 compel besides mixes in ([`mix`]; the prompt itself counts 1) the prompt without it, which
/// counts `tan((1 - weight) * pi / 2)`.
///
/// # Errors
/// [`Error::Length`] when the slices do not fit together, [`Error::Field`] naming `prompt` when a weight is not finite.
pub fn away_from_empty(states: &mut [f32], empty: &[f32], weights: &[f32]) -> Result<(), Error> {
    expect("states of the empty prompt", empty.len(), states.len())?;
    if weights.is_empty() || !states.len().is_multiple_of(weights.len()) {
        return Err(Error::Length {
            what: "prompt states",
            got: states.len(),
            expected: weights.len(),
        });
    }
    finite(weights)?;
    let width = states.len() / weights.len();
    for (token, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 1.0) {
        let part = token * width..(token + 1) * width;
        for (value, empty) in states[part.clone()].iter_mut().zip(&empty[part]) {
            *value = empty + (*value - empty) * weight;
        }
    }
    Ok(())
}

/// The weighted mean of several prompts' states: the weights divided by their sum, times the states, added up.
///
/// This is compel's `apply_embedding_weights` with `normalize=True`, which its `.blend()` and its weights below 1 come to.
///
/// # Errors
/// [`Error::Field`] naming `prompt` when there is no variant, a weight is not finite or the sum of the weights is zero;
/// [`Error::Length`] when the variants differ in length.
pub fn mix(variants: &[(f32, &[f32])]) -> Result<Vec<f32>, Error> {
    let Some((_, first)) = variants.first() else {
        return Err(bad_weights("no variant", "at least one"));
    };
    let sum: f32 = variants.iter().map(|(weight, _)| weight).sum();
    if !sum.is_finite() || sum == 0.0 {
        return Err(bad_weights(sum, "weights with a finite sum other than 0"));
    }
    let mut states = vec![0.0; first.len()];
    for (weight, variant) in variants {
        expect("states of a prompt variant", variant.len(), states.len())?;
        let part = weight / sum;
        for (value, other) in states.iter_mut().zip(*variant) {
            *value += other * part;
        }
    }
    Ok(states)
}

fn tokens_of(states: &[f32], width: usize) -> Result<usize, Error> {
    if width == 0 || !states.len().is_multiple_of(width) {
        return Err(Error::Length {
            what: "prompt states",
            got: states.len(),
            expected: width,
        });
    }
    Ok(states.len() / width)
}

fn expect(what: &'static str, got: usize, expected: usize) -> Result<(), Error> {
    if got == expected {
        Ok(())
    } else {
        Err(Error::Length { what, got, expected })
    }
}

fn finite(weights: &[f32]) -> Result<(), Error> {
    match weights.iter().find(|weight| !weight.is_finite()) {
        None => Ok(()),
        Some(weight) => Err(bad_weights(weight, "finite weights")),
    }
}

fn bad_weights(value: impl ToString, accepted: &'static str) -> Error {
    Error::Field {
        field: "prompt",
        value: value.to_string(),
        accepted,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weights_of_one_change_nothing() {
        let states = [0.1, -0.7, 3.0, 0.2, 0.4, 0.6];
        let mut kept = states;
        mean(&mut kept, &[1.0; 4], &[1, 2]).unwrap();
        away_from_empty(&mut kept, &[9.0; 6], &[1.0; 3]).unwrap();
        assert_eq!(kept, states);
        assert_eq!(mix(&[(0.3, &states)]).unwrap(), states);
    }

    #[test]
    fn each_encoder_has_a_mean_of_its_own() {
        // Two tokens of one value from the first encoder and one from the second, whose weights are all 1.
        let mut states = [1.0, 10.0, 3.0, 30.0];
        mean(&mut states, &[2.0, 1.0, 1.0, 1.0], &[1, 1]).unwrap();
        // 2 and 3 have a mean of 2.5, it was 2.
        assert_eq!(states, [1.6, 10.0, 2.4, 30.0]);
    }

    #[test]
    fn a_mean_of_zero_or_of_another_sign_leaves_the_multiplied_states() {
        let mut states = [1.0, -1.0];
        mean(&mut states, &[1.0, 2.0], &[1]).unwrap();
        assert_eq!(states, [1.0, -2.0]);
        let mut states = [3.0, -1.0];
        mean(&mut states, &[1.0, 3.0], &[1]).unwrap();
        assert_eq!(states, [3.0, -3.0]);
        let mut states = [3.0, -1.0];
        mean(&mut states, &[1.0, 5.0], &[1]).unwrap();
        assert_eq!(states, [3.0, -5.0]);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let mut states = [1.0; 6];
        assert!(mean(&mut states, &[1.0; 3], &[]).is_err());
        assert!(mean(&mut states, &[1.0; 3], &[4]).is_err());
        assert!(mean(&mut states, &[1.0; 3], &[1, 1]).is_err());
        assert!(mean(&mut states, &[1.0; 3], &[usize::MAX, 3]).is_err());
        assert!(away_from_empty(&mut states, &[1.0; 5], &[1.0; 3]).is_err());
        assert!(away_from_empty(&mut states, &[1.0; 6], &[1.0; 4]).is_err());
        assert!(away_from_empty(&mut states, &[1.0; 6], &[]).is_err());
        assert!(mix(&[(1.0, &states), (1.0, &states[1..])]).is_err());
        for error in [
            mean(&mut states, &[f32::NAN; 3], &[2]).unwrap_err(),
            away_from_empty(&mut states, &[1.0; 6], &[f32::INFINITY; 3]).unwrap_err(),
            mix(&[]).unwrap_err(),
            mix(&[(1.0, &[1.0]), (-1.0, &[1.0])]).unwrap_err(),
            mix(&[(f32::NAN, &[1.0])]).unwrap_err(),
        ] {
            assert_eq!(error.field(), "prompt");
        }
        assert_eq!(states, [1.0; 6]);
    }

    proptest! {
        #[test]
        fn the_mean_stays_and_weights_all_alike_change_nothing(
            states in proptest::collection::vec(0.1_f32..2.0, 12),
            weights in proptest::collection::vec(0.1_f32..3.0, 4),
            alike in 0.1_f32..3.0,
        ) {
            let average = |states: &[f32]| states.iter().sum::<f32>() / 12.0;
            let mut weighted = states.clone();
            mean(&mut weighted, &weights, &[3]).unwrap();
            prop_assert!((average(&weighted) - average(&states)).abs() < 1e-5);
            let mut same = states.clone();
            mean(&mut same, &[alike; 4], &[3]).unwrap();
            prop_assert!(same.iter().zip(&states).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}
