//! The inference service's metrics. Every queue has counters for what went in and out. Ray Serve's of batches are in [`ray`].

mod ray;

use std::time::Duration;

pub(crate) use self::ray::{Batches, Place};
use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};
use mobula_proto::common::v1::Timings;

const REQUESTS_IN: &str = "mobula_inference_requests_in_total";
const REQUESTS_OUT: &str = "mobula_inference_requests_out_total";
const TICKS: &str = "mobula_inference_ticks_total";
const TICK_ROWS: &str = "mobula_inference_tick_rows";
const TICK_SECONDS: &str = "mobula_inference_tick_seconds";
const IMAGES: &str = "mobula_inference_images_total";
const TEXTS: &str = "mobula_inference_texts_total";
const STAGE_SECONDS: &str = "mobula_inference_stage_seconds";
const PREVIEWS: &str = "mobula_inference_previews_total";

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All pictures were sent.
    Done,
    /// The caller went away.
    Cancelled,
    /// The deadline passed.
    Expired,
    /// A run or the engine failed, or the replica was removed.
    Failed,
    /// No picture comes of what was asked: its numbers are not finite.
    NotFinite,
}

/// Handles to the metrics, made once.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) requests_in: Counter,
    outcomes: [Counter; 5],
    pub(crate) ticks: Counter,
    pub(crate) tick_rows: Histogram,
    pub(crate) tick_seconds: Histogram,
    pub(crate) images: Counter,
    pub(crate) texts_encoded: Counter,
    pub(crate) texts_cached: Counter,
    pub(crate) previews: Counter,
    pub(crate) previews_dropped: Counter,
    stages: [Histogram; 5],
    pub(crate) batches: Batches,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Those of a model that a replica loaded, of whose UNet's calls each has at most so many rows.
    pub(crate) fn new(place: &Place, max_rows: usize) -> Self {
        describe_counter!(REQUESTS_IN, "Requests that replicas took.");
        describe_counter!(REQUESTS_OUT, "Requests that ended, by outcome.");
        describe_counter!(TICKS, "UNet calls.");
        describe_histogram!(TICK_ROWS, "Rows in a UNet call.");
        describe_histogram!(TICK_SECONDS, Unit::Seconds, "Time of a UNet call.");
        describe_counter!(IMAGES, "Pictures sent.");
        describe_counter!(TEXTS, "Texts that requests needed, by where they came from.");
        describe_histogram!(
            STAGE_SECONDS,
            Unit::Seconds,
            "Time of a finished request in each stage."
        );
        describe_counter!(PREVIEWS, "Previews, by whether they were made.");
        let outcome = |name| counter!(REQUESTS_OUT, "outcome" => name);
        let stage = |name| histogram!(STAGE_SECONDS, "stage" => name);
        Self {
            requests_in: counter!(REQUESTS_IN),
            outcomes: ["done", "cancelled", "expired", "failed", "not_finite"].map(outcome),
            ticks: counter!(TICKS),
            tick_rows: histogram!(TICK_ROWS),
            tick_seconds: histogram!(TICK_SECONDS),
            images: counter!(IMAGES),
            texts_encoded: counter!(TEXTS, "source" => "encoder"),
            texts_cached: counter!(TEXTS, "source" => "cache"),
            previews: counter!(PREVIEWS, "outcome" => "made"),
            previews_dropped: counter!(PREVIEWS, "outcome" => "dropped"),
            stages: ["queue", "encode_text", "denoise", "decode", "encode_image"].map(stage),
            batches: Batches::new(place, max_rows),
        }
    }

    /// A request ended.
    pub(crate) fn ended(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].increment(1);
    }

    /// A UNet call ended.
    pub(crate) fn ticked(&self, rows: usize, took: Duration) {
        self.ticks.increment(1);
        self.tick_rows.record(rows as f64);
        self.tick_seconds.record(took.as_secs_f64());
        self.batches.ran(rows, took);
    }

    /// A request was finished, with the times it was told.
    pub(crate) fn finished(&self, timings: &Timings) {
        self.ended(Outcome::Done);
        let times = [
            timings.queue_us,
            timings.encode_us,
            timings.denoise_us,
            timings.decode_us,
            timings.image_us,
        ];
        for (stage, micros) in self.stages.iter().zip(times) {
            stage.record(Duration::from_micros(micros).as_secs_f64());
        }
    }
}
