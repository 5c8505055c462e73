//! Single decisions and what is said about them. Whole loads are compared with Ray in tests/autoscaling.rs.

use super::*;

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn config(min: u32, max: u32) -> Config {
    Config {
        min,
        max,
        ..Config::default()
    }
}

fn requests(queued: f64, running: f64) -> Sample {
    Sample {
        queued,
        running,
        work_s: 0.0,
    }
}

pub(super) fn working(target_s: f64, config: Config) -> Config {
    Config {
        policy: Policy::Work { target_s },
        ..config
    }
}

/// Ticks from one time to another (not included) with a sample every second; gives the decisions.
pub(super) fn run(
    scaler: &mut Scaler,
    from: Duration,
    to: Duration,
    running: u32,
    sample: Sample,
) -> Vec<Decision> {
    let mut decisions = Vec::new();
    let mut now = from;
    while now < to {
        if (now - from).subsec_millis() == 0 {
            scaler.record("p", now, sample);
        }
        decisions.extend(scaler.tick(now, running));
        now += TICK;
    }
    decisions
}

#[test]
fn more_is_started_once_it_was_wanted_for_the_delay_and_the_reason_says_so() {
    let mut scaler = Scaler::new(config(1, 9), None, 2);
    assert!(run(&mut scaler, s(0), s(12), 2, requests(0.4, 8.0)).is_empty());
    let view = scaler.view(s(12));
    assert_eq!(view.why, "needs 5 replicas, for 12 s now; upscale_delay_s is 30");
    assert_eq!((view.wants, view.since, view.due), (5, Some(s(0)), Some(s(30))));
    assert_eq!((view.status, view.health), (Status::Stable, Health::Healthy));
    let decisions = run(&mut scaler, s(12), s(31), 2, requests(0.4, 8.0));
    assert_eq!(decisions.len(), 1);
    let decision = &decisions[0];
    assert_eq!((decision.at, decision.from, decision.to), (s(30), 2, 5));
    assert_eq!(
        decision.reason,
        "8.4 ongoing requests over 2 replicas are 2.1 times the target of 2; held for 30 s"
    );
    assert_eq!((decision.inputs.replicas, decision.inputs.upper), (2, 9));
    assert!((decision.inputs.ongoing - 8.4).abs() < 1e-9);
    assert_eq!(
        scaler.view(s(31)).status,
        Status::Upscaling,
        "three are not there yet"
    );
    assert_eq!(scaler.decisions().len(), 1);
}

#[test]
fn one_tick_without_the_wish_starts_the_delay_anew() {
    let mut scaler = Scaler::new(config(1, 9), None, 2);
    run(&mut scaler, s(0), s(20), 2, requests(0.0, 8.0));
    scaler.forget("p");
    assert!(scaler.tick(s(20), 2).is_none());
    let decisions = run(&mut scaler, ms(20_100), s(60), 2, requests(0.0, 8.0));
    assert_eq!(decisions[0].at, ms(50_100));
}

#[test]
fn without_a_replica_one_request_starts_the_first_at_once() {
    let mut scaler = Scaler::new(config(0, 9), None, 0);
    assert_eq!(scaler.tick(s(0), 0), None);
    assert_eq!(
        scaler.view(s(0)).why,
        "no replica runs, and no proxy reports load"
    );
    assert_eq!(
        scaler.next(s(0)),
        None,
        "nothing to do until something is reported"
    );
    scaler.record("p", ms(40), requests(3.0, 7.0));
    assert_eq!(scaler.next(ms(40)), Some(ms(100)));
    let decision = scaler.tick(ms(130), 0).unwrap();
    assert_eq!((decision.at, decision.to), (ms(100), 1));
    assert_eq!(
        decision.reason,
        "3 requests are there and no replica runs; at once"
    );
    assert_eq!(scaler.view(ms(130)).why, "no replica runs yet; 1 was asked for");
}

#[test]
fn the_last_replica_goes_after_all_others_and_after_its_own_delay() {
    let config = Config {
        downscale_delay: s(5),
        downscale_to_zero_delay: Some(s(60)),
        ..config(0, 9)
    };
    let mut scaler = Scaler::new(config, None, 4);
    let decisions = run(&mut scaler, s(0), s(7), 4, requests(0.0, 0.0));
    assert_eq!(decisions.len(), 1);
    assert_eq!((decisions[0].at, decisions[0].to), (s(5), 1));
    assert_eq!(
        decisions[0].reason,
        "0 ongoing requests over 4 replicas are 0 times the target of 2; held for 5 s; 0 asked for, the last replica has \
         its own delay"
    );
    let decisions = run(&mut scaler, s(7), s(70), 1, requests(0.0, 0.0));
    assert_eq!(
        (decisions[0].at, decisions[0].from, decisions[0].to),
        (ms(65_100), 1, 0)
    );
    assert_eq!(scaler.view(s(70)).status, Status::Downscaling);
}

#[test]
fn what_the_bounds_forbid_is_said_and_not_waited_for() {
    let mut scaler = Scaler::new(config(1, 8), Some(50.0), 9);
    assert_eq!(scaler.target(), 4);
    assert!(run(&mut scaler, s(0), s(90), 4, requests(0.0, 18.0)).is_empty());
    let view = scaler.view(s(90));
    assert_eq!(
        view.why,
        "stays at 4: the load needs 9, and max_replicas is 8, 4 at the target capacity"
    );
    assert_eq!((view.since, view.wants, view.inputs.desired), (None, 4, 9.0));
    let mut scaler = Scaler::new(config(3, 8), None, 3);
    assert!(run(&mut scaler, s(0), s(90), 3, requests(0.0, 1.0)).is_empty());
    assert_eq!(
        scaler.view(s(90)).why,
        "stays at 3: the load needs 1, and min_replicas is 3"
    );
}

#[test]
fn a_request_counts_once() {
    let mut scaler = Scaler::new(config(1, 9), None, 2);
    scaler.record("a", ms(10), requests(2.0, 3.0));
    scaler.record("b", ms(10), requests(1.0, 0.0));
    scaler.tick(s(1), 2);
    assert_eq!(scaler.view(s(1)).inputs.ongoing, 6.0);
    // What waited runs now: it is moved, not added.
    scaler.record("b", ms(1_010), requests(0.0, 1.0));
    scaler.tick(s(2), 2);
    assert_eq!(scaler.view(s(2)).inputs.ongoing, 6.0);
    // The replicas report the four that run: the routers' word about them stops counting.
    scaler.record_replica("r", ms(2_010), requests(9.0, 4.0));
    scaler.tick(s(3), 2);
    let inputs = scaler.view(s(3)).inputs;
    assert_eq!((inputs.ongoing, inputs.queued, inputs.executing), (6.0, 2.0, 4.0));
    scaler.forget("r");
    scaler.tick(s(4), 2);
    assert_eq!(scaler.view(s(4)).inputs.executing, 4.0);
    scaler.forget("a");
    scaler.forget("b");
    scaler.tick(s(5), 2);
    assert_eq!(scaler.view(s(5)).inputs.ongoing, 0.0);
}

#[test]
fn who_is_silent_is_dropped_after_ten_seconds_or_two_intervals() {
    for (interval, until) in [(s(1), 10), (s(7), 14)] {
        let config = Config {
            metrics_interval: interval,
            ..config(1, 9)
        };
        let mut scaler = Scaler::new(config, None, 2);
        scaler.record("p", s(0), requests(0.0, 4.0));
        let mut now = s(0);
        while now <= s(until) {
            scaler.tick(now, 2);
            let view = scaler.view(now);
            assert_eq!(view.inputs.ongoing, 4.0, "{now:?}");
            let late = now * 2 > s(until);
            let expected = if now == s(until) {
                Health::Unavailable
            } else if late {
                Health::Delayed
            } else {
                Health::Healthy
            };
            assert_eq!(view.health, expected, "{now:?}");
            now += TICK;
        }
        scaler.tick(now, 2);
        assert_eq!(scaler.view(now).inputs.ongoing, 0.0);
        assert!(scaler.view(now).why.starts_with("needs 1 replica, "));
    }
}

#[test]
fn a_sample_that_is_no_number_is_counted_and_left_out() {
    let mut scaler = Scaler::new(config(1, 9), None, 2);
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        scaler.record("p", ms(10), requests(bad, 1.0));
        scaler.record(
            "p",
            ms(10),
            Sample {
                work_s: bad,
                ..Sample::default()
            },
        );
    }
    scaler.tick(s(1), 2);
    assert_eq!(
        (scaler.view(s(1)).refused, scaler.view(s(1)).inputs.sources),
        (6, 0)
    );
}

#[test]
fn new_settings_keep_what_was_reported_and_start_the_delays_anew() {
    let old = config(1, 9);
    let mut scaler = Scaler::new(old.clone(), None, 2);
    run(&mut scaler, s(0), s(20), 2, requests(0.0, 8.0));
    scaler.reconfigure(old.clone(), None);
    assert_eq!((scaler.target(), scaler.view(s(20)).since), (2, None));
    let decisions = run(&mut scaler, s(20), s(60), 2, requests(0.0, 8.0));
    assert_eq!(decisions[0].at, s(50));
    let new = Config {
        initial: Some(7),
        ..old
    };
    scaler.reconfigure(new.clone(), None);
    assert_eq!(scaler.target(), 7);
    scaler.reconfigure(new.clone(), Some(50.0));
    assert_eq!(
        scaler.target(),
        5,
        "from no capacity to one is down: the lower bound is min, the upper 4.5 rounded up"
    );
    scaler.reconfigure(new.clone(), Some(60.0));
    assert_eq!(
        scaler.target(),
        5,
        "up again: at least initial at 60 %, 4.2 rounded, and at most 5.4 rounded"
    );
    let filling = Scaler::new(new.clone(), Some(60.0), 1);
    assert_eq!(filling.target(), 4);
    let mut scaler = Scaler::new(new.clone(), None, 1);
    assert_eq!((scaler.target(), Scaler::fresh(new, None).target()), (1, 7));
    scaler.set_direction(Some(Direction::Up));
    assert_eq!(scaler.target(), 7);
    assert!(scaler.tick(s(0), 7).is_none());
    assert_eq!(
        scaler.view(s(0)).why,
        "stays at 7: no proxy reports load, and initial_replicas is 7"
    );
}

#[test]
fn a_loop_that_stalled_makes_up_for_it_in_one_decision() {
    let config = Config {
        upscale_delay: s(1),
        upscaling_factor: Some(0.5),
        ..config(1, 20)
    };
    let mut scaler = Scaler::new(config, None, 2);
    scaler.tick(s(0), 2);
    scaler.record("p", ms(50), requests(0.0, 12.0));
    scaler.record("p", s(4), requests(0.0, 32.0));
    let decision = scaler.tick(s(9), 2).unwrap();
    assert_eq!((decision.from, decision.to), (2, scaler.target()));
    let steps: Vec<_> = scaler.decisions().map(|one| (one.at, one.from, one.to)).collect();
    assert_eq!(steps[0], (ms(1_100), 2, 4));
    assert!(
        steps.len() > 1
            && steps
                .windows(2)
                .all(|two| two[0].2 == two[1].1 && two[0].0 < two[1].0)
    );
    assert_eq!(decision.at, steps.last().unwrap().0);
}

#[test]
fn it_sleeps_until_a_wish_is_granted_a_sample_is_due_or_a_source_is_silent() {
    let mut scaler = Scaler::new(config(1, 9), None, 1);
    assert_eq!(scaler.next(ms(1_010)), Some(ms(1_100)));
    scaler.tick(ms(1_100), 1);
    assert_eq!(
        scaler.next(ms(1_100)),
        None,
        "it wants none, but min_replicas is 1"
    );
    let mut scaler = Scaler::new(config(1, 9), None, 2);
    scaler.tick(s(1), 2);
    assert_eq!(scaler.next(s(1)), Some(s(601)), "one of two is wanted");
    scaler.record("p", s(2), requests(0.0, 4.0));
    assert_eq!(scaler.next(s(2)), Some(s(2)));
    scaler.tick(s(2), 2);
    assert_eq!(
        scaler.next(s(2)),
        Some(s(22)),
        "all is well until the source is silent for two intervals"
    );
    assert_eq!(
        scaler.view(s(2)).why,
        "4 ongoing requests over 2 replicas are 1 times the target of 2: stays at 2"
    );
}

#[test]
fn gangs_come_and_go_as_a_whole() {
    let config = Config {
        upscale_delay: Duration::ZERO,
        downscale_delay: Duration::ZERO,
        aggregation: Aggregation::Max,
        ..config(0, 12)
    };
    let mut scaler = Scaler::new(config, None, 0);
    scaler.set_gang(4);
    scaler.record("p", s(0), requests(1.0, 0.0));
    let decision = scaler.tick(s(0), 0).unwrap();
    assert_eq!(decision.to, 4, "one gang is the least");
    scaler.record("p", s(1), requests(0.0, 10.0));
    let decision = scaler.tick(s(1), 4).unwrap();
    assert!(
        decision
            .reason
            .ends_with("at once; 5 asked for, replicas come in gangs of 4"),
        "{}",
        decision.reason
    );
    assert_eq!(decision.to, 8);
}

#[test]
fn a_configuration_that_cannot_be_is_refused_by_name() {
    let told = |config: Config| config.check().unwrap_err().to_string();
    assert!(told(config(5, 3)).starts_with("max_replicas is 3 and min_replicas 5"));
    assert!(told(config(0, 0)).starts_with("max_replicas is 0"));
    let initial = Some(9);
    assert!(
        told(Config {
            initial,
            ..config(1, 3)
        })
        .starts_with("initial_replicas is 9")
    );
    let upscaling_factor = Some(0.0);
    assert!(
        told(Config {
            upscaling_factor,
            ..config(1, 3)
        })
        .starts_with("upscaling_factor is 0")
    );
    assert!(told(working(f64::NAN, config(1, 3))).starts_with("target_s is NaN"));
    let look_back = Duration::ZERO;
    assert!(
        told(Config {
            look_back,
            ..config(1, 3)
        })
        .starts_with("look_back_period_s is 0")
    );
    assert_eq!(Config::auto().check(), Ok(()));
}
