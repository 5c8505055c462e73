//! Execution providers: who computes. Each is asked for by name, with its options, and one that cannot be had is an error.
//!
//! The CPU provider was run; the others are registered as ONNX Runtime documents them, and were compiled, not run. Defaults
//! differ from ONNX Runtime's where those would make pictures depend on the machine's mood: no choice of convolutions by
//! measuring (`cudnn_conv_algo_search`), no arithmetic of 19 bits for numbers of 32 (`use_tf32`).

use std::collections::BTreeMap;

use ort::ep::{
    self, ArbitrarilyConfigurableExecutionProvider as _, ArenaExtendStrategy, ExecutionProviderDispatch,
};
use ort::memory::AllocationDevice;
use ort::session::RunOptions;
use ort::session::builder::SessionBuilder;

use super::super::Error;

/// Providers that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Cpu,
    Cuda,
    TensorRt,
    OpenVino,
    Rocm,
    MiGraphX,
    DirectMl,
    CoreMl,
    Xnnpack,
}

/// The option that numbers a provider's device; 0 when nothing says which.
const DEVICE_ID: &str = "device_id";

/// By what name, what ONNX Runtime calls it, and the options that it takes.
const ALL: [(Name, &str, &str, &[&str]); 9] = [
    (Name::Cpu, "cpu", "CPUExecutionProvider", &["arena"]),
    (
        Name::Cuda,
        "cuda",
        "CUDAExecutionProvider",
        &[
            "device_id",
            "gpu_mem_limit",
            "arena_extend_strategy",
            "cudnn_conv_algo_search",
            "cudnn_conv_use_max_workspace",
            "enable_cuda_graph",
            "use_tf32",
            "prefer_nhwc",
            "sdpa_kernel",
        ],
    ),
    (
        Name::TensorRt,
        "tensorrt",
        "TensorrtExecutionProvider",
        &[
            "device_id",
            "trt_max_workspace_size",
            "trt_fp16_enable",
            "trt_bf16_enable",
            "trt_engine_cache_enable",
            "trt_engine_cache_path",
            "trt_timing_cache_enable",
            "trt_timing_cache_path",
            "trt_builder_optimization_level",
            "trt_profile_min_shapes",
            "trt_profile_opt_shapes",
            "trt_profile_max_shapes",
        ],
    ),
    (
        Name::OpenVino,
        "openvino",
        "OpenVINOExecutionProvider",
        &[
            "device_type",
            "num_of_threads",
            "num_streams",
            "cache_dir",
            "precision",
        ],
    ),
    (
        Name::Rocm,
        "rocm",
        "ROCMExecutionProvider",
        &[
            "device_id",
            "gpu_mem_limit",
            "arena_extend_strategy",
            "tunable_op_enable",
        ],
    ),
    (
        Name::MiGraphX,
        "migraphx",
        "MIGraphXExecutionProvider",
        &["device_id", "migraphx_fp16_enable"],
    ),
    (Name::DirectMl, "directml", "DmlExecutionProvider", &["device_id"]),
    (
        Name::CoreMl,
        "coreml",
        "CoreMLExecutionProvider",
        &[
            "MLComputeUnits",
            "ModelFormat",
            "RequireStaticInputShapes",
            "ModelCacheDirectory",
        ],
    ),
    (
        Name::Xnnpack,
        "xnnpack",
        "XnnpackExecutionProvider",
        &["intra_op_num_threads"],
    ),
];

/// One provider with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Provider {
    name: Name,
    options: BTreeMap<String, String>,
}

/// Providers in the order of preference: what the first cannot compute, the next does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Providers(Vec<Provider>);

impl Default for Providers {
    fn default() -> Self {
        Self(vec![Provider::new(Name::Cpu)])
    }
}

impl Providers {
    /// Reads names with commas between them.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let mut providers: Vec<Provider> = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let Some((name, ..)) = ALL
                .iter()
                .find(|(_, own, full, _)| own.eq_ignore_ascii_case(word) || full.eq_ignore_ascii_case(word))
            else {
                let known: Vec<&str> = ALL.iter().map(|(_, own, ..)| *own).collect();
                return Err(refuse(
                    "providers",
                    format!("{word:?} is none of {}", known.join(", ")),
                ));
            };
            if providers.iter().any(|provider| provider.name == *name) {
                return Err(refuse("providers", format!("{word} stands twice in {text:?}")));
            }
            providers.push(Provider::new(*name));
        }
        if providers.is_empty() {
            return Err(refuse(
                "providers",
                "is empty; leave it out for the CPU".to_owned(),
            ));
        }
        Ok(Self(providers))
    }

    /// Takes an option such as `cuda.device_id`; false when it is not a provider's at all.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        let Some((own, option)) = key.split_once('.') else {
            return Ok(false);
        };
        let Some((name, _, _, options)) = ALL.iter().find(|(_, known, ..)| *known == own) else {
            return Ok(false);
        };
        if !options.contains(&option) {
            return Err(refuse(
                key,
                format!("is unknown; {own} has {}", options.join(", ")),
            ));
        }
        if value.contains('\0') {
            return Err(refuse(key, "has a zero byte".to_owned()));
        }
        let Some(provider) = self.0.iter_mut().find(|provider| provider.name == *name) else {
            return Err(refuse(key, format!("{own} is not among the providers")));
        };
        provider.options.insert(option.to_owned(), value.to_owned());
        provider.check(key, option)?;
        Ok(true)
    }

    /// Has every provider that computes on numbered devices compute on this one, unless an option says which.
    pub(super) fn place_on(&mut self, gpu: u32) {
        for provider in &mut self.0 {
            let known = ALL.iter().find(|(name, ..)| *name == provider.name);
            if known.is_some_and(|(.., options)| options.contains(&DEVICE_ID)) {
                let option = provider.options.entry(DEVICE_ID.to_owned());
                option.or_insert_with(|| gpu.to_string());
            }
        }
    }

    /// Number of the device of the preferred provider; none where its devices have no numbers, as the CPU's.
    pub(super) fn gpu(&self) -> Option<u32> {
        let first = self.first();
        let (.., options) = ALL.iter().find(|(name, ..)| *name == first)?;
        let id = self.option(first, DEVICE_ID).and_then(|id| id.parse().ok());
        options.contains(&DEVICE_ID).then(|| id.unwrap_or(0))
    }

    fn first(&self) -> Name {
        self.0.first().map_or(Name::Cpu, |provider| provider.name)
    }

    /// The preferred provider as ONNX Runtime names it.
    pub(super) fn full_name(&self) -> &'static str {
        let first = self.first();
        ALL.iter()
            .find(|(name, ..)| *name == first)
            .map_or("CPUExecutionProvider", |(_, _, full, _)| full)
    }

    /// Whether the CPU provider runs all networks.
    pub(super) fn is_cpu(&self) -> bool {
        self.first() == Name::Cpu
    }

    /// Whether kernels may be chosen by the batch; the CPU's are not.
    pub(super) fn depends_on_batch(&self) -> bool {
        !self.is_cpu()
    }

    /// Whether calls can be recorded as CUDA graphs.
    pub(super) fn records_graphs(&self) -> bool {
        self.option(Name::Cuda, "enable_cuda_graph").is_some_and(is_true) && self.first() == Name::Cuda
    }

    /// Keeps a run out of CUDA graphs, where sessions may record them: a recorded run reads the memory of the first one.
    pub(super) fn without_graph(&self, options: &mut RunOptions) -> ort::Result<()> {
        if self.records_graphs() {
            // onnxruntime_run_options_config_keys.h: -1 is no graph.
            options.set("gpu_graph_id", "-1")?;
        }
        Ok(())
    }

    /// The memory in which tensors of the preferred provider live, when it is not the CPU's and ONNX Runtime can copy to it.
    pub(super) fn device(&self) -> Option<(AllocationDevice<'static>, i32)> {
        if self.first() != Name::Cuda {
            return None;
        }
        let id = self
            .option(Name::Cuda, "device_id")
            .and_then(|id| id.parse().ok());
        Some((AllocationDevice::CUDA, id.unwrap_or(0)))
    }

    /// What the arenas of all providers are called in `memory.enable_memory_arena_shrinkage`.
    pub(super) fn arenas(&self) -> String {
        match self.device() {
            Some((_, id)) => format!("cpu:0;gpu:{id}"),
            None => "cpu:0".to_owned(),
        }
    }

    /// Providers with the number of their device, where one is said.
    #[cfg(test)]
    pub(super) fn on_device(&self) -> Vec<String> {
        let said = |(name, own, ..): &(Name, &str, &str, &[&str])| {
            let id = self.option(*name, DEVICE_ID)?;
            Some((*name, format!("{own} {id}")))
        };
        let said: Vec<(Name, String)> = ALL.iter().filter_map(said).collect();
        let of = |provider: &Provider| said.iter().find(|(name, _)| *name == provider.name);
        self.0
            .iter()
            .filter_map(of)
            .map(|(_, words)| words.clone())
            .collect()
    }

    fn option(&self, name: Name, key: &str) -> Option<&str> {
        let provider = self.0.iter().find(|provider| provider.name == name)?;
        provider.options.get(key).map(String::as_str)
    }

    /// Registers them with a session; `graphs` allows CUDA graphs, for which calls must be bound to fixed memory.
    pub(super) fn register(&self, builder: SessionBuilder, graphs: bool) -> Result<SessionBuilder, Error> {
        let wrong = |why: String| refuse("providers", why);
        let mut list = Vec::with_capacity(self.0.len());
        for provider in &self.0 {
            list.push(provider.dispatch(graphs)?.error_on_failure());
        }
        let mut builder = builder
            .with_execution_providers(list)
            .map_err(|error| wrong(format!("{} cannot be had: {error}", self.full_name())))?;
        if !self.0.iter().any(|provider| provider.name == Name::Cpu) {
            // Without "cpu" in the list nothing may run there.
            builder = builder
                .with_disable_cpu_fallback()
                .map_err(|error| wrong(error.to_string()))?;
        }
        Ok(builder)
    }
}

impl Provider {
    fn new(name: Name) -> Self {
        let preset: &[(&str, &str)] = match name {
            // Heuristics choose the same convolution every time, measuring does not; exact sizes keep the arena small.
            Name::Cuda => &[
                ("cudnn_conv_algo_search", "HEURISTIC"),
                ("use_tf32", "0"),
                ("arena_extend_strategy", "kSameAsRequested"),
            ],
            Name::Rocm => &[("arena_extend_strategy", "kSameAsRequested")],
            Name::Cpu
            | Name::TensorRt
            | Name::OpenVino
            | Name::MiGraphX
            | Name::DirectMl
            | Name::CoreMl
            | Name::Xnnpack => &[],
        };
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Self {
            name,
            options: preset.iter().map(owned).collect(),
        }
    }

    /// Refuses a value that would be refused by ONNX Runtime with less words, or by a number's parser much later.
    fn check(&self, key: &str, option: &str) -> Result<(), Error> {
        let value = self.options.get(option).map_or("", String::as_str);
        let number = || value.parse::<u64>().is_ok();
        let good = match option {
            "device_id" => value.parse::<i32>().is_ok_and(|id| id >= 0),
            "gpu_mem_limit" | "trt_max_workspace_size" | "num_of_threads" | "intra_op_num_threads" => {
                number()
            }
            "arena_extend_strategy" => matches!(value, "kNextPowerOfTwo" | "kSameAsRequested"),
            "cudnn_conv_algo_search" => matches!(value, "EXHAUSTIVE" | "HEURISTIC" | "DEFAULT"),
            "arena"
            | "enable_cuda_graph"
            | "use_tf32"
            | "prefer_nhwc"
            | "trt_fp16_enable"
            | "migraphx_fp16_enable" => {
                matches!(value, "0" | "1" | "true" | "false")
            }
            _ => true,
        };
        if good {
            Ok(())
        } else {
            Err(refuse(key, format!("{value:?} is no value of it")))
        }
    }

    fn dispatch(&self, graphs: bool) -> Result<ExecutionProviderDispatch, Error> {
        // `tf32` and the like are numbers to ONNX Runtime.
        let number = |value: &str| match value {
            "true" => "1".to_owned(),
            "false" => "0".to_owned(),
            other => other.to_owned(),
        };
        macro_rules! with_options {
            ($provider:expr) => {{
                let mut provider = $provider;
                for (key, value) in &self.options {
                    if key != "enable_cuda_graph" || graphs {
                        provider = provider.with_arbitrary_config(key, number(value));
                    }
                }
                provider.build()
            }};
        }
        let on = |key: &str| self.options.get(key).is_some_and(|value| is_true(value));
        let device: i32 = self
            .options
            .get("device_id")
            .and_then(|id| id.parse().ok())
            .unwrap_or(0);
        Ok(match self.name {
            Name::Cpu => ep::CPU::default()
                .with_arena_allocator(!self.options.contains_key("arena") || on("arena"))
                .build(),
            Name::Cuda => with_options!(ep::CUDA::default()),
            Name::TensorRt => with_options!(ep::TensorRT::default()),
            Name::OpenVino => with_options!(ep::OpenVINO::default()),
            Name::Rocm => with_options!(ep::ROCm::default()),
            Name::CoreMl => with_options!(ep::CoreML::default()),
            Name::Xnnpack => with_options!(ep::XNNPACK::default()),
            Name::MiGraphX => ep::MIGraphX::default()
                .with_device_id(device)
                .with_fp16(on("migraphx_fp16_enable"))
                .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
                .build(),
            Name::DirectMl => ep::DirectML::default().with_device_id(device).build(),
        })
    }
}

fn is_true(value: &str) -> bool {
    matches!(value, "1" | "true")
}

fn refuse(name: &str, why: String) -> Error {
    Error::Option {
        name: name.to_owned(),
        why,
    }
}

#[cfg(test)]
mod tests;
