//! An engine without a model: a performance model that sleeps as long as a call would take, and outputs that are made of the
//! inputs, so that rows are told apart and pictures show their seed. For tests, demonstrations of scale and load tests.
//!
//! It draws nothing that anybody asked for. It keeps all rules of [`Engine`], by the same conformance kit.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::time::Duration;

use mobula_serving::curve::Curve;

use super::{Batch, Decoded, Encoded, Encoder, Engine, Error, Info, Moments, Shape, Stages, whole};

/// What its scheduler is made from: Stable Diffusion 1's noise schedule, for any number of steps.
pub(crate) const SCHEDULER: &str = r#"{"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "clip_sample": false, "timestep_spacing": "trailing"}"#;

/// How long calls take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Costs {
    /// Of every UNet call.
    pub base: Duration,
    /// Of every row in it.
    pub row: Duration,
    /// Of every decoded picture.
    pub decode: Duration,
}

impl Costs {
    /// The options that [`Costs::take`] knows.
    pub const KNOWN: &str = "base_us, row_us, decode_us";

    /// What calls take by rows; none when they take nothing.
    #[must_use]
    pub fn curve(&self, max_rows: usize) -> Option<Curve> {
        let took = |rows: usize| self.base + self.row * rows as u32;
        let points = (0..)
            .map(|power| 1 << power)
            .take_while(|rows| *rows < max_rows)
            .chain([max_rows])
            .map(|rows| (rows as u32, took(rows)));
        (took(1) > Duration::ZERO)
            .then(|| Curve::new(points).ok())
            .flatten()
    }

    /// Takes `base_us`, `row_us` and `decode_us` (microseconds, default 0) out of a replica's options.
    ///
    /// # Errors
    /// [`Error::Option`] when one is no whole number.
    pub fn take<S: BuildHasher>(options: &mut HashMap<String, String, S>) -> Result<Self, Error> {
        let mut micros = |name: &str| match options.remove(name) {
            None => Ok(Duration::ZERO),
            Some(text) => text
                .parse()
                .map(Duration::from_micros)
                .map_err(|_| Error::Option {
                    name: name.to_owned(),
                    why: format!("{text:?} is no whole number of microseconds"),
                }),
        };
        Ok(Self {
            base: micros("base_us")?,
            row: micros("row_us")?,
            decode: micros("decode_us")?,
        })
    }
}

/// The engine; see the module.
#[derive(Debug)]
pub struct Fake {
    info: Info,
    costs: Costs,
}

/// CLIP's text window and Stable Diffusion's latents; narrow texts, so that a request costs next to nothing.
pub(crate) fn info() -> Info {
    let encoder = Encoder {
        vocabulary: 49_408,
        width: 4,
        layers: 11,
    };
    Info {
        window: 77,
        encoders: vec![encoder],
        width: 4,
        pooled: 0,
        time_ids: 0,
        guidance: 0,
        channels: 4,
        input_channels: 4,
        encodes_images: true,
        scaling: 1.0,
        shift: 0.0,
        scale: 8,
        multiple: 8,
        mixed_timesteps: true,
        provider: "Fake".to_owned(),
        lanes: 1,
        threads: 0,
        bucket: None,
        stages: Stages::ALL,
    }
}

impl Fake {
    /// Makes one.
    #[must_use]
    pub fn new(costs: Costs) -> Self {
        Self { info: info(), costs }
    }

    /// How long its calls take.
    #[must_use]
    pub fn costs(&self) -> Costs {
        self.costs
    }

    /// The same with these stages only.
    #[must_use]
    pub fn with(mut self, stages: Stages) -> Self {
        self.info.stages = stages;
        self.info.encodes_images = stages.encode;
        self
    }
}

impl Engine for Fake {
    fn info(&self) -> &Info {
        &self.info
    }

    fn encode(&mut self, ids: &[u32], clip_skip: usize, out: &mut Encoded) -> Result<(), Error> {
        whole("token ids", ids.len(), self.info.ids())?;
        expect_skip(&self.info, clip_skip)?;
        out.states.clear();
        out.pooled.clear();
        for id in ids {
            // Any function of the id will do; this one spreads ids over [-1, 1).
            let spread = (id + clip_skip as u32).wrapping_mul(2_654_435_769) >> 8;
            let value = spread as f32 / 8_388_608.0 - 1.0;
            out.states.extend([value, -value, value / 2.0, 0.5]);
        }
        Ok(())
    }

    fn denoise(&mut self, batch: &mut Batch) -> Result<(), Error> {
        batch.check(&self.info)?;
        let (rows, values) = (batch.rows(), batch.shape().values());
        let states = batch.tokens() * self.info.width;
        if rows == 0 {
            return Ok(());
        }
        pause(self.costs.base + self.costs.row * rows as u32);
        let mut outputs = std::mem::take(batch.outputs_mut());
        outputs.clear();
        for row in 0..rows {
            let text = batch.states()[row * states..][..states]
                .iter()
                .step_by(16)
                .sum::<f32>()
                / states as f32;
            let shift = text + batch.timesteps()[row] / 10_000.0;
            outputs.extend(
                batch.samples()[row * values..][..values]
                    .iter()
                    .map(|x| 0.9 * x + shift),
            );
        }
        *batch.outputs_mut() = outputs;
        Ok(())
    }

    fn decode(&mut self, latents: &[f32], shape: Shape, planes: &mut Vec<f32>) -> Result<Decoded, Error> {
        let pictures = whole("latents", latents.len(), shape.values())?;
        pause(self.costs.decode * pictures as u32);
        planes.clear();
        let scale = self.info.scale;
        planes.reserve(pictures * 3 * shape.positions() * scale * scale);
        for picture in latents.chunks_exact(shape.values()) {
            // Three of the latent channels are the colours, enlarged: flat squares that compress to nothing.
            for row in picture.chunks_exact(shape.width).take(3 * shape.height) {
                let start = planes.len();
                for value in row {
                    planes.resize(planes.len() + scale, value.clamp(-1.0, 1.0));
                }
                let end = planes.len();
                for _ in 1..scale {
                    planes.extend_from_within(start..end);
                }
            }
        }
        Ok(Decoded::default())
    }

    fn encode_images(
        &mut self,
        pixels: &[f32],
        width: usize,
        height: usize,
        out: &mut Moments,
    ) -> Result<(), Error> {
        let shape = self.info.latents(width, height);
        let pictures = whole("pixels", pixels.len(), 3 * width * height)?;
        out.mean.clear();
        out.deviation.clear();
        for picture in pixels.chunks_exact((3 * width * height).max(1)) {
            // The first pixel of each square, and a fourth channel that says nothing: what `decode` shows comes out again.
            for (plane, y) in (0..3).flat_map(|plane| (0..shape.height).map(move |y| (plane, y))) {
                let row = &picture[(plane * height + y * self.info.scale) * width..][..width];
                out.mean
                    .extend(row.iter().step_by(self.info.scale).take(shape.width));
            }
            out.mean.resize(out.mean.len() + shape.positions(), 0.0);
        }
        out.deviation.resize(pictures * shape.values(), 0.01);
        Ok(())
    }
}

/// Refuses to leave out more layers than there are.
pub(super) fn expect_skip(info: &Info, clip_skip: usize) -> Result<(), Error> {
    let most = info.max_clip_skip();
    if clip_skip <= most {
        return Ok(());
    }
    Err(Error::Contract {
        what: "layers to skip",
        got: clip_skip,
        expected: most,
    })
}

/// Sleeps as long as the call would take; the engine has a thread of its own.
fn pause(duration: Duration) {
    if !duration.is_zero() {
        std::thread::sleep(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::conformance;

    #[test]
    fn it_keeps_every_rule_of_an_engine() {
        conformance::check(&mut Fake::new(Costs::default())).unwrap();
    }

    #[test]
    fn costs_come_from_options_and_nonsense_is_refused_by_name() {
        let mut options = HashMap::from([
            ("row_us".to_owned(), "250".to_owned()),
            ("x".to_owned(), "1".to_owned()),
        ]);
        assert_eq!(Costs::take(&mut options).unwrap().row, Duration::from_micros(250));
        assert_eq!(options.len(), 1);
        let mut options = HashMap::from([("base_us".to_owned(), "fast".to_owned())]);
        assert!(
            Costs::take(&mut options)
                .unwrap_err()
                .to_string()
                .contains("base_us")
        );
    }
}
