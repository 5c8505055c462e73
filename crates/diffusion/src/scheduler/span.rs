//! What part of a schedule is gone through: all of it, the end of it (image to image), or a part by noise (SDXL's base and refiner).
//!
//! The cuts are those of diffusers' StableDiffusionImg2ImgPipeline, StableDiffusionXLPipeline and StableDiffusionXLImg2ImgPipeline,
//! and for models that predict a flow that of StableDiffusion3Img2ImgPipeline, which rounds the other way.
//! It refuses a span with no model call. Invariant: a range that is given is not empty and lies inside the schedule.

use std::ops::Range;

use crate::Error;

/// What part of the schedule a trajectory goes through.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Span {
    /// All of it.
    #[default]
    Whole,
    /// The last `strength` of the steps: image to image (`get_timesteps`).
    Strength(f32),
    /// Image to image of a latent consistency model, which takes all steps, from a list of timesteps that is so much shorter
    /// (LatentConsistencyModelImg2ImgPipeline). With other schedulers than its own it is `Strength`.
    Consistency(f32),
    /// From one part of the noise to another: diffusers' `denoising_start` and `denoising_end`, 0 being pure noise and 1 the picture.
    Part {
        /// Where it starts; absent: with the first call.
        start: Option<f32>,
        /// Where it ends; absent: with the last call.
        end: Option<f32>,
    },
}

/// A schedule that is to be cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// The timestep of each model call.
    pub(super) timesteps: &'a [f32],
    /// Training timesteps.
    pub(super) train: usize,
    /// Steps that were asked for.
    pub(super) steps: usize,
    /// Model calls of a step.
    pub(super) order: usize,
    /// Whether the model predicts a flow.
    pub(super) flow: bool,
}

impl Span {
    /// Refuses numbers out of range.
    pub(super) fn check(self) -> Result<(), Error> {
        let refuse = |field, value: f32, accepted| {
            Err(Error::Field {
                field,
                value: value.to_string(),
                accepted,
            })
        };
        match self {
            Self::Whole => Ok(()),
            Self::Strength(strength) | Self::Consistency(strength) if strength > 0.0 && strength <= 1.0 => {
                Ok(())
            }
            Self::Strength(strength) | Self::Consistency(strength) => {
                refuse("strength", strength, "above 0 and up to 1")
            }
            Self::Part { start, end } => {
                if let Some(start) = start.filter(|start| !(0.0..1.0).contains(start)) {
                    return refuse("denoising_start", start, "0 and up to but without 1");
                }
                if let Some(end) = end.filter(|end| !(*end > 0.0 && *end <= 1.0)) {
                    return refuse("denoising_end", end, "above 0 and up to 1");
                }
                match (start, end) {
                    (Some(start), Some(end)) if start >= end => {
                        refuse("denoising_start", start, "values below denoising_end")
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// The calls of `line` that lie in it.
    pub(super) fn range(self, line: Line<'_>) -> Result<Range<usize>, Error> {
        let n = line.timesteps.len();
        let (range, field, value) = match self {
            Self::Whole => return Ok(0..n),
            Self::Strength(strength) | Self::Consistency(strength) => {
                let begin = line.skipped_steps(strength) * line.order;
                (begin.min(n)..n, "strength", strength)
            }
            Self::Part { start, end } => {
                let begin = start.map_or(0, |start| line.begin(start));
                let count = end.map_or(n - begin, |end| line.count(begin, end));
                let (field, value) = match (start, end) {
                    (_, Some(end)) => ("denoising_end", end),
                    (start, None) => ("denoising_start", start.unwrap_or(0.0)),
                };
                (begin..begin + count, field, value)
            }
        };
        if range.is_empty() {
            return Err(Error::Field {
                field,
                value: format!("{value} of {} steps, which leaves no step,", line.steps),
                accepted: "values that leave at least one (or more steps)",
            });
        }
        Ok(range)
    }
}

impl Line<'_> {
    /// Steps left out by image to image: `steps - min(int(steps * strength), steps)`, or of a flow `int(steps - steps * strength)`.
    fn skipped_steps(&self, strength: f32) -> usize {
        let taken = self.steps as f64 * decimal(strength);
        if self.flow {
            (self.steps as f64 - taken) as usize
        } else {
            self.steps.saturating_sub(taken as usize)
        }
    }

    /// The first call below the noise that `start` stands for.
    fn begin(&self, start: f32) -> usize {
        let cutoff = self.cutoff(start);
        let below = self.timesteps.iter().filter(|t| f64::from(**t) < cutoff).count();
        // diffusers: a solver with two calls a step starts with the first of them.
        let even = self.order == 2 && below.is_multiple_of(2);
        self.timesteps.len().saturating_sub(below + usize::from(even))
    }

    /// How many calls from `begin` on are not below the noise that `end` stands for.
    fn count(&self, begin: usize, end: f32) -> usize {
        let cutoff = self.cutoff(end);
        self.timesteps[begin..]
            .iter()
            .filter(|t| f64::from(**t) >= cutoff)
            .count()
    }

    /// The training timestep at a part of the noise: `int(round(train - part * train))`.
    fn cutoff(&self, part: f32) -> f64 {
        let train = self.train as f64;
        (train - decimal(part) * train).round_ties_even()
    }
}

/// The number a user wrote: 0.7 and not the nearest f32 below it, so that a tenth of ten steps is one step as in Python.
pub(crate) fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(steps: usize, flow: bool) -> Line<'static> {
        Line {
            timesteps: &[801.0, 601.0, 401.0, 201.0, 1.0],
            train: 1000,
            steps,
            order: 1,
            flow,
        }
    }

    #[test]
    fn a_written_tenth_is_a_tenth() {
        for tenths in 1..=10_usize {
            let strength = tenths as f32 / 10.0;
            let skipped = line(10, false).skipped_steps(strength);
            assert_eq!(skipped, 10 - tenths, "{strength}");
        }
        assert_eq!(line(30, false).skipped_steps(0.8), 6);
        assert_eq!(line(1, false).skipped_steps(0.5), 1);
    }

    #[test]
    fn a_half_step_is_left_out_but_of_a_flow() {
        assert_eq!(line(10, false).skipped_steps(0.55), 5);
        assert_eq!(line(10, true).skipped_steps(0.55), 4);
    }

    #[test]
    fn a_span_that_leaves_no_call_is_refused_by_field() {
        let line = line(5, false);
        for (span, field) in [
            (Span::Strength(0.1), "strength"),
            (
                Span::Part {
                    start: Some(0.9999),
                    end: None,
                },
                "denoising_start",
            ),
            (
                Span::Part {
                    start: None,
                    end: Some(0.1),
                },
                "denoising_end",
            ),
        ] {
            assert_eq!(span.range(line).unwrap_err().field(), field);
        }
        assert_eq!(Span::Strength(0.4).range(line).unwrap(), 3..5);
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for span in [
            Span::Strength(0.0),
            Span::Strength(1.5),
            Span::Strength(f32::NAN),
            Span::Part {
                start: Some(1.0),
                end: None,
            },
            Span::Part {
                start: Some(0.5),
                end: Some(0.5),
            },
            Span::Part {
                start: None,
                end: Some(f32::NAN),
            },
        ] {
            assert!(span.check().is_err(), "{span:?}");
        }
    }
}
