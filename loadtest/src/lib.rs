//! Open-loop load on a mesh: requests leave on a schedule, whether or not earlier ones came back, and latency counts from
//! the scheduled moment, so that a slow server cannot hide behind a polite client. A closed loop (a fixed number of callers)
//! is there for the questions that ask for one.

mod args;
mod arrivals;
mod error;
mod mix;
mod record;
mod report;
mod run;
mod target;

pub use args::Args;
pub use arrivals::{Arrivals, Pattern};
pub use error::Error;
pub use mix::{Mix, Shot};
pub use record::{Outcome, Recorder};
pub use report::Report;
pub use run::run;
