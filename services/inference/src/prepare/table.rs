//! The report of `prepare`, as text for people.

use std::fmt::Write as _;

use super::footprint::Footprint;
use crate::engine::Info;
use crate::engine::onnx::{self, Part};
use crate::model::{Division, Model, Prepared, Task};

/// What the folder's configuration says.
pub(super) fn model(model: &Model) -> String {
    let defaults = &model.defaults;
    format!(
        "{}: {}\n  defaults  {} steps, guidance {}, {}\n\n",
        model.folder().display(),
        model.class,
        defaults.steps,
        defaults.guidance_scale,
        defaults.scheduler,
    )
}

/// What it can do; said only after its networks have run.
pub(super) fn tasks(model: &Model) -> String {
    let tasks: Vec<&str> = model.tasks.iter().map(|task| task_name(*task)).collect();
    format!("can do: {}\n", tasks.join(", "))
}

fn task_name(task: Task) -> &'static str {
    match task {
        Task::TextToImage => "text to image",
        Task::ImageToImage => "image to image",
        Task::Inpaint => "inpainting",
        Task::Refine => "refining",
    }
}

/// What each network takes and gives.
pub(super) fn parts(parts: &[Part]) -> String {
    let mut text = format!("{:<15} {:>10}  {}\n", "part", "file", "takes -> gives");
    for part in parts {
        let ends = part.outputs.len().saturating_sub(3);
        let mut outputs = part
            .outputs
            .iter()
            .take(3)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        if ends > 0 {
            let _ = write!(outputs, " and {ends} more");
        }
        let size = bytes(part.bytes);
        let _ = writeln!(
            text,
            "{:<15} {size:>10}  {} -> {outputs}",
            part.name,
            part.inputs.join(", ")
        );
    }
    text.push('\n');
    text
}

/// Whether the UNet's file declares a timestep with a dimension.
pub(super) fn timestep_is_per_row(parts: &[Part]) -> bool {
    let unet = parts.iter().find(|part| part.name == "unet");
    let timestep = unet.and_then(|unet| unet.inputs.iter().find(|input| input.starts_with("timestep ")));
    timestep.is_some_and(|timestep| !timestep.ends_with("[]"))
}

/// What `--check` says at its end.
pub(super) fn verdict(model: &Model, per_row: bool) -> String {
    let unet = match (per_row, &model.prepared) {
        (true, _) => "the UNet takes a timestep per row as it is",
        (false, Some(_)) => "the UNet takes one timestep; mobula.json names a prepared one",
        (false, None) => {
            "the UNet takes one timestep for all rows; `prepare` writes one that takes a timestep per row"
        }
    };
    let profile = if model.profile.is_empty() {
        "calls were not measured yet"
    } else {
        "calls were measured"
    };
    format!("{unet}; {profile}. Nothing was written.\n")
}

/// What was written beside the UNet.
pub(super) fn prepared(prepared: Option<&Prepared>) -> String {
    match prepared {
        Some(prepared) => format!(
            "unet/{} is written: a timestep per row, the same numbers as unet/model.onnx\n",
            prepared.file
        ),
        None => "the UNet takes a timestep per row as it is\n".to_owned(),
    }
}

/// What loading found out.
pub(super) fn engine(model: &Model, info: &Info) -> String {
    format!(
        "{}, {}: text {} wide in {} encoder(s), clip_skip up to {}, sides are multiples of {} pixels{}\n",
        onnx::family(model, info),
        info.provider,
        info.width,
        info.encoders.len(),
        info.max_clip_skip(),
        info.multiple,
        if info.mixed_timesteps {
            ""
        } else {
            ", rows of one call share a timestep"
        },
    )
}

/// How calls are divided among the cores.
pub(super) fn division(division: Division, threads: usize) -> String {
    let Division { lanes, gain } = division;
    if lanes > 1 {
        let each = threads / lanes;
        format!(
            "{lanes} lanes of {each} of {threads} threads: calls are {gain:.2} times as fast as in one pool\n"
        )
    } else {
        format!("one pool of {threads} threads: calls in lanes are {gain:.2} times as fast\n")
    }
}

/// One size's latencies.
pub(super) fn curve(width: usize, height: usize, curve: &[(usize, u64)]) -> String {
    let mut text = format!("{width}x{height}:");
    for (rows, micros) in curve {
        let _ = write!(text, "  {rows} rows {}", time(*micros));
    }
    text.push('\n');
    text
}

/// Memory.
pub(super) fn footprint(footprint: &Footprint) -> String {
    format!(
        "memory: {} loaded, {} at most while it was measured\n",
        bytes(footprint.loaded_bytes),
        bytes(footprint.peak_bytes)
    )
}

fn time(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

fn bytes(bytes: u64) -> String {
    const MIB: f64 = 1_048_576.0;
    let mib = bytes as f64 / MIB;
    if mib >= 1024.0 {
        format!("{:.1} GiB", mib / 1024.0)
    } else {
        format!("{mib:.1} MiB")
    }
}
