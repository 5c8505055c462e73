//! The models that are measured: the demo model, and a Stable Diffusion 1.5 with a tenth of its channels.
//!
//! The second is committed as graphs alone (tools/reference/bench_model.py); its weights are made here from a table, the same on
//! every machine.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::random::unit;

/// A model.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// models/demo
    Demo,
    /// Stable Diffusion 1.5's architecture, narrow
    Narrow,
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Narrow => "sd15-narrow",
        }
    }

    /// Its folder, with weights in it.
    pub(crate) fn folder(self) -> Result<PathBuf> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = match self {
            Self::Demo => here.join("../../models/demo"),
            Self::Narrow => {
                let target = here.join("../../target/bench").join(self.name());
                fill(&here.join("benches/model"), &target).context("making the narrow model's weights")?;
                target
            }
        };
        Ok(folder.canonicalize()?)
    }

    /// Width and height of its pictures, pixels.
    pub(crate) fn size(self) -> u32 {
        match self {
            Self::Demo => 128,
            Self::Narrow => 256,
        }
    }

    /// Steps of a picture. With ten of them the narrow model's VAE has the part of the time that it has at 512 pixels in twenty
    /// steps of the whole one.
    pub(crate) fn steps(self) -> u32 {
        match self {
            Self::Demo => 20,
            Self::Narrow => 10,
        }
    }

    /// How much longer than the demo model it is measured.
    pub(crate) fn patience(self) -> u64 {
        match self {
            Self::Demo => 1,
            Self::Narrow => 3,
        }
    }
}

/// Copies a model and makes the weights that its tables describe.
fn fill(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (path, target) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            fill(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    let table = from.join("weights.tsv");
    if table.is_file() {
        let mut out = BufWriter::new(fs::File::create(to.join("model.onnx_data"))?);
        for (number, row) in fs::read_to_string(table)?.lines().enumerate() {
            let fields: Vec<&str> = row.split('\t').collect();
            let [_, _, count, mean, deviation] = fields[..] else {
                anyhow::bail!("{row:?} is no row of a table of weights");
            };
            let (count, mean): (u64, f32) = (count.parse()?, mean.parse()?);
            let spread = (deviation.parse::<f64>()? * 3_f64.sqrt()) as f32;
            for index in 0..count {
                let value = mean + spread * (2.0 * unit(((number as u64) << 32) + index) - 1.0);
                out.write_all(&value.to_le_bytes())?;
            }
        }
        out.flush()?;
    }
    Ok(())
}
