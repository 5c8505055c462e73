//! How many replicas each deployment shall have: a fixed number, what somebody else says, or what its scaler decides.
//!
//! Refuses to scale down because the controller was restarted: what is adopted counts as decided.

use std::collections::VecDeque;

use mobula_proto::control::v1 as pb;
use mobula_schema::Count;
use mobula_serving::scale::{self, Direction, Scaler, Status, adjusted};
use tracing::info;

use super::{
    Action, Note, State, Time,
    condition::Happened,
    convert::{count32, millis},
    gauges::Scaling,
    model::{Deployment, Key},
};

/// Decisions that are kept for the status of each deployment.
const DECISIONS: usize = 20;

/// Who wants another number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Person,
    Scaler,
}

/// A deployment that scales by itself.
#[derive(Debug)]
pub(super) struct Auto {
    pub(super) scaler: Scaler,
    config: scale::Config,
    capacity: Option<f64>,
    /// When it has something to do, as entered in the state's ticks.
    due: Option<Time>,
    /// How many replicas it was told that run.
    told: Option<usize>,
    /// When demand was last heard.
    pub(super) heard: Option<Time>,
    /// It was told of a request of its application that has not come to it yet.
    pub(super) nudged: bool,
    /// The newest first.
    decisions: VecDeque<pb::Decision>,
}

impl Auto {
    /// What Ray's dashboards show of it.
    pub(super) fn gauges(&self) -> Scaling {
        Scaling {
            desired: self.scaler.target(),
            // A sum of nothing is minus zero.
            total_requests: self.scaler.total() + 0.0,
            target_ongoing: self.config.target_ongoing,
        }
    }
}

impl State {
    /// Takes the number of replicas from where it is said.
    pub(super) fn retarget(&mut self, key: Key, now: Time, actions: &mut Vec<Action>) {
        let Some(deployment) = self.deployments.get(&key).filter(|d| !d.deleting) else {
            return;
        };
        let capacity = self.intent.config.options.target_capacity;
        let place = (deployment.app.clone(), deployment.name().to_owned());
        let known = self.intent.targets.get(&place).copied();
        match deployment.spec.config.count.clone() {
            Count::Fixed(count) => {
                self.forget_scaler(key);
                let target = adjusted(known.unwrap_or(count), capacity);
                self.set_target(key, target, Wish::Person);
            }
            Count::Auto(config) => {
                self.set_scaler(key, config, capacity, known);
                self.tick(key, now, actions);
                self.follow(key, Wish::Person);
            }
        }
    }

    fn set_scaler(&mut self, key: Key, config: scale::Config, capacity: Option<f64>, known: Option<u32>) {
        let Some(deployment) = self.deployments.get(&key) else {
            return;
        };
        let before = count32(deployment.target);
        let gang = count32(deployment.spec.gang());
        let auto = self.scalers.entry(key).or_insert_with(|| {
            let scaler = match known.or_else(|| Some(before).filter(|n| *n > 0)) {
                Some(target) => Scaler::new(config.clone(), capacity, target),
                None => Scaler::fresh(config.clone(), capacity),
            };
            Auto {
                scaler,
                config: config.clone(),
                capacity,
                due: None,
                told: None,
                heard: None,
                nudged: false,
                decisions: VecDeque::new(),
            }
        });
        if auto.config != config || auto.capacity != capacity {
            auto.scaler.reconfigure(config.clone(), capacity);
            (auto.config, auto.capacity) = (config, capacity);
        }
        auto.scaler.set_gang(gang);
    }

    /// Has scalers take the cluster as being filled anew, as Ray does with other applications than before.
    pub(super) fn fill_anew(&mut self) {
        let direction = Direction::next(None, self.intent.config.options.target_capacity);
        for auto in self.scalers.values_mut() {
            auto.scaler.set_direction(direction);
        }
    }

    pub(super) fn forget_scaler(&mut self, key: Key) {
        if let Some(auto) = self.scalers.remove(&key)
            && let Some(due) = auto.due
        {
            self.ticks.remove(&(due, key));
        }
    }

    /// Lets the scalers decide whose time has come.
    pub(super) fn tick_due(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some((_, key)) = self.ticks.first().filter(|(at, _)| *at <= now).copied() {
            self.ticks.pop_first();
            if let Some(auto) = self.scalers.get_mut(&key) {
                auto.due = None;
            }
            self.tick(key, now, actions);
        }
    }

    /// Tells a scaler how many replicas run, if that has changed.
    pub(super) fn tell_scaler(&mut self, key: Key, now: Time, actions: &mut Vec<Action>) {
        let running = self.deployments.get(&key).map(|d| d.running.len());
        if self.scalers.get(&key).is_some_and(|auto| auto.told != running) {
            self.tick(key, now, actions);
        }
    }

    /// Lets a scaler decide.
    fn tick(&mut self, key: Key, now: Time, actions: &mut Vec<Action>) {
        let (Some(auto), Some(deployment)) = (self.scalers.get_mut(&key), self.deployments.get(&key)) else {
            return;
        };
        let running = deployment.running.len();
        auto.told = Some(running);
        let decision = auto.scaler.tick(now, count32(running));
        if let Some(decision) = decision {
            let decision = pb::Decision {
                at_unix_ms: self.settings.origin_unix_ms.saturating_add(millis(decision.at)),
                application: deployment.app.clone(),
                deployment: deployment.name().to_owned(),
                from: decision.from,
                to: decision.to,
                reason: decision.reason.clone(),
                policy: policy(&auto.config).to_owned(),
                inputs: inputs(&decision.inputs),
            };
            info!(app = %decision.application, deployment = %decision.deployment, from = decision.from, to = decision.to, reason = %decision.reason, "scaler decided");
            auto.decisions.push_front(decision.clone());
            auto.decisions.truncate(DECISIONS);
            actions.push(Action::Note(Note::Decided(decision)));
            self.totals.decisions += 1;
            self.follow(key, Wish::Scaler);
        }
        self.nudge(key);
        self.schedule(key, now);
    }

    /// Enters when a scaler has something to do next.
    pub(super) fn schedule(&mut self, key: Key, now: Time) {
        let Some(auto) = self.scalers.get_mut(&key) else {
            return;
        };
        if let Some(due) = auto.due.take() {
            self.ticks.remove(&(due, key));
        }
        auto.due = auto.scaler.next(now);
        self.ticks.extend(auto.due.map(|due| (due, key)));
    }

    /// Wants as many replicas as the scaler does, and as the other deployments of the application ask for.
    fn follow(&mut self, key: Key, wish: Wish) {
        let (Some(auto), Some(deployment)) = (self.scalers.get(&key), self.deployments.get(&key)) else {
            return;
        };
        let target = auto.scaler.target().max(self.floor(deployment));
        let before = deployment.target;
        self.set_target(key, target, wish);
        let app = self
            .deployments
            .get(&key)
            .filter(|d| d.target != before)
            .map(|d| d.app.clone());
        if let Some(app) = app {
            self.follow_app(&app, Some(key));
        }
    }

    /// Has the scaled deployments of an application looked at again, but for one.
    pub(super) fn follow_app(&mut self, app: &str, but: Option<Key>) {
        let keys = self
            .apps
            .get(app)
            .map(|app| app.deployments.clone())
            .unwrap_or_default();
        for key in keys {
            if Some(key) != but && self.scalers.contains_key(&key) {
                self.follow(key, Wish::Scaler);
            }
        }
    }

    /// Wants another number of replicas; whole gangs.
    pub(super) fn set_target(&mut self, key: Key, target: u32, wish: Wish) {
        let Some(deployment) = self.deployments.get_mut(&key) else {
            return;
        };
        let target = (target as usize).next_multiple_of(deployment.spec.gang());
        let before = std::mem::replace(&mut deployment.target, target);
        let happened = match (wish, target > before) {
            (Wish::Person, true) => Happened::Increase,
            (Wish::Person, false) => Happened::Decrease,
            (Wish::Scaler, true) => Happened::AutoscaleUp,
            (Wish::Scaler, false) => Happened::AutoscaleDown,
        };
        if target != before {
            deployment.condition.handle(happened, "");
            self.touch(key);
        }
    }

    /// Whether replicas can be had by asking for them.
    pub(super) fn is_scaled(&self, key: Key) -> bool {
        self.scalers
            .get(&key)
            .is_some_and(|auto| adjusted(auto.config.max, auto.capacity) > 0)
    }

    /// Makes room for a replica of an earlier life that is more than is wanted: the number was decided then, and is not
    /// known any more.
    pub(super) fn expect_more(&mut self, key: Key) -> bool {
        let (Some(auto), Some(deployment)) = (self.scalers.get_mut(&key), self.deployments.get_mut(&key))
        else {
            return false;
        };
        let more = count32(deployment.target + 1);
        if self.grace.is_none() || more > adjusted(auto.config.max, auto.capacity) {
            return false;
        }
        auto.scaler = Scaler::new(auto.config.clone(), auto.capacity, more);
        auto.scaler.set_gang(count32(deployment.spec.gang()));
        deployment.target += 1;
        self.touch(key);
        true
    }

    /// True if the number of replicas of every deployment is known, so that nobody else need be waited for once they are
    /// there.
    pub(super) fn numbers_are_known(&self) -> bool {
        self.scalers.keys().all(|key| {
            self.deployments.get(key).is_some_and(|deployment| {
                let place = (deployment.app.clone(), deployment.name().to_owned());
                self.intent.targets.contains_key(&place)
            })
        })
    }

    /// How the scaling of a deployment goes.
    pub(super) fn scaling_status(&self, key: Key, deployment: &Deployment, now: Time) -> Option<pb::Scaling> {
        let auto = self.scalers.get(&key)?;
        let view = auto.scaler.view(now);
        let state = match deployment.target.cmp(&deployment.running.len()) {
            std::cmp::Ordering::Greater => pb::ScalingState::Upscaling,
            std::cmp::Ordering::Less => pb::ScalingState::Downscaling,
            std::cmp::Ordering::Equal => match view.status {
                Status::Upscaling => pb::ScalingState::Upscaling,
                Status::Downscaling => pb::ScalingState::Downscaling,
                Status::Stable => pb::ScalingState::Stable,
            },
        };
        let held = self.floor(deployment) > view.target;
        Some(pb::Scaling {
            state: state.into(),
            message: if held {
                format!(
                    "has a replica because its application is in use; by itself: {}",
                    view.why
                )
            } else {
                view.why
            },
            min_replicas: view.inputs.lower,
            max_replicas: view.inputs.upper,
            desired_replicas: view.inputs.desired,
            total_requests: view.inputs.ongoing,
            // A sum of nothing is minus zero.
            work_s: view.inputs.work_s + 0.0,
            policy: policy(&auto.config).to_owned(),
            decisions: auto.decisions.iter().cloned().collect(),
            metrics_age_ms: auto.heard.map(|at| millis(now.saturating_sub(at))),
        })
    }
}

fn policy(config: &scale::Config) -> &'static str {
    match config.policy {
        scale::Policy::Ongoing => "ongoing",
        scale::Policy::Work { .. } => "work",
    }
}

#[allow(clippy::cast_precision_loss)] // Proxies are few.
fn inputs(inputs: &scale::Inputs) -> std::collections::HashMap<String, f64> {
    [
        ("ongoing", inputs.ongoing),
        ("queued", inputs.queued),
        ("executing", inputs.executing),
        ("work_s", inputs.work_s),
        ("busy", inputs.busy),
        ("replicas", inputs.replicas.into()),
        ("desired", inputs.desired),
        ("lower", inputs.lower.into()),
        ("upper", inputs.upper.into()),
        ("sources", inputs.sources as f64),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
