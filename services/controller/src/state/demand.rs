//! What proxies say that callers ask for: it goes to the scalers, and an application is woken as a whole.
//!
//! Two things are added to what scalers decide on their own, for an application answers only with all its deployments:
//! - while anything is asked of an application, none of its deployments stays at zero: all that a request will need start
//!   together;
//! - while a deployment has replicas, those that prepare inputs for it have one.

use std::collections::BTreeMap;

use mobula_proto::control::v1 as pb;
use mobula_schema::Count;
use mobula_serving::{
    place::Kind,
    scale::{self, Sample, adjusted},
};

use super::{
    State, Time,
    convert::millis,
    model::{Deployment, Key},
};

/// A proxy never leaves a replica out for as long: an hour.
const LONGEST_MS: u64 = 3_600_000;

/// The source of what is asked of the application as a whole; no proxy has an id like it.
const APPLICATION: &str = "\0application";

/// What proxies say of an application, by proxy: when, and whether anything is asked for.
pub(super) type Asks = BTreeMap<String, (Time, bool)>;

/// What a proxy reported last, beside what goes to the scalers.
#[derive(Clone, Debug)]
pub(super) struct Report {
    at: Time,
    /// Replicas that it sends less than their share, by id.
    restrained: BTreeMap<String, Restrained>,
}

/// Until when a replica gets less than its share.
#[derive(Clone, Copy, Debug)]
struct Restrained {
    ejected_until: Time,
    ejections: u32,
    slow_until: Time,
}

impl Report {
    /// How long ago it was, milliseconds.
    pub(super) fn age_ms(&self, now: Time) -> u64 {
        millis(now.saturating_sub(self.at))
    }

    /// What is still so of what it said of replicas, by id.
    pub(super) fn restrained(&self, now: Time) -> Vec<pb::RestrainedReplica> {
        let replicas = self.restrained.iter();
        let told = replicas.map(|(id, said)| {
            let ejected_ms = millis(said.ejected_until.saturating_sub(now));
            pb::RestrainedReplica {
                replica_id: id.clone(),
                ejected_ms,
                ejections: if ejected_ms == 0 { 0 } else { said.ejections },
                slow_start_ms: millis(said.slow_until.saturating_sub(now)),
            }
        });
        told.filter(|told| told.ejected_ms + told.slow_start_ms > 0)
            .collect()
    }
}

impl State {
    /// The fewest replicas that a deployment has for the sake of its application.
    pub(super) fn floor(&self, deployment: &Deployment) -> u32 {
        let Some(app) = self.apps.get(&deployment.app) else {
            return 0;
        };
        let config = &deployment.spec.config;
        let capacity = self.intent.config.options.target_capacity;
        let most = match &config.count {
            Count::Auto(config) => adjusted(config.max, capacity),
            Count::Fixed(count) => *count,
        };
        let serves = config.kind == Kind::Preprocess
            && app
                .deployments
                .iter()
                .filter_map(|key| self.deployments.get(key))
                .any(|other| {
                    other.spec.config.kind != Kind::Preprocess && other.target > 0 && !other.deleting
                });
        u32::from(serves).min(most)
    }

    /// Takes in what a proxy's callers ask for.
    pub(super) fn demand(&mut self, proxy: &str, request: &pb::ReportDemandRequest, now: Time) {
        let report = self.report_of(request, now);
        self.reports.insert(proxy.to_owned(), report);
        let mut asked: BTreeMap<&str, bool> = BTreeMap::new();
        for demand in &request.demands {
            *asked.entry(&demand.application).or_default() |= demand.queued > 0 || demand.running > 0;
            let Some(key) = self.find(&demand.application, &demand.deployment) else {
                continue;
            };
            if let Some(auto) = self.scalers.get_mut(&key) {
                let sample = Sample {
                    queued: demand.queued.into(),
                    running: demand.running.into(),
                    work_s: demand.work_s,
                };
                auto.scaler.record(proxy, now, sample);
                auto.heard = Some(now);
                self.schedule(key, now);
            }
        }
        for (app, asked) in asked {
            self.ask(app, proxy, Some(asked), now);
        }
    }

    /// What is kept of a report; of replicas that are not there nothing is.
    fn report_of(&self, request: &pb::ReportDemandRequest, now: Time) -> Report {
        let until = |ms: u64| now.saturating_add(Time::from_millis(ms.min(LONGEST_MS)));
        let known = request
            .restrained
            .iter()
            .filter(|replica| self.replicas.contains_key(&replica.replica_id));
        let kept = known.map(|replica| {
            let said = Restrained {
                ejected_until: until(replica.ejected_ms),
                ejections: replica.ejections,
                slow_until: until(replica.slow_start_ms),
            };
            (replica.replica_id.clone(), said)
        });
        Report {
            at: now,
            restrained: kept.collect(),
        }
    }

    /// Forgets what a proxy said; it is gone, and others have its callers.
    pub(super) fn proxy_gone(&mut self, proxy: &str, now: Time) {
        self.reports.remove(proxy);
        for key in self.scalers.keys().copied().collect::<Vec<_>>() {
            if let Some(auto) = self.scalers.get_mut(&key) {
                auto.scaler.forget(proxy);
            }
            self.schedule(key, now);
        }
        for app in self.apps.keys().cloned().collect::<Vec<_>>() {
            self.ask(&app, proxy, None, now);
        }
    }

    /// Books whether a proxy's callers ask anything of an application.
    fn ask(&mut self, app: &str, proxy: &str, said: Option<bool>, now: Time) {
        let Some(state) = self.apps.get_mut(app) else {
            return;
        };
        let before = state.asks.values().any(|(_, asked)| *asked);
        match said {
            Some(asked) => {
                state.asks.insert(proxy.to_owned(), (now, asked));
                if asked {
                    self.silences.insert((now + scale::SILENCE, app.to_owned()));
                }
            }
            None => drop(state.asks.remove(proxy)),
        }
        if state.asks.values().any(|(_, asked)| *asked) != before {
            self.nudge_app(app, now);
        }
    }

    /// Lets what proxies said count no more when they have been silent for too long.
    pub(super) fn drop_silent(&mut self, now: Time) {
        while let Some((at, app)) = self.silences.first().filter(|(at, _)| *at <= now).cloned() {
            self.silences.pop_first();
            if let Some(state) = self.apps.get_mut(&app) {
                state.asks.retain(|_, (heard, _)| *heard + scale::SILENCE > at);
                self.nudge_app(&app, now);
            }
        }
    }

    /// Has every deployment of an application looked at that may have to wake, or may go now.
    fn nudge_app(&mut self, app: &str, now: Time) {
        let Some(app) = self.apps.get(app) else { return };
        if app.deleting {
            // Its last parts stay while anything is asked.
            self.dirty.extend(&app.deployments);
        }
        for key in app.deployments.clone() {
            self.nudge(key);
            self.schedule(key, now);
        }
    }

    /// Tells the scaler of a deployment at zero of one request that waits, while anything is asked of its application: it
    /// decides as if the request had come so far already, and keeps its own delays before it goes back.
    pub(super) fn nudge(&mut self, key: Key) {
        let (Some(auto), Some(deployment)) = (self.scalers.get_mut(&key), self.deployments.get(&key)) else {
            return;
        };
        let asks = self.apps.get(&deployment.app).map(|app| &app.asks);
        let asked = asks.and_then(|asks| asks.values().filter(|(_, asked)| *asked).map(|(at, _)| *at).max());
        match asked {
            Some(at) if auto.scaler.target() == 0 => {
                let sample = Sample {
                    queued: 1.0,
                    ..Sample::default()
                };
                auto.scaler.record(APPLICATION, at, sample);
                auto.nudged = true;
            }
            Some(_) | None if auto.nudged => {
                auto.scaler.forget(APPLICATION);
                auto.nudged = false;
            }
            Some(_) | None => {}
        }
    }
}
