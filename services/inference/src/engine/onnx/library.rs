//! ONNX Runtime's shared library and its environment: one per process, with one pool of threads for all sessions.
//!
//! The library is looked for where [`Runtime::library`] says; else beside the executable, then in `.ort/lib` of the working
//! folder, of the executable's folder, and of the folders above them, where scripts/fetch-onnxruntime.sh puts it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::{Environment, GlobalThreadPoolOptions};

use super::super::Error;

#[cfg(target_os = "macos")]
const NAME: &str = "libonnxruntime.dylib";
#[cfg(not(target_os = "macos"))]
const NAME: &str = "libonnxruntime.so";

/// Where ONNX Runtime is and how many threads it takes. The first use in a process decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The library's file; searched for when absent.
    pub library: Option<PathBuf>,
    /// Threads that compute, over all sessions; the calling thread is one of them.
    pub threads: usize,
    /// Whether idle threads spin for a while before they sleep: a little faster alone, bad for whoever shares the cores.
    pub spin: bool,
}

static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();

impl Runtime {
    /// Loads the library and makes the environment, or gives the one that there is.
    pub(super) fn environment(&self) -> Result<&'static Environment, Error> {
        let made = ENVIRONMENT.get_or_init(|| self.make());
        made.as_ref().map_err(|why| Error::Library { why: why.clone() })
    }

    /// Finds and loads the library, so that a start without it fails at once.
    ///
    /// # Errors
    /// [`Error::Library`], which says how to get it.
    pub fn check(&self) -> Result<(), Error> {
        self.environment().map(|_| ())
    }

    fn make(&self) -> Result<Environment, String> {
        let library = self.find()?;
        // Even the options below need the library, so it is loaded first.
        let builder = ort::init_from(&library).map_err(|error| format!("{}: {error}", library.display()))?;
        let options = GlobalThreadPoolOptions::default()
            .with_intra_threads(self.threads.max(1))
            .and_then(|options| options.with_inter_threads(1))
            .and_then(|options| options.with_spin_control(self.spin))
            .map_err(|error| error.to_string())?;
        let environment = builder
            .with_name("mobula")
            .with_telemetry(false)
            .with_global_thread_pool(options)
            .build()
            .map_err(|error| error.to_string())?;
        tracing::info!(library = %library.display(), threads = self.threads, "ONNX Runtime is loaded");
        Ok(environment)
    }

    fn find(&self) -> Result<PathBuf, String> {
        if let Some(library) = &self.library {
            return if library.is_file() {
                // An absolute path, because the loader takes a relative one from the executable's folder.
                std::path::absolute(library).map_err(|error| error.to_string())
            } else {
                Err(format!("{} is no file", library.display()))
            };
        }
        let executable = std::env::current_exe().ok();
        let beside = executable.as_deref().and_then(Path::parent);
        let here = std::env::current_dir().ok();
        let candidates = beside.map(|folder| folder.join(NAME)).into_iter().chain(
            [here.as_deref(), beside]
                .into_iter()
                .flatten()
                .flat_map(Path::ancestors)
                .map(|folder| folder.join(".ort/lib").join(NAME)),
        );
        candidates
            .into_iter()
            .find(|candidate| candidate.is_file())
            .ok_or_else(|| format!("{NAME} is neither beside the executable nor in a .ort/lib folder"))
    }
}
