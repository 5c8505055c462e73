//! A deployment's scaler: samples in, decisions out.
//!
//! Refuses to depend on how often it is asked. Ticks are at whole multiples of [`super::TICK`] since the origin; a call makes up for
//! those that passed since the last one, with what was known at each: samples count from their time on, `running` from the call
//! that brings it. So a loop that stalls, or sleeps until [`Scaler::next`], comes to the same targets in the same ticks.
//!
//! Cost: a tick without new samples is a few operations; one with new samples sorts what the sources said in their windows.

use std::{collections::VecDeque, time::Duration};

use super::{
    Config, Decision, Direction, Inputs, Policy, Sample, View,
    bounds::Bounds,
    decide::{Scene, State},
    delay::{self, time},
    load::{Load, Origin, Sources},
    series::Point,
    words,
};

/// Decisions that are remembered.
const REMEMBERED: usize = 16;
/// Ticks that [`Scaler::next`] looks into while a mean still moves; then it asks to be called, to look further.
const LOOK_AHEAD: usize = 64;

/// Decides on the number of replicas of one deployment.
#[derive(Debug, Clone)]
pub struct Scaler {
    config: Config,
    capacity: Option<f64>,
    direction: Option<Direction>,
    gang: u32,
    bounds: Bounds,
    state: State,
    running: u32,
    sources: Sources,
    load: Load,
    /// Something was told that `load` does not know yet.
    stale: bool,
    /// The tick that takes in the next sample, or in which a source may have been silent for too long.
    event: Option<u64>,
    /// The last tick that was decided.
    done: Option<u64>,
    decisions: VecDeque<Decision>,
    refused: u64,
}

impl Scaler {
    /// A scaler for a deployment that has a target, as after a restart of the caller. `capacity` is the cluster's target
    /// capacity in percent.
    #[must_use]
    pub fn new(config: Config, capacity: Option<f64>, target: u32) -> Self {
        let direction = Direction::next(None, capacity);
        let bounds = Bounds::of(&config, capacity, direction);
        Self {
            config,
            capacity,
            direction,
            gang: 1,
            bounds,
            state: State {
                target: bounds.clamp(target),
                wish: None,
            },
            running: 0,
            sources: Sources::default(),
            load: Load::default(),
            stale: false,
            event: None,
            done: None,
            decisions: VecDeque::new(),
            refused: 0,
        }
    }

    /// A scaler for a new deployment: it starts with `initial_replicas`, else with the least it may have.
    #[must_use]
    pub fn fresh(config: Config, capacity: Option<f64>) -> Self {
        let target = config.initial.unwrap_or(0);
        Self::new(config, capacity, target)
    }

    /// Makes replicas come and go by so many at a time, rounded up; 1 is each alone.
    pub fn set_gang(&mut self, gang: u32) {
        self.gang = gang.max(1);
    }

    /// Takes new settings, as Ray's `register`: what was reported stays, what was wanted starts anew, and a changed
    /// configuration that names `initial_replicas` starts with them. The direction of the capacity follows from the one before;
    /// see [`Scaler::set_direction`].
    pub fn reconfigure(&mut self, config: Config, capacity: Option<f64>) {
        if config != self.config
            && let Some(initial) = config.initial
        {
            self.state.target = initial;
        }
        // What was sampled until now belongs to the old window.
        self.sources.take(u64::MAX, &self.config);
        self.direction = Direction::next(Some((self.capacity, self.direction)), capacity);
        self.config = config;
        self.capacity = capacity;
        self.rebound();
    }

    /// Says where the target capacity is going, for a caller that knows better: with a configuration of other applications than
    /// before, Ray takes the cluster as being filled anew.
    pub fn set_direction(&mut self, direction: Option<Direction>) {
        if direction != self.direction {
            self.direction = direction;
            self.rebound();
        }
    }

    /// Takes in a router's sample. `at` is when it was received, by the clock of [`Scaler::tick`]. A sample that is no number,
    /// or below 0, is counted and left out.
    pub fn record(&mut self, source: &str, at: Duration, sample: Sample) {
        self.record_of(Origin::Router, source, at, sample);
    }

    /// Takes in a replica's sample. While any replica reports, what runs is what replicas say, and the routers' word about it
    /// does not count; `queued` does not count here.
    pub fn record_replica(&mut self, source: &str, at: Duration, sample: Sample) {
        self.record_of(Origin::Replica, source, at, sample);
    }

    /// Forgets a router or a replica that is gone, from the next tick on.
    pub fn forget(&mut self, source: &str) {
        self.stale |= self.sources.forget(source);
    }

    /// Decides, for every tick that has passed, with `running` replicas from now on; gives a decision if the target changed.
    /// Of several changes in a row (the caller stalled) it gives one, from the first to the last; each is in
    /// [`Scaler::decisions`].
    pub fn tick(&mut self, now: Duration, running: u32) -> Option<Decision> {
        let (from, current) = (self.state.target, delay::floor(now));
        let mut last = None;
        if running != self.running {
            // A tick that is now has the new number, those before it the old one.
            if self.done.is_some() {
                let before = delay::ceil(now).checked_sub(1);
                last = before.and_then(|tick| self.advance(tick));
            }
            // What is at work depends on whether anybody is there, and, for work, on how many are.
            self.stale |= running == 0 || self.running == 0 || self.config.policy != Policy::Ongoing;
            self.running = running;
        }
        let last = self.advance(current).or(last)?;
        (self.state.target != from).then_some(Decision { from, ..last })
    }

    /// When [`Scaler::tick`] has something to do if nothing is reported and `running` stays; none if it has nothing to do then.
    #[must_use]
    pub fn next(&self, now: Duration) -> Option<Duration> {
        let next = match self.done {
            None => Some(delay::ceil(now)),
            Some(done) if self.stale => Some(done + 1),
            Some(done) => self.look_ahead(done),
        };
        next.map(|tick| time(tick).max(now))
    }

    /// How many replicas there should be.
    #[must_use]
    pub fn target(&self) -> u32 {
        self.state.target
    }

    /// Queued and running requests as of the last tick: Ray's `total_num_requests`.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.scene().total(self.done.unwrap_or_default())
    }

    /// The last decisions, the newest last.
    pub fn decisions(&self) -> impl ExactSizeIterator<Item = &Decision> + '_ {
        self.decisions.iter()
    }

    /// What the scaler sees and wants, as of the last tick, and why it does not move.
    #[must_use]
    pub fn view(&self, now: Duration) -> View {
        let (scene, wish) = (self.scene(), self.state.wish);
        let target = scene.counted(self.state.target);
        let inputs = self.inputs(self.done.unwrap_or_default(), self.state.target);
        View {
            status: words::status(self.state.target, self.running),
            target: self.state.target,
            running: self.running,
            wants: match self.done {
                Some(tick) if self.running > 0 => scene.whole(scene.wanted(target, tick)),
                Some(_) | None => self.state.target,
            },
            since: wish.map(|wish| time(wish.since)),
            due: wish.map(|wish| time(wish.due(&self.config, target))),
            why: words::why(&scene, self.state, self.done, now, &inputs),
            health: words::health(&self.config, self.sources.oldest(now)),
            refused: self.refused,
            inputs,
        }
    }

    fn record_of(&mut self, origin: Origin, source: &str, at: Duration, sample: Sample) {
        let parts = [sample.queued, sample.running, sample.work_s];
        if parts.iter().all(|part| part.is_finite() && *part >= 0.0) {
            self.sources
                .record(origin, source, Point { at, sample }, &self.config);
            let tick = delay::ceil(at);
            self.event = Some(self.event.map_or(tick, |event| event.min(tick)));
        } else {
            self.refused += 1;
        }
    }

    fn rebound(&mut self) {
        self.bounds = Bounds::of(&self.config, self.capacity, self.direction);
        self.state = State {
            target: self.bounds.clamp(self.state.target),
            wish: None,
        };
        // The time after which a source is silent may be another one.
        (self.stale, self.event) = (true, Some(0));
    }

    fn scene(&self) -> Scene<'_> {
        Scene {
            config: &self.config,
            bounds: self.bounds,
            gang: self.gang,
            load: &self.load,
            running: self.running,
        }
    }

    /// Decides every tick up to `last`; gives the last change.
    fn advance(&mut self, last: u64) -> Option<Decision> {
        let mut tick = match self.done {
            Some(done) => done + 1,
            None => last,
        };
        let mut changed = None;
        while tick <= last {
            let event = self.event.is_some_and(|event| event <= tick);
            let news = event && self.sources.take(tick, &self.config);
            if news || self.stale {
                self.load = self.sources.load(&self.config, self.running);
                self.stale = false;
            }
            let before = self.state;
            let left = self.scene().step(before, tick);
            if left.target != before.target {
                changed = Some(self.decided(before, left, tick));
            }
            self.state = left;
            self.done = Some(tick);
            if event {
                // After the decision, as in Ray: who has just become silent still counts in this tick.
                self.stale = self.sources.drop_silent(tick, &self.config);
                self.event = self.sources.event(&self.config).map(|event| event.max(tick + 1));
            }
            let own = if self.stale {
                Some(tick + 1)
            } else {
                self.scene().after(before, left, tick)
            };
            tick = own.into_iter().chain(self.event).min().unwrap_or(u64::MAX);
        }
        self.done = self.done.max(Some(last));
        changed
    }

    /// The first tick after `done` that changes the target, or takes in or drops something.
    fn look_ahead(&self, done: u64) -> Option<u64> {
        let scene = self.scene();
        let (mut state, mut tick) = (self.state, done + 1);
        for _ in 0..LOOK_AHEAD {
            if let Some(event) = self.event.filter(|event| *event <= tick) {
                return Some(event.max(done + 1));
            }
            let left = scene.step(state, tick);
            if left.target != state.target {
                return Some(tick);
            }
            let Some(next) = scene.after(state, left, tick) else {
                return self.event;
            };
            (state, tick) = (left, next);
        }
        Some(tick)
    }

    fn decided(&mut self, before: State, left: State, tick: u64) -> Decision {
        let inputs = self.inputs(tick, before.target);
        let decision = Decision {
            at: time(tick),
            from: before.target,
            to: left.target,
            reason: words::reason(&self.scene(), before, left, tick, &inputs),
            inputs,
        };
        if self.decisions.len() == REMEMBERED {
            self.decisions.pop_front();
        }
        self.decisions.push_back(decision.clone());
        decision
    }

    fn inputs(&self, tick: u64, target: u32) -> Inputs {
        let (scene, now) = (self.scene(), super::nanos(time(tick)));
        let desired = match (self.config.policy, self.running) {
            (Policy::Ongoing, 0) => f64::from(target),
            (Policy::Ongoing | Policy::Work { .. }, _) => scene.desired(target, tick),
        };
        Inputs {
            ongoing: scene.total(tick),
            queued: self.load.now.queued,
            executing: self.load.now.running,
            work_s: match self.config.policy {
                Policy::Ongoing => self.load.now.work_s,
                Policy::Work { .. } => self.load.work.aggregate(now, self.config.aggregation),
            },
            busy: self.load.busy.mean(now),
            replicas: self.running,
            desired,
            lower: self.bounds.lower,
            upper: self.bounds.upper,
            sources: self.sources.len(),
        }
    }
}
