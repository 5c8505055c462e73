//! Decisions, and the lack of them, in words.
//!
//! Refuses to decide: it says what [`Scene`] came to. Fields are called by their names in Ray, for they are what an operator set.

use std::time::Duration;

use super::{
    Config, Policy, ceil,
    decide::{Scene, State},
    delay::time,
    view::{Health, Inputs, Status},
};

/// What no report comes to.
const SILENCE: &str = "no proxy reports load";

pub(super) fn status(target: u32, running: u32) -> Status {
    match target.cmp(&running) {
        std::cmp::Ordering::Greater => Status::Upscaling,
        std::cmp::Ordering::Less => Status::Downscaling,
        std::cmp::Ordering::Equal => Status::Stable,
    }
}

/// `silent` is how long the source that is silent for the longest has been so.
pub(super) fn health(config: &Config, silent: Option<Duration>) -> Health {
    match silent {
        None => Health::Unavailable,
        Some(silent) if silent * 2 > config.silence() => Health::Delayed,
        Some(_) => Health::Healthy,
    }
}

/// Why `before` became `left`: "8.4 ongoing requests over 2 replicas are 2.1 times the target of 2; held for 30 s".
pub(super) fn reason(scene: &Scene<'_>, before: State, left: State, tick: u64, inputs: &Inputs) -> String {
    if scene.running == 0 {
        return format!("{}; at once", load(scene, false, inputs));
    }
    let up = left.target > before.target;
    let held = match before.wish.filter(|wish| wish.up == up) {
        Some(wish) => time(tick).saturating_sub(time(wish.since)),
        None => Duration::ZERO,
    };
    let held = if held.is_zero() {
        "at once".to_owned()
    } else {
        format!("held for {}", seconds(held))
    };
    let limits = limits(scene, left.target, inputs);
    format!("{}; {held}{limits}", load(scene, up, inputs))
}

/// Why the target is what it is: "needs 3 replicas, for 12 s now; upscale_delay_s is 30". Who has no request does not report,
/// so that silence is what an idle deployment is like; it is told all the same, for a proxy that is lost is silent too.
pub(super) fn why(
    scene: &Scene<'_>,
    state: State,
    done: Option<u64>,
    now: Duration,
    inputs: &Inputs,
) -> String {
    let Some(tick) = done else {
        return "nothing is decided yet".to_owned();
    };
    if scene.running == 0 {
        return match state.target {
            0 if inputs.sources == 0 => format!("no replica runs, and {SILENCE}"),
            0 => "no replica runs and no request is there".to_owned(),
            target => {
                let were = if target == 1 { "was" } else { "were" };
                format!("no replica runs yet; {target} {were} asked for")
            }
        };
    }
    let silent = inputs.sources == 0;
    if let Some(wish) = state.wish {
        let target = scene.counted(state.target);
        let since = seconds(now.saturating_sub(time(wish.since)));
        let (name, delay) = (
            wish.delay_name(scene.config, target),
            wish.delay(scene.config, target),
        );
        let needs = count(scene.whole(scene.wanted(target, tick)));
        let delay = number(delay.as_secs_f64());
        let silence = if silent {
            format!("; {SILENCE}")
        } else {
            String::new()
        };
        return format!("needs {needs}, for {since} now; {name} is {delay}{silence}");
    }
    let asked = ceil(inputs.desired);
    let target = f64::from(state.target);
    let kept = if asked > target && state.target == scene.bounds.upper {
        bound("max_replicas", scene.config.max, scene.bounds.upper)
    } else if asked < target && state.target == scene.bounds.lower {
        let (name, least) = scene.least();
        bound(name, least, scene.bounds.lower)
    } else if silent {
        return format!("{SILENCE}: stays at {target}");
    } else {
        return format!("{}: stays at {target}", load(scene, true, inputs));
    };
    if silent {
        format!("stays at {target}: {SILENCE}, and {kept}")
    } else {
        format!("stays at {target}: the load needs {asked}, and {kept}")
    }
}

/// What the policy sees. `up` tells which side of the work policy counts.
fn load(scene: &Scene<'_>, up: bool, inputs: &Inputs) -> String {
    let replicas = count(scene.running);
    match scene.config.policy {
        Policy::Ongoing | Policy::Work { .. } if scene.running == 0 => {
            format!("{} requests are there and no replica runs", number(inputs.queued))
        }
        Policy::Ongoing => {
            let target = scene.config.target_ongoing;
            let times = inputs.ongoing / (target * f64::from(scene.running));
            format!(
                "{} ongoing requests over {replicas} are {} times the target of {}",
                number(inputs.ongoing),
                number(times),
                number(target),
            )
        }
        Policy::Work { target_s } if up => {
            let times = inputs.work_s / (target_s * f64::from(scene.running));
            format!(
                "{} s of work over {replicas} are {} times the {} s that each may have",
                number(inputs.work_s),
                number(times),
                number(target_s),
            )
        }
        Policy::Work { .. } => format!(
            "at most {} s of work and {} busy replicas in {} need {} of {replicas}",
            number(scene.load.work.peak()),
            number(inputs.busy),
            seconds(scene.config.look_back),
            number(ceil(inputs.desired)),
        ),
    }
}

/// What kept the target from being what was asked for.
fn limits(scene: &Scene<'_>, to: u32, inputs: &Inputs) -> String {
    let asked = ceil(inputs.desired);
    let got = f64::from(to);
    let cause = if asked == got {
        return String::new();
    } else if asked > got && to == scene.bounds.upper {
        bound("max_replicas", scene.config.max, scene.bounds.upper)
    } else if asked < got && to == scene.bounds.lower {
        let (name, least) = scene.least();
        bound(name, least, scene.bounds.lower)
    } else if asked == 0.0 && to == 1 {
        "the last replica has its own delay".to_owned()
    } else if scene.gang > 1 {
        format!("replicas come in gangs of {}", scene.gang)
    } else {
        "a factor is set".to_owned()
    };
    format!("; {asked} asked for, {cause}")
}

/// A bound as it was set, and as it is.
fn bound(name: &str, set: u32, is: u32) -> String {
    if set == is {
        format!("{name} is {set}")
    } else {
        format!("{name} is {set}, {is} at the target capacity")
    }
}

fn count(replicas: u32) -> String {
    match replicas {
        1 => "1 replica".to_owned(),
        _ => format!("{replicas} replicas"),
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", number(time.as_secs_f64()))
}

/// Three digits at most after which nobody looks, and no zeros at the end.
fn number(x: f64) -> String {
    let text = match x.abs() {
        small if small < 10.0 => format!("{x:.2}"),
        middle if middle < 100.0 => format!("{x:.1}"),
        _ => return format!("{x:.0}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
