//! Updates: how replicas of one version give way to those of the next.
//!
//! Surge first: up to `max(1, floor(percentage x target))` replicas more than wanted exist while an update runs, and a
//! replica of the old version leaves when one of the new has run for the gate's time. What runs never falls below what is
//! wanted, but for one case: when the surge has no room, which nobody can add, one old replica at a time leaves first (and
//! never the last one, if more than one is wanted); the status says so.
//!
//! Parts of a split application go in step ([`super::lockstep`]): of the model before as much of every part stays as the new
//! one cannot serve yet. Where there is no room for parts of both, replicas beyond the last of their model leave first, in
//! whichever part; only then a last one does, which is what a deployment does that stands for itself, and the status says so.
//!
//! When the new replicas fail too often in a row, or in a way that no other try can mend, the version before is wanted again:
//! what still runs of it stays, and the rest is replaced in the same way. Without a version before, the tries go on at the slowest pace, and the update heals if
//! they succeed; Ray stops trying.

use std::sync::Arc;

use mobula_proto::control::v1::RolloutState;
use tracing::{info, warn};

use super::{
    Action, Note, State, Time,
    condition::Happened,
    model::{Deployment, Failures, Key, Phase, Spec},
};

/// A replica has proven itself when it ran for so many heartbeats: one that dies of its first request or of its first
/// health check has done so by then.
pub(super) const GATE_HEARTBEATS: u32 = 3;

/// So long the surge waits for room that nobody is about to add before an old replica makes some.
pub(super) const PATIENCE: Time = Time::from_secs(10);

/// And so long for room that a worker group may add: a node takes minutes to be bought, and an image minutes to be pulled.
const GROWTH_PATIENCE: Time = Time::from_secs(300);

/// An update.
#[derive(Debug)]
pub(super) struct Rollout {
    pub(super) state: RolloutState,
    pub(super) began: Time,
    /// What comes back if it fails.
    pub(super) from: Option<Arc<Spec>>,
    /// Why it went back.
    pub(super) error: String,
    /// Since when the surge has no room.
    pub(super) stuck: Option<Time>,
    /// An old replica left before its replacement ran.
    pub(super) forced: bool,
    /// It was the last of its model, while no other model had a replica of every part.
    pub(super) apart: bool,
}

impl Rollout {
    pub(super) fn new(from: Option<Arc<Spec>>, now: Time) -> Self {
        Self {
            state: RolloutState::Progressing,
            began: now,
            from,
            error: String::new(),
            stuck: None,
            forced: false,
            apart: false,
        }
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, RolloutState::Progressing | RolloutState::RollingBack)
    }
}

impl Deployment {
    /// How many replicas may exist beyond those wanted while an update runs; whole gangs, and at least one.
    pub(super) fn surge(&self) -> usize {
        let rollout = &self.spec.config.rollout;
        let share = match rollout.max_surge_percent {
            Some(percent) => f64::from(percent) / 100.0,
            None => rollout.percentage,
        };
        let part = (share.clamp(0.0, 1.0) * self.target as f64).floor();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // At most the target, and not negative.
        let part = part as usize;
        part.max(1).next_multiple_of(self.spec.gang())
    }

    /// The version before the update that brought what is wanted now, if there was one.
    pub(super) fn updated_from(&self) -> Option<String> {
        let from = self.rollout.as_ref()?.from.as_ref()?;
        (from.version != self.spec.version).then(|| from.version.clone())
    }

    pub(super) fn is_updating(&self) -> bool {
        self.rollout.as_ref().is_some_and(Rollout::is_active)
    }

    /// How many replicas that are as they shall be there should be now. One unit more than are steady is always wanted: old
    /// gangs that are larger than what may leave would else wait for what waits for them.
    pub(super) fn wanted(&self) -> usize {
        if self.outdated.is_empty() {
            return self.target;
        }
        (self.target + self.surge())
            .saturating_sub(self.outdated.len())
            .max(self.steady.len() + self.spec.gang())
            .min(self.target)
    }
}

impl State {
    /// Makes a deployment's replicas want to be of this spec. Those of its version are told what is light; the others are
    /// outdated.
    pub(super) fn set_spec(&mut self, key: Key, spec: Arc<Spec>, now: Time, actions: &mut Vec<Action>) {
        let gate = self.gate();
        let Some(deployment) = self.deployments.get_mut(&key) else {
            return;
        };
        deployment.spec = spec.clone();
        deployment.outdated.clear();
        deployment.steady.clear();
        deployment.unlit.clear();
        for id in &deployment.replicas {
            let Some(replica) = self.replicas.get_mut(id) else {
                continue;
            };
            if replica.spec.version != spec.version {
                deployment.outdated.insert(id.clone());
                continue;
            }
            replica.spec = spec.clone();
            if let Phase::Running { since } = replica.phase
                && since + gate <= now
            {
                deployment.steady.insert(id.clone());
            }
        }
        let current: Vec<String> = deployment
            .replicas
            .difference(&deployment.outdated)
            .cloned()
            .collect();
        for id in current {
            self.tell_light(&id, false, now, actions);
        }
        self.routes.changed = true;
        self.room_changed = true;
        self.touch(key);
    }

    /// Begins an update to this spec; whatever update ran is superseded.
    pub(super) fn begin_update(&mut self, key: Key, spec: Arc<Spec>, now: Time, actions: &mut Vec<Action>) {
        // Of a deployment that is so new that nothing has proven itself, what runs is better than what fails.
        let runs = self.deployments.get(&key).and_then(|deployment| {
            let mut of_version = deployment.running.difference(&deployment.outdated);
            of_version.next().map(|_| deployment.spec.clone())
        });
        self.set_spec(key, spec, now, actions);
        let Some(deployment) = self.deployments.get_mut(&key) else {
            return;
        };
        deployment.failures = Failures::default();
        deployment.shunned.clear();
        let version = deployment.spec.version.clone();
        let from = deployment
            .proven
            .clone()
            .or(runs)
            .filter(|proven| proven.version != version);
        if from.is_some() || !deployment.outdated.is_empty() {
            info!(deployment = %deployment.name(), app = %deployment.app, %version, outdated = deployment.outdated.len(), "update begins");
            deployment.rollout = Some(Rollout::new(from, now));
            self.totals.updates += 1;
        }
    }

    /// Takes an update as the way back from one that failed elsewhere in the application: the intent went back as a whole.
    pub(super) fn goes_back_too(&mut self, key: Key, why: &str, now: Time) {
        if let Some(deployment) = self.deployments.get_mut(&key) {
            deployment.rollout = Some(Rollout {
                state: RolloutState::RollingBack,
                error: why.to_owned(),
                ..Rollout::new(None, now)
            });
        }
        self.touch(key);
    }

    /// The time for which a replica must run before another may leave for it.
    pub(super) fn gate(&self) -> Time {
        self.settings.heartbeat * GATE_HEARTBEATS
    }

    /// Counts replicas that have run for the gate's time.
    pub(super) fn pass_gates(&mut self, now: Time) {
        let gate = self.gate();
        while let Some((_, id)) = self.gates.first().filter(|(at, _)| *at <= now).cloned() {
            self.gates.pop_first();
            let Some(replica) = self.replicas.get(&id) else {
                continue;
            };
            let Phase::Running { since } = replica.phase else {
                continue;
            };
            let key = replica.deployment;
            if let Some(deployment) = self.deployments.get_mut(&key)
                && since + gate <= now
                && !deployment.outdated.contains(&id)
            {
                deployment.steady.insert(id);
                deployment.failures = Failures::default();
                self.touch(key);
            }
        }
    }

    /// Lets replicas of other versions go as far as those of the wanted version stand in for them.
    pub(super) fn replace_outdated(&mut self, key: Key, now: Time, actions: &mut Vec<Action>) {
        let Some(deployment) = self.deployments.get(&key).filter(|d| !d.outdated.is_empty()) else {
            return;
        };
        // Those that do not run serve nobody.
        let idle: Vec<String> = deployment
            .outdated
            .difference(&deployment.running)
            .cloned()
            .collect();
        let old: Vec<String> = deployment
            .outdated
            .intersection(&deployment.running)
            .cloned()
            .collect();
        let unit = deployment.spec.gang();
        let keep = deployment.target.saturating_sub(deployment.steady.len());
        let leave = old.len().saturating_sub(keep);
        let hold = self.hold(key);
        let (free, held) = self.held(hold.as_ref(), old);
        let count = hold.map_or(0, |hold| hold.count);
        let mut gone = self.victims(&free, leave);
        let more = (leave - gone.len()).min(held.len().saturating_sub(count));
        gone.extend(self.victims(&held, more));
        if gone.is_empty() && self.must_make_room(key, now) {
            gone = self.make_room(key, unit, (&free, &held));
        }
        for id in idle.into_iter().chain(gone) {
            info!(replica = %id, "replica of an earlier version leaves");
            self.retire(&id, actions);
        }
    }

    /// Chooses replicas that leave before their replacements run: where parts go in step, first those whose model keeps
    /// others, in whichever part they are.
    fn make_room(&mut self, key: Key, unit: usize, (free, held): (&[String], &[String])) -> Vec<String> {
        let mut from = key;
        let mut gone = self.victims(free, unit);
        if gone.is_empty() && held.len() > unit {
            gone = self.victims(held, unit);
        }
        if gone.is_empty()
            && let Some((other, id)) = self.makes_room_elsewhere(key)
        {
            (from, gone) = (other, vec![id]);
        }
        let is_apart = gone.is_empty();
        if is_apart {
            gone = self.victims(held, unit);
        }
        for (key, forced) in [(key, from == key), (from, true)] {
            if let Some(rollout) = self.rollout_mut(key) {
                rollout.stuck = None;
                rollout.forced |= forced;
                rollout.apart |= is_apart;
            }
        }
        gone
    }

    fn rollout_mut(&mut self, key: Key) -> Option<&mut Rollout> {
        self.deployments.get_mut(&key)?.rollout.as_mut()
    }

    /// True if the surge has waited for room long enough and an old replica may leave to make some: nothing of this
    /// deployment is on its way, and enough is left.
    fn must_make_room(&mut self, key: Key, now: Time) -> bool {
        let Some(deployment) = self.deployments.get(&key) else {
            return false;
        };
        let pending = deployment.pending.len();
        let current = deployment.current();
        let settled = deployment.steady.len() + pending + deployment.failed.len() >= current
            && deployment.stopping.is_empty();
        let unit = deployment.spec.gang();
        let spare = deployment.target <= unit || deployment.running.len() > unit;
        let denied = pending > 0 && deployment.reason.is_some();
        let patience = if self.may_grow(key) {
            GROWTH_PATIENCE
        } else {
            PATIENCE
        };
        let Some(rollout) = self.rollout_mut(key) else {
            return false;
        };
        if !(denied && settled && spare) {
            rollout.stuck = None;
            return false;
        }
        let due = *rollout.stuck.get_or_insert(now) + patience;
        if now < due {
            self.wake_at(due, key);
        }
        now >= due
    }

    /// Ends an update that is done, and turns one around that fails.
    pub(super) fn judge_update(&mut self, key: Key, now: Time, actions: &mut Vec<Action>) {
        let Some(deployment) = self.deployments.get_mut(&key) else {
            return;
        };
        let done = deployment.outdated.is_empty() && deployment.steady.len() >= deployment.target;
        let spec = deployment.spec.clone();
        let updating = deployment.is_updating();
        if done && deployment.target > 0 || !updating && !deployment.steady.is_empty() {
            deployment.proven = Some(spec.clone());
        }
        let failures = deployment.failures.clone();
        let Some(rollout) = deployment.rollout.as_mut().filter(|rollout| rollout.is_active()) else {
            return;
        };
        if done {
            rollout.state = if rollout.state == RolloutState::RollingBack {
                RolloutState::RolledBack
            } else {
                RolloutState::Complete
            };
            info!(deployment = %spec.config.name, state = rollout.state.as_str_name(), "update is over");
            return;
        }
        if !failures.are_enough(&spec) || rollout.state == RolloutState::RollingBack {
            return;
        }
        let Some(from) = rollout.from.take() else { return };
        rollout.state = RolloutState::RollingBack;
        rollout.error.clone_from(&failures.last);
        rollout.stuck = None;
        let why = format!("in the new version {}", failures.told());
        warn!(deployment = %spec.config.name, app = %deployment.app, version = %from.version, %why, "update goes back");
        deployment.failures = Failures::default();
        deployment.shunned.clear();
        deployment.condition.handle(Happened::UpdateFailed, &why);
        self.totals.rollbacks += 1;
        let meta = self.apps.get(&deployment.app).map(|app| app.meta);
        actions.push(Action::Note(Note::RolledBack {
            application: deployment.app.clone(),
            resource_version: meta.map_or(0, |meta| meta.resource_version),
            deployment: spec.config.name.clone(),
            why,
        }));
        self.set_spec(key, from, now, actions);
        self.retarget(key, now, actions);
    }
}
