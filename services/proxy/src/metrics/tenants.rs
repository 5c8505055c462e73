//! What is counted by tenant, and of keys. Tenants' names come from the list of keys alone; their series end with their last
//! key.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use mobula_kit::metrics::{Family, Kind, Series};
use mobula_serving::quota::Bound;

const KEYS: &str = "mobula_proxy_api_keys";
const READS: &str = "mobula_proxy_api_key_reads_total";
const STRANGERS: &str = "mobula_proxy_unauthenticated_total";

static BEGUN: Family = Family {
    name: "mobula_proxy_tenant_requests_total",
    kind: Kind::Counter,
    labels: &["tenant"],
    help: "Requests of a tenant's that began.",
};
static TURNED: Family = Family {
    name: "mobula_proxy_tenant_refused_total",
    kind: Kind::Counter,
    labels: &["tenant", "reason"],
    help: "Requests of a tenant's that its key does not allow, by what it lacks.",
};
static PIXELS: Family = Family {
    name: "mobula_proxy_tenant_pixels_total",
    kind: Kind::Counter,
    labels: &["tenant"],
    help: "Pixels of pictures that a tenant was charged for.",
};

/// What a key does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// More than a limit.
    Over(Bound),
    /// A model.
    Model,
    /// A class.
    Priority,
}

const REASONS: [&str; 6] = [
    "requests_per_second",
    "concurrent",
    "megapixels_per_minute",
    "megapixels_per_day",
    "model",
    "priority",
];

impl Turned {
    /// Its place among the reasons.
    fn index(self) -> usize {
        match self {
            Self::Over(Bound::Requests) => 0,
            Self::Over(Bound::Running) => 1,
            Self::Over(Bound::Minute) => 2,
            Self::Over(Bound::Day) => 3,
            Self::Model => 4,
            Self::Priority => 5,
        }
    }
}

/// The counters of a tenant; its keys share them.
#[derive(Debug)]
pub(crate) struct Tenant {
    name: String,
    begun: Series,
    pixels: Series,
    turned: [OnceLock<Series>; REASONS.len()],
}

impl Tenant {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            begun: BEGUN.series(&[name]),
            pixels: PIXELS.series(&[name]),
            turned: Default::default(),
        }
    }

    /// A request began.
    pub(crate) fn begun(&self) {
        self.begun.add(1);
    }

    /// So many pixels were drawn.
    pub(crate) fn drawn(&self, pixels: u64) {
        self.pixels.add(pixels);
    }

    /// A request was refused.
    pub(crate) fn turned(&self, why: Turned) {
        let at = why.index();
        let series = || TURNED.series(&[&self.name, REASONS[at]]);
        self.turned[at].get_or_init(series).add(1);
    }
}

/// What is counted of all keys.
#[derive(Debug)]
pub(crate) struct KeyMetrics {
    /// Keys that there are.
    pub(crate) there: Gauge,
    read: [Counter; 2],
    turned: [Counter; 2],
}

impl KeyMetrics {
    pub(crate) fn new() -> Self {
        describe_gauge!(KEYS, "API keys that open a door.");
        describe_counter!(
            READS,
            "Readings of the file of API keys after it changed, by result."
        );
        describe_counter!(
            STRANGERS,
            "Requests that showed no API key, or one that is not known."
        );
        Self {
            there: gauge!(KEYS),
            read: ["failed", "ok"].map(|result| counter!(READS, "result" => result)),
            turned: ["missing", "unknown"].map(|reason| counter!(STRANGERS, "reason" => reason)),
        }
    }

    /// The file was read again.
    pub(crate) fn read(&self, is_ok: bool) {
        self.read[usize::from(is_ok)].increment(1);
    }

    /// Somebody was refused who showed a key, or none.
    pub(crate) fn turned(&self, is_shown: bool) {
        self.turned[usize::from(is_shown)].increment(1);
    }
}
