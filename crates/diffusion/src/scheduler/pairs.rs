//! What the classes with two model calls a step share: Heun, KDPM2 with its ancestral form, and DPM-Solver SDE.
//!
//! Of `n` steps all but the last have a second call, so there are `2n - 1` calls: step `k` begins at call `2k`.

/// The values of the first calls, with those of the second calls between them.
pub(super) fn interleave<T: Copy>(first: &[T], second: &[T]) -> Vec<T> {
    let calls = (2 * first.len()).saturating_sub(1);
    (0..calls)
        .map(|call| {
            if call % 2 == 0 {
                first[call / 2]
            } else {
                second[call / 2]
            }
        })
        .collect()
}

/// The noise level that diffusers has at each call, and the one after the last: `levels` are those of the steps, the last included.
pub(super) fn levels_of_calls(levels: &[f32]) -> Vec<f32> {
    let calls = (2 * levels.len()).saturating_sub(3);
    (0..=calls).map(|call| levels[call.div_ceil(2)]).collect()
}

/// Whether a call is the first of its step, and the number of the step.
pub(super) fn place(call: usize) -> (bool, usize) {
    (call.is_multiple_of(2), call / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_two_calls_and_the_last_one() {
        assert_eq!(interleave(&[5, 3, 1], &[4, 2, 0]), [5, 4, 3, 2, 1]);
        assert_eq!(
            levels_of_calls(&[5.0, 3.0, 1.0, 0.0]),
            [5.0, 3.0, 3.0, 1.0, 1.0, 0.0]
        );
        assert_eq!(levels_of_calls(&[5.0, 0.0]), [5.0, 0.0]);
        assert_eq!(place(3), (false, 1));
    }
}
