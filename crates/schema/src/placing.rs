//! What a replica needs and where it may be: `ray_actor_options`, placement groups, gangs, machines.
//!
//! Refuses bundles that would have to be apart, because a replica is one process of one worker, and what Ray refuses together.

use std::collections::BTreeMap;

use mobula_serving::place::{Amounts, Selector, Strategy, UNIT, units};

use crate::{
    Placing, env,
    quantity::{MAX_AMOUNT, bytes},
    reader::{Bounds, Fields, Node},
    selector,
};

/// The most selectors to fall back on.
const MAX_FALLBACKS: usize = 100;
/// The most replicas of one gang.
const MAX_GANG: u32 = 1_000;
/// Ray's most for `max_replicas_per_node`.
const MAX_PER_NODE: u32 = 100;
/// How much of `accelerator_type:X` a replica takes, as in Ray: so little that it never runs out.
const ACCELERATOR: f64 = 0.001;

const STRATEGIES: [(&str, Strategy); 4] = [
    ("PACK", Strategy::Pack),
    ("SPREAD", Strategy::Spread),
    ("STRICT_PACK", Strategy::StrictPack),
    ("STRICT_SPREAD", Strategy::StrictSpread),
];

const NO_ACTORS: &str = "a replica is no Ray actor";
const OTHER_OPTIONS: [(&str, &str); 5] = [
    ("max_restarts", NO_ACTORS),
    (
        "max_concurrency",
        "its name is max_ongoing_requests, of the deployment",
    ),
    (
        "scheduling_strategy",
        "its name is placement_group_strategy, of the deployment",
    ),
    ("name", NO_ACTORS),
    ("lifetime", NO_ACTORS),
];

/// What `ray_actor_options` say.
pub(crate) struct Actor<'a> {
    pub(crate) need: Amounts,
    pub(crate) selector: Selector,
    pub(crate) prefer: Vec<Selector>,
    pub(crate) model: Option<env::Named<'a>>,
    /// What the first bundle must hold.
    given: Amounts,
}

impl Actor<'_> {
    pub(crate) fn of(need: &Amounts) -> Self {
        Self {
            need: need.clone(),
            selector: Selector::default(),
            prefer: Vec::new(),
            model: None,
            given: need.clone(),
        }
    }
}

/// Reads `ray_actor_options`; `tpu` says that TPUs are asked for by code that does not run here.
pub(crate) fn actor<'a>(deployment: &mut Fields<'a>, default: &Amounts, tpu: bool) -> Actor<'a> {
    let mut actor = Actor::of(default);
    let Some(mut fields) = deployment.get("ray_actor_options").and_then(|n| n.fields()) else {
        return actor;
    };
    let cpus = fields.read("num_cpus", default.cpus, |n| {
        n.number(Bounds::from_zero(MAX_AMOUNT)).map(units)
    });
    let gpus = fields.read("num_gpus", default.gpus, gpus);
    actor.need.cpus = cpus.honoured();
    actor.need.gpus = gpus.honoured();
    (actor.given.cpus, actor.given.gpus) = (actor.need.cpus, actor.need.gpus);
    actor.need.memory = fields.read("memory", default.memory, bytes).honoured();
    actor.need.vram = fields.read("vram_bytes", default.vram, bytes).honoured();
    if let Some(node) = fields.get("resources") {
        actor.need.custom = resources(&node, tpu);
        actor.given.custom.clone_from(&actor.need.custom);
    }
    let accelerator = fields
        .read("accelerator_type", None, |n| n.text().map(Some))
        .honoured();
    if let Some(name) = accelerator {
        let name = format!("accelerator_type:{name}");
        actor.need.custom.insert(name, units(ACCELERATOR));
    }
    actor.model = fields.get("runtime_env").and_then(|n| env::read(&n));
    labels(&mut fields, &mut actor);
    fields.ignore("object_store_memory", "there is no object store");
    fields.finish(&OTHER_OPTIONS);
    actor
}

fn gpus(node: &Node<'_>) -> Option<u64> {
    let gpus = node.number(Bounds::from_zero(MAX_AMOUNT))?;
    if gpus > 1.0 && gpus.fract() != 0.0 {
        node.refuse(format!("must be whole when it is over 1, as in Ray, not {gpus}"));
        return None;
    }
    Some(units(gpus))
}

fn resources(node: &Node<'_>, tpu: bool) -> BTreeMap<String, u64> {
    let mut custom = BTreeMap::new();
    for (name, node) in node.entries().unwrap_or_default() {
        let own = match name {
            "CPU" => Some("num_cpus"),
            "GPU" => Some("num_gpus"),
            "memory" => Some("memory"),
            "vram" => Some("vram_bytes"),
            "" => {
                node.refuse("has no name");
                continue;
            }
            _ => None,
        };
        if let Some(own) = own {
            node.refuse(format!("has a field of its own: {own}"));
        } else if let Some(amount) = node.number(Bounds::from_zero(MAX_AMOUNT)) {
            if tpu && name == "TPU" {
                node.translated(
                    "the code that needed TPUs is built in and runs on CPUs and GPUs: no TPU is asked for",
                );
            } else {
                node.honoured();
                custom.insert(name.to_owned(), units(amount));
            }
        }
    }
    custom
}

/// `label_selector`, and `fallback_strategy`, whose selectors are tried in turn when nothing matches it.
fn labels(fields: &mut Fields<'_>, actor: &mut Actor<'_>) {
    let first = fields.get("label_selector").and_then(|node| {
        let found = selector::read(&node)?;
        if found != Selector::default() {
            node.honoured();
        }
        Some(found)
    });
    let first = first.unwrap_or_default();
    let Some(node) = fields.get("fallback_strategy") else {
        actor.selector = first;
        return;
    };
    let mut all = vec![first];
    let list = node.list().unwrap_or_default();
    if list.len() > MAX_FALLBACKS {
        node.refuse(format!(
            "must have at most {MAX_FALLBACKS} strategies, not {}",
            list.len()
        ));
        return;
    }
    for node in list {
        let Some(mut fields) = node.fields() else { continue };
        match fields.need("label_selector", "each strategy has one, as in Ray") {
            Some(node) => all.extend(selector::read(&node)),
            None => continue,
        }
        fields.finish(&[]);
    }
    actor.selector = selector::common(&all);
    let alike = all.iter().all(|one| one.0.keys().eq(actor.selector.0.keys())) && actor.selector.0.len() <= 1;
    if alike {
        node.honoured();
    } else {
        node.translated(
            "its selectors are tried in turn; a worker that none of them matches comes last instead of never",
        );
    }
    // What matches everything prefers nothing.
    actor.prefer = all
        .into_iter()
        .filter(|one| *one != Selector::default())
        .collect();
}

/// How replicas stand beside each other, and what bundles add to the need.
pub(crate) fn read(fields: &mut Fields<'_>, actor: &mut Actor<'_>) -> Placing {
    let bundles_at = fields.get("placement_group_bundles");
    let bundles = bundles_at
        .as_ref()
        .map(|node| bundles(node, actor))
        .unwrap_or_default();
    let gang = fields.get("gang_scheduling_config");
    let mut placing = Placing::default();
    if let Some(node) = fields.get("placement_group_bundle_label_selector") {
        bundle_labels(&node, bundles, actor);
    }
    if let Some(node) = fields.get("placement_group_strategy")
        && let Some(strategy) = node.choice(&STRATEGIES)
    {
        let apart = matches!(strategy, Strategy::Spread | Strategy::StrictSpread);
        if gang.is_some() {
            node.refuse("excludes gang_scheduling_config, as in Ray; give gang_placement_strategy there");
        } else if bundles > 1 && apart {
            node.refuse(
                "would put the bundles of one replica on several machines; a replica is one process of one worker, and \
                 nothing would run in the other bundles",
            );
        } else if bundles > 1 {
            node.translated("all bundles of a replica are on one worker");
        } else {
            node.translated(
                "a replica has one bundle: this is how the replicas of the deployment stand to each other",
            );
            placing.strategy = strategy;
        }
    }
    if let Some(node) = fields.get("max_replicas_per_node")
        && let Some(most) = node.count(1..=MAX_PER_NODE)
    {
        if bundles_at.is_some() {
            node.refuse("excludes placement_group_bundles, as in Ray");
        } else if gang.is_some() {
            node.refuse("excludes gang_scheduling_config, as in Ray");
        }
        node.honoured();
        placing.per_node = Some(most as usize);
    }
    if let Some(fields) = gang.and_then(|node| node.fields()) {
        together(fields, &mut placing);
    }
    placing.selector.clone_from(&actor.selector);
    placing.prefer.clone_from(&actor.prefer);
    placing
}

fn together(mut fields: Fields<'_>, placing: &mut Placing) {
    let size = fields.need("gang_size", "how many replicas are placed together");
    if let Some(node) = size
        && let Some(size) = node.count(1..=MAX_GANG)
    {
        node.honoured();
        placing.gang = size as usize;
    }
    let strategies = [("PACK", Strategy::Pack), ("SPREAD", Strategy::Spread)];
    placing.strategy = fields
        .read("gang_placement_strategy", Strategy::Pack, |n| {
            n.choice(&strategies)
        })
        .honoured();
    let policies = [("RESTART_GANG", true), ("RESTART_REPLICA", false)];
    placing.gang_restart = fields
        .read("runtime_failure_policy", true, |n| n.choice(&policies))
        .honoured();
    fields.finish(&[]);
}

/// Reads the bundles, makes their sum the need, and says how many there are.
fn bundles(node: &Node<'_>, actor: &mut Actor<'_>) -> usize {
    let Some(list) = node.list() else { return 0 };
    if list.is_empty() {
        node.refuse("must have at least one bundle; leave it out for none");
    }
    let mut sum = Amounts::default();
    for (i, node) in list.iter().enumerate() {
        let bundle = bundle(node);
        if i == 0 && !actor.given.fits(&bundle) {
            node.refuse(format!(
                "holds the replica, as in Ray: it must have what ray_actor_options ask for ({})",
                actor.given
            ));
        }
        sum.add(&bundle);
    }
    node.translated(format!(
        "all bundles are on the worker that has the replica, which needs their sum: {sum}"
    ));
    // Video memory and labels are no part of a bundle in Ray.
    sum.vram = sum.vram.max(actor.need.vram);
    sum.memory = sum.memory.max(actor.need.memory);
    for (name, amount) in &actor.need.custom {
        let mine = sum.custom.entry(name.clone()).or_default();
        *mine = (*mine).max(*amount);
    }
    actor.need = sum;
    list.len()
}

fn bundle(node: &Node<'_>) -> Amounts {
    let mut amounts = Amounts::default();
    for (name, node) in node.entries().unwrap_or_default() {
        match name {
            "memory" => amounts.memory = bytes(&node).unwrap_or_default(),
            "GPU" => amounts.gpus = gpus(&node).unwrap_or_default(),
            "object_store_memory" => node.ignored("there is no object store"),
            _ => {
                let Some(amount) = node.number(Bounds::from_zero(MAX_AMOUNT)) else {
                    continue;
                };
                if name == "CPU" {
                    amounts.cpus = units(amount);
                } else {
                    amounts.custom.insert(name.to_owned(), units(amount));
                }
            }
        }
    }
    amounts
}

fn bundle_labels(node: &Node<'_>, bundles: usize, actor: &mut Actor<'_>) {
    let Some(list) = node.list() else { return };
    if bundles == 0 {
        node.refuse("needs placement_group_bundles, as in Ray");
    } else if list.len() != 1 && list.len() != bundles {
        node.refuse(format!(
            "must have one selector, or one for each of the {bundles} bundles, as in Ray"
        ));
    }
    for node in &list {
        for (key, wanted) in selector::read(node).unwrap_or_default().0 {
            match actor.selector.0.get(&key) {
                Some(other) if *other != wanted => node.refuse(format!(
                    "asks for another {key} than another bundle or the replica; all bundles are on one worker"
                )),
                Some(_) | None => {
                    actor.selector.0.insert(key, wanted);
                }
            }
        }
    }
    node.translated("all bundles are on one worker, which must match all selectors");
}

/// What a replica needs when nothing is said: one CPU, as in Ray.
pub(crate) fn one_cpu() -> Amounts {
    Amounts {
        cpus: UNIT,
        ..Amounts::default()
    }
}
