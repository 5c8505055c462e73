//! What a run, a comparison or a sweep comes to: numbers, and the same as a table, as JSON and as a page. Pure.

mod chart;
mod compare;
mod page;
mod point;
mod search;
mod summary;
mod table;

pub use chart::{Axis, Chart, Line};
pub use compare::{Comparison, Ratio, Spread};
pub use page::Page;
pub use point::Point;
pub use search::{Search, Sweep, Tried};
pub use summary::{Counts, Generator, Latency, Meta, Report, Verdict};
