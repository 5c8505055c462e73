//! `num_replicas` and `autoscaling_config`: how many replicas there are, or how that is found out.
//!
//! Refuses both together, bounds that contradict each other, and policies that are Python.

use std::time::Duration;

use mobula_serving::scale::{self, Aggregation, Policy};

use crate::{
    Count,
    reader::{Bounds, Fields, Node},
};

/// Replicas of one deployment; beyond this somebody slipped on a key.
pub(crate) const MAX_REPLICAS: u32 = 10_000;
/// What `num_replicas: auto` means in Ray when the bounds are not given.
const AUTO_MAX: u32 = 100;
/// The longest delay and the longest look back, a week.
const MAX_DELAY_S: f64 = 604_800.0;
/// Requests that one replica can be meant to have at a time.
const MAX_TARGET: f64 = 100_000.0;
/// Ray's default policy, by its name and the one it had before.
const ONGOING: [&str; 2] = [
    "ray.serve.autoscaling_policy:default_autoscaling_policy",
    "ray.serve.autoscaling_policy:replica_queue_length_autoscaling_policy",
];
/// The policy by predicted work.
const WORK: &str = "mobula.autoscaling:work";

/// Ray's numbers, with the most replicas that it takes when nothing is said.
pub(crate) fn defaults(max: u32) -> scale::Config {
    scale::Config {
        max,
        ..scale::Config::default()
    }
}

/// How many replicas, and where that is said.
pub(crate) struct Counted<'a> {
    pub(crate) count: Count,
    /// The `autoscaling_config`, or the `num_replicas`; none where the graph's own number is kept.
    pub(crate) at: Option<Node<'a>>,
    /// The `target_ongoing_requests`, where it is given.
    pub(crate) target: Option<Node<'a>>,
}

/// Reads both fields; `default` is the graph's own.
pub(crate) fn read<'a>(deployment: &mut Fields<'a>, default: &Count, gang: u32) -> Counted<'a> {
    let number = deployment.get("num_replicas");
    let auto = number
        .as_ref()
        .is_some_and(|node| node.tree.as_text() == Some("auto"));
    let config = deployment.get("autoscaling_config");
    let fixed = number.clone().filter(|_| !auto).map(|node| {
        let count = whole_or_auto(&node);
        (node, count)
    });
    match (fixed, config) {
        (Some((node, _)), Some(_)) => {
            node.refuse(
                "is a number and excludes autoscaling_config, as in Ray; give \"auto\" or leave it out",
            );
            Counted {
                count: default.clone(),
                at: None,
                target: None,
            }
        }
        (Some((node, count)), None) => {
            if let Some(count) = count.filter(|count| *default != Count::Fixed(*count)) {
                node.honoured();
                return Counted {
                    count: Count::Fixed(count),
                    at: Some(node),
                    target: None,
                };
            }
            Counted {
                count: count.map_or_else(|| default.clone(), Count::Fixed),
                at: Some(node),
                target: None,
            }
        }
        (None, config) if auto || config.is_some() => {
            if let Some(node) = number.as_ref().filter(|_| auto) {
                node.honoured();
            }
            let defaults = match default {
                // As in Ray: "auto" alone is over what the code has.
                Count::Auto(code) if auto && config.is_none() && gang == 1 => code.clone(),
                Count::Fixed(_) | Count::Auto(_) => {
                    // What is not given is whole gangs: one at least, and no more than Ray's number of replicas.
                    let most = if auto { AUTO_MAX } else { 1 };
                    scale::Config {
                        min: gang,
                        ..defaults((most / gang * gang).max(gang))
                    }
                }
            };
            let (found, target) = match config.as_ref().and_then(Node::fields) {
                Some(fields) => self::config(fields, defaults, gang),
                None => (defaults, None),
            };
            Counted {
                count: Count::Auto(found),
                at: config.or(number),
                target,
            }
        }
        (None, _) => Counted {
            count: default.clone(),
            at: None,
            target: None,
        },
    }
}

fn whole_or_auto(node: &Node<'_>) -> Option<u32> {
    if node.tree.as_text().is_some() {
        node.refuse(format!(
            "must be a whole number from 1 to {MAX_REPLICAS}, or \"auto\", not {}",
            crate::reader::shown(node.tree)
        ));
        return None;
    }
    node.count(1..=MAX_REPLICAS)
}

fn config<'a>(mut fields: Fields<'a>, d: scale::Config, gang: u32) -> (scale::Config, Option<Node<'a>>) {
    let replicas = |n: &Node<'_>| n.count(0..=MAX_REPLICAS);
    let [min_at, max_at, initial_at] =
        ["min_replicas", "max_replicas", "initial_replicas"].map(|key| fields.get(key));
    let min = fields.read("min_replicas", d.min, replicas).honoured();
    let max = fields
        .read("max_replicas", d.max, |n| n.count(1..=MAX_REPLICAS))
        .honoured();
    let initial = fields
        .read("initial_replicas", None, |n| replicas(n).map(Some))
        .honoured();
    let at = |given: &Option<Node<'a>>| given.clone().unwrap_or_else(|| fields.node.clone());
    if min > max {
        at(&min_at.clone().or_else(|| max_at.clone()))
            .refuse(format!("min_replicas ({min}) is over max_replicas ({max})"));
    } else if let Some(initial) = initial.filter(|initial| !(min..=max).contains(initial)) {
        at(&initial_at).refuse(format!(
            "initial_replicas ({initial}) must be from min_replicas ({min}) to max_replicas ({max})"
        ));
    }
    for (given, n) in [(&min_at, Some(min)), (&max_at, Some(max)), (&initial_at, initial)] {
        if let (Some(node), Some(n)) = (given, n)
            && n % gang != 0
        {
            node.refuse(format!("must be a multiple of gang_size ({gang}), not {n}"));
        }
    }
    let target_at = fields.get("target_ongoing_requests");
    let delay = |n: &Node<'_>| seconds(n, Bounds::from_zero(MAX_DELAY_S));
    let span = |n: &Node<'_>| seconds(n, Bounds::span(MAX_DELAY_S));
    let factor = |n: &Node<'_>| n.number(Bounds::above_zero(1000.0)).map(Some);
    let aggregations = [
        ("mean", Aggregation::Mean),
        ("max", Aggregation::Max),
        ("min", Aggregation::Min),
    ];
    let config = scale::Config {
        min,
        initial,
        max,
        target_ongoing: fields
            .read("target_ongoing_requests", d.target_ongoing, |n| {
                n.number(Bounds::above_zero(MAX_TARGET))
            })
            .honoured(),
        metrics_interval: fields
            .read("metrics_interval_s", d.metrics_interval, span)
            .honoured(),
        look_back: fields.read("look_back_period_s", d.look_back, span).honoured(),
        upscaling_factor: fields.read("upscaling_factor", None, factor).honoured(),
        downscaling_factor: fields.read("downscaling_factor", None, factor).honoured(),
        upscale_delay: fields.read("upscale_delay_s", d.upscale_delay, delay).honoured(),
        downscale_delay: fields
            .read("downscale_delay_s", d.downscale_delay, delay)
            .honoured(),
        downscale_to_zero_delay: fields
            .read("downscale_to_zero_delay_s", None, |n| delay(n).map(Some))
            .honoured(),
        aggregation: fields
            .read("aggregation_function", d.aggregation, |n| {
                aggregation(n, &aggregations)
            })
            .honoured(),
        policy: fields.get("policy").and_then(|n| policy(&n)).unwrap_or(d.policy),
    };
    fields.finish(&[]);
    (config, target_at)
}

/// Ray takes these words in any case.
fn aggregation(node: &Node<'_>, choices: &[(&'static str, Aggregation)]) -> Option<Aggregation> {
    let lower = node.tree.as_text().map(str::to_lowercase);
    let found = choices.iter().find(|(name, _)| Some(*name) == lower.as_deref());
    match found {
        Some((_, choice)) => Some(*choice),
        None => node.choice(choices),
    }
}

/// Reads an `AutoscalingPolicy`.
pub(crate) fn policy(node: &Node<'_>) -> Option<Policy> {
    let mut fields = node.fields()?;
    let function = fields.get("policy_function");
    let kwargs = fields.get("policy_kwargs");
    let name = match &function {
        Some(node) => node.text()?,
        None => ONGOING[0].to_owned(),
    };
    // Ray takes "module.function" as well as "module:function".
    let is = |known: &str| name == known || name == known.replace(':', ".");
    let policy = if is(WORK) {
        node.honoured();
        let mut kwargs = match &kwargs {
            Some(node) => node.fields()?,
            None => {
                node.refuse(
                    "needs policy_kwargs: {target_s: SECONDS}, the predicted work that a replica may have",
                );
                return None;
            }
        };
        let target = kwargs.need("target_s", "seconds of predicted work that a replica may have");
        let target_s = target.and_then(|n| n.number(Bounds::above_zero(MAX_DELAY_S)));
        kwargs.finish(&[]);
        target_s.map(|target_s| Policy::Work { target_s })
    } else if ONGOING.iter().any(|known| is(known)) {
        if let Some(kwargs) = kwargs {
            kwargs.ignored("the policy is a function, which Ray gives no arguments");
        }
        Some(Policy::Ongoing)
    } else {
        function.as_ref().unwrap_or(node).refuse(format!(
            "must be {} or {WORK}: a policy in Python cannot be run here, not {name:?}",
            ONGOING[0]
        ));
        None
    };
    fields.finish(&[]);
    policy
}

/// A duration from a number of seconds.
pub(crate) fn seconds(node: &Node<'_>, bounds: Bounds) -> Option<Duration> {
    node.number(bounds).map(Duration::from_secs_f64)
}
