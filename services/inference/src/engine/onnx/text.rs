//! The text encoders: token ids to states, and to the pooled text where there is one.
//!
//! What diffusers takes of an encoder depends on the family. Stable Diffusion 1 and 2: the last layer's states after the final
//! norm, with `clip_skip` those of an earlier layer after the same norm. Stable Diffusion XL: the penultimate layer's states as
//! they are, of both encoders side by side, `clip_skip` counts from there; and the second encoder's `text_embeds`. Layers for which
//! the export has no output are reached by the edit in `edit::layers`; where that fails, `clip_skip` is not offered.

use super::super::{Encoded, Encoder as Described, Error, finite};
use super::dialect;
use super::edit::{self, Tap};
use super::session::{self, Context, Input, Mode, Network, Output, Values};
use crate::model::{Model, TextPart};

/// Vectors that textual inversion adds to an encoder's vocabulary, `[n, width]`.
#[derive(Debug, Clone, Default)]
pub(super) struct Added {
    pub(super) values: Vec<f32>,
    pub(super) width: usize,
}

/// All encoders of a model.
pub(super) struct TextEncoders {
    encoders: Vec<TextEncoder>,
    window: usize,
    ids: Vec<u32>,
    states: Vec<Vec<f32>>,
}

/// One encoder.
struct TextEncoder {
    part: &'static str,
    network: Network,
    ports: dialect::TextEncoder,
    /// The output of the states for each `clip_skip`, from 0.
    outputs: Vec<String>,
    vocabulary: u32,
    width: usize,
    pooled: usize,
    window: usize,
    /// Whether windows share a run; some exports fix the batch at one.
    together: bool,
}

impl TextEncoders {
    /// Loads a model's encoders; `added` has the new vectors of each, in their order.
    pub(super) fn load(model: &Model, added: &[Added], context: &Context<'_>) -> Result<Self, Error> {
        let mut encoders = Vec::with_capacity(model.encoders.len());
        for (index, text) in model.encoders.iter().enumerate() {
            let none = Added::default();
            let added = added.get(index).unwrap_or(&none);
            encoders.push(TextEncoder::load(model, text, added, context)?);
        }
        let Some(first) = encoders.first() else {
            return Err(refuse("text_encoder", "the model has none".to_owned()));
        };
        let window = first.window;
        if let Some(other) = encoders.iter().find(|encoder| encoder.window != window) {
            let why = format!(
                "its window has {} tokens, the first encoder's {window}",
                other.window
            );
            return Err(refuse(other.part, why));
        }
        if model.is_xl && encoders.last().is_none_or(|last| last.pooled == 0) {
            let swapped = if first.pooled > 0 {
                "; text_encoder/model.onnx has it: the two are swapped"
            } else {
                ""
            };
            let why = format!("it has no output text_embeds, which Stable Diffusion XL needs{swapped}");
            return Err(refuse("text_encoder_2", why));
        }
        let states = vec![Vec::new(); encoders.len()];
        Ok(Self {
            encoders,
            window,
            ids: Vec::new(),
            states,
        })
    }

    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// Values of the pooled text; 0 where there is none.
    pub(super) fn pooled(&self) -> usize {
        // diffusers takes the last encoder's.
        self.encoders.last().map_or(0, |encoder| encoder.pooled)
    }

    pub(super) fn describe(&self) -> Vec<Described> {
        let describe = |encoder: &TextEncoder| Described {
            vocabulary: encoder.vocabulary,
            width: encoder.width,
            layers: encoder.outputs.len() - 1,
        };
        self.encoders.iter().map(describe).collect()
    }

    /// Encodes `[n, encoders, window]` ids.
    pub(super) fn run(&mut self, ids: &[u32], clip_skip: usize, out: &mut Encoded) -> Result<(), Error> {
        let (count, window) = (self.encoders.len(), self.window);
        let windows = ids.len() / (count * window);
        let last = count - 1;
        for (index, encoder) in self.encoders.iter_mut().enumerate() {
            self.ids.clear();
            for both in ids.chunks_exact(count * window) {
                self.ids.extend_from_slice(&both[index * window..][..window]);
            }
            let pooled = (index == last).then_some(&mut out.pooled);
            self.states[index].clear();
            encoder.run(&self.ids, clip_skip, &mut self.states[index], pooled)?;
            let expected = windows * window * encoder.width;
            expect(encoder.part, self.states[index].len(), expected)?;
        }
        expect("text_encoder_2", out.pooled.len(), windows * self.pooled())?;
        if count == 1 {
            out.states.extend_from_slice(&self.states[0]);
            return Ok(());
        }
        for token in 0..windows * window {
            for (encoder, states) in self.encoders.iter().zip(&self.states) {
                out.states
                    .extend_from_slice(&states[token * encoder.width..][..encoder.width]);
            }
        }
        Ok(())
    }

    /// Gives memory back.
    pub(super) fn trim(&mut self) {
        self.ids = Vec::new();
        self.states.fill(Vec::new());
        for encoder in &mut self.encoders {
            encoder.trim();
        }
    }
}

impl TextEncoder {
    fn load(model: &Model, text: &TextPart, added: &Added, context: &Context<'_>) -> Result<Self, Error> {
        let part = text.part;
        let file = model.part(part);
        let mut bytes = session::read(part, &file)?;
        let folder = file.parent().unwrap_or_else(|| model.folder());
        let vectors = added.values.len() / added.width.max(1);
        if vectors > 0 {
            let before = text.vocabulary as usize;
            bytes = edit::extended(&bytes, "input_ids", before, added.width, &added.values)
                .map_err(|why| session::refused(part, &why))?;
        }
        let open = |bytes: &[u8]| Network::from_memory(part, bytes, folder, context);
        let network = open(&bytes)?;
        let ports = dialect::TextEncoder::of(&network.ports())?;
        let (network, outputs) = if model.is_xl && ports.hidden.len() >= 2 {
            let names = ports.hidden.iter().rev().skip(1);
            (network, names.map(|port| port.name.clone()).collect())
        } else if let Some(states) = &ports.states {
            // Two large networks at once may be more than memory holds.
            drop(network);
            let tap = if model.is_xl { Tap::Raw } else { Tap::Normed };
            let tapped = edit::tapped(&bytes, &states.name, tap, text.layers)
                .map_err(|why| session::refused(part, &why))
                .and_then(|tapped| Ok((open(&tapped.model)?, tapped.names)));
            let own = (tap == Tap::Normed).then(|| states.name.clone());
            match tapped {
                Ok((network, names)) => (network, own.into_iter().chain(names).collect()),
                Err(why) if model.is_xl => {
                    let why =
                        format!("it has no outputs hidden_states.0 and so on, and none can be added: {why}");
                    return Err(refuse(part, why));
                }
                Err(why) => {
                    tracing::warn!(part, %why, "clip_skip is not offered: the text encoder's layers cannot be told apart");
                    (open(&bytes)?, own.into_iter().collect())
                }
            }
        } else {
            return Err(refuse(part, "it has no output last_hidden_state".to_owned()));
        };
        let mut encoder = Self {
            part,
            // A model that fixes the window means it; else the configuration says.
            window: usize::try_from(ports.ids.dims[1]).unwrap_or(text.window),
            together: ports.ids.dims[0] != 1,
            network,
            ports,
            outputs,
            vocabulary: text.vocabulary.saturating_add(vectors as u32),
            width: 0,
            pooled: 0,
        };
        encoder.measure()?;
        Ok(encoder)
    }

    /// Widths of the states and of the pooled text, from one run of one window; all outputs must be numbers and agree.
    fn measure(&mut self) -> Result<(), Error> {
        let ids = vec![0; self.window];
        let input = Input {
            port: &self.ports.ids,
            shape: &[1, self.window],
            values: Values::Ids(&ids),
        };
        let mut names: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        names.extend(self.ports.pooled.as_ref().map(|port| port.name.as_str()));
        let mut values = vec![Vec::new(); names.len()];
        let mut outputs: Vec<Output<'_>> = names
            .iter()
            .zip(&mut values)
            .map(|(name, values)| Output { name, values })
            .collect();
        self.network.run(&[input], &mut outputs)?;
        for values in &values {
            finite(self.part, values)?;
        }
        let (states, pooled) = values.split_at(self.outputs.len());
        let width = states[0].len() / self.window;
        for (name, states) in names.iter().zip(states) {
            if width == 0 || states.len() != width * self.window {
                let why = format!("{name} has {} values for one window", states.len());
                return Err(refuse(self.part, why));
            }
        }
        (self.width, self.pooled) = (width, pooled.first().map_or(0, Vec::len));
        Ok(())
    }

    fn run(
        &mut self,
        ids: &[u32],
        clip_skip: usize,
        states: &mut Vec<f32>,
        pooled: Option<&mut Vec<f32>>,
    ) -> Result<(), Error> {
        let each = if self.together { ids.len() / self.window } else { 1 };
        let name = &self.outputs[clip_skip.min(self.outputs.len() - 1)];
        let mut pooled = self.ports.pooled.as_ref().zip(pooled);
        for ids in ids.chunks(each * self.window) {
            let input = Input {
                port: &self.ports.ids,
                shape: &[each, self.window],
                values: Values::Ids(ids),
            };
            let mut outputs = vec![Output { name, values: states }];
            if let Some((port, values)) = &mut pooled {
                outputs.push(Output {
                    name: &port.name,
                    values,
                });
            }
            self.network.run(&[input], &mut outputs)?;
        }
        Ok(())
    }

    fn trim(&mut self) {
        if self.network.take_used() {
            let mode = self.network.set_mode(Mode::Shrinking);
            let ids = vec![0; self.window];
            // What it says does not matter, only that its memory is given back after it.
            let _ = self.run(&ids, 0, &mut Vec::new(), None);
            self.network.set_mode(mode);
            self.network.take_used();
        }
    }
}

fn expect(part: &'static str, got: usize, expected: usize) -> Result<(), Error> {
    super::expect(part, got, expected)
}

fn refuse(part: &'static str, why: String) -> Error {
    Error::Model { part, why }
}
