//! The work policy in a closed loop: what it decides changes what it sees.
//!
//! Requests of a fixed amount of work come at a fixed rate. A router gives each to the replica with the least work that has
//! room, replicas work off one after another, and those that were asked for start after a while.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// Seconds that a replica works in one tick.
const STEP: f64 = 0.1;

/// Requests and replicas.
struct World {
    /// Seconds between requests, of `work` seconds each.
    every: f64,
    work: f64,
    /// Ticks that a replica takes to start.
    lag: u64,
    waiting: VecDeque<f64>,
    replicas: Vec<VecDeque<f64>>,
    /// Asked to stop: they finish what they have.
    leaving: Vec<VecDeque<f64>>,
    /// When those that start will run.
    starting: VecDeque<u64>,
    next: f64,
}

/// Requests that a replica takes.
const ROOM: usize = 2;

impl World {
    fn tick(&mut self, tick: u64, target: u32) {
        let now = tick as f64 * STEP;
        while self.next <= now {
            self.waiting.push_back(self.work);
            self.next += self.every;
        }
        while self.starting.pop_front_if(|at| *at <= tick).is_some() {
            self.replicas.push(VecDeque::new());
        }
        let there = self.replicas.len() + self.starting.len();
        for _ in there..target as usize {
            self.starting.push_back(tick + self.lag);
        }
        for _ in target as usize..there {
            if self.starting.pop_back().is_none() {
                self.leaving.extend(self.replicas.pop());
            }
        }
        while let Some(work) = self.waiting.pop_front() {
            let left = |of: &VecDeque<f64>| of.iter().sum::<f64>();
            let room = self.replicas.iter_mut().filter(|of| of.len() < ROOM);
            match room.min_by(|a, b| left(a).total_cmp(&left(b))) {
                Some(replica) => replica.push_back(work),
                None => {
                    self.waiting.push_front(work);
                    break;
                }
            }
        }
        for replica in self.replicas.iter_mut().chain(&mut self.leaving) {
            let mut left = STEP;
            while let Some(first) = replica.front_mut() {
                let done = first.min(left);
                *first -= done;
                left -= done;
                if *first > 1e-9 {
                    break;
                }
                replica.pop_front();
            }
        }
        self.leaving.retain(|replica| !replica.is_empty());
    }

    fn sample(&self) -> Sample {
        let there = self.replicas.iter().chain(&self.leaving);
        let at_work: Vec<f64> = there.flatten().copied().collect();
        Sample {
            queued: self.waiting.len() as f64,
            running: at_work.len() as f64,
            work_s: at_work.iter().chain(&self.waiting).sum(),
        }
    }
}

/// The target after every tick.
fn targets(config: Config, world: &mut World, interval: u64, ticks: u64) -> Vec<u32> {
    let mut scaler = Scaler::new(config, None, world.replicas.len() as u32);
    (0..ticks)
        .map(|tick| {
            let now = TICK * tick as u32;
            world.tick(tick, scaler.target());
            if tick.is_multiple_of(interval) {
                scaler.record("p", now, world.sample());
            }
            scaler.tick(now, world.replicas.len() as u32);
            scaler.target()
        })
        .collect()
}

/// How often the target turned: went down after it went up, or up after down.
fn turns(targets: &[u32]) -> usize {
    let steps = targets.windows(2).filter(|two| two[0] != two[1]);
    let ways: Vec<bool> = steps.map(|two| two[1] > two[0]).collect();
    ways.windows(2).filter(|two| two[0] != two[1]).count()
}

fn world(rate: f64, work: f64, lag: u64, replicas: usize) -> World {
    World {
        every: 1.0 / rate,
        work,
        lag,
        waiting: VecDeque::new(),
        replicas: vec![VecDeque::new(); replicas],
        leaving: Vec::new(),
        starting: VecDeque::new(),
        next: 0.0,
    }
}

fn config(target_s: f64, up: u64, down: u64, look_back: u64) -> Config {
    Config {
        upscale_delay: Duration::from_secs(up),
        downscale_delay: Duration::from_secs(down),
        look_back: Duration::from_secs(look_back),
        policy: Policy::Work { target_s },
        ..Config::auto()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_constant_rate_settles_and_stays(
        // A replica may have some requests, and a window sees some: else single requests are all there is to see.
        (busy, work, some) in (0.3_f64..12.0, 0.4_f64..5.0, 1.0_f64..6.0),
        (up, down, look_back) in (0_u64..8, 5_u64..40, 10_u64..40),
        (lag, start, interval) in (0_u64..100, 1_usize..25, 1_u64..10),
    ) {
        let (mut world, target_s) = (world(busy / work, work, lag, start), some * work);
        let all = targets(config(target_s, up, down, look_back), &mut world, interval, 6_000);
        let seen = changes(&all);
        prop_assert!(turns(&all) <= 2, "{seen:?}");
        prop_assert_eq!(turns(&all[all.len() / 2..]), 0, "{:?}", seen);
        // It keeps up: what waits is what the policy allows, and not growing.
        let last = all[all.len() - 1];
        let allowed = target_s * f64::from(last) + work * 2.0 * world.replicas.len() as f64;
        prop_assert!(world.sample().work_s <= allowed + 1e-6, "{} s wait", world.sample().work_s);
    }
}

/// (seconds, target) where it changed.
fn changes(targets: &[u32]) -> Vec<(f64, u32)> {
    let mut seen = Vec::new();
    for (tick, target) in targets.iter().enumerate() {
        if seen.last().is_none_or(|(_, last)| last != target) {
            seen.push((tick as f64 * STEP, *target));
        }
    }
    seen
}

#[test]
fn a_burst_costs_one_rise_and_one_fall_though_the_delays_are_shorter_than_the_window() {
    let mut world = world(0.2, 1.0, 20, 1);
    world.waiting.extend([1.0; 60]);
    let all = targets(config(5.0, 1, 10, 30), &mut world, 5, 3_000);
    let seen = changes(&all);
    assert_eq!(turns(&all), 1, "{seen:?}");
    assert_eq!(*all.last().unwrap(), 1, "{seen:?}");
    // With more replicas than 60 s of work at 5 s each are, it would have followed load that is over.
    assert_eq!(all.iter().max(), Some(&12), "{seen:?}");
}
