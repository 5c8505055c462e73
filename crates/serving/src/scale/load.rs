//! Who reports load, and what it comes to.
//!
//! Invariant: a request counts once. What is queued is known by routers alone. What runs is known by the router that sent it
//! and by the replica that has it: the replicas' word counts if any replica reports, else the routers', as in Ray. Work is
//! known to both as well; the routers' word counts if any reports, for they know what is queued too, else the replicas'.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Aggregation, Config, Policy, Sample,
    delay::{self, time},
    nanos,
    series::{Point, Series},
    steps::{Manner, Steps},
};

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Router,
    Replica,
}

/// What the series come to at the last tick.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Load {
    /// Queued and running requests.
    pub(super) total: Steps,
    /// Seconds of work.
    pub(super) work: Steps,
    /// Replicas that have something to do.
    pub(super) busy: Steps,
    /// The newest samples, added up.
    pub(super) now: Sample,
}

impl Load {
    /// True if nothing changes as time goes by.
    pub(super) fn is_steady(&self, aggregation: Aggregation) -> bool {
        let sums = self.total.is_steady() && self.work.is_steady();
        (sums || aggregation != Aggregation::Mean) && self.busy.is_steady()
    }
}

/// The series of a deployment.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    routers: BTreeMap<String, Series>,
    replicas: BTreeMap<String, Series>,
}

impl Sources {
    pub(super) fn record(&mut self, origin: Origin, source: &str, point: Point, config: &Config) {
        let of_kind = match origin {
            Origin::Router => &mut self.routers,
            Origin::Replica => &mut self.replicas,
        };
        match of_kind.get_mut(source) {
            Some(series) => series.wait(point, config.look_back, config.aggregation),
            None => {
                let mut series = Series::default();
                series.wait(point, config.look_back, config.aggregation);
                of_kind.insert(source.to_owned(), series);
            }
        }
    }

    pub(super) fn forget(&mut self, source: &str) -> bool {
        let router = self.routers.remove(source).is_some();
        self.replicas.remove(source).is_some() || router
    }

    /// Takes in what was sampled until `tick`; true if anything was.
    pub(super) fn take(&mut self, tick: u64, config: &Config) -> bool {
        let mut any = false;
        for series in self.all_mut() {
            any |= series.take(time(tick), config.look_back, config.aggregation);
        }
        any
    }

    /// Drops who has been silent for too long at `tick`; true if anybody was. Who speaks again right after it is another source.
    pub(super) fn drop_silent(&mut self, tick: u64, config: &Config) -> bool {
        let mut any = false;
        let mut stays = |_: &String, series: &mut Series| {
            let heard = series.heard().map(|at| at.saturating_add(config.silence()));
            let silent = heard.is_none_or(|end| end <= time(tick));
            any |= silent;
            !silent || !series.drop_said()
        };
        self.routers.retain(&mut stays);
        self.replicas.retain(stays);
        any
    }

    /// The tick that takes in the first sample that waits, or in which the first source has been silent for too long.
    pub(super) fn event(&self, config: &Config) -> Option<u64> {
        let waiting = self.all().filter_map(Series::waiting).min();
        let heard = self.all().filter_map(Series::heard).min();
        let silent = heard.map(|at| at.saturating_add(config.silence()));
        waiting.into_iter().chain(silent).min().map(delay::ceil)
    }

    /// How long ago the source that is silent for the longest was heard; none if there is no source.
    pub(super) fn oldest(&self, now: Duration) -> Option<Duration> {
        let heard = self.all().filter_map(Series::heard).min();
        heard.map(|at| now.saturating_sub(at))
    }

    /// How many report.
    pub(super) fn len(&self) -> usize {
        self.routers.len() + self.replicas.len()
    }

    /// Adds everything up; `running` replicas are there to work.
    pub(super) fn load(&self, config: &Config, running: u32) -> Load {
        let counted = self.counted(running);
        let queued = self.routers.values().map(|of| (of, QUEUED));
        let at_work = || counted.iter().map(|of| (*of, RUNNING));
        let lone = Manner {
            lone: true,
            most: None,
        };
        let mut load = Load {
            total: sum(queued.chain(at_work()), lone),
            ..Load::default()
        };
        let newest = |series: &Series| series.last().unwrap_or_default();
        load.now.queued = self.routers.values().map(|of| newest(of).queued).sum();
        load.now.running = counted.iter().map(|of| newest(of).running).sum();
        let workers = if self.routers.is_empty() {
            &self.replicas
        } else {
            &self.routers
        };
        load.now.work_s = workers.values().map(|of| newest(of).work_s).sum();
        if matches!(config.policy, Policy::Work { .. }) {
            load.work = sum(workers.values().map(|of| (of, WORK)), Manner::default());
            let most = Manner {
                most: Some(f64::from(running)),
                ..Manner::default()
            };
            load.busy = sum(at_work(), most);
        }
        load
    }

    /// Whose running requests count. Without a replica nothing runs: what a router thinks of one that is gone is no load.
    fn counted(&self, running: u32) -> Vec<&Series> {
        if running == 0 {
            return Vec::new();
        }
        let replicas: Vec<&Series> = self
            .replicas
            .values()
            .filter(|of| !of.points().is_empty())
            .collect();
        if replicas.is_empty() {
            self.routers.values().collect()
        } else {
            replicas
        }
    }

    fn all(&self) -> impl Iterator<Item = &Series> {
        self.routers.values().chain(self.replicas.values())
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Series> {
        self.routers.values_mut().chain(self.replicas.values_mut())
    }
}

/// What is added up of a sample.
type Part = fn(&Sample) -> f64;

const QUEUED: Part = |sample| sample.queued;
const RUNNING: Part = |sample| sample.running;
const WORK: Part = |sample| sample.work_s;

fn sum<'a>(parts: impl Iterator<Item = (&'a Series, Part)>, manner: Manner) -> Steps {
    let values = |(of, part): (&'a Series, Part)| {
        let points = of.points().iter();
        points.map(move |point| (nanos(point.at), part(&point.sample)))
    };
    Steps::sum(parts.map(values), manner)
}
