//! What was measured: as a table, and as a file that keeps the figures of earlier runs.

use std::fmt;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Rows a second of the service, of bare sessions'.
pub(crate) const ASKED_RATIO: f64 = 0.95;
/// Points more requests in time than with whole requests.
pub(crate) const ASKED_GAIN: f64 = 30.0;
/// Microseconds of a tick beside the model.
pub(crate) const ASKED_TICK: f64 = 50.0;

/// Rows a second.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Rows {
    pub(crate) model: String,
    pub(crate) size: u32,
    pub(crate) steps: u32,
    pub(crate) callers: usize,
    pub(crate) bare: f64,
    pub(crate) service: f64,
    pub(crate) ratio: f64,
    pub(crate) ratios: Vec<f64>,
    /// Rows a second of processor time, of bare sessions'.
    pub(crate) cpu: f64,
}

/// Requests in time, of a hundred.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Deadlines {
    pub(crate) engine: String,
    pub(crate) load: f64,
    pub(crate) patience: f64,
    /// Requests a second.
    pub(crate) capacity: f64,
    pub(crate) lone_ms: [f64; 3],
    pub(crate) steps: f64,
    pub(crate) fifo: f64,
    pub(crate) gain: f64,
    pub(crate) gains: Vec<f64>,
}

/// A tick beside the model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tick {
    pub(crate) scheduler: String,
    pub(crate) size: u32,
    pub(crate) rows: usize,
    pub(crate) microseconds: f64,
    pub(crate) allocations: f64,
    /// Whether it is mostly the loop's own work, of which so little is asked.
    pub(crate) asked: bool,
}

/// A division of the cores.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cores {
    pub(crate) model: String,
    pub(crate) division: String,
    pub(crate) pictures: f64,
    pub(crate) ratio: f64,
}

/// All figures.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    /// The processor and the threads that computed.
    pub(crate) machine: String,
    pub(crate) rows: Vec<Rows>,
    pub(crate) deadlines: Vec<Deadlines>,
    pub(crate) ticks: Vec<Tick>,
    pub(crate) cores: Vec<Cores>,
}

impl Report {
    /// The figures of earlier runs on this machine; none when there are none.
    pub(crate) fn read(path: &Path, threads: usize) -> Self {
        let machine = format!("{}, {threads} threads", processor());
        let before = std::fs::read_to_string(path).ok();
        let before = before.and_then(|text| serde_json::from_str::<Self>(&text).ok());
        let same = before.filter(|report| report.machine == machine);
        same.unwrap_or_else(|| Self {
            machine,
            ..Self::default()
        })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(())
    }
}

/// What the processor calls itself.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        for rows in &self.rows {
            writeln!(
                f,
                "rows       {:12} {} px, {} steps, {} in flight: service {:.1} rows/s, bare {:.1}: {:.1} % (asked: {:.0}), by processor time \
                 {:.1} %",
                rows.model,
                rows.size,
                rows.steps,
                rows.callers,
                rows.service,
                rows.bare,
                100.0 * rows.ratio,
                100.0 * ASKED_RATIO,
                100.0 * rows.cpu
            )?;
        }
        for one in &self.deadlines {
            writeln!(
                f,
                "deadlines  {:12} {:.0} % of {:.2} requests/s, {} times the lone time ({:.0?} ms): in time {:.1} %, by whole requests \
                 {:.1} %: {:+.1} points (asked: {ASKED_GAIN:+})",
                one.engine,
                100.0 * one.load,
                one.capacity,
                one.patience,
                one.lone_ms,
                one.steps,
                one.fifo,
                one.gain
            )?;
        }
        for tick in &self.ticks {
            let asked = if tick.asked {
                format!(" (asked: {ASKED_TICK}, 0)")
            } else {
                String::new()
            };
            writeln!(
                f,
                "tick       {:12} {} px, {} rows: {:.1} us beside the model, {} allocations{asked}",
                tick.scheduler, tick.size, tick.rows, tick.microseconds, tick.allocations
            )?;
        }
        for cores in &self.cores {
            writeln!(
                f,
                "cores      {:12} {:48} {:6.2} pictures/s, {:5.1} %",
                cores.model,
                cores.division,
                cores.pictures,
                100.0 * cores.ratio
            )?;
        }
        Ok(())
    }
}
