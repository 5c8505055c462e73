//! What happened, kept without a clock of its own: every time is an offset from the start of the load.
//!
//! Invariant: memory does not grow with the number of requests, and two recorders merge into what one would have recorded.

mod ending;
mod recorder;
mod series;
mod tally;

pub use ending::{Ending, Kind};
pub use recorder::{Recorder, Sample, Window};
pub use series::{Bucket, Series};
pub use tally::Tally;

use hdrhistogram::Histogram;

/// Longest latency that is told apart, microseconds: an hour; longer ones count as this.
const LONGEST_US: u64 = 3_600_000_000;

/// Latencies in microseconds with so many significant digits.
fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, digits)
        .expect("1 us to an hour is a valid range at 1 to 5 digits")
}

/// Adds what `other` counted; both have the same bounds.
fn add(histogram: &mut Histogram<u64>, other: &Histogram<u64>) {
    histogram
        .add(other)
        .expect("histograms of one kind have the same bounds");
}
