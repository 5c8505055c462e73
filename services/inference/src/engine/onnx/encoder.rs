//! The VAE encoder: pictures to what it believes of their latents.
//!
//! Optimum's exports give mean and logarithm of the variance one after the other (`latent_parameters`): the deviation is
//! `exp(0.5 * clamp(logvar, -30, 20))`, as in diffusers' `DiagonalGaussianDistribution`, and whoever asks draws with it. Exports of
//! diffusers' old conversion script give latents that were drawn inside, with nobody's seed; which it is, a first run shows.

use std::path::{Path, PathBuf};

use mobula_diffusion::is_finite;

use super::super::{Error, Moments};
use super::dialect::{self, Dtype};
use super::session::{Context, Input, Mode, Network, Output, Values};
use super::tiles::{Planes, Tiles};
use super::unet::CHANNELS;
use crate::memory;
use crate::model::{Model, Vae};

const PART: &str = "vae_encoder";

pub(super) struct Encoder {
    inner: Session,
    /// Whether `inner` itself has float16 weights in float32.
    upcast: bool,
    /// The same weights in float32; made when it is first needed.
    wide: Option<Session>,
    file: PathBuf,
    vae: Vae,
    /// Whether it gives mean and variance, and not latents.
    parameters: bool,
    scale: usize,
    tile_above: usize,
}

/// One session of the network.
struct Session {
    network: Network,
    ports: dialect::Encoder,
    /// Whether pictures share a run; some exports fix the batch at one.
    together: bool,
}

impl Encoder {
    /// Loads the encoder of a model whose decoder enlarges by `scale`.
    pub(super) fn load(model: &Model, scale: usize, context: &Context<'_>) -> Result<Self, Error> {
        let file = model.part(PART);
        let mut inner = Session::of(Network::from_file(PART, &file, context)?)?;
        let upcast = model.upcasts_vae() && inner.is_half();
        if upcast {
            inner = Session::of(Network::wide(PART, &file, context)?)?;
        }
        let mut encoder = Self {
            inner,
            upcast,
            wide: None,
            file,
            vae: model.vae.clone(),
            parameters: true,
            scale,
            tile_above: context.setup.tile_above,
        };
        encoder.measure()?;
        Ok(encoder)
    }

    /// Finds out what it gives, from a run of a small picture.
    fn measure(&mut self) -> Result<(), Error> {
        let side = 4 * self.scale;
        let shape = self.inner.small(side)?;
        self.parameters = match shape[..] {
            [1, channels, 4, 4] if channels == 2 * CHANNELS => true,
            [1, CHANNELS, 4, 4] => false,
            _ => {
                let why = format!(
                    "{} has the shape {shape:?} for a picture of {side} by {side}, the decoder enlarges by {}",
                    self.inner.ports.latents.name, self.scale
                );
                return Err(Error::Model { part: PART, why });
            }
        };
        if !self.parameters {
            tracing::warn!(
                "the VAE encoder draws its latents itself: pictures from pictures do not repeat by their seed"
            );
        }
        Ok(())
    }

    /// Encodes `[n, 3, height, width]`, sides being multiples of the scale; what overflows in float16, once more in float32.
    /// The moments of a picture that float32 does not mend either are not finite.
    pub(super) fn run(
        &mut self,
        pixels: &[f32],
        (width, height): (usize, usize),
        context: &Context<'_>,
        out: &mut Moments,
    ) -> Result<(), Error> {
        let picture = 3 * height * width;
        let channels = if self.parameters { 2 * CHANNELS } else { CHANNELS };
        let positions = (height / self.scale) * (width / self.scale);
        let each = channels * positions;
        // Latents that were drawn tile by tile do not fit together.
        let tiles = (height.max(width) > self.tile_above && self.parameters).then(|| self.tiles());
        let mut values = Vec::with_capacity(pixels.len() / picture * each);
        self.inner.run(pixels, (width, height), tiles, &mut values)?;
        super::expect(PART, values.len(), pixels.len() / picture * each)?;
        for (pixels, values) in pixels.chunks_exact(picture).zip(values.chunks_exact(each)) {
            // Nothing mends pixels that are no numbers.
            if is_finite(values) || self.upcast || !is_finite(pixels) {
                self.add(values, positions, out);
                continue;
            }
            let wide = match &mut self.wide {
                Some(wide) => wide,
                None => self.wide.insert(Session::wide(&self.file, context)?),
            };
            let mut again = Vec::with_capacity(each);
            wide.run(pixels, (width, height), tiles, &mut again)?;
            super::expect(PART, again.len(), each)?;
            self.add(&again, positions, out);
        }
        Ok(())
    }

    /// The tiles of diffusers' `enable_tiling`.
    fn tiles(&self) -> Tiles {
        let output = (self.vae.tile / self.scale).max(4);
        Tiles {
            input: output * self.scale,
            output,
        }
    }

    /// Appends one picture's moments in the scale in which `(mean - shift) * scaling` are latents.
    fn add(&self, values: &[f32], positions: usize, out: &mut Moments) {
        let statistic = |channel: usize| {
            let statistics = self.vae.statistics.as_ref();
            statistics.map_or((0.0, 1.0), |statistics| statistics[channel % statistics.len()])
        };
        let (mean, variance) = values.split_at(CHANNELS * positions);
        for (channel, plane) in mean.chunks_exact(positions).enumerate() {
            let (center, spread) = statistic(channel);
            out.mean
                .extend(plane.iter().map(|value| (value - center) / spread));
        }
        for (channel, plane) in variance.chunks_exact(positions).enumerate() {
            let (_, spread) = statistic(channel);
            let deviation = |value: &f32| (0.5 * value.clamp(-30.0, 20.0)).exp() / spread;
            out.deviation.extend(plane.iter().map(deviation));
        }
    }

    /// Gives memory back; the float32 session goes too when the machine is short of memory.
    pub(super) fn trim(&mut self) {
        let side = 4 * self.scale;
        self.inner.trim(side);
        if memory::is_short() {
            self.wide = None;
        } else if let Some(wide) = &mut self.wide {
            wide.trim(side);
        }
    }
}

impl Session {
    fn of(network: Network) -> Result<Self, Error> {
        let ports = dialect::Encoder::of(&network.ports())?;
        Ok(Self {
            together: ports.images.dims[0] != 1,
            network,
            ports,
        })
    }

    /// Whether it is seen from outside that it computes in float16.
    fn is_half(&self) -> bool {
        let (images, latents) = (self.ports.images.dtype, self.ports.latents.dtype);
        [images, latents].contains(&Some(Dtype::F16))
    }

    fn wide(file: &Path, context: &Context<'_>) -> Result<Self, Error> {
        tracing::warn!("the VAE encoder overflows in float16 and is loaded once more in float32");
        Self::of(Network::wide(PART, file, context)?)
    }

    fn run(
        &mut self,
        pixels: &[f32],
        (width, height): (usize, usize),
        tiles: Option<Tiles>,
        out: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let picture = 3 * height * width;
        let Some(tiles) = tiles else {
            let each = if self.together { pixels.len() / picture } else { 1 };
            for pixels in pixels.chunks(each * picture) {
                self.whole(pixels, [each, 3, height, width], out)?;
            }
            return Ok(());
        };
        for pixels in pixels.chunks_exact(picture) {
            let input = Planes {
                channels: 3,
                height,
                width,
                values: pixels.to_vec(),
            };
            let whole = tiles.compute(&input, |tile| {
                let mut values = Vec::new();
                let shape = self.whole(&tile.values, [1, 3, tile.height, tile.width], &mut values)?;
                Planes::of(PART, &shape, values)
            })?;
            out.extend_from_slice(&whole.values);
        }
        Ok(())
    }

    fn whole(&mut self, pixels: &[f32], shape: [usize; 4], out: &mut Vec<f32>) -> Result<Vec<usize>, Error> {
        let input = Input {
            port: &self.ports.images,
            shape: &shape,
            values: Values::Real(pixels),
        };
        let output = Output {
            name: &self.ports.latents.name,
            values: out,
        };
        let mut shapes = self.network.run(&[input], &mut [output])?;
        Ok(shapes.pop().unwrap_or_default())
    }

    /// A run of a small picture.
    fn small(&mut self, side: usize) -> Result<Vec<usize>, Error> {
        self.whole(&vec![0.0; 3 * side * side], [1, 3, side, side], &mut Vec::new())
    }

    fn trim(&mut self, side: usize) {
        if self.network.take_used() {
            let mode = self.network.set_mode(Mode::Shrinking);
            // What it says does not matter, only that its memory is given back after it.
            let _ = self.small(side);
            self.network.set_mode(mode);
            self.network.take_used();
        }
    }
}
