//! What an application's models have done, as Triton counts it. Pure; the clock is its caller's.
//!
//! It lives as long as its application is deployed, and counts requests of every door, since they share replicas. Invariant:
//! nothing ever falls.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mobula_proto::{
    common::v1::Timings,
    oip::{InferBatchStatistics, InferStatistics, ModelStatistics, StatisticDuration},
};

use super::ask::VERSION;

/// So many sizes of requests are told apart; more than the pictures that a request may have.
const SIZES_MAX: usize = 64;

/// One of an application's models: its id among those on demand, empty for its own; and which stage, empty for all of them.
type Key = (String, &'static str);

/// What one application's models have done.
#[derive(Debug, Default)]
pub(crate) struct Statistics(Mutex<BTreeMap<Key, Counted>>);

/// A request that ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended<'a> {
    /// Which of the models on demand; empty is the application's own.
    pub(crate) model_id: &'a str,
    /// Which stage; empty is the whole pipeline.
    pub(crate) stage: &'static str,
    pub(crate) is_success: bool,
    /// Pictures, or rows of a stage.
    pub(crate) count: u32,
    /// Where its time went.
    pub(crate) timings: Timings,
    /// From arrival to end.
    pub(crate) total: Duration,
    /// When, milliseconds since 1970.
    pub(crate) at_unix_ms: u64,
}

/// How often, and how long in all.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: u64,
    ns: u64,
}

impl Sum {
    fn add(&mut self, took: Duration) {
        self.count = self.count.saturating_add(1);
        self.ns = self
            .ns
            .saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    fn told(self) -> Option<StatisticDuration> {
        Some(StatisticDuration {
            count: self.count,
            ns: self.ns,
        })
    }
}

/// The parts of a request's time, in Triton's words.
#[derive(Debug, Clone, Copy, Default)]
struct Compute {
    input: Sum,
    infer: Sum,
    output: Sum,
}

impl Compute {
    fn add(&mut self, parts: [Duration; 3]) {
        self.input.add(parts[0]);
        self.infer.add(parts[1]);
        self.output.add(parts[2]);
    }
}

#[derive(Debug, Clone, Default)]
struct Counted {
    last_unix_ms: u64,
    pictures: u64,
    success: Sum,
    fail: Sum,
    queue: Sum,
    compute: Compute,
    by_size: BTreeMap<u32, Compute>,
}

impl Counted {
    fn add(&mut self, ended: &Ended<'_>) {
        self.last_unix_ms = self.last_unix_ms.max(ended.at_unix_ms);
        if !ended.is_success {
            self.fail.add(ended.total);
            return;
        }
        let t = &ended.timings;
        let parts = if ended.stage.is_empty() {
            let networks = t
                .encode_us
                .saturating_add(t.denoise_us)
                .saturating_add(t.decode_us);
            [t.preprocess_us, networks, t.image_us].map(Duration::from_micros)
        } else {
            // A stage is one call: all that was not waiting.
            let waited = Duration::from_micros(t.queue_us);
            [Duration::ZERO, ended.total.saturating_sub(waited), Duration::ZERO]
        };
        self.pictures = self.pictures.saturating_add(ended.count.into());
        self.success.add(ended.total);
        self.queue.add(Duration::from_micros(t.queue_us));
        self.compute.add(parts);
        if self.by_size.len() < SIZES_MAX || self.by_size.contains_key(&ended.count) {
            self.by_size.entry(ended.count).or_default().add(parts);
        }
    }

    fn told(&self, name: String) -> ModelStatistics {
        let sizes = self.by_size.iter().map(|(size, compute)| InferBatchStatistics {
            batch_size: (*size).into(),
            compute_input: compute.input.told(),
            compute_infer: compute.infer.told(),
            compute_output: compute.output.told(),
        });
        ModelStatistics {
            name,
            version: VERSION.to_owned(),
            last_inference: self.last_unix_ms,
            inference_count: self.pictures,
            execution_count: self.success.count,
            inference_stats: Some(InferStatistics {
                success: self.success.told(),
                fail: self.fail.told(),
                queue: self.queue.told(),
                compute_input: self.compute.input.told(),
                compute_infer: self.compute.infer.told(),
                compute_output: self.compute.output.told(),
                cache_hit: Sum::default().told(),
                cache_miss: Sum::default().told(),
            }),
            batch_stats: sizes.collect(),
            ..ModelStatistics::default()
        }
    }
}

impl Statistics {
    /// Counts a request.
    pub(crate) fn ended(&self, ended: Ended<'_>) {
        let key = (ended.model_id.to_owned(), ended.stage);
        self.lock().entry(key).or_default().add(&ended);
    }

    /// What one of the models has done, by the name that it is told under.
    pub(crate) fn of(&self, name: String, (model_id, stage): (&str, &'static str)) -> ModelStatistics {
        let counted = self.lock();
        match counted.get(&(model_id.to_owned(), stage)) {
            Some(counted) => counted.told(name),
            None => Counted::default().told(name),
        }
    }

    /// Nothing under this lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ended(is_success: bool, count: u32, micros: u64) -> Ended<'static> {
        Ended {
            model_id: "",
            stage: "",
            is_success,
            count,
            timings: Timings {
                queue_us: micros,
                preprocess_us: 2 * micros,
                encode_us: micros,
                denoise_us: 3 * micros,
                decode_us: micros,
                image_us: micros,
                ..Timings::default()
            },
            total: Duration::from_micros(9 * micros),
            at_unix_ms: micros,
        }
    }

    #[test]
    fn a_request_is_counted_by_its_parts_and_its_size() {
        let statistics = Statistics::default();
        statistics.ended(ended(true, 2, 10));
        statistics.ended(ended(true, 2, 20));
        statistics.ended(ended(true, 1, 1));
        statistics.ended(ended(false, 1, 5));
        let told = statistics.of("demo".into(), ("", ""));
        assert_eq!(
            (told.inference_count, told.execution_count, told.last_inference),
            (5, 3, 20)
        );
        let parts = told.inference_stats.unwrap();
        let ns = |sum: Option<StatisticDuration>| sum.map(|sum| (sum.count, sum.ns));
        assert_eq!(ns(parts.success), Some((3, 9 * 31_000)));
        assert_eq!(ns(parts.fail), Some((1, 45_000)));
        assert_eq!(ns(parts.queue), Some((3, 31_000)));
        assert_eq!(ns(parts.compute_input), Some((3, 62_000)));
        assert_eq!(ns(parts.compute_infer), Some((3, 5 * 31_000)));
        assert_eq!(ns(parts.compute_output), Some((3, 31_000)));
        let sizes: Vec<_> = told
            .batch_stats
            .iter()
            .map(|s| (s.batch_size, ns(s.compute_output)))
            .collect();
        assert_eq!(sizes, [(1, Some((1, 1_000))), (2, Some((2, 30_000)))]);
        let other = statistics.of("demo:x".into(), ("x", ""));
        assert_eq!(
            (
                other.execution_count,
                other.inference_stats.unwrap().fail.unwrap().count
            ),
            (0, 0)
        );
    }

    proptest! {
        #[test]
        fn nothing_ever_falls_and_parts_are_counted_alike(
            requests in proptest::collection::vec((any::<bool>(), 0u32..200, any::<u32>()), 1..100)
        ) {
            let statistics = Statistics::default();
            let mut before = (0, 0, 0);
            for (is_success, count, micros) in requests {
                statistics.ended(ended(is_success, count, micros.into()));
                let told = statistics.of(String::new(), ("", ""));
                let parts = told.inference_stats.unwrap();
                let now = (told.inference_count, parts.success.unwrap().ns, parts.fail.unwrap().ns);
                prop_assert!(now.0 >= before.0 && now.1 >= before.1 && now.2 >= before.2);
                before = now;
                let count = parts.success.unwrap().count;
                prop_assert_eq!(count, told.execution_count);
                for part in [parts.queue, parts.compute_input, parts.compute_infer, parts.compute_output] {
                    prop_assert_eq!(part.unwrap().count, count);
                }
                prop_assert!(told.batch_stats.len() <= SIZES_MAX);
            }
        }
    }
}
