//! The predictor and the corrector of UniPC as one formula: `x' = x * latents + m0 * newest + residual * (sum of rho * D)`, where each
//! D is the difference of an older output and the newest, by their distance in log-SNR.
//!
//! Coefficients are computed in f32 as torch does, the small linear systems included.

use crate::scheduler::solver::Mix;
use crate::scheduler::stairs::lambda;

/// Most outputs that a step uses.
const MAX_ORDER: usize = 3;

/// Which of the four forms of the update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// Over the predicted picture, and not over the predicted noise.
    pub(super) picture: bool,
    /// B(h) is `e^h - 1` (bh2), and not h (bh1).
    pub(super) exponential: bool,
}

/// One update's coefficients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Update {
    latents: f32,
    newest: f32,
    residual: f32,
    /// Weights of the differences to older outputs, newest first; as many as the order, less one.
    rhos: [f32; MAX_ORDER - 1],
    /// What these differences are divided by.
    distances: [f32; MAX_ORDER - 1],
    /// Weight of the difference to the output at the end (corrector).
    end: f32,
    order: usize,
}

impl Update {
    /// The prediction of the last of `points` from the one before.
    pub(super) fn predictor(form: Form, points: &[Mix], order: usize) -> Self {
        let mut parts = Parts::new(form, points, order);
        match order {
            1 => {}
            // For two outputs diffusers takes this weight for all forms.
            2 => parts.update.rhos[0] = 0.5,
            _ => {
                let [a, b] = solve(
                    [[1.0, 1.0], [parts.distances[0], parts.distances[1]]],
                    [parts.b[0], parts.b[1]],
                );
                parts.update.rhos = [a, b];
            }
        }
        parts.update
    }

    /// The correction of the last of `points`, which was predicted from the one before with `order` outputs.
    pub(super) fn corrector(form: Form, points: &[Mix], order: usize) -> Self {
        let mut parts = Parts::new(form, points, order);
        let [r0, r1, _] = parts.distances;
        let [b0, b1, b2] = parts.b;
        match order {
            // For one output diffusers takes this weight for all forms.
            1 => parts.update.end = 0.5,
            2 => {
                let [rho, end] = solve([[1.0, 1.0], [r0, 1.0]], [b0, b1]);
                parts.update.rhos[0] = rho;
                parts.update.end = end;
            }
            _ => {
                let rows = [[1.0; 3], [r0, r1, 1.0], [r0 * r0, r1 * r1, 1.0]];
                let [first, second, end] = solve(rows, [b0, b1, b2]);
                parts.update.rhos = [first, second];
                parts.update.end = end;
            }
        }
        parts.update
    }

    pub(super) fn is_finite(&self) -> bool {
        let used = self.order - 1;
        let sum: f32 = self.rhos[..used].iter().sum();
        // An infinite distance leaves a difference out; no distance is a division by zero.
        let apart = self.distances[..used].iter().all(|r| !r.is_nan() && *r != 0.0);
        apart && (self.latents + self.newest + self.residual + self.end + sum).is_finite()
    }

    /// Updates the latents; `outputs` are the converted outputs, newest first, and `end` the one at the end (corrector).
    pub(super) fn apply(&self, latents: &mut [f32], outputs: &[Vec<f32>], end: Option<&[f32]>) {
        let used = self.order - 1;
        for (i, x) in latents.iter_mut().enumerate() {
            let newest = outputs[0][i];
            let older = self.rhos[..used].iter().zip(&self.distances).zip(&outputs[1..]);
            let mut sum: f32 = older
                .map(|((rho, distance), output)| rho * ((output[i] - newest) / distance))
                .sum();
            if let Some(end) = end {
                sum += self.end * (end[i] - newest);
            }
            *x = self.latents * *x + self.newest * newest + self.residual * sum;
        }
    }
}

/// What predictor and corrector share.
struct Parts {
    update: Update,
    distances: [f32; MAX_ORDER],
    /// The right side of the linear system.
    b: [f32; MAX_ORDER],
}

impl Parts {
    fn new(form: Form, points: &[Mix], order: usize) -> Self {
        let back = |n: usize| points[points.len() - 1 - n];
        let (to, from) = (back(0), back(1));
        let h = lambda(to) - lambda(from);
        let mut distances = [1.0; MAX_ORDER];
        for (i, distance) in distances.iter_mut().take(order - 1).enumerate() {
            *distance = (lambda(back(2 + i)) - lambda(from)) / h;
        }
        let hh = if form.picture { -h } else { h };
        let phi = hh.exp_m1();
        let bh = if form.exponential { phi } else { hh };
        let mut b = [0.0; MAX_ORDER];
        let (mut phi_k, mut factorial) = (phi / hh - 1.0, 1.0_f32);
        for (i, b) in b.iter_mut().take(order).enumerate() {
            *b = phi_k * factorial / bh;
            factorial *= (i + 2) as f32;
            phi_k = phi_k / hh - 1.0 / factorial;
        }
        let (latents, scale) = if form.picture {
            (to.noise / from.noise, to.signal)
        } else {
            (to.signal / from.signal, to.noise)
        };
        Self {
            update: Update {
                latents,
                newest: -(scale * phi),
                residual: -(scale * bh),
                rhos: [0.0; MAX_ORDER - 1],
                distances: [distances[0], distances[1]],
                end: 0.0,
                order,
            },
            distances,
            b,
        }
    }
}

/// Solves a small linear system by elimination with row pivots, as LAPACK's `sgesv` does; a singular one gives no finite values.
fn solve<const N: usize>(mut rows: [[f32; N]; N], mut b: [f32; N]) -> [f32; N] {
    for column in 0..N {
        let pivot = (column..N)
            .max_by(|i, j| rows[*i][column].abs().total_cmp(&rows[*j][column].abs()))
            .unwrap_or(column);
        rows.swap(column, pivot);
        b.swap(column, pivot);
        let (above, b_above) = (rows[column], b[column]);
        for (row, b) in rows.iter_mut().zip(&mut b).skip(column + 1) {
            let factor = row[column] / above[column];
            for (x, above) in row.iter_mut().zip(above).skip(column) {
                *x -= factor * above;
            }
            *b -= factor * b_above;
        }
    }
    for row in (0..N).rev() {
        for k in row + 1..N {
            b[row] -= rows[row][k] * b[k];
        }
        b[row] /= rows[row][row];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_system_is_solved_also_where_the_first_pivot_is_zero() {
        let [x, y, z] = solve(
            [[0.0, 2.0, 1.0], [1.0, 1.0, 1.0], [4.0, -2.0, 3.0]],
            [7.0, 6.0, 9.0],
        );
        assert!(
            (x - 1.0).abs() + (y - 2.0).abs() + (z - 3.0).abs() < 1e-5,
            "{x} {y} {z}"
        );
    }

    #[test]
    fn a_singular_system_gives_nothing_finite() {
        assert!(!solve([[1.0, 1.0], [1.0, 1.0]], [1.0, 2.0])[1].is_finite());
    }
}
