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
    /// Whether windows share a run; some exports fix the batch at one.
    together: bool,
}

impl TextEncoder {
    pub(super) fn load(model: &Model, runtime: &Runtime) -> Result<Self, Error> {
        let network = Network::from_file(PART, &model.part(PART), runtime)?;
        let ports = dialect::TextEncoder::of(&network.ports())?;
        let wanted = Wanted::new(PART, &ports.states)?;
        // A model that fixes the window means it; else the configuration says.
        let window = usize::try_from(ports.ids.dims[1]).unwrap_or(model.window);
        let together = ports.ids.dims[0] != 1;
        Ok(Self {
            network,
            ports,
            wanted,
            window,
            together,
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

    /// Runs whole windows; returns the states' shape in the last run.
    pub(super) fn run(
        &mut self,
        ids: &[u32],
        windows: usize,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, Error> {
        let each = if self.together { windows } else { 1 };
        let mut states = Vec::new();
        for ids in ids.chunks(each * self.window) {
            let ids = Input {
                port: &self.ports.ids,
                shape: &[each, self.window],
                values: Values::Ids(ids),
            };
            states = self.network.run([ids], &self.wanted, out)?;
        }
        Ok(states)
    }
}
