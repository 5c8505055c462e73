//! The VAE decoder: finished latents to planes, in tiles when they are large, and in float32 where float16 overflows or
//! diffusers would not use it.
//!
//! Invariant: what becomes of one picture of a call is nothing to the others.

use std::path::{Path, PathBuf};

use mobula_diffusion::is_finite;

use super::super::{Decoded, Error, Shape};
use super::dialect::{self, Dtype};
use super::session::{Context, Input, Mode, Network, Output, Values};
use super::tiles::{Planes, Tiles};
use super::unet::CHANNELS;
use crate::memory;
use crate::model::{Model, Vae};

const PART: &str = "vae_decoder";

pub(super) struct Decoder {
    inner: Session,
    /// Whether `inner` itself has float16 weights in float32.
    upcast: bool,
    /// The same weights in float32; made when it is first needed.
    wide: Option<Session>,
    file: PathBuf,
    vae: Vae,
    scale: usize,
    tile_above: usize,
    scaled: Vec<f32>,
}

/// One session of the network.
struct Session {
    network: Network,
    ports: dialect::Decoder,
    /// Whether pictures share a run; some exports fix the batch at one.
    together: bool,
}

impl Decoder {
    pub(super) fn load(model: &Model, context: &Context<'_>) -> Result<Self, Error> {
        let file = model.part(PART);
        let mut inner = Session::of(Network::from_file(PART, &file, context)?)?;
        let upcast = model.upcasts_vae() && inner.is_half();
        if upcast {
            inner = Session::of(Network::wide(PART, &file, context)?)?;
        }
        let mut decoder = Self {
            inner,
            upcast,
            wide: None,
            file,
            vae: model.vae.clone(),
            scale: 0,
            tile_above: context.setup.tile_above,
            scaled: Vec::new(),
        };
        decoder.scale = decoder.inner.measure_scale()?;
        Ok(decoder)
    }

    /// Pixels per latent position.
    pub(super) fn scale(&self) -> usize {
        self.scale
    }

    /// As diffusers: `vae.decode(latents / scaling_factor + shift_factor)`, or with the channels' means and deviations. The
    /// planes of a picture that float32 does not mend either stay as they are.
    pub(super) fn run(
        &mut self,
        latents: &[f32],
        shape: Shape,
        context: &Context<'_>,
        out: &mut Vec<f32>,
    ) -> Result<Decoded, Error> {
        self.unscale(latents, shape);
        let start = out.len();
        let side = shape.height.max(shape.width) * self.scale;
        let tiles = (side > self.tile_above).then(|| self.tiles());
        self.inner.run(&self.scaled, shape, tiles, out)?;
        let picture = 3 * shape.positions() * self.scale * self.scale;
        let count = latents.len() / shape.values();
        super::expect(PART, out.len() - start, count * picture)?;
        let mut again = Vec::new();
        for index in 0..count {
            let place = start + index * picture;
            let latents = &self.scaled[index * shape.values()..][..shape.values()];
            // Nothing mends latents that are no numbers.
            if is_finite(&out[place..place + picture]) || self.upcast || !is_finite(latents) {
                continue;
            }
            let wide = match &mut self.wide {
                Some(wide) => wide,
                None => self.wide.insert(Session::wide(&self.file, context)?),
            };
            let mut planes = Vec::with_capacity(picture);
            wide.run(latents, shape, tiles, &mut planes)?;
            super::expect(PART, planes.len(), picture)?;
            if is_finite(&planes) {
                out[place..place + picture].copy_from_slice(&planes);
                again.push(index);
            }
        }
        Ok(Decoded { again })
    }

    fn unscale(&mut self, latents: &[f32], shape: Shape) {
        let Vae {
            scaling,
            shift,
            ref statistics,
            ..
        } = self.vae;
        self.scaled.clear();
        match statistics {
            None => {
                let values = latents.iter().map(|value| value / scaling + shift);
                self.scaled.extend(values);
            }
            Some(statistics) => {
                for (index, plane) in latents.chunks_exact(shape.positions().max(1)).enumerate() {
                    let (mean, deviation) = statistics[index % statistics.len()];
                    self.scaled
                        .extend(plane.iter().map(|value| value * deviation / scaling + mean));
                }
            }
        }
    }

    /// The tiles of diffusers' `enable_tiling`: of the size that the VAE was trained with.
    fn tiles(&self) -> Tiles {
        let input = (self.vae.tile / self.scale).max(4);
        Tiles {
            input,
            output: input * self.scale,
        }
    }

    /// Gives memory back; the float32 session goes too when the machine is short of memory.
    pub(super) fn trim(&mut self) {
        self.scaled = Vec::new();
        self.inner.trim();
        if memory::is_short() {
            self.wide = None;
        } else if let Some(wide) = &mut self.wide {
            wide.trim();
        }
    }
}

impl Session {
    fn of(network: Network) -> Result<Self, Error> {
        let ports = dialect::Decoder::of(&network.ports())?;
        let together = ports.latents.dims[0] != 1;
        Ok(Self {
            network,
            ports,
            together,
        })
    }

    /// Whether it is seen from outside that it computes in float16.
    fn is_half(&self) -> bool {
        let (latents, images) = (self.ports.latents.dtype, self.ports.images.dtype);
        [latents, images].contains(&Some(Dtype::F16))
    }

    fn wide(file: &Path, context: &Context<'_>) -> Result<Self, Error> {
        tracing::warn!("the VAE decoder overflows in float16 and is loaded once more in float32");
        Self::of(Network::wide(PART, file, context)?)
    }

    /// Pixels per latent position, from a run of the smallest picture.
    fn measure_scale(&mut self) -> Result<usize, Error> {
        let shape = Shape {
            channels: CHANNELS,
            height: 2,
            width: 2,
        };
        let image = self.whole(&[0.0; CHANNELS * 4], 1, shape, &mut Vec::new())?;
        match image[..] {
            [1, 3, height, width] if height == width && height % 2 == 0 && height > 0 => Ok(height / 2),
            _ => {
                let why = format!(
                    "{} has the shape {image:?} for latents of 2 by 2",
                    self.ports.images.name
                );
                Err(Error::Model { part: PART, why })
            }
        }
    }

    fn run(
        &mut self,
        latents: &[f32],
        shape: Shape,
        tiles: Option<Tiles>,
        out: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let Some(tiles) = tiles else {
            let pictures = latents.len() / shape.values();
            let each = if self.together { pictures } else { 1 };
            for latents in latents.chunks(each * shape.values()) {
                self.whole(latents, each, shape, out)?;
            }
            return Ok(());
        };
        for picture in latents.chunks_exact(shape.values()) {
            let input = Planes {
                channels: shape.channels,
                height: shape.height,
                width: shape.width,
                values: picture.to_vec(),
            };
            let whole = tiles.compute(&input, |tile| {
                let shape = Shape {
                    channels: tile.channels,
                    height: tile.height,
                    width: tile.width,
                };
                let mut values = Vec::new();
                let shape = self.whole(&tile.values, 1, shape, &mut values)?;
                Planes::of(PART, &shape, values)
            })?;
            out.extend_from_slice(&whole.values);
        }
        Ok(())
    }

    fn whole(
        &mut self,
        latents: &[f32],
        pictures: usize,
        shape: Shape,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, Error> {
        let input = Input {
            port: &self.ports.latents,
            shape: &[pictures, shape.channels, shape.height, shape.width],
            values: Values::Real(latents),
        };
        let output = Output {
            name: &self.ports.images.name,
            values: out,
        };
        let mut shapes = self.network.run(&[input], &mut [output])?;
        Ok(shapes.pop().unwrap_or_default())
    }

    fn trim(&mut self) {
        if self.network.take_used() {
            let mode = self.network.set_mode(Mode::Shrinking);
            // What it says does not matter, only that its memory is given back after it.
            let _ = self.measure_scale();
            self.network.set_mode(mode);
            self.network.take_used();
        }
    }
}
