//! Load on a mesh and an honest report: requests of an open loop leave on a schedule, whether or not earlier ones came back, and
//! latency counts from the scheduled moment, so that a slow server cannot hide behind a polite client. A closed loop (a fixed
//! number of callers) is there for the questions that ask for one. [`plan`], [`record`], [`report`] and [`verify`] decide and
//! know no socket; [`client`], the null server and the threads around them do the rest.

mod args;
pub mod client;
mod command;
mod drive;
mod error;
pub mod null;
mod pace;
pub mod plan;
pub mod record;
pub mod report;
mod run;
mod units;
pub mod verify;

pub use args::{Args, Command, CommonArgs, LoadArgs, NullArgs, RunArgs, SweepArgs};
pub use command::{Outcome, execute, until_interrupted};
pub use error::Error;
pub use plan::{Card, Class, Mix, Pattern, Priority, Profile, Schedule, Trace};
pub use units::{parse_duration, show_ms};
pub use verify::Verify;
