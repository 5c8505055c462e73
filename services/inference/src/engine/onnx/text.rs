//! The text encoder: token ids to states.

use super::super::Error;
use super::dialect;
use super::library::Runtime;
use super::session::{Input, Network, Values, Wanted};
use crate::model::Model;

const PART: &str = "text_encoder";

pub(super) struct TextEncoder {
    network: Network,
    ports: dialect::TextEncoder,
    wanted: Wanted,
    window: usize,
}

impl TextEncoder {
    pub(super) fn load(model: &Model, runtime: &Runtime) -> Result<Self, Error> {
        let network = Network::from_file(PART, &model.part(PART), runtime)?;
        let ports = dialect::TextEncoder::of(&network.ports())?;
        let wanted = Wanted::new(PART, &ports.states)?;
        // A model that fixes the window means it; else the configuration says.
        let window = usize::try_from(ports.ids.dims[1]).unwrap_or(model.window);
        Ok(Self {
            network,
            ports,
            wanted,
            window,
        })
    }

    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// Width of the states, from a run of one window.
    pub(super) fn measure_width(&mut self) -> Result<usize, Error> {
        let mut states = Vec::new();
        let shape = self.run(&vec![0; self.window], 1, &mut states)?;
        match shape[..] {
            [1, window, width] if window == self.window && width > 0 => Ok(width),
            _ => {
                let why = format!(
                    "{} has the shape {shape:?} for one window",
                    self.ports.states.name
                );
                Err(Error::Model { part: PART, why })
            }
        }
    }

    pub(super) fn run(
        &mut self,
        ids: &[u32],
        windows: usize,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, Error> {
        let shape = [windows, self.window];
        let ids = Input {
            port: &self.ports.ids,
            shape: &shape,
            values: Values::Ids(ids),
        };
        self.network.run([ids], &self.wanted, out)
    }
}
