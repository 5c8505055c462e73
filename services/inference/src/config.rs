//! What an inference worker can be told.

use std::path::PathBuf;

use mobula_kit::channel::Dial;
use mobula_kit::listen::Listener;
use mobula_kit::worker::WorkerArgs;

use crate::engine::onnx::{Runtime, Setup};
use crate::error::Error;

/// Flags of the service, beside those that all services have.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Folder in which replicas' models are found when their path is relative; by default the working folder. A config that
    /// names no model means the one model in it
    #[arg(long, env = "MOBULA_MODELS_DIR")]
    pub models_dir: Option<PathBuf>,
    /// ONNX Runtime's shared library; by default it is looked for beside the executable and in .ort/lib
    #[arg(long, env = "ORT_DYLIB_PATH")]
    pub onnxruntime: Option<PathBuf>,
    /// Threads that compute; by default one per core that this process may use
    #[arg(long, env = "MOBULA_THREADS")]
    pub threads: Option<usize>,
    /// Let idle threads spin for a while: faster when this worker has its cores for itself
    #[arg(long, env = "MOBULA_SPIN")]
    pub spin: bool,
    /// Rows in one UNet call at most; a picture with guidance has two
    #[arg(long, env = "MOBULA_MAX_BATCH_ROWS", default_value_t = MAX_BATCH_ROWS, value_parser = at_least_one)]
    pub max_batch_rows: usize,
    /// Largest width and height, pixels; a model may allow less
    #[arg(long, env = "MOBULA_MAX_SIZE", default_value_t = MAX_SIZE)]
    pub max_size: u32,
    /// Memory for encoded texts that may be asked for again, bytes per replica
    #[arg(long, env = "MOBULA_EMBEDDING_CACHE_BYTES", default_value_t = EMBEDDING_CACHE_BYTES)]
    pub embedding_cache_bytes: usize,
    /// Windows of text in a prompt at most; each holds 75 tokens, and a UNet call takes longer with more
    #[arg(long, env = "MOBULA_MAX_PROMPT_WINDOWS", default_value_t = MAX_PROMPT_WINDOWS, value_parser = at_least_one)]
    pub max_prompt_windows: usize,
    /// How UNet calls are divided among the CPU's cores: a number of sessions that share each call's rows and the threads, 1 for
    /// one pool of threads, or auto for what is measured to be faster when a model is loaded
    #[arg(long, env = "MOBULA_LANES", default_value = "auto")]
    pub lanes: String,
    /// Who computes, best first: cpu, cuda, tensorrt, openvino and others that the ONNX Runtime library was built with; the
    /// start fails when the first of them cannot be had
    #[arg(long, env = "MOBULA_PROVIDERS", default_value = "cpu")]
    pub providers: String,
    /// Pictures with a side above this many pixels are decoded and encoded in tiles, which bounds the memory it takes
    #[arg(long, env = "MOBULA_TILE_ABOVE")]
    pub tile_above: Option<usize>,
    /// Who this worker is and what it offers
    #[command(flatten)]
    pub worker: WorkerArgs,
    /// How the controller is dialled.
    #[arg(skip)]
    pub dial: Dial,
}

/// On CPUs larger calls are not faster (772 rows/s at 16, 750 at 32, with a small model on two cores).
const MAX_BATCH_ROWS: usize = 16;
/// Memory of a UNet call grows with the fourth power of the size; larger pictures are for who has it.
const MAX_SIZE: u32 = 1024;
/// 280 texts of Stable Diffusion 1.
const EMBEDDING_CACHE_BYTES: usize = 64 << 20;
/// 1,200 tokens: the longest prompts that people share are half of it.
const MAX_PROMPT_WINDOWS: usize = 16;

impl Default for Config {
    fn default() -> Self {
        Self {
            models_dir: None,
            onnxruntime: None,
            threads: None,
            spin: false,
            max_batch_rows: MAX_BATCH_ROWS,
            max_size: MAX_SIZE,
            embedding_cache_bytes: EMBEDDING_CACHE_BYTES,
            max_prompt_windows: MAX_PROMPT_WINDOWS,
            lanes: "auto".to_owned(),
            providers: "cpu".to_owned(),
            tile_above: None,
            worker: WorkerArgs {
                controller: "127.0.0.1:7265".to_owned(),
                ..WorkerArgs::default()
            },
            dial: Dial::default(),
        }
    }
}

impl Config {
    /// How networks are run where a replica's options do not say.
    ///
    /// # Errors
    /// [`Error::Option`] for a provider that there is not, or what is no number of lanes.
    pub fn setup(&self) -> Result<Setup, Error> {
        Setup::new(&self.providers, self.tile_above, &self.lanes)
    }

    /// What ONNX Runtime is started with.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Runtime {
            library: self.onnxruntime.clone(),
            threads: self.threads.unwrap_or_else(cores),
            spin: self.spin,
        }
    }
}

/// The sockets of the service, bound by whoever starts it.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC.
    pub grpc: Listener,
    /// Admin pages.
    pub admin: Listener,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| "must be a whole number above 0".to_owned())
}
