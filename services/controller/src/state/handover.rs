//! From one graph of an application to another: the deployments that its config names no more go on until those that take
//! their place run.
//!
//! Until then proxies are told of them first, so that requests go on to be served by them. Where there is no room for both,
//! replicas of the old graph beyond the last of their deployment leave one at a time, and requests go to the new graph as soon
//! as it has a replica of every deployment; where there is none even then, the old graph leaves and requests wait, and the
//! status says so.
//!
//! Invariant: while a deployment that encodes or decodes is needed by requests that another of the old graph draws, it stays,
//! and so where the whole application goes, until proxies say that nothing is asked of it.

use mobula_schema::Stage;
use mobula_serving::place::Kind;
use tracing::info;

use super::{
    Action, State, Time,
    model::{App, Deployment, Key},
    rollout::PATIENCE,
};

/// How far an application is on its way to another graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Handover {
    /// Requests go to the new graph.
    pub(super) is_done: bool,
    /// They had to before it was there: there was no room for both.
    pub(super) is_short: bool,
    /// Since when replicas of the new graph have no place.
    stuck: Option<Time>,
}

/// What a picture needs.
const WAY: [Stage; 3] = [Stage::EncodeText, Stage::Denoise, Stage::Decode];

/// Whether a deployment does a stage.
fn does(deployment: &Deployment, stage: Stage) -> bool {
    let config = &deployment.spec.config;
    config.kind == Kind::Inference && (config.stages.is_empty() || config.stages.contains(&stage))
}

/// Replicas that can be counted on, of those that are wanted.
fn ready(deployment: &Deployment) -> usize {
    let old = deployment.outdated.intersection(&deployment.running).count();
    deployment.steady.len() + old
}

impl State {
    fn of_app<'a>(&'a self, app: &'a App) -> impl Iterator<Item = &'a Deployment> {
        app.deployments.iter().filter_map(|key| self.deployments.get(key))
    }

    /// Whether requests still go to deployments that the application's config names no more.
    pub(super) fn is_served_by_old_graph(&self, app: &App) -> bool {
        if app.deleting || app.handover.is_done {
            return false;
        }
        let old = |stage| {
            let mut leaving = self.of_app(app).filter(|d| d.deleting);
            leaving.any(|d| does(d, stage) && !d.running.is_empty())
        };
        WAY.into_iter().all(old)
    }

    /// The first deployment of the new graph that has fewer replicas than are wanted.
    pub(super) fn graph_lacks(&self, app: &App) -> Option<&Deployment> {
        let mut new = app.deployments.iter().filter_map(|key| self.deployments.get(key));
        new.find(|d| !d.deleting && ready(d) < d.target)
    }

    /// Brings a deployment that the config names no more to its end, as far as may be now.
    pub(super) fn leave(&mut self, key: Key, now: Time, actions: &mut Vec<Action>) {
        let Some(name) = self.deployments.get(&key).map(|d| d.app.clone()) else {
            return;
        };
        let Some(app) = self.apps.get(&name) else {
            return self.clear(key, actions);
        };
        if self.is_served_by_old_graph(app) {
            if self.graph_lacks(app).is_none() {
                self.turn(&name, false);
            } else if let Some(id) = self.makes_room_for_graph(&name, key, now) {
                info!(replica = %id, "replica of an earlier graph leaves to make room");
                self.retire(&id, actions);
            }
        }
        let Some(app) = self.apps.get(&name) else { return };
        if self.is_served_by_old_graph(app) {
            return;
        }
        if !self.is_drawn_for(app, key) {
            self.clear(key, actions);
        } else if app.deleting {
            self.retire_idle(key, actions);
        }
    }

    /// Takes away the replicas that nobody is served by yet.
    fn retire_idle(&mut self, key: Key, actions: &mut Vec<Action>) {
        let Some(deployment) = self.deployments.get(&key) else {
            return;
        };
        let idle: Vec<String> = deployment
            .replicas
            .difference(&deployment.running)
            .cloned()
            .collect();
        for id in idle {
            self.retire(&id, actions);
        }
    }

    /// Whether requests that another deployment of the old graph draws may still need this one.
    fn is_drawn_for(&self, app: &App, key: Key) -> bool {
        let draws = |d: &Deployment| d.deleting && does(d, Stage::Denoise);
        // What is drawn of an application that goes is only decoded.
        let is_part = |d: &Deployment| !app.deleting || d.spec.config.kind == Kind::Inference;
        let helps = self
            .deployments
            .get(&key)
            .is_some_and(|d| !draws(d) && is_part(d));
        // Pictures whose steps are done may wait for their decoder at a proxy.
        let is_asked = || app.deleting && app.asks.values().any(|(_, asked)| *asked);
        let mut others = self.of_app(app);
        let still_draw = |d: &Deployment| draws(d) && !(d.running.is_empty() && d.stopping.is_empty());
        helps && (others.any(still_draw) || is_asked())
    }

    fn turn(&mut self, name: &str, is_short: bool) {
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        info!(app = %name, is_short, "requests go to the application's new deployments");
        app.handover = Handover {
            is_done: true,
            is_short,
            stuck: None,
        };
        self.dirty.extend(&app.deployments);
        self.routes.changed = true;
    }

    /// A replica of this deployment that leaves because the new graph has waited for room long enough.
    fn makes_room_for_graph(&mut self, name: &str, key: Key, now: Time) -> Option<String> {
        let app = self.apps.get(name)?;
        let denied = self
            .of_app(app)
            .any(|d| !d.deleting && !d.pending.is_empty() && d.reason.is_some());
        let settles = self.of_app(app).any(|d| d.deleting && !d.stopping.is_empty());
        let complete = self
            .of_app(app)
            .all(|d| d.deleting || d.target == 0 || ready(d) > 0);
        let has_more = |d: &Deployment| d.deleting && d.running.len() > d.spec.gang();
        let others = self.of_app(app).any(has_more);
        let stuck = &mut self.apps.get_mut(name)?.handover.stuck;
        if !denied || settles {
            *stuck = None;
            return None;
        }
        let due = *stuck.get_or_insert(now) + PATIENCE;
        if now < due {
            self.wake_at(due, key);
            return None;
        }
        if complete || !others {
            self.turn(name, !complete);
            return None;
        }
        let deployment = self.deployments.get(&key).filter(|d| has_more(d))?;
        let running: Vec<String> = deployment.running.iter().cloned().collect();
        let gone = self.victims(&running, deployment.spec.gang()).into_iter().next();
        if let Some(app) = self.apps.get_mut(name) {
            app.handover.stuck = None;
        }
        gone
    }
}
