//! The scaler against Ray Serve: golden/autoscaling.json is made by tools/reference/autoscaling.py, with Ray's own classes.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use mobula_serving::scale::{Aggregation, Config, Direction, Policy, Sample, Scaler, TICK, adjusted};
use serde_json::Value;

/// Largest difference of an aggregate, relative to max(1, |x|).
const TOLERANCE: f64 = 1e-9;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/autoscaling.json")).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn count(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn seconds(value: &Value) -> Duration {
    Duration::from_secs_f64(value.as_f64().unwrap())
}

fn config(value: &Value) -> Config {
    Config {
        min: count(&value["min_replicas"]),
        initial: value["initial_replicas"].as_u64().map(|n| n as u32),
        max: count(&value["max_replicas"]),
        target_ongoing: value["target_ongoing_requests"].as_f64().unwrap(),
        metrics_interval: seconds(&value["metrics_interval_s"]),
        look_back: seconds(&value["look_back_period_s"]),
        upscaling_factor: value["upscaling_factor"].as_f64(),
        downscaling_factor: value["downscaling_factor"].as_f64(),
        upscale_delay: seconds(&value["upscale_delay_s"]),
        downscale_delay: seconds(&value["downscale_delay_s"]),
        downscale_to_zero_delay: value["downscale_to_zero_delay_s"]
            .as_f64()
            .map(Duration::from_secs_f64),
        aggregation: match value["aggregation_function"].as_str().unwrap() {
            "max" => Aggregation::Max,
            "min" => Aggregation::Min,
            _ => Aggregation::Mean,
        },
        policy: Policy::Ongoing,
    }
}

/// Run lengths, one value per tick.
fn expand(runs: &Value, ticks: u64) -> Vec<u32> {
    let mut runs = list(runs).iter().peekable();
    let mut now = 0;
    (0..ticks)
        .map(|tick| {
            while let Some(run) = runs.next_if(|run| run[0].as_u64() == Some(tick)) {
                now = count(&run[1]);
            }
            now
        })
        .collect()
}

/// A sample, who it is from, and when it comes.
struct Report {
    at: Duration,
    source: String,
    from_replica: bool,
    sample: Sample,
}

fn reports(case: &Value) -> Vec<Report> {
    let mut all = Vec::new();
    for (kind, width) in [("samples", 3), ("replicas", 2)] {
        for (name, rows) in case[kind].as_object().into_iter().flatten() {
            let mut at = 0;
            for row in list(rows).chunks(width) {
                at += row[0].as_u64().unwrap();
                let last = row[width - 1].as_f64().unwrap();
                let queued = if width == 3 { row[1].as_f64().unwrap() } else { 0.0 };
                all.push(Report {
                    at: Duration::from_millis(at),
                    source: format!("{kind} {name}"),
                    from_replica: width == 2,
                    sample: Sample {
                        queued,
                        running: last,
                        work_s: 0.0,
                    },
                });
            }
        }
    }
    all.sort_by_key(|report| report.at);
    all
}

/// How often the scaler is asked.
#[derive(Clone, Copy, PartialEq)]
enum Caller {
    EveryTick,
    /// When it is told something, and when the scaler asked for it.
    WhenDue,
}

/// Plays a case and compares every target, and some totals, with Ray's.
fn replay(index: usize, case: &Value, caller: Caller) {
    let ticks = case["ticks"].as_u64().unwrap();
    let mut now = config(&case["config"]);
    let mut capacity = case["capacity"].as_f64();
    let mut scaler = match now.initial {
        Some(_) => Scaler::fresh(now.clone(), capacity),
        None => Scaler::new(now.clone(), capacity, count(&case["start"])),
    };
    if let Some(gang) = case["gang"].as_u64() {
        scaler.set_gang(gang as u32);
    }
    assert_eq!(scaler.target(), count(&case["first"]), "case {index}");
    let (running, targets) = (expand(&case["running"], ticks), expand(&case["targets"], ticks));
    let (every, totals) = (case["every"].as_u64().unwrap(), list(&case["totals"]));
    let mut reports = reports(case).into_iter().peekable();
    let mut asked = 0;
    for tick in 0..ticks {
        let time = TICK * tick as u32;
        let at = |change: &&Value| change["tick"].as_u64() == Some(tick);
        let change = case["changes"].as_array().into_iter().flatten().find(at);
        let at = |gone: &&Value| gone[0].as_u64() == Some(tick);
        let gone: Vec<_> = case["gone"].as_array().into_iter().flatten().filter(at).collect();
        let last = tick.checked_sub(1).map(|tick| running[tick as usize]);
        let told = change.is_some() || !gone.is_empty() || last != Some(running[tick as usize]);
        let before = scaler.target();
        if let Some(last) = last.filter(|_| told && caller == Caller::WhenDue) {
            scaler.tick(time - TICK, last);
            assert_eq!(
                scaler.target(),
                before,
                "case {index}, tick {tick}: a change was due earlier"
            );
        }
        while let Some(report) = reports.next_if(|report| report.at <= time) {
            if report.from_replica {
                scaler.record_replica(&report.source, report.at, report.sample);
            } else {
                scaler.record(&report.source, report.at, report.sample);
            }
        }
        for gone in gone {
            scaler.forget(&format!("replicas {}", gone[1]));
        }
        if let Some(change) = change {
            if change["config"].is_object() {
                now = config(&change["config"]);
            }
            capacity = change["capacity"].as_f64();
            scaler.reconfigure(now.clone(), capacity);
        }
        let due = told || scaler.next(time).is_some_and(|due| due <= time);
        if due || caller == Caller::EveryTick {
            let before = scaler.target();
            let decision = scaler.tick(time, running[tick as usize]);
            let told = decision.as_ref().map_or(before, |decision| decision.to);
            assert_eq!(
                told,
                scaler.target(),
                "case {index}, tick {tick}: a change is told"
            );
            asked += 1;
        }
        let (ours, rays) = (scaler.target(), targets[tick as usize]);
        let view = scaler.view(time);
        assert_eq!(ours, rays, "case {index}, tick {tick}: {view:?}");
        if tick % every == 0 && caller == Caller::EveryTick {
            let (ours, rays) = (
                view.inputs.ongoing,
                totals[(tick / every) as usize].as_f64().unwrap(),
            );
            assert!(
                (ours - rays).abs() <= TOLERANCE * rays.abs().max(1.0),
                "case {index}, tick {tick}: total {ours}, in Ray {rays}"
            );
        }
    }
    assert!(
        caller == Caller::EveryTick || asked < ticks,
        "case {index}: it never slept"
    );
}

#[test]
fn every_load_gets_the_replicas_that_ray_gives_it() {
    let golden = golden();
    let cases = list(&golden["cases"]);
    assert!(cases.len() >= 100);
    for (index, case) in cases.iter().enumerate() {
        replay(index, case, Caller::EveryTick);
    }
}

#[test]
fn a_caller_that_sleeps_until_the_scaler_has_something_to_do_gets_the_same() {
    for (index, case) in list(&golden()["cases"]).iter().enumerate() {
        replay(index, case, Caller::WhenDue);
    }
}

#[test]
fn counts_at_a_target_capacity_are_rays() {
    for one in list(&golden()["capacities"]) {
        assert_eq!(adjusted(count(&one[0]), one[1].as_f64()), count(&one[2]), "{one}");
    }
}

#[test]
fn the_direction_of_the_capacity_is_rays() {
    let direction = |value: &Value| match value.as_str() {
        Some("UP") => Some(Direction::Up),
        Some(_) => Some(Direction::Down),
        None => None,
    };
    for one in list(&golden()["directions"]) {
        let same = one[2].as_bool().unwrap();
        let before = same.then(|| (one[0].as_f64(), direction(&one[3])));
        assert_eq!(
            Direction::next(before, one[1].as_f64()),
            direction(&one[4]),
            "{one}"
        );
    }
}
