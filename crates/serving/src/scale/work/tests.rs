//! Decisions by work. What a closed loop makes of them is in `simulation`.

use crate::scale::{
    Config, Sample, Scaler,
    tests::{config, ms, run, s, working},
};

fn work(running: f64, work_s: f64) -> Sample {
    Sample {
        queued: 0.0,
        running,
        work_s,
    }
}

#[test]
fn work_is_taken_from_routers_and_from_replicas_only_without_them() {
    let mut scaler = Scaler::new(working(5.0, config(1, 9)), None, 1);
    scaler.record_replica("r", ms(10), work(1.0, 7.0));
    scaler.tick(s(1), 1);
    assert_eq!(scaler.view(s(1)).inputs.work_s, 7.0);
    scaler.record("p", ms(1_010), work(1.0, 11.0));
    scaler.tick(s(2), 1);
    assert_eq!(scaler.view(s(2)).inputs.work_s, 11.0);
}

#[test]
fn work_goes_up_for_a_backlog_that_is_still_there_and_says_why() {
    let config = Config {
        upscale_delay: s(2),
        ..working(5.0, config(1, 30))
    };
    let mut scaler = Scaler::new(config.clone(), None, 2);
    let decisions = run(&mut scaler, s(0), s(4), 2, work(2.0, 84.0));
    assert_eq!((decisions.len(), decisions[0].to), (1, 17));
    assert_eq!(
        decisions[0].reason,
        "84 s of work over 2 replicas are 8.4 times the 5 s that each may have; held for 2 s"
    );
    // The same backlog, worked off before the delay is over: the mean is still high, the present is not.
    let mut scaler = Scaler::new(config, None, 2);
    assert!(run(&mut scaler, s(0), ms(1_900), 2, work(2.0, 84.0)).is_empty());
    assert!(run(&mut scaler, ms(1_900), s(60), 2, work(2.0, 3.0)).is_empty());
}

#[test]
fn work_goes_down_to_what_the_whole_window_and_the_busy_replicas_need() {
    let config = Config {
        downscale_delay: s(40),
        ..working(5.0, config(1, 30))
    };
    let mut scaler = Scaler::new(config, None, 10);
    run(&mut scaler, s(0), s(1), 10, work(10.0, 48.0));
    let decisions = run(&mut scaler, s(1), s(120), 10, work(3.0, 2.0));
    assert_eq!(decisions.len(), 1);
    assert_eq!(
        (decisions[0].to, decisions[0].at),
        (4, s(70)),
        "3 are busy, and a part of 0.8 is left"
    );
    assert_eq!(
        decisions[0].reason,
        "at most 2 s of work and 3 busy replicas in 30 s need 4 of 10 replicas; held for 40 s"
    );
}
