//! A UNet's calls as Ray Serve shows batches (batching.py of 2.60): a call is a batch, a row what is in it.
//!
//! Replicas of one model in a worker share its calls, so these are of the replica for which the model was loaded; series end
//! with the model.

use std::time::Duration;

use mobula_kit::metrics::{Family, Kind, MILLIS, Series};
use mobula_kit::worker::ReplicaSpec;

const LABELS: &[&str] = &["application", "deployment", "replica", "function_name"];
/// As Ray divides what batches are filled to (DEFAULT_BATCH_UTILIZATION_BUCKETS_PERCENT).
const PERCENT: [f64; 13] = [
    5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 100.0,
];
/// And their sizes (DEFAULT_BATCH_SIZE_BUCKETS).
const SIZES: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];
/// What is batched, in the engine's words.
const FUNCTION: &str = "denoise";

static WAIT: Family = Family {
    name: "serve_batch_wait_time_ms",
    kind: Kind::Histogram(&MILLIS),
    labels: LABELS,
    help: "Milliseconds from a request's arrival to its first UNet call, its texts' encoding included.",
};
static EXECUTION: Family = Family {
    name: "serve_batch_execution_time_ms",
    kind: Kind::Histogram(&MILLIS),
    labels: LABELS,
    help: "Milliseconds of a UNet call.",
};
static QUEUE: Family = Family {
    name: "serve_batch_queue_length",
    kind: Kind::Gauge,
    labels: LABELS,
    help: "Requests that wait for their first UNet call.",
};
static UTILIZATION: Family = Family {
    name: "serve_batch_utilization_percent",
    kind: Kind::Histogram(&PERCENT),
    labels: LABELS,
    help: "Rows of a UNet call, of as many as one of the native size may have.",
};
static SIZE: Family = Family {
    name: "serve_actual_batch_size",
    kind: Kind::Histogram(&SIZES),
    labels: LABELS,
    help: "Rows of a UNet call.",
};
static PROCESSED: Family = Family {
    name: "serve_batches_processed_total",
    kind: Kind::Counter,
    labels: LABELS,
    help: "UNet calls.",
};

/// The replica for which a model was loaded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    application: String,
    deployment: String,
    replica: String,
}

impl Place {
    pub(crate) fn of(spec: &ReplicaSpec) -> Self {
        Self {
            application: spec.application.clone(),
            deployment: spec.deployment.clone(),
            replica: spec.replica_id.clone(),
        }
    }
}

/// The calls of one model's UNet.
#[derive(Clone)]
pub(crate) struct Batches {
    wait: Series,
    execution: Series,
    queue: Series,
    utilization: Series,
    size: Series,
    processed: Series,
    max_rows: f64,
}

impl Batches {
    pub(super) fn new(place: &Place, max_rows: usize) -> Self {
        let of = [
            place.application.as_str(),
            &place.deployment,
            &place.replica,
            FUNCTION,
        ];
        Self {
            wait: WAIT.series(&of),
            execution: EXECUTION.series(&of),
            queue: QUEUE.series(&of),
            utilization: UTILIZATION.series(&of),
            size: SIZE.series(&of),
            processed: PROCESSED.series(&of),
            max_rows: max_rows.max(1) as f64,
        }
    }

    /// A call of so many rows ended.
    pub(super) fn ran(&self, rows: usize, took: Duration) {
        self.processed.add(1);
        self.size.record(rows as f64);
        self.utilization.record(100.0 * rows as f64 / self.max_rows);
        self.execution.record_ms(took);
    }

    /// A request waited so long for its first call.
    pub(crate) fn waited(&self, time: Duration) {
        self.wait.record_ms(time);
    }

    /// So many requests wait for their first call.
    pub(crate) fn queued(&self, requests: usize) {
        self.queue.set(requests as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_types_labels_and_buckets_are_rays() {
        let list = include_str!("../../../../crates/kit/tests/golden/ray_metrics.tsv");
        for family in [&WAIT, &EXECUTION, &QUEUE, &UTILIZATION, &SIZE, &PROCESSED] {
            assert!(
                list.lines().any(|line| line == family.line()),
                "{}",
                family.line()
            );
        }
    }

    #[test]
    fn calls_are_counted_as_batches_for_as_long_as_the_model_is_there() {
        let handle = mobula_kit::metrics::install();
        let page = || mobula_kit::metrics::render(&handle);
        let place = Place::of(&ReplicaSpec {
            application: "app".into(),
            deployment: "pipeline".into(),
            replica_id: "batches#1".into(),
            ..ReplicaSpec::default()
        });
        let batches = Batches::new(&place, 8);
        batches.queued(3);
        batches.waited(Duration::from_millis(15));
        batches.ran(6, Duration::from_millis(4));
        let of = r#"application="app",deployment="pipeline",replica="batches#1",function_name="denoise""#;
        let shown = page();
        for line in [
            format!("serve_batch_queue_length{{{of}}} 3\n"),
            format!("serve_batches_processed_total{{{of}}} 1\n"),
            format!("serve_actual_batch_size_sum{{{of}}} 6\n"),
            format!("serve_batch_utilization_percent_sum{{{of}}} 75\n"),
            format!("serve_batch_execution_time_ms_bucket{{{of},le=\"5\"}} 1\n"),
            format!("serve_batch_wait_time_ms_bucket{{{of},le=\"10\"}} 0\n"),
        ] {
            assert!(shown.contains(&line), "{line} in {shown}");
        }
        drop(batches);
        assert!(!page().contains("batches#1"), "{}", page());
    }
}
