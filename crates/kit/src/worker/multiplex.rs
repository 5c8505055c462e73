//! What is measured of the models that a replica serves on demand, under Ray Serve's names (multiplex.py of 2.60). Series end
//! with their replica; that of a model ends when the replica holds it no more, where Ray sets it to 0.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mobula_proto::control::v1::ReplicaSpec;

use crate::metrics::{Family, Kind, MILLIS, Series};

const REPLICA: &[&str] = &["application", "deployment", "replica"];

static LOAD: Family = Family {
    name: "serve_multiplexed_model_load_latency_ms",
    kind: Kind::Histogram(&MILLIS),
    labels: REPLICA,
    help: "Milliseconds to load a model on demand.",
};
static UNLOAD: Family = Family {
    name: "serve_multiplexed_model_unload_latency_ms",
    kind: Kind::Histogram(&MILLIS),
    labels: REPLICA,
    help: "Milliseconds to give up a model that was loaded on demand.",
};
static MODELS: Family = Family {
    name: "serve_num_multiplexed_models",
    kind: Kind::Gauge,
    labels: REPLICA,
    help: "Models on demand that the replica holds.",
};
static REGISTERED: Family = Family {
    name: "serve_registered_multiplexed_model_id",
    kind: Kind::Gauge,
    labels: &["application", "deployment", "replica", "model_id"],
    help: "1 for every model on demand that the replica holds.",
};
static ASKED: Family = Family {
    name: "serve_multiplexed_get_model_requests_counter_total",
    kind: Kind::Counter,
    labels: REPLICA,
    help: "Requests that named a model on demand.",
};
static LOADED: Family = Family {
    name: "serve_multiplexed_models_load_counter_total",
    kind: Kind::Counter,
    labels: REPLICA,
    help: "Models that were loaded on demand.",
};
static UNLOADED: Family = Family {
    name: "serve_multiplexed_models_unload_counter_total",
    kind: Kind::Counter,
    labels: REPLICA,
    help: "Models loaded on demand that were given up.",
};

/// What is measured of a replica's models on demand.
#[derive(Debug)]
pub struct Multiplexed {
    names: [String; 3],
    load: Series,
    unload: Series,
    models: Series,
    asked: Series,
    loaded: Series,
    unloaded: Series,
    /// By model.
    held: Mutex<BTreeMap<String, Series>>,
}

impl Multiplexed {
    /// Nothing is held yet.
    pub fn new(spec: &ReplicaSpec) -> Self {
        let names = [&spec.application, &spec.deployment, &spec.replica_id].map(ToOwned::to_owned);
        let replica = names.each_ref().map(String::as_str);
        Self {
            load: LOAD.series(&replica),
            unload: UNLOAD.series(&replica),
            models: MODELS.series(&replica),
            asked: ASKED.series(&replica),
            loaded: LOADED.series(&replica),
            unloaded: UNLOADED.series(&replica),
            held: Mutex::default(),
            names,
        }
    }

    /// A request names a model.
    pub fn asked(&self) {
        self.asked.add(1);
    }

    /// A model was loaded; it is one that the replica's specification names, so that there are not more than those.
    pub fn loaded(&self, model: &str, took: Duration) {
        self.loaded.add(1);
        self.load.record_ms(took);
        let [application, deployment, replica] = &self.names;
        let series = REGISTERED.series(&[application, deployment, replica, model]);
        series.set(1.0);
        let mut held = self.lock();
        held.insert(model.to_owned(), series);
        self.show(&held);
    }

    /// A model is given up from now on.
    pub fn leaves(&self, model: &str) {
        let mut held = self.lock();
        held.remove(model);
        self.show(&held);
    }

    /// A model that was held is given up.
    pub fn unloaded(&self, took: Duration) {
        self.unloaded.add(1);
        self.unload.record_ms(took);
    }

    #[allow(clippy::cast_precision_loss)] // Models are few.
    fn show(&self, held: &BTreeMap<String, Series>) {
        self.models.set(held.len() as f64);
    }

    /// Nothing under this lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Series>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_types_labels_and_buckets_are_rays() {
        let list = include_str!("../../tests/golden/ray_metrics.tsv");
        let families = [&LOAD, &UNLOAD, &MODELS, &REGISTERED, &ASKED, &LOADED, &UNLOADED];
        for family in families {
            assert!(
                list.lines().any(|line| line == family.line()),
                "{}",
                family.line()
            );
        }
    }

    #[test]
    fn a_model_is_shown_for_as_long_as_it_is_held() {
        let handle = crate::metrics::install();
        let page = || crate::metrics::render(&handle);
        let models = Multiplexed::new(&ReplicaSpec {
            replica_id: "many#1".to_owned(),
            application: "many".to_owned(),
            deployment: "pipeline".to_owned(),
            ..ReplicaSpec::default()
        });
        let of = r#"application="many",deployment="pipeline",replica="many#1""#;
        models.asked();
        models.loaded("a", Duration::from_millis(3));
        models.loaded("b", Duration::from_millis(3));
        let shown = page();
        assert!(
            shown.contains(&format!("serve_num_multiplexed_models{{{of}}} 2\n")),
            "{shown}"
        );
        models.leaves("a");
        models.unloaded(Duration::from_millis(1));
        let shown = page();
        assert!(!shown.contains("model_id=\"a\""), "{shown}");
        for line in [
            format!("serve_registered_multiplexed_model_id{{{of},model_id=\"b\"}} 1\n"),
            format!("serve_num_multiplexed_models{{{of}}} 1\n"),
            format!("serve_multiplexed_models_load_counter_total{{{of}}} 2\n"),
            format!("serve_multiplexed_models_unload_counter_total{{{of}}} 1\n"),
            format!("serve_multiplexed_get_model_requests_counter_total{{{of}}} 1\n"),
            format!("serve_multiplexed_model_load_latency_ms_bucket{{{of},le=\"5\"}} 2\n"),
        ] {
            assert!(shown.contains(&line), "{line} in {shown}");
        }
        drop(models);
        assert!(!page().contains("many#1"), "{}", page());
    }
}
