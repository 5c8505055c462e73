//! What a run will do: when requests are due and what each asks for. Pure; shells walk through it.

mod arrivals;
mod mix;
mod profile;
mod schedule;
mod trace;

pub use arrivals::{Arrivals, Pattern};
pub use mix::{Card, Class, Mix, Priority};
pub use profile::{Profile, Stage};
pub use schedule::{Due, Schedule};
pub use trace::{Entry, Trace};
