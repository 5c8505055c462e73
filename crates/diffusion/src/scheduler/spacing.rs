//! Timesteps: which training timesteps the steps of a schedule stand on, in numpy's arithmetic.
//!
//! One difference from diffusers: for some step counts (61 of 1000 is one) its "trailing" has, by rounding, one more timestep, -1,
//! on which it indexes its tables from the end; here there are always as many timesteps as steps.

use super::class::Spacing;

/// Timesteps as numpy's float64, falling, before any conversion.
pub(super) struct Grid {
    /// Training timesteps.
    pub(super) train: usize,
    pub(super) steps: usize,
    pub(super) offset: usize,
}

impl Grid {
    /// Spacing of PNDM, DDIM and the Euler family. `round` also rounds "linspace", which the Euler family does not.
    pub(super) fn falling(&self, spacing: Spacing, round: bool) -> Vec<f64> {
        let mut values = match spacing {
            Spacing::Linspace => {
                let mut values = linspace(0.0, (self.train - 1) as f64, self.steps);
                if round {
                    values.iter_mut().for_each(|t| *t = t.round_ties_even());
                }
                values
            }
            Spacing::Leading => self.leading(self.train / self.steps, self.steps),
            Spacing::Trailing => return self.trailing(self.train),
        };
        values.reverse();
        values
    }

    /// Spacing of DPM-Solver multistep: a grid of one more point whose lowest is dropped, below `last` training timesteps.
    pub(super) fn falling_above_lowest(&self, spacing: Spacing, last: usize) -> Vec<f64> {
        let mut values = match spacing {
            Spacing::Linspace => {
                let mut values = linspace(0.0, last as f64 - 1.0, self.steps + 1);
                values.iter_mut().for_each(|t| *t = t.round_ties_even());
                values
            }
            Spacing::Leading => self.leading(last / (self.steps + 1), self.steps + 1),
            Spacing::Trailing => return self.trailing(last),
        };
        values.reverse();
        values.pop();
        values
    }

    fn leading(&self, ratio: usize, n: usize) -> Vec<f64> {
        (0..n).map(|i| (i * ratio + self.offset) as f64).collect()
    }

    /// `np.arange(last, 0, -train / steps).round() - 1`.
    fn trailing(&self, last: usize) -> Vec<f64> {
        let ratio = self.train as f64 / self.steps as f64;
        let start = last as f64;
        // numpy's arange takes the difference of its first two values as the step.
        let step = (start - ratio) - start;
        (0..self.steps)
            .map(|i| (start + i as f64 * step).round_ties_even() - 1.0)
            .take_while(|t| *t >= 0.0)
            .collect()
    }
}

/// `np.linspace` in float64.
pub(super) fn linspace(start: f64, stop: f64, n: usize) -> Vec<f64> {
    if n == 1 {
        return vec![start];
    }
    let step = (stop - start) / (n - 1) as f64;
    let mut values: Vec<f64> = (0..n).map(|i| i as f64 * step + start).collect();
    values[n - 1] = stop;
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spacing_has_as_many_timesteps_as_steps_and_none_below_zero() {
        for steps in 1..=1000 {
            let grid = Grid {
                train: 1000,
                steps,
                offset: 0,
            };
            for spacing in [Spacing::Linspace, Spacing::Leading, Spacing::Trailing] {
                for values in [
                    grid.falling(spacing, true),
                    grid.falling_above_lowest(spacing, 1000),
                ] {
                    assert_eq!(values.len(), steps, "{spacing:?}");
                    assert!(
                        values.iter().all(|t| (0.0..1000.0).contains(t)),
                        "{spacing:?} {steps}"
                    );
                }
            }
        }
    }
}
