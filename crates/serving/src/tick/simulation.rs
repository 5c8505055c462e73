//! A device in simulated time: how many requests are in time under each policy.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{Candidate, Class, Group, Planner, Policy, Timesteps};
use crate::curve::Curve;

/// What comes, what it is measured by, and how true the predictions are.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    policy: Policy,
    /// Offered work over what full calls can do.
    load: f64,
    /// A deadline is so many times what the request takes in full calls; `None`: there are no deadlines.
    patience: Option<f64>,
    /// Requests leave when their deadline has passed, as the runner lets them.
    expire: bool,
    /// The device is slower than its curve at random, by a tenth at the mean, and decodes each picture for a call's time.
    rough: bool,
    timesteps: Timesteps,
    /// Half of the work is for pictures with four times the positions.
    large: bool,
    /// A request is for one to so many pictures, and in time when all are.
    pictures: u32,
    seed: u64,
}

/// Time in which requests come, in seconds.
const TIME: f64 = 200.0;
/// Steps of the mix, each as often.
const MIX: [u32; 3] = [4, 20, 50];

/// What became of the requests.
#[derive(Debug, Default)]
struct Outcome {
    /// Of each length: requests, and those in time.
    requests: [f64; 3],
    in_time: [f64; 3],
    /// Row-calls that ran, and those of requests that were in time, a large one for what it costs.
    work: f64,
    useful: f64,
    busy: f64,
    /// Time from arrival to the end over the time in full calls, of each request of each length.
    slowdowns: [Vec<f64>; 3],
}

impl Outcome {
    /// In time, of a hundred.
    fn share(&self) -> f64 {
        100.0 * self.in_time.iter().sum::<f64>() / self.requests.iter().sum::<f64>()
    }

    fn ended(&mut self, request: &Request, now: Duration) {
        let candidate = &request.candidate;
        let steps = f64::from(MIX[request.length]);
        self.slowdowns[request.length].push((now - candidate.arrived).as_secs_f64() / (CALL * steps));
        if candidate.deadline.is_none_or(|deadline| now <= deadline) {
            self.in_time[request.length] += 1.0;
            let row = [1.0, LARGE_ROW][candidate.group as usize];
            self.useful += steps * 2.0 * f64::from(request.pictures) * row;
        }
    }

    fn rate(&self) -> f64 {
        self.work / self.busy
    }

    /// Nine of ten requests of a length are not slower than this.
    fn slowdown(&mut self, length: usize) -> f64 {
        let sorted = &mut self.slowdowns[length];
        sorted.sort_unstable_by(f64::total_cmp);
        sorted[sorted.len() * 9 / 10]
    }
}

/// A device that is full at sixteen rows, and at four rows of large pictures.
fn groups() -> [Group; 2] {
    let points = (0..5).map(|power| {
        let rows = 1_u32 << power;
        (rows, Duration::from_micros(8_000 + 2_500 * u64::from(rows)))
    });
    let curve = Curve::new(points).unwrap();
    let group = |key, cap, curve| Group {
        key,
        cap,
        weight: 1,
        curve,
    };
    [group(0, 16, curve.clone()), group(1, 4, curve.scaled(4.0))]
}

/// Seconds of a call of sixteen rows.
const CALL: f64 = 0.048;
/// How much longer a full call of large pictures takes, and how much more a row of them costs.
const LARGE_CALL: f64 = 0.85 + 0.15 * 4.0;
const LARGE_ROW: f64 = 4.0 * LARGE_CALL;

/// A request, on its way or to come.
#[derive(Debug)]
struct Request {
    /// Place of its steps in the mix.
    length: usize,
    /// Pictures that are not done.
    left: u32,
    pictures: u32,
    /// Each of its pictures, but for the order.
    candidate: Candidate,
}

/// What comes.
fn requests(scenario: &Scenario, random: &mut StdRng) -> Vec<Request> {
    let mean = f64::from(MIX.iter().sum::<u32>()) / 3.0 * f64::from(scenario.pictures + 1);
    // As much work of either size: fewer large ones.
    let large = if scenario.large {
        1.0 / (1.0 + LARGE_ROW)
    } else {
        0.0
    };
    let work = mean * (1.0 - large + large * LARGE_ROW);
    let rate = scenario.load * 16.0 / CALL / work;
    let (mut at, mut all) = (0.0, Vec::new());
    loop {
        at -= (1.0 - random.random::<f64>()).ln() / rate;
        if at > TIME {
            return all;
        }
        let length = random.random_range(0..3);
        let group = u64::from(random.random::<f64>() < large);
        let pictures = random.random_range(1..=scenario.pictures);
        let arrived = Duration::from_secs_f64(at);
        let solo = CALL * f64::from(MIX[length]) * [1.0, LARGE_CALL][group as usize];
        let candidate = Candidate {
            group,
            grid: length as u64,
            rows: 2,
            calls_left: MIX[length],
            class: Class::Normal,
            deadline: scenario
                .patience
                .map(|times| arrived + Duration::from_secs_f64(times * solo)),
            arrived,
            request: all.len() as u64,
            order: 0,
            timestep: 1000,
        };
        all.push(Request {
            length,
            left: pictures,
            pictures,
            candidate,
        });
    }
}

fn run(scenario: &Scenario) -> Outcome {
    let mut random = StdRng::seed_from_u64(scenario.seed);
    let groups = groups();
    let mut all = requests(scenario, &mut random);
    let mut outcome = Outcome::default();
    for request in &all {
        outcome.requests[request.length] += 1.0;
    }
    let mut planner = Planner::new(scenario.policy);
    let (mut now, mut next, mut orders) = (Duration::ZERO, 0, 0..);
    let (mut active, mut chosen): (Vec<Candidate>, Vec<usize>) = (Vec::new(), Vec::new());
    loop {
        while let Some(request) = all.get(next).filter(|request| request.candidate.arrived <= now) {
            let orders = orders.by_ref().take(request.pictures as usize);
            active.extend(orders.map(|order| Candidate {
                order,
                ..request.candidate
            }));
            next += 1;
        }
        if scenario.expire {
            active.retain(|candidate| candidate.deadline.is_none_or(|deadline| deadline > now));
        }
        let Some(plan) = planner.plan(now, &groups, &active, scenario.timesteps, &mut chosen) else {
            let Some(request) = all.get(next) else { break };
            now = request.candidate.arrived;
            continue;
        };
        let begun = now;
        let slower = if scenario.rough {
            random.random_range(0.95..1.25)
        } else {
            1.0
        };
        now += plan.cost.mul_f64(slower);
        outcome.busy += (now - begun).as_secs_f64();
        outcome.work += plan.rows as f64;
        for index in &chosen {
            let candidate = &mut active[*index];
            candidate.calls_left -= 1;
            // Where it stands: all lengths begin at the same noise level.
            let whole = MIX[candidate.grid as usize];
            candidate.timestep = 1000 * candidate.calls_left / whole;
        }
        let ended = now;
        active.retain(|candidate| {
            if candidate.calls_left > 0 {
                return true;
            }
            let request = &mut all[candidate.request as usize];
            request.left -= 1;
            if request.left == 0 {
                outcome.ended(request, ended);
            }
            if scenario.rough {
                now += Duration::from_secs_f64(CALL / 4.0);
            }
            false
        });
        planner.elapsed(plan.cost, now - begun);
    }
    outcome
}

const SCENARIO: Scenario = Scenario {
    policy: Policy::Fifo,
    load: 1.2,
    patience: Some(3.0),
    expire: true,
    rough: false,
    timesteps: Timesteps::Mixed,
    large: false,
    pictures: 1,
    seed: 1,
};

/// The same under the step policy and under the baseline.
fn both(scenario: Scenario) -> (Outcome, Outcome) {
    let fifo = run(&Scenario {
        policy: Policy::Fifo,
        ..scenario
    });
    let policy = Policy::default();
    let steps = run(&Scenario { policy, ..scenario });
    println!(
        "load {} deadline {:?} expire {} rough {} {:?} large {} pictures {} seed {}: in time {:.1} % of all ({:.0?} of {:.0?}), fifo {:.1} % ({:.0?}); \
         {:.0} and {:.0} rows/s; {:.0} and {:.0} row-calls in time",
        scenario.load,
        scenario.patience,
        scenario.expire,
        scenario.rough,
        scenario.timesteps,
        scenario.large,
        scenario.pictures,
        scenario.seed,
        steps.share(),
        steps.in_time,
        steps.requests,
        fifo.share(),
        fifo.in_time,
        steps.rate(),
        fifo.rate(),
        steps.useful,
        fifo.useful,
    );
    (steps, fifo)
}

#[test]
fn under_overload_thirty_in_a_hundred_more_are_in_time_than_with_whole_requests() {
    for patience in [2.0, 3.0, 5.0, 10.0] {
        for (expire, rough, seed) in [(true, false, 1), (true, true, 2), (false, false, 3)] {
            let (steps, fifo) = both(Scenario {
                patience: Some(patience),
                expire,
                rough,
                seed,
                ..SCENARIO
            });
            assert!(steps.share() - fifo.share() >= 30.0);
            assert!(steps.rate() >= fifo.rate(), "the calls are as full");
            // Not by the short ones at the expense of all work; more pictures in time are more to decode.
            assert!(steps.useful >= if rough { 0.97 } else { 1.0 } * fifo.useful);
        }
    }
}

#[test]
fn below_capacity_nearly_all_are_in_time() {
    for patience in [2.0, 3.0, 5.0] {
        let (steps, fifo) = both(Scenario {
            load: 0.8,
            patience: Some(patience),
            ..SCENARIO
        });
        assert!(steps.share() >= 99.0 && steps.share() > fifo.share());
        assert!(steps.rate() >= fifo.rate());
    }
}

#[test]
fn at_twice_the_capacity_the_device_still_works_for_those_it_can_save() {
    for patience in [2.0, 3.0, 5.0, 10.0] {
        let (steps, fifo) = both(Scenario {
            load: 2.0,
            patience: Some(patience),
            ..SCENARIO
        });
        assert!(steps.share() - fifo.share() >= 50.0);
        assert!(steps.rate() >= fifo.rate() && steps.useful >= fifo.useful);
        // Nine tenths of the calls are for pictures that somebody still wants.
        assert!(steps.useful >= 0.9 * steps.work);
    }
}

#[test]
fn without_deadlines_short_requests_do_not_wait_for_long_ones_and_long_ones_end() {
    for load in [0.8, 1.2] {
        let (mut steps, mut fifo) = both(Scenario {
            load,
            patience: None,
            ..SCENARIO
        });
        let slow = |outcome: &mut Outcome| [0, 1, 2].map(|length| outcome.slowdown(length));
        let (steps_slow, fifo_slow) = (slow(&mut steps), slow(&mut fifo));
        println!("  slowdown of nine in ten: {steps_slow:.1?}, fifo {fifo_slow:.1?}");
        assert!(steps_slow[0] * 2.5 < fifo_slow[0]);
        // Fuller calls are good for the long ones too; above capacity they wait somewhat longer.
        assert!(steps_slow[2] <= fifo_slow[2] * if load < 1.0 { 1.0 } else { 1.5 });
        let ended = |outcome: &Outcome| outcome.slowdowns.iter().map(Vec::len).sum::<usize>() as f64;
        assert_eq!(ended(&steps), steps.requests.iter().sum::<f64>());
    }
}

#[test]
fn with_one_timestep_for_all_rows_more_are_in_time_than_calls_are_emptier() {
    let scenario = Scenario {
        timesteps: Timesteps::Equal,
        ..SCENARIO
    };
    for (load, patience, gain) in [
        (0.5, 3.0, 10.0),
        (0.8, 10.0, 10.0),
        (1.2, 3.0, 25.0),
        (1.2, 10.0, 25.0),
    ] {
        let (steps, fifo) = both(Scenario {
            load,
            patience: Some(patience),
            ..scenario
        });
        assert!(steps.share() - fifo.share() >= gain);
        assert!(steps.rate() >= 0.85 * fifo.rate());
    }
}

#[test]
fn pictures_of_two_sizes_keep_their_deadlines_beside_each_other() {
    for (load, patience, gain) in [
        (0.8, 3.0, 20.0),
        (1.2, 3.0, 30.0),
        (1.2, 10.0, 30.0),
        (2.0, 5.0, 50.0),
    ] {
        let (steps, fifo) = both(Scenario {
            load,
            patience: Some(patience),
            large: true,
            ..SCENARIO
        });
        assert!(steps.share() - fifo.share() >= gain);
        assert!(steps.useful >= fifo.useful);
    }
}

#[test]
fn the_pictures_of_a_request_are_in_time_together() {
    for (load, gain) in [(1.2, 30.0), (2.0, 50.0)] {
        let (steps, fifo) = both(Scenario {
            load,
            patience: Some(5.0),
            pictures: 4,
            ..SCENARIO
        });
        assert!(steps.share() - fifo.share() >= gain);
        assert!(steps.useful >= fifo.useful);
    }
}
