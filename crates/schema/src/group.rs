//! Worker groups: our own field beside Ray's, with the numbers that KubeRay's groups have.

use std::{collections::BTreeSet, time::Duration};

use mobula_serving::place::{Amounts, Kind, units};

use crate::{
    Deployment, WorkerGroup,
    quantity::{MAX_AMOUNT, bytes},
    reader::{Bounds, Node},
    scaling::seconds,
    selector,
};

/// Shapes of workers; a provider starts each as its own set.
const MAX_GROUPS: usize = 100;
/// Workers of one group; beyond this somebody slipped on a key.
pub(crate) const MAX_WORKERS: u32 = 10_000;
/// Replicas that one worker can be told to hold.
const MAX_REPLICAS: u32 = 1_000;
/// The longest that a worker can be told to stay without replicas, a week.
const MAX_IDLE_S: f64 = 604_800.0;
/// KubeRay's default.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads the list of groups.
pub(crate) fn read(node: &Node<'_>) -> Vec<WorkerGroup> {
    let mut names = BTreeSet::new();
    let mut groups = Vec::new();
    let list = node.list().unwrap_or_default();
    if list.len() > MAX_GROUPS {
        node.refuse(format!(
            "must have at most {MAX_GROUPS} groups, not {}",
            list.len()
        ));
        return groups;
    }
    for node in list {
        let Some(group) = group(&node) else { continue };
        if !names.insert(group.name.clone()) {
            node.refuse(format!(
                "another group is named {:?}; names must be unique",
                group.name
            ));
        }
        node.honoured();
        groups.push(group);
    }
    let min: u64 = groups.iter().map(|group| u64::from(group.min)).sum();
    if min > u64::from(MAX_WORKERS) {
        node.refuse(format!(
            "have a min of {min} workers together; at most {MAX_WORKERS} are taken"
        ));
    }
    groups
}

/// It begins the ids of the group's workers, and is a label and a word of the command line that starts them.
fn name(node: &Node<'_>) -> Option<String> {
    let name = node.text()?;
    if !selector::is_name(&name) {
        node.refuse(format!(
            "must be at most {} letters, digits, -, _ and ., with a letter or digit at both ends, not {}",
            selector::MAX_NAME,
            crate::reader::shown(node.tree)
        ));
        return None;
    }
    Some(name)
}

fn group(node: &Node<'_>) -> Option<WorkerGroup> {
    let mut fields = node.fields()?;
    let name = fields
        .need("name", "what the group is called")
        .and_then(|n| name(&n));
    let kinds = [("preprocess", Kind::Preprocess), ("inference", Kind::Inference)];
    let kind = fields
        .need("kind", "preprocess or inference")
        .and_then(|n| n.choice(&kinds));
    let min = fields.read("min", 0, |n| n.count(0..=MAX_WORKERS)).value;
    let max = fields.read("max", min.max(1), |n| n.count(1..=MAX_WORKERS)).value;
    if min > max {
        let at = fields.get("min").unwrap_or_else(|| node.clone());
        at.refuse(format!("min ({min}) is over max ({max})"));
    }
    let idle = |n: &Node<'_>| seconds(n, Bounds::from_zero(MAX_IDLE_S));
    let idle_timeout = fields.read("idle_timeout_s", IDLE_TIMEOUT, idle).value;
    let resources = fields
        .get("resources")
        .and_then(|n| amounts(&n))
        .unwrap_or_default();
    let labels = fields
        .get("labels")
        .map(|n| selector::labels(&n))
        .unwrap_or_default();
    let replicas_per_worker = fields
        .read("replicas_per_worker", None, |n| {
            n.count(1..=MAX_REPLICAS).map(Some)
        })
        .value;
    fields.finish(&[]);
    Some(WorkerGroup {
        name: name?,
        kind: kind?,
        min,
        max,
        idle_timeout,
        resources,
        labels,
        replicas_per_worker,
    })
}

fn amounts(node: &Node<'_>) -> Option<Amounts> {
    let mut fields = node.fields()?;
    let number = |n: &Node<'_>| n.number(Bounds::from_zero(MAX_AMOUNT)).map(units);
    let mut amounts = Amounts {
        cpus: fields.read("num_cpus", 0, number).value,
        gpus: fields.read("num_gpus", 0, number).value,
        memory: fields.read("memory", 0, bytes).value,
        vram: fields.read("vram_bytes", 0, bytes).value,
        ..Amounts::default()
    };
    for (name, node) in fields
        .get("resources")
        .and_then(|n| n.entries())
        .unwrap_or_default()
    {
        // As a worker takes it on its command line: name=amount, with commas between them.
        if name.trim().is_empty()
            || name.starts_with('-')
            || name.contains(|c: char| c.is_control() || ",= ".contains(c))
        {
            node.refuse("has a name that no worker can offer: it may have no comma, = or space, and no - at its begin");
        } else if let Some(amount) = number(&node) {
            amounts.custom.insert(name.to_owned(), amount);
        }
    }
    fields.finish(&[]);
    Some(amounts)
}

/// What of a replica's need no group can ever give, if groups of its kind are declared and none can hold it.
pub(crate) fn shortage(groups: &[WorkerGroup], deployment: &Deployment) -> Option<String> {
    let mut of_kind = groups
        .iter()
        .filter(|group| group.kind == deployment.kind)
        .peekable();
    of_kind.peek()?;
    let holds =
        |group: &WorkerGroup| group.resources == Amounts::default() || deployment.need.fits(&group.resources);
    let mut sizes = Vec::new();
    for group in of_kind {
        if holds(group) {
            return None;
        }
        sizes.push(format!("{}: {}", group.name, group.resources));
    }
    Some(format!(
        "a replica of {} needs {}, which no worker of a group of kind {} has ({})",
        deployment.name,
        deployment.need,
        deployment.kind,
        sizes.join("; ")
    ))
}
