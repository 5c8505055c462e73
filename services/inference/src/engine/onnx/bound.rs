//! UNet calls on memory that stays bound to the session: on a device, the text and everything else that does not change from
//! step to step stays there, latents cross once each way, and calls of one shape can be recorded as a CUDA graph.
//!
//! Used where the provider has memory of its own; on the CPU only when asked for (`io_binding`), where it gains nothing but can be
//! tested. **The CUDA side was written from ONNX Runtime's documentation and has been compiled, not run**: what was run is the same
//! code bound to the CPU's memory.
//!
//! A graph is valid for one set of addresses, and ONNX Runtime does not check shapes (`gpu_graph_id`): so each slot has an id of
//! its own, which is never used again.

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::{DynTensor, TensorElementType};

use super::super::Error;
use super::dialect::{Dtype, Port};
use super::session::{self, Context, Input, Network, Values};
use super::staged::Staged;

/// Shapes whose memory is kept; each holds inputs and output of one call on the device.
const SLOTS: usize = 8;
/// Graphs that a session may record in its life: ONNX Runtime keeps them all.
const MAX_GRAPHS: usize = 64;

/// Bound calls of one network.
pub(super) struct Bound {
    device: AllocationDevice<'static>,
    device_id: i32,
    graphs: bool,
    recorded: usize,
    /// The one used last is the last.
    slots: Vec<Slot>,
    staged: Staged,
}

/// The memory of calls of one shape.
struct Slot {
    /// Shapes of all inputs, one after another.
    key: Vec<usize>,
    binding: IoBinding,
    inputs: Vec<Bind>,
    output: DynTensor,
    /// The output on the host, where the device has memory of its own.
    host: Option<DynTensor>,
    options: Option<RunOptions>,
}

/// One input's memory on the device, and what is in it.
struct Bind {
    tensor: DynTensor,
    /// Where it is written before it is copied to the device. It owns its memory: ort 2.0.0-rc.15 waits for itself for ever when a
    /// tensor that borrows is copied within the CPU's memory.
    host: Option<DynTensor>,
    present: Vec<f32>,
}

impl Bound {
    /// Makes bound calls where they are of use or asked for.
    pub(super) fn new(context: &Context<'_>) -> Option<Self> {
        let providers = &context.setup.providers;
        let cpu = || context.setup.io_binding.then_some((AllocationDevice::CPU, 0));
        let (device, device_id) = providers.device().or_else(cpu)?;
        Some(Self {
            device,
            device_id,
            graphs: providers.records_graphs(),
            recorded: 0,
            slots: Vec::new(),
            staged: Staged::default(),
        })
    }

    /// Lets go of all memory.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }

    /// Runs the network and appends the output in f32.
    pub(super) fn run(
        &mut self,
        network: &mut Network,
        inputs: &[Input<'_>],
        (output, shape): (&Port, &[usize]),
        out: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let key: Vec<usize> = inputs.iter().flat_map(|input| input.shape).copied().collect();
        let place = match self.slots.iter().position(|slot| slot.key == key) {
            Some(place) => place,
            None => {
                let slot = self.make(network.session(), key, inputs, (output, shape));
                self.slots.push(slot.map_err(|error| network.failed(&error))?);
                if self.slots.len() > SLOTS {
                    self.slots.remove(0);
                }
                self.slots.len() - 1
            }
        };
        self.slots[place..].rotate_left(1);
        let Some(slot) = self.slots.last_mut() else {
            return Ok(());
        };
        let ran = slot
            .fill(inputs, &mut self.staged)
            .and_then(|()| slot.run(network, out));
        ran.map_err(|error| network.failed(&error))
    }

    fn make(
        &mut self,
        session: &Session,
        key: Vec<usize>,
        inputs: &[Input<'_>],
        (output, shape): (&Port, &[usize]),
    ) -> ort::Result<Slot> {
        let info = MemoryInfo::new(
            self.device.clone(),
            self.device_id,
            AllocatorType::Device,
            MemoryType::Default,
        )?;
        let allocator = Allocator::new(session, info)?;
        let mut binding = session.create_binding()?;
        let mut bound = Vec::with_capacity(inputs.len());
        for input in inputs {
            let tensor = DynTensor::new(&allocator, element(input.port), input.shape)?;
            binding.bind_input(&input.port.name, &tensor)?;
            bound.push(Bind {
                tensor,
                host: self.on_host(input.port, input.shape)?,
                present: Vec::new(),
            });
        }
        let mut result = DynTensor::new(&allocator, element(output), shape)?;
        binding.bind_output(&output.name, &mut result)?;
        // Runs without a graph of their own are made with the engine's options, and can be interrupted; a graph cannot.
        let options = if self.graphs && self.recorded < MAX_GRAPHS {
            self.recorded += 1;
            let mut options = RunOptions::new()?;
            options.set("gpu_graph_id", self.recorded.to_string())?;
            Some(options)
        } else {
            None
        };
        Ok(Slot {
            key,
            binding,
            inputs: bound,
            output: result,
            host: self.on_host(output, shape)?,
            options,
        })
    }
}

impl Bound {
    /// A tensor in the CPU's memory, where the device has its own.
    fn on_host(&self, port: &Port, shape: &[usize]) -> ort::Result<Option<DynTensor>> {
        if self.device == AllocationDevice::CPU {
            return Ok(None);
        }
        DynTensor::new(&Allocator::default(), element(port), shape).map(Some)
    }
}

impl Slot {
    /// Copies those inputs to the device that are not there yet.
    fn fill(&mut self, inputs: &[Input<'_>], staged: &mut Staged) -> ort::Result<()> {
        for (input, bind) in inputs.iter().zip(&mut self.inputs) {
            let Values::Real(values) = input.values else {
                continue;
            };
            let same = bind.present.len() == values.len()
                && bind
                    .present
                    .iter()
                    .zip(values)
                    .all(|(a, b)| a.to_bits() == b.to_bits());
            if same {
                continue;
            }
            // Until the copy is made it is not known what is there.
            bind.present.clear();
            match &mut bind.host {
                None => staged.write(input, &mut bind.tensor)?,
                Some(host) => {
                    staged.write(input, host)?;
                    host.copy_into(&mut bind.tensor)?;
                }
            }
            bind.present.extend_from_slice(values);
        }
        Ok(())
    }

    fn run(&mut self, network: &mut Network, out: &mut Vec<f32>) -> ort::Result<()> {
        let signal = network.signal();
        let options = self.options.as_ref().unwrap_or_else(|| signal.options());
        network
            .session()
            .run_binding_with_options(&self.binding, options)?;
        match &mut self.host {
            None => session::take(&self.output, out)?,
            Some(host) => {
                self.output.copy_into(&mut *host)?;
                session::take(&*host, out)?
            }
        };
        Ok(())
    }
}

fn element(port: &Port) -> TensorElementType {
    match port.dtype {
        Some(Dtype::F16) => TensorElementType::Float16,
        Some(Dtype::I64) => TensorElementType::Int64,
        Some(Dtype::I32) => TensorElementType::Int32,
        Some(Dtype::F32) | None => TensorElementType::Float32,
    }
}
