//! The update formulas of DPM-Solver singlestep, reduced to one line of coefficients per call.
//!
//! Every formula of diffusers has the form `x' = x * start + d0 * D0 + d1 * D1 + d2 * D2 + noise * z`, where `start` are the latents the
//! group started from, D0 is the group's first output and D1, D2 are divided differences. Coefficients are in f32, as in torch.

use crate::scheduler::solver::Mix;
use crate::scheduler::stairs::lambda;

/// Which integral is solved, and whether noise is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// DPM-Solver++: over the predicted picture.
    Plus,
    /// The same, with noise.
    PlusSde,
    /// DPM-Solver: over the predicted noise.
    Noise,
}

/// Which of the formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) algorithm: Algorithm,
    /// Heun's correction in place of the midpoint's.
    pub(super) heun: bool,
}

/// Divided differences.
#[derive(Debug, Clone, Copy)]
enum Differences {
    None,
    First { inverse_r0: f32 },
    Second { r0: f32, r1: f32, heun: bool },
}

/// One call's coefficients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Update {
    start: f32,
    d0: f32,
    d1: f32,
    d2: f32,
    noise: f32,
    differences: Differences,
}

impl Update {
    /// To the last of `points`, as call number `order` of its group.
    pub(super) fn new(form: Form, order: usize, points: &[Mix]) -> Self {
        let back = |n: usize| points[points.len() - 1 - n];
        let (to, from) = (back(0), back(order));
        let h = lambda(to) - lambda(from);
        let part = |n: usize| (lambda(back(n)) - lambda(from)) / h;
        let differences = match order {
            1 => Differences::None,
            2 => Differences::First {
                inverse_r0: 1.0 / part(1),
            },
            _ => Differences::Second {
                r0: part(1),
                r1: part(2),
                heun: form.heun,
            },
        };
        // At third order also the midpoint's form has the correction that Heun's has at second.
        let mut update = Self::of(form.algorithm, to, from, h, form.heun || order == 3);
        update.differences = differences;
        // What an order leaves out may be infinite at the last call.
        if order == 1 {
            update.d1 = 0.0;
        }
        if order < 3 || !form.heun {
            update.d2 = 0.0;
        }
        update
    }

    fn of(algorithm: Algorithm, to: Mix, from: Mix, h: f32, heun: bool) -> Self {
        let (start, d0, d1, d2, noise) = match algorithm {
            Algorithm::Plus => {
                let e = (-h).exp() - 1.0;
                let d1 = if heun {
                    to.signal * (e / h + 1.0)
                } else {
                    -0.5 * (to.signal * e)
                };
                let d2 = -(to.signal * ((e + h) / (h * h) - 0.5));
                (to.noise / from.noise, -(to.signal * e), d1, d2, 0.0)
            }
            Algorithm::PlusSde => {
                let e = 1.0 - (-2.0 * h).exp();
                let d0 = to.signal * e;
                let d1 = if heun {
                    to.signal * (e / (-2.0 * h) + 1.0)
                } else {
                    0.5 * d0
                };
                let d2 = to.signal * ((e - 2.0 * h) / ((2.0 * h) * (2.0 * h)) - 0.5);
                let start = to.noise / from.noise * (-h).exp();
                (start, d0, d1, d2, to.noise * e.sqrt())
            }
            Algorithm::Noise => {
                let e = h.exp() - 1.0;
                let d1 = if heun {
                    -(to.noise * (e / h - 1.0))
                } else {
                    -0.5 * (to.noise * e)
                };
                let d2 = -(to.noise * ((e - h) / (h * h) - 0.5));
                (to.signal / from.signal, -(to.noise * e), d1, d2, 0.0)
            }
        };
        Self {
            start,
            d0,
            d1,
            d2,
            noise,
            differences: Differences::None,
        }
    }

    pub(super) fn is_finite(&self) -> bool {
        let differences = match self.differences {
            Differences::None => 0.0,
            Differences::First { inverse_r0 } => inverse_r0,
            Differences::Second { r0, r1, .. } => 1.0 / r0 + 1.0 / r1 + 1.0 / (r0 - r1),
        };
        (self.start + self.d0 + self.d1 + self.d2 + self.noise + differences).is_finite()
    }

    /// Steps from the latents the group started from; `outputs` are the converted outputs, newest first.
    pub(super) fn apply(&self, latents: &mut [f32], outputs: &[Vec<f32>], noise: Option<&[f32]>) {
        for (i, x) in latents.iter_mut().enumerate() {
            let newest = outputs[0][i];
            let mut next = self.start * *x;
            match self.differences {
                Differences::None => next += self.d0 * newest,
                Differences::First { inverse_r0 } => {
                    let first = outputs[1][i];
                    next += self.d0 * first + self.d1 * (inverse_r0 * (newest - first));
                }
                Differences::Second { r0, r1, heun } => {
                    let first = outputs[2][i];
                    let near = 1.0 / r1 * (outputs[1][i] - first);
                    let far = 1.0 / r0 * (newest - first);
                    next += self.d0 * first;
                    next += if heun {
                        let d1 = (r0 * near - r1 * far) / (r0 - r1);
                        let d2 = 2.0 * (far - near) / (r0 - r1);
                        self.d1 * d1 + self.d2 * d2
                    } else {
                        self.d1 * far
                    };
                }
            }
            if let Some(noise) = noise {
                next += self.noise * noise[i];
            }
            *x = next;
        }
    }
}
