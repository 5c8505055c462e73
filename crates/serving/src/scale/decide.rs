//! One tick: from a target and what is wanted to the next.
//!
//! Refuses to keep anything: [`Scene::step`] is a function of the state and the tick. That lets the same code decide and look
//! ahead, and lets ticks in which nothing can happen be left out ([`Scene::after`]).

use super::{
    Config, Policy,
    bounds::Bounds,
    delay::{Wish, time},
    load::Load,
    nanos, replicas,
    work::{self, Need},
};

/// What one tick leaves to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) target: u32,
    pub(super) wish: Option<Wish>,
}

/// What a decision depends on besides the state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) config: &'a Config,
    pub(super) bounds: Bounds,
    /// Replicas come and go by so many; 1 for most deployments.
    pub(super) gang: u32,
    pub(super) load: &'a Load,
    /// Replicas that run.
    pub(super) running: u32,
}

impl Scene<'_> {
    /// The state after a tick.
    pub(super) fn step(&self, state: State, tick: u64) -> State {
        let target = self.counted(state.target);
        if self.running == 0 {
            return self.without_replicas(state, target, tick);
        }
        let desired = self.wanted(target, tick);
        let Some(up) = direction(target, desired) else {
            return self.state(target, None);
        };
        let since = match state.wish {
            Some(wish) if wish.up == up => wish.since,
            Some(_) | None => tick,
        };
        let wish = Wish { up, since };
        if tick >= wish.due(self.config, target) {
            self.state(desired, None)
        } else {
            self.state(target, Some(wish))
        }
    }

    /// The first tick after `tick` whose outcome may differ from the one that it left, or none if there is no such tick until
    /// something is reported or told.
    pub(super) fn after(&self, before: State, left: State, tick: u64) -> Option<u64> {
        if !self.load.is_steady(self.config.aggregation) || before.target != left.target {
            return Some(tick + 1);
        }
        match left.wish {
            Some(wish) if self.running > 0 => {
                let due = wish.due(self.config, self.counted(left.target));
                Some(due.max(tick + 1))
            }
            Some(_) | None => (before != left).then_some(tick + 1),
        }
    }

    /// Requests, or seconds of work, as the policy aggregates them, in replicas and without limits or factors.
    pub(super) fn desired(&self, target: u32, tick: u64) -> f64 {
        let now = nanos(time(tick));
        match self.config.policy {
            Policy::Ongoing => {
                let running = f64::from(self.running);
                let wanted = self.config.target_ongoing.max(f64::MIN_POSITIVE) * running;
                running * (self.total(tick) / wanted)
            }
            Policy::Work { target_s } => self.need(target_s, now).desired(target),
        }
    }

    pub(super) fn need(&self, target_s: f64, now: u64) -> Need {
        Need::of(self.load, self.config.aggregation, target_s, now)
    }

    /// Queued and running requests, aggregated.
    pub(super) fn total(&self, tick: u64) -> f64 {
        self.load
            .total
            .aggregate(nanos(time(tick)), self.config.aggregation)
    }

    /// What the policy asks for, by whole replicas. Without gangs what the bounds forbid is not wanted: it would be cut off in
    /// the end, and until then every wish that is over the bounds would wait for its delay again and again.
    pub(super) fn wanted(&self, target: u32, tick: u64) -> u32 {
        let desired = self.desired(target, tick);
        let scaled = match self.config.policy {
            Policy::Ongoing => self.scaled(desired),
            Policy::Work { .. } => work::step(self.config, target, desired),
        };
        let cut = if self.gang > 1 {
            scaled
        } else {
            self.bounds.clamp(scaled)
        };
        // From more than one only to one: the last is given time of its own.
        if target > 1 && cut < target {
            cut.max(1)
        } else {
            cut
        }
    }

    /// Ray's `_apply_scaling_factors`.
    fn scaled(&self, desired: f64) -> u32 {
        let running = f64::from(self.running);
        let delta = desired - running;
        let factor = if delta > 0.0 {
            self.config.upscaling_factor
        } else {
            self.config.downscaling_factor
        };
        let scaled = replicas(running + factor.unwrap_or(1.0) * delta);
        if super::ceil(desired) < running && scaled == self.running {
            scaled.saturating_sub(1)
        } else {
            scaled
        }
    }

    fn without_replicas(&self, state: State, target: u32, tick: u64) -> State {
        let now = self.load.now;
        if self.total(tick) > 0.0 || (now.work_s > 0.0 && matches!(self.config.policy, Policy::Work { .. })) {
            let first = replicas(self.config.upscaling_factor.unwrap_or(1.0));
            return self.state(first.max(target), state.wish);
        }
        // A wish outlasts a time without replicas, unless none are wanted.
        self.state(target, state.wish.filter(|_| target > 0))
    }

    /// The target as the policy sees it: of a deployment that may have none, the last gang is the last replica.
    pub(super) fn counted(&self, target: u32) -> u32 {
        if self.gang > 1 && self.config.min == 0 && target == self.gang {
            1
        } else {
            target
        }
    }

    /// A number of replicas in whole gangs, within the bounds.
    pub(super) fn whole(&self, replicas: u32) -> u32 {
        let gangs = replicas.div_ceil(self.gang.max(1));
        self.bounds.clamp(gangs.saturating_mul(self.gang.max(1)))
    }

    /// The lower bound as it was set, and what it is called.
    pub(super) fn least(&self) -> (&'static str, u32) {
        match self.config.initial {
            Some(initial) if self.bounds.filling => ("initial_replicas", initial),
            Some(_) | None => ("min_replicas", self.config.min),
        }
    }

    fn state(&self, target: u32, wish: Option<Wish>) -> State {
        State {
            target: self.whole(target),
            wish,
        }
    }
}

/// Whether more (true) or fewer (false) are wanted.
fn direction(target: u32, desired: u32) -> Option<bool> {
    (desired != target).then_some(desired > target)
}
