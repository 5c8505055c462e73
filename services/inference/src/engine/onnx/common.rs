//! Several sessions of one network with its weights in memory once.
//!
//! ONNX Runtime shares between sessions the constants that their caller owns (`AddInitializer`), and what it packs of them
//! (`PrepackedWeightsContainer`); both by name. But its optimizer makes new constants of most: real ones of halves, others in the
//! order that a convolution reads. So the network is optimized once and written, and all sessions are made of what was written.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights, SessionBuilder};
use ort::value::{DynValue, Tensor};

use super::super::Error;
use super::edit;
use super::session::{Context, Network, load_error, refused};

/// A file for a moment. Where the system has paths for open files it has no name, and so is gone with the process however that ends.
pub(super) struct Scratch {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    _file: File,
    #[cfg(not(target_os = "linux"))]
    _file: tempfile::NamedTempFile,
}

impl Scratch {
    /// A file in the folder for temporary files (`TMPDIR`).
    pub(super) fn new() -> std::io::Result<Self> {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd as _;
            let file = tempfile::tempfile()?;
            let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            Ok(Self { path, _file: file })
        }
        #[cfg(not(target_os = "linux"))]
        {
            let file = tempfile::NamedTempFile::new()?;
            let path = file.path().to_owned();
            Ok(Self { path, _file: file })
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// A network that was optimized and written, and what its sessions have in common.
pub(super) struct Common<'a> {
    part: &'static str,
    written: &'a Path,
    weights: Vec<(String, Arc<DynValue>)>,
    packed: PrepackedWeights,
}

impl<'a> Common<'a> {
    /// A network from the file that its optimized form was written to. None when it was not written, or still has weights in files
    /// of its own: those would be looked for beside that one.
    ///
    /// # Errors
    /// [`Error::Model`] when it cannot be read.
    pub(super) fn read(part: &'static str, written: &'a Path) -> Result<Option<Self>, Error> {
        let unread = |error: std::io::Error| refused(part, &error.into());
        let file = File::open(written).map_err(unread)?;
        let size = file.metadata().map_err(unread)?.len();
        let found = edit::weights(file, size).map_err(|why| refused(part, &why))?;
        if size == 0 || found.elsewhere {
            return Ok(None);
        }
        let mut weights = Vec::new();
        for weight in found.all {
            let value = Tensor::from_array((weight.dims, weight.values));
            let value = value.map_err(|error| load_error(part, &error))?;
            weights.push((weight.name, Arc::new(value.into_dyn())));
        }
        Ok(Some(Self {
            part,
            written,
            weights,
            packed: PrepackedWeights::new(),
        }))
    }

    /// Makes a session.
    ///
    /// # Errors
    /// [`Error::Model`].
    pub(super) fn open(&self, context: &Context<'_>) -> Result<Network, Error> {
        Network::from_written(self.part, self.written, context, |builder| self.share(builder))
    }

    fn share(&self, builder: SessionBuilder) -> ort::Result<SessionBuilder> {
        let builder = builder.with_optimization_level(GraphOptimizationLevel::Disable)?;
        let mut builder = builder.with_prepacked_weights(&self.packed)?;
        for (name, value) in &self.weights {
            builder = builder.with_initializer(name, Arc::clone(value))?;
        }
        Ok(builder)
    }
}
