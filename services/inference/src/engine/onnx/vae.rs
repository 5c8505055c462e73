//! The VAE decoder: finished latents to planes.

use super::super::{Error, Shape};
use super::dialect;
use super::library::Runtime;
use super::session::{Input, Network, Values, Wanted};
use super::unet::CHANNELS;
use crate::model::Model;

const PART: &str = "vae_decoder";

pub(super) struct Decoder {
    network: Network,
    ports: dialect::Decoder,
    wanted: Wanted,
    scaling: f32,
    shift: f32,
    scaled: Vec<f32>,
    /// Whether pictures share a run; some exports fix the batch at one.
    together: bool,
}

impl Decoder {
    pub(super) fn load(model: &Model, runtime: &Runtime) -> Result<Self, Error> {
        let network = Network::from_file(PART, &model.part(PART), runtime)?;
        let ports = dialect::Decoder::of(&network.ports())?;
        let wanted = Wanted::new(PART, &ports.images)?;
        let together = ports.latents.dims[0] != 1;
        let (scaling, shift) = (model.scaling_factor, model.shift_factor);
        Ok(Self {
            network,
            ports,
            wanted,
            scaling,
            shift,
            scaled: Vec::new(),
            together,
        })
    }

    /// Pixels per latent position, from a run of the smallest picture.
    pub(super) fn measure_scale(&mut self) -> Result<usize, Error> {
        let shape = Shape {
            channels: CHANNELS,
            height: 2,
            width: 2,
        };
        let mut planes = Vec::new();
        let image = self.run(&[0.0; CHANNELS * 4], 1, shape, &mut planes)?;
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

    /// As diffusers: `vae.decode(latents / scaling_factor + shift_factor)`; returns the planes' shape in the last run.
    pub(super) fn run(
        &mut self,
        latents: &[f32],
        pictures: usize,
        shape: Shape,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, Error> {
        self.scaled.clear();
        self.scaled
            .extend(latents.iter().map(|value| value / self.scaling + self.shift));
        let each = if self.together { pictures } else { 1 };
        let mut image = Vec::new();
        for latents in self.scaled.chunks(each * shape.values()) {
            let latents = Input {
                port: &self.ports.latents,
                shape: &[each, shape.channels, shape.height, shape.width],
                values: Values::Real(latents),
            };
            image = self.network.run([latents], &self.wanted, out)?;
        }
        Ok(image)
    }
}
