//! The route table: which applications there are, by name and by path, and where their replicas are.
//!
//! A [`Table`] is an immutable snapshot; requests take the one that is current when they come. The pools in it live on
//! from table to table, with their queues and with what was learned of their replicas.
//!
//! [`Fleet::apply`] takes in what the controller sends. A controller that has just started does not know yet what runs:
//! for [`ADOPTION`] nothing is taken away on its word, only added.
//!
//! A deployment that is not in the table any more, or that others have taken the place of and that has no replica left, sends
//! those who wait there to the application as it is now.
//!
//! An application that is being deleted is not in the table, as if it were gone; its pools finish what they have.

mod build;
mod merge;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mobula_kit::channel::Dial;
use mobula_proto::control::v1::{Demand, ModelInfo, RestrainedReplica, WatchRoutesResponse};
use tokio::sync::watch;

use self::{build::Pools, merge::merge};
use crate::{
    Error,
    caller::Caller,
    channels::Channels,
    demand::Pace,
    metrics::{Door, Ingress},
    pool::{Pool, Settings},
    v2::Statistics,
};

/// How long a new controller is given to hear of the replicas that run: workers dial again within a second.
pub(crate) const ADOPTION: Duration = Duration::from_secs(5);

/// Characters of an unknown name that are given back: an error's text travels in a header.
pub(crate) const NAME_SHOWN: usize = 128;

/// An application and how to serve it.
#[derive(Debug)]
pub(crate) struct Application {
    pub(crate) name: String,
    /// Empty when it is not reachable over HTTP.
    pub(crate) route_prefix: String,
    /// Sides of a picture of `GET /imagine` that names none, pixels; 0 is the model's own.
    pub(crate) img_size: u32,
    pub(crate) preprocess: Option<Arc<Pool>>,
    /// The deployment that draws: all of a picture's way, or where the application is split, the denoiser.
    pub(crate) pipeline: Option<Arc<Pool>>,
    /// The deployments of the other stages, where it is split.
    pub(crate) split: Option<Split>,
    /// As its replicas report it, or as they last did.
    pub(crate) model: Option<Arc<ModelInfo>>,
    /// Where its requests are counted.
    pub(crate) ingress: Arc<Ingress>,
    /// What its models have done.
    pub(crate) statistics: Arc<Statistics>,
}

/// The stages beside the denoiser, each with the deployment that does it.
#[derive(Debug, Clone)]
pub(crate) struct Split {
    pub(crate) encode_text: Arc<Pool>,
    pub(crate) decode: Arc<Pool>,
    pub(crate) encode: Arc<Pool>,
}

impl Application {
    /// Its pools, that of the deployment that draws first.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        let stages = self
            .split
            .iter()
            .flat_map(|split| [&split.encode_text, &split.decode]);
        self.pipeline.iter().chain(&self.preprocess).chain(stages)
    }
}

/// A snapshot of what is served.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// False until the controller was heard.
    pub(crate) is_populated: bool,
    /// By name.
    applications: Vec<Arc<Application>>,
    http_timeout: Option<Duration>,
    grpc_timeout: Option<Duration>,
}

impl Table {
    /// How long the config lets a request of a door take; none where it says nothing.
    pub(crate) fn request_timeout(&self, door: Door) -> Option<Duration> {
        match door {
            Door::Http => self.http_timeout,
            Door::Grpc => self.grpc_timeout,
        }
    }

    /// All applications, sorted by name.
    pub(crate) fn applications(&self) -> &[Arc<Application>] {
        &self.applications
    }

    /// The application with this name; the only one when the name is empty.
    pub(crate) fn by_name(&self, name: &str) -> Result<&Arc<Application>, Error> {
        if !self.is_populated {
            return Err(Error::NoRoutes);
        }
        let known = || {
            self.applications
                .iter()
                .map(|application| application.name.clone())
                .collect()
        };
        if name.is_empty() {
            return match &self.applications[..] {
                [only] => Ok(only),
                [] => Err(Error::UnknownModel {
                    name: String::new(),
                    known: Vec::new(),
                }),
                _ => Err(Error::ModelNotNamed { known: known() }),
            };
        }
        self.find(name).ok_or_else(|| Error::UnknownModel {
            name: name.chars().take(NAME_SHOWN).collect(),
            known: known(),
        })
    }

    /// The application with this name as a caller sees it: what its key does not open is refused whether it is there or not,
    /// and the only one that it opens needs no name.
    pub(crate) fn of_caller(&self, name: &str, caller: &Caller) -> Result<&Arc<Application>, Error> {
        if name.is_empty() && self.is_populated && caller.is_restricted() {
            let mut open = self
                .applications
                .iter()
                .filter(|known| caller.may_enter(&known.name));
            if let (Some(only), None) = (open.next(), open.next()) {
                return Ok(only);
            }
        } else if !name.is_empty() && !caller.may_enter(name) {
            caller.check(name, "")?;
        }
        self.by_name(name).map_err(|error| caller.narrow(error))
    }

    fn find(&self, name: &str) -> Option<&Arc<Application>> {
        let by_name = |application: &Arc<Application>| application.name.as_str().cmp(name);
        let found = self.applications.binary_search_by(by_name).ok()?;
        self.applications.get(found)
    }

    /// The application with the longest prefix of `path`, and the rest of the path, which begins with a slash.
    pub(crate) fn by_path<'a>(&self, path: &'a str) -> Option<(&Arc<Application>, &'a str)> {
        let matching = self
            .applications
            .iter()
            .filter_map(|application| Some((application, below(path, &application.route_prefix)?)));
        matching.max_by_key(|(application, _)| application.route_prefix.len())
    }
}

/// What is left of `path` below `prefix`; whole path segments only.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    match prefix {
        "" => None,
        "/" => Some(path),
        _ => match path.strip_prefix(prefix)? {
            "" => Some("/"),
            rest => rest.starts_with('/').then_some(rest),
        },
    }
}

/// The owner of the table. Only the follower of the controller writes to it.
#[derive(Debug)]
pub(crate) struct Fleet {
    settings: Settings,
    table: watch::Sender<Arc<Table>>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    channels: Channels,
    pools: Pools,
    current: WatchRoutesResponse,
    /// Until when, by the clock, nothing is taken away.
    adopting_until: Duration,
}

impl Fleet {
    /// An empty table.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            table: watch::Sender::new(Arc::new(Table::default())),
            inner: Mutex::new(Inner::default()),
        }
    }

    /// The same, with workers dialled as said.
    pub(crate) fn dialling(self, dial: Dial) -> Self {
        let inner = Inner {
            channels: Channels::new(dial),
            ..Inner::default()
        };
        Self {
            inner: Mutex::new(inner),
            ..self
        }
    }

    /// The current table and its changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Table>> {
        self.table.subscribe()
    }

    /// What is asked of every deployment that was ever asked for, sorted by name.
    pub(crate) fn demands(&self) -> Vec<Demand> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut demands: Vec<_> = inner.pools.values().filter_map(|pool| pool.demand()).collect();
        demands.sort_by(|a, b| (&a.application, &a.deployment).cmp(&(&b.application, &b.deployment)));
        demands
    }

    /// Replicas that get less than their share, of all deployments.
    pub(crate) fn restrained(&self) -> Vec<RestrainedReplica> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.pools.values().flat_map(|pool| pool.restrained()).collect()
    }

    /// How demand is to be reported, as the table says it.
    pub(crate) fn pace(&self) -> Pace {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Pace::new(inner.current.report_interval_ms, inner.current.look_back_ms)
    }

    /// The controller is not heard any more: what it said was to come may not come.
    pub(crate) fn unheard(&self) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for pool in inner.pools.values() {
            pool.unheard();
        }
    }

    /// Takes in a table from the controller. Gives the time after which it has to be given again, when parts of the old
    /// one were kept.
    pub(crate) fn apply(&self, routes: &WatchRoutesResponse) -> Option<Duration> {
        let now = self.settings.clock.now();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        let was_known = !inner.current.controller_id.is_empty();
        if was_known && inner.current.controller_id != routes.controller_id {
            inner.adopting_until = now + ADOPTION;
        }
        let left = inner.adopting_until.saturating_sub(now);
        let (merged, kept) = if left.is_zero() {
            (routes.clone(), false)
        } else {
            merge(&inner.current, routes)
        };
        inner.current = merged;
        self.publish(inner);
        (kept && !left.is_zero()).then_some(left)
    }

    fn publish(&self, inner: &mut Inner) {
        let before = Arc::clone(&self.table.borrow());
        let Inner {
            channels,
            pools,
            current,
            ..
        } = inner;
        let mut applications = Vec::with_capacity(current.applications.len());
        let mut moved = Vec::new();
        for route in &current.applications {
            let (application, beside) = self.application(route, &before, pools, channels);
            if !route.deleting {
                applications.push(Arc::new(application));
                moved.extend(beside);
                continue;
            }
            for deployment in route.deployments.iter().filter(|d| d.replicas.is_empty()) {
                if let Some(pool) = pools.get(&(route.name.clone(), deployment.name.clone())) {
                    pool.close();
                }
            }
        }
        applications.sort_by(|a, b| a.name.cmp(&b.name));
        let named: HashSet<_> = current
            .applications
            .iter()
            .flat_map(|a| a.deployments.iter().map(|d| (a.name.as_str(), d.name.as_str())))
            .collect();
        let stay = current.applications.iter().filter(|a| !a.deleting);
        let there: HashSet<_> = stay.map(|a| a.name.as_str()).collect();
        pools.retain(|(application, deployment), pool| {
            let stays = named.contains(&(application.as_str(), deployment.as_str()));
            if !stays && !there.contains(application.as_str()) {
                pool.close();
            } else if !stays {
                pool.retire();
                moved.push(Arc::clone(pool));
            }
            stays
        });
        let deployments = current.applications.iter().flat_map(|a| &a.deployments);
        channels.keep(
            &deployments
                .flat_map(|d| &d.replicas)
                .map(|r| r.address.as_str())
                .collect(),
        );
        self.table.send_replace(Arc::new(Table {
            is_populated: true,
            applications,
            http_timeout: current.http_request_timeout_ms.map(Duration::from_millis),
            grpc_timeout: current.grpc_request_timeout_ms.map(Duration::from_millis),
        }));
        // Those who wait there look for others in the table, which has to be this one.
        moved.iter().for_each(|pool| pool.move_away());
    }
}

#[cfg(test)]
mod tests;
