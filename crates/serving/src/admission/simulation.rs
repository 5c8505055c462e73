//! A deployment under more than it can do: what is let in is served in time, whatever comes.
//!
//! Replicas work on several requests at a time and share their time among them, which is the worst that can happen to a
//! request that was let in last. Time is the simulation's own.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;

const REPLICAS: usize = 2;
/// Requests that a replica takes at a time.
const SLOTS: usize = 4;
/// Seconds per row.
const ROW: f64 = 0.001;
/// Rows of a request, on the average.
const ROWS: f64 = 40.0;
/// Requests per second that the replicas can do.
const CAPACITY: f64 = REPLICAS as f64 / (ROWS * ROW);
/// Seconds that a caller waits: several times what a request takes on a busy replica.
const PATIENCE: f64 = 1.0;

struct Request {
    at: f64,
    rows: f64,
    claim: Claim,
    admission: Option<Admission>,
    begun: f64,
    left: f64,
}

/// What became of requests.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Outcome {
    in_time: u32,
    /// Rows of those.
    rows: f64,
    refused: u32,
    /// Waited until their deadline.
    waited_in_vain: u32,
    /// Were drawn for nothing.
    wasted: u32,
}

struct Deployment {
    now: f64,
    queue: Queue<usize>,
    trust: Trust,
    requests: Vec<Request>,
    replicas: Vec<Vec<usize>>,
    outcomes: Vec<(f64, Outcome)>,
}

fn cost(request: &Request) -> Cost {
    Cost::rows(request.rows as u64)
}

fn ask(request: &Request) -> Ask<'_> {
    Ask {
        claim: &request.claim,
        cost: cost(request),
        bytes: 0,
    }
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0))
}

impl Deployment {
    fn new(queued: usize) -> Self {
        Self {
            now: 0.0,
            queue: Queue::new(Bounds {
                requests: queued,
                ..Bounds::default()
            }),
            trust: Trust::default(),
            requests: Vec::new(),
            replicas: vec![Vec::new(); REPLICAS],
            outcomes: Vec::new(),
        }
    }

    fn scene(&self) -> Scene {
        let free = self.replicas.iter().map(|replica| SLOTS - replica.len());
        Scene {
            free: free.sum(),
            pace: Pace {
                row_ns: (ROW * 1e9) as u64,
                replicas: REPLICAS,
            },
            now: secs(self.now),
        }
    }

    fn own(&self, request: usize) -> Duration {
        cost(&self.requests[request]).time((ROW * 1e9) as u64)
    }

    fn end(&mut self, note: impl FnOnce(&mut Outcome)) {
        let mut outcome = Outcome::default();
        note(&mut outcome);
        self.outcomes.push((self.now, outcome));
    }

    fn arrive(&mut self, request: Request) {
        let (index, scene) = (self.requests.len(), self.scene());
        self.requests.push(request);
        let asked = ask(&self.requests[index]);
        let Ok(admission) = self.queue.admit(asked, scene, &self.trust) else {
            return self.end(|outcome| outcome.refused += 1);
        };
        self.queue.arrived(asked);
        let work = self.trust.work(self.own(index), admission.ahead > 0);
        let needed = self.trust.wait(admission.wait.unwrap_or_default()) + work;
        let basis = Basis {
            age: Duration::ZERO,
            under_way: true,
        };
        if check_deadline(secs(PATIENCE), needed, basis).is_err() {
            return self.end(|outcome| outcome.refused += 1);
        }
        self.queue
            .enter(admission.ticket, (asked, false), index, scene.now);
        self.requests[index].admission = Some(admission);
        self.serve();
    }

    fn serve(&mut self) {
        while let Some(replica) = (0..REPLICAS)
            .filter(|i| self.replicas[*i].len() < SLOTS)
            .min_by_key(|i| self.replicas[*i].len())
        {
            let Some((ticket, _, index)) = self.queue.iter().next().map(|(t, c, i)| (t, c, *i)) else {
                break;
            };
            self.queue.serve(ticket);
            let left = self.requests[index].at + PATIENCE - self.now;
            let waited = secs(self.now - self.requests[index].at);
            let predicted = self.requests[index]
                .admission
                .and_then(|admission| admission.wait);
            self.trust.waited(predicted.unwrap_or_default(), waited, true);
            if secs(left) < self.own(index) / 2 {
                self.end(|outcome| outcome.waited_in_vain += 1);
                continue;
            }
            self.requests[index].begun = self.now;
            self.replicas[replica].push(index);
        }
    }

    /// Lets time pass up to `until`.
    fn run(&mut self, until: f64) {
        loop {
            let requests = &self.requests;
            let done = self.replicas.iter().filter_map(|replica| {
                let least = replica.iter().map(|i| requests[*i].left).fold(f64::MAX, f64::min);
                (!replica.is_empty()).then_some(self.now + least * ROW * replica.len() as f64)
            });
            let waiting = self.queue.iter().map(|(_, _, i)| *i);
            let there = self.replicas.iter().flatten().copied().chain(waiting);
            let expires = there.map(|i| requests[i].at + PATIENCE);
            let next = done.chain(expires).fold(until, f64::min).max(self.now);
            for replica in &self.replicas {
                for i in replica {
                    self.requests[*i].left -= (next - self.now) / (ROW * replica.len() as f64);
                }
            }
            self.now = next;
            let is_over = next >= until;
            self.settle();
            if is_over {
                return;
            }
        }
    }

    /// Takes those away who are done, or too late.
    fn settle(&mut self) {
        for replica in 0..REPLICAS {
            for i in std::mem::take(&mut self.replicas[replica]) {
                let is_late = self.now >= self.requests[i].at + PATIENCE;
                let is_done = self.requests[i].left <= 1e-9;
                let took = secs(self.now - self.requests[i].begun);
                if is_done || is_late {
                    self.trust.worked(self.own(i), took, is_done);
                    let rows = self.requests[i].rows;
                    self.end(|outcome| {
                        outcome.in_time += u32::from(is_done);
                        outcome.rows += if is_done { rows } else { 0.0 };
                        outcome.wasted += u32::from(!is_done);
                    });
                } else {
                    self.replicas[replica].push(i);
                }
            }
        }
        let requests = &self.requests;
        let is_late = |i: &usize| self.now >= requests[*i].at + PATIENCE;
        let waiting = self.queue.iter();
        let late: Vec<_> = waiting
            .filter(|(_, _, i)| is_late(i))
            .map(|(t, _, i)| (t, *i))
            .collect();
        for (ticket, i) in late {
            self.queue.leave(ticket);
            let predicted = self.requests[i].admission.and_then(|admission| admission.wait);
            self.trust
                .waited(predicted.unwrap_or_default(), secs(PATIENCE), false);
            self.end(|outcome| outcome.waited_in_vain += 1);
        }
        self.serve();
    }

    /// What ended between two times, per second.
    fn between(&self, from: f64, to: f64) -> Outcome {
        let mut sum = Outcome::default();
        for (_, outcome) in self.outcomes.iter().filter(|(at, _)| (from..to).contains(at)) {
            sum.in_time += outcome.in_time;
            sum.rows += outcome.rows;
            sum.refused += outcome.refused;
            sum.waited_in_vain += outcome.waited_in_vain;
            sum.wasted += outcome.wasted;
        }
        sum
    }
}

/// Requests come at random, `load` times what the replicas can do.
fn come(deployment: &mut Deployment, rng: &mut StdRng, (load, until): (f64, f64)) {
    loop {
        let gap = -(1.0 - rng.random::<f64>()).ln() / (load * CAPACITY);
        let at = deployment.now + gap;
        if at >= until {
            deployment.run(until);
            return;
        }
        deployment.run(at);
        // Small and large ones.
        let rows = *[0.25, 0.5, 1.0, 2.25].get(rng.random_range(0..4)).unwrap() * ROWS;
        deployment.arrive(Request {
            at,
            rows,
            claim: Claim::default(),
            admission: None,
            begun: 0.0,
            left: rows,
        });
    }
}

/// Rows per second of requests that are drawn in time, once it is settled, and what became of the others.
fn goodput(load: f64, queued: usize) -> (f64, Outcome) {
    let mut deployment = Deployment::new(queued);
    let mut rng = StdRng::seed_from_u64(7);
    come(&mut deployment, &mut rng, (load, 40.0));
    let outcome = deployment.between(15.0, 40.0);
    (outcome.rows / 25.0, outcome)
}

#[test]
fn beyond_capacity_goodput_stays_near_its_peak_and_the_rest_is_refused_at_the_door() {
    let peak = [0.7, 0.8, 0.9, 1.0].map(|load| goodput(load, 10_000).0);
    let peak = peak.into_iter().fold(0.0, f64::max);
    for load in [1.2, 1.5, 3.0, 8.0] {
        let (good, outcome) = goodput(load, 10_000);
        assert!(good >= 0.9 * peak, "at {load}: {good} of {peak}, {outcome:?}");
        let late = outcome.waited_in_vain + outcome.wasted;
        assert!(
            f64::from(late) <= 0.1 * f64::from(outcome.refused + outcome.in_time),
            "at {load}: {outcome:?}"
        );
    }
}

#[test]
fn after_a_burst_everything_is_as_before_within_seconds() {
    let mut deployment = Deployment::new(10_000);
    let mut rng = StdRng::seed_from_u64(3);
    come(&mut deployment, &mut rng, (0.7, 30.0));
    let before = deployment.between(10.0, 30.0);
    come(&mut deployment, &mut rng, (8.0, 60.0));
    let burst = deployment.between(32.0, 60.0);
    come(&mut deployment, &mut rng, (0.7, 65.0));
    come(&mut deployment, &mut rng, (0.7, 85.0));
    let after = deployment.between(65.0, 85.0);
    assert!(
        burst.rows / 28.0 >= 0.9 * before.rows / 20.0,
        "{before:?} {burst:?}"
    );
    assert!(after.rows >= 0.9 * before.rows, "{before:?} {after:?}");
    assert!(after.refused <= 5, "{after:?}");
}
