//! The update formulas of DPM-Solver multistep, reduced to one line of coefficients per step.
//!
//! Every formula of diffusers has the form `x' = x * latents + d0 * D0 + d1 * D1 + d2 * D2 + noise * z`, where D0 is the newest
//! converted output and D1, D2 are divided differences of the newest ones. Coefficients are computed in f32, as torch does.

use super::Settings;
use crate::scheduler::solver::Mix;

/// How many outputs a step uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    First,
    Second,
    Third,
}

/// Divided differences.
#[derive(Debug, Clone, Copy)]
enum Differences {
    None,
    First {
        inverse_r0: f32,
    },
    Second {
        inverse_r0: f32,
        inverse_r1: f32,
        share: f32,
        inverse_sum: f32,
    },
}

/// One step's coefficients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Update {
    latents: f32,
    d0: f32,
    d1: f32,
    d2: f32,
    noise: f32,
    differences: Differences,
}

/// A noise level as the formulas see it: weights and half log-SNR.
#[derive(Debug, Clone, Copy)]
struct Point {
    signal: f32,
    noise: f32,
    lambda: f32,
}

impl Point {
    fn of(mix: Mix) -> Self {
        let Mix { signal, noise } = mix;
        Self {
            signal,
            noise,
            lambda: signal.ln() - noise.ln(),
        }
    }
}

impl Update {
    /// Coefficients of the step to the last of `points` from the one before, with those before that as history.
    pub(super) fn new(settings: &Settings, order: Order, points: &[Mix]) -> Self {
        let back = |n: usize| Point::of(points[points.len() - 1 - n]);
        let (to, from) = (back(0), back(1));
        let h = to.lambda - from.lambda;
        let differences = match order {
            Order::First => Differences::None,
            Order::Second => {
                let r0 = (from.lambda - back(2).lambda) / h;
                Differences::First { inverse_r0: 1.0 / r0 }
            }
            Order::Third => {
                let r0 = (from.lambda - back(2).lambda) / h;
                let r1 = (back(2).lambda - back(3).lambda) / h;
                Differences::Second {
                    inverse_r0: 1.0 / r0,
                    inverse_r1: 1.0 / r1,
                    share: r0 / (r0 + r1),
                    inverse_sum: 1.0 / (r0 + r1),
                }
            }
        };
        // A third-order step has the correction that Heun's form has at second order.
        let heun = settings.heun || order == Order::Third;
        let mut update = match (settings.algorithm.plus, settings.algorithm.sde) {
            (true, false) => Self::plus(to, from, h, heun),
            (true, true) => Self::plus_sde(to, from, h, heun),
            (false, false) => Self::noise(to, from, h, heun),
            (false, true) => Self::noise_sde(to, from, h, heun),
        };
        update.differences = differences;
        // A lower order leaves the higher coefficients out; they may be infinite at the last step.
        if order == Order::First {
            update.d1 = 0.0;
        }
        if order != Order::Third {
            update.d2 = 0.0;
        }
        update
    }

    fn plus(to: Point, from: Point, h: f32, heun: bool) -> Self {
        let e = (-h).exp() - 1.0;
        let d1 = if heun {
            to.signal * (e / h + 1.0)
        } else {
            -0.5 * (to.signal * e)
        };
        let d2 = -(to.signal * ((e + h) / (h * h) - 0.5));
        Self::of(to.noise / from.noise, -(to.signal * e), d1, d2, 0.0)
    }

    fn plus_sde(to: Point, from: Point, h: f32, heun: bool) -> Self {
        let e = 1.0 - (-2.0 * h).exp();
        let d0 = to.signal * e;
        let d1 = if heun {
            to.signal * (e / (-2.0 * h) + 1.0)
        } else {
            0.5 * d0
        };
        let d2 = to.signal * ((e - 2.0 * h) / ((2.0 * h) * (2.0 * h)) - 0.5);
        Self::of(
            to.noise / from.noise * (-h).exp(),
            d0,
            d1,
            d2,
            to.noise * e.sqrt(),
        )
    }

    fn noise(to: Point, from: Point, h: f32, heun: bool) -> Self {
        let e = h.exp() - 1.0;
        let d1 = if heun {
            -(to.noise * (e / h - 1.0))
        } else {
            -0.5 * (to.noise * e)
        };
        let d2 = -(to.noise * ((e - h) / (h * h) - 0.5));
        Self::of(to.signal / from.signal, -(to.noise * e), d1, d2, 0.0)
    }

    fn noise_sde(to: Point, from: Point, h: f32, heun: bool) -> Self {
        let e = h.exp() - 1.0;
        let d1 = if heun {
            -2.0 * (to.noise * (e / h - 1.0))
        } else {
            -(to.noise * e)
        };
        let noise = to.noise * ((2.0 * h).exp() - 1.0).sqrt();
        Self::of(to.signal / from.signal, -2.0 * (to.noise * e), d1, 0.0, noise)
    }

    fn of(latents: f32, d0: f32, d1: f32, d2: f32, noise: f32) -> Self {
        Self {
            latents,
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
            Differences::Second {
                inverse_r0,
                inverse_r1,
                share,
                inverse_sum,
            } => inverse_r0 + inverse_r1 + share + inverse_sum,
        };
        (self.latents + self.d0 + self.d1 + self.d2 + self.noise + differences).is_finite()
    }

    /// Steps the latents; `outputs` are the converted outputs, newest first.
    pub(super) fn apply(&self, latents: &mut [f32], outputs: &[Vec<f32>], noise: Option<&[f32]>) {
        for (i, x) in latents.iter_mut().enumerate() {
            let m0 = outputs[0][i];
            let mut next = self.latents * *x + self.d0 * m0;
            match self.differences {
                Differences::None => {}
                Differences::First { inverse_r0 } => {
                    next += self.d1 * (inverse_r0 * (m0 - outputs[1][i]));
                }
                Differences::Second {
                    inverse_r0,
                    inverse_r1,
                    share,
                    inverse_sum,
                } => {
                    let near = inverse_r0 * (m0 - outputs[1][i]);
                    let far = inverse_r1 * (outputs[1][i] - outputs[2][i]);
                    next += self.d1 * (near + share * (near - far));
                    next += self.d2 * (inverse_sum * (near - far));
                }
            }
            if let Some(noise) = noise {
                next += self.noise * noise[i];
            }
            *x = next;
        }
    }
}
