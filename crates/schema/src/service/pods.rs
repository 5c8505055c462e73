//! One worker group of KubeRay: how many pods, and what each has.
//!
//! Of a pod only resources and node selector count. `rayStartParams` go before the container's limits, those before its
//! requests, as in KubeRay.

use serde_json::Number;

use crate::{
    group::IDLE_TIMEOUT,
    note::{Sink, Verdict},
    quantity::{amount, bytes},
    reader::{Fields, Node},
    tree::{Entries, Tree, Value},
};

/// KubeRay's own name for what a group's pods run on, as Ray's resources have it.
const TPU: &str = "google.com/tpu";
const NEURON: &str = "aws.amazon.com/neuroncore";

/// A worker group of the manifest.
#[derive(Debug)]
pub(crate) struct Group {
    path: String,
    line: Option<u64>,
    /// Fields of ours, each with its place in the manifest.
    fields: Entries,
    /// Its pods have something to draw with beside a CPU.
    pub(crate) accelerated: bool,
    pub(crate) gpus: f64,
    words: String,
}

/// What each pod has.
#[derive(Debug, Default)]
struct Pod {
    cpus: Option<f64>,
    gpus: f64,
    memory: Option<u64>,
    custom: Vec<(String, f64)>,
}

/// Reads a group; `grows` says that the cluster adds and removes workers by itself.
pub(crate) fn group(node: &Node<'_>, grows: bool, idle: Option<&Node<'_>>, most: u32) -> Option<Group> {
    let mut fields = node.fields()?;
    let name = fields.need("groupName", "what the group is called");
    let count =
        |fields: &mut Fields<'_>, key, default| fields.read(key, default, |n| n.count(0..=most)).value;
    let min = count(&mut fields, "minReplicas", 0);
    // KubeRay's default is 2147483647, which means no bound.
    let max_at = fields.get("maxReplicas");
    let unbounded = max_at
        .as_ref()
        .is_some_and(|n| n.tree.value == Value::Number(i32::MAX.into()));
    let max = if unbounded {
        most
    } else {
        count(&mut fields, "maxReplicas", most)
    };
    if min > max {
        node.refuse(format!("minReplicas ({min}) is over maxReplicas ({max})"));
        return None;
    }
    let replicas = count(&mut fields, "replicas", min).clamp(min, max);
    let hosts = fields
        .read("numOfHosts", 1, |n| n.count(1..=1_000))
        .translated("a worker is one pod: the group has so many times its replicas");
    let (least, most_of, words) = if grows {
        let words = format!(
            "{} to {}",
            min * hosts,
            workers(max.saturating_mul(hosts).min(most))
        );
        (min, max, words)
    } else {
        let words = format!(
            "{}; without enableInTreeAutoscaling the number is fixed, as in KubeRay",
            workers(replicas * hosts)
        );
        (replicas, replicas, words)
    };
    let max_at = fields.path("maxReplicas");
    let mut out = Entries::new();
    let mut put = |key: &str, tree: Tree| out.push((key.to_owned(), tree));
    put(
        "min",
        number(least.saturating_mul(hosts).min(most)).written_at(fields.path("minReplicas")),
    );
    put(
        "max",
        number(most_of.saturating_mul(hosts).min(most)).written_at(max_at),
    );
    let own = fields.get("idleTimeoutSeconds");
    let idle = own.as_ref().or(idle);
    let usual = Number::from(IDLE_TIMEOUT.as_secs());
    let idle = idle.map_or_else(
        || Tree::new(Value::Number(usual)),
        |n| n.tree.clone().written_at(n.path.clone()),
    );
    put("idle_timeout_s", idle);

    let template = fields.get("template").and_then(|n| n.fields());
    let spec = template.and_then(|mut template| template.get("spec")?.fields());
    let (mut pod, labels) = spec.map(pod).unwrap_or_default();
    start(&mut fields, &mut pod);
    let mut all = labels;
    for (key, value) in fields.get("labels").and_then(|n| n.entries()).unwrap_or_default() {
        all.retain(|(other, _)| other != key);
        all.push((key.to_owned(), value.tree.clone().written_at(value.path.clone())));
    }
    put("resources", pod.tree().written_at(fields.path("template")));
    put(
        "labels",
        Tree::new(Value::Map(all)).written_at(fields.path("labels")),
    );
    for (key, why) in [
        (
            "priority",
            "workers of all groups are started as replicas need them",
        ),
        (
            "scaleStrategy",
            "a worker leaves when it has been idle, whichever it is",
        ),
        ("suspend", "workers are started when replicas need them"),
    ] {
        fields.ignore(key, why);
    }
    fields.finish(&[]);
    let name = name?;
    out.push(("name".to_owned(), name.tree.clone().written_at(name.path)));
    if most_of == 0 {
        node.ignored("the group has no workers");
        return None;
    }
    let accelerated = pod.gpus > 0.0 || !pod.custom.is_empty();
    Some(Group {
        path: node.path.clone(),
        line: node.line,
        fields: out,
        accelerated,
        gpus: pod.gpus,
        words,
    })
}

impl Group {
    /// The group as one of ours.
    pub(crate) fn tree(mut self, kind: &str, sink: &Sink) -> Tree {
        let words = format!(
            "is a worker group of kind {kind}: {}; of its pods only resources, node selector and labels count",
            self.words
        );
        sink.note(&self.path, self.line, Verdict::Translated, words);
        self.fields
            .push(("kind".into(), Tree::new(Value::Text(kind.to_owned()))));
        for (_, tree) in &mut self.fields {
            tree.line = tree.line.or(self.line);
        }
        let tree = Tree::new(Value::Map(self.fields));
        Tree {
            line: self.line,
            ..tree
        }
        .written_at(self.path)
    }
}

impl Pod {
    fn tree(&self) -> Tree {
        let mut fields = Entries::new();
        let mut put = |key: &str, n: f64| fields.push((key.to_owned(), real(n)));
        if let Some(cpus) = self.cpus {
            put("num_cpus", cpus);
        }
        put("num_gpus", self.gpus);
        if let Some(memory) = self.memory {
            fields.push(("memory".into(), Tree::new(Value::Number(memory.into()))));
        }
        let custom = self
            .custom
            .iter()
            .map(|(name, n)| (name.clone(), real(*n)))
            .collect();
        fields.push(("resources".into(), Tree::new(Value::Map(custom))));
        Tree::new(Value::Map(fields))
    }

    fn set(&mut self, name: &str, n: f64) {
        self.custom.retain(|(other, _)| other != name);
        if n > 0.0 {
            self.custom.push((name.to_owned(), n));
        }
    }
}

/// What the first container has, and the labels of the machines that the pod wants.
fn pod(mut spec: Fields<'_>) -> (Pod, Entries) {
    let mut pod = Pod::default();
    let containers = spec.get("containers").and_then(|n| n.list()).unwrap_or_default();
    let resources = containers
        .first()
        .and_then(|n| n.fields()?.get("resources")?.fields());
    if let Some(mut resources) = resources {
        // Limits come last and so go before requests.
        for key in ["requests", "limits"] {
            for (name, node) in resources.get(key).and_then(|n| n.entries()).unwrap_or_default() {
                match name {
                    "cpu" => pod.cpus = amount(&node),
                    "memory" => pod.memory = bytes(&node),
                    TPU => pod.set("TPU", amount(&node).unwrap_or_default()),
                    NEURON => pod.set("neuron_cores", amount(&node).unwrap_or_default()),
                    _ if name.ends_with("gpu") || name.starts_with("nvidia.com/mig-") => {
                        pod.gpus = amount(&node).unwrap_or_default();
                    }
                    _ => {}
                }
            }
        }
    }
    let selector = spec
        .get("nodeSelector")
        .and_then(|n| n.entries())
        .unwrap_or_default();
    let label = |(key, node): (&str, Node<'_>)| (key.to_owned(), node.tree.clone().written_at(node.path));
    (pod, selector.into_iter().map(label).collect())
}

/// What `ray start` is told of the pod.
fn start(fields: &mut Fields<'_>, pod: &mut Pod) {
    for (key, node) in fields
        .get("rayStartParams")
        .and_then(|n| n.entries())
        .unwrap_or_default()
    {
        match key {
            "num-cpus" => pod.cpus = amount(&node),
            "num-gpus" => pod.gpus = amount(&node).unwrap_or_default(),
            "memory" => pod.memory = bytes(&node),
            // A mapping in JSON, quoted once or twice: '"{\"TPU\": 4}"'.
            "resources" => {
                let text = node.text().unwrap_or_default();
                let text: String = serde_json::from_str(text.trim_matches('\'')).unwrap_or(text);
                match serde_json::from_str::<std::collections::BTreeMap<String, f64>>(text.trim_matches('\''))
                {
                    Ok(all) => all.iter().for_each(|(name, n)| pod.set(name, *n)),
                    Err(error) => node.refuse(format!(
                        "must be resources in JSON, such as {{\"TPU\": 4}}: {error}"
                    )),
                }
            }
            _ => {}
        }
    }
    if let Some(resources) = fields.get("resources") {
        for (name, node) in resources.entries().unwrap_or_default() {
            match name {
                "CPU" => pod.cpus = amount(&node),
                "GPU" => pod.gpus = amount(&node).unwrap_or_default(),
                "memory" => pod.memory = bytes(&node),
                _ => pod.set(name, amount(&node).unwrap_or_default()),
            }
        }
    }
}

fn number(n: u32) -> Tree {
    Tree::new(Value::Number(n.into()))
}

/// A number that was in range when it was read.
fn real(n: f64) -> Tree {
    Tree::new(Number::from_f64(n).map_or(Value::Null, Value::Number))
}

fn workers(count: u32) -> String {
    match count {
        1 => "1 worker".to_owned(),
        n => format!("{n} workers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_is_told_as_one() {
        assert_eq!([0, 1, 2].map(workers), ["0 workers", "1 worker", "2 workers"]);
    }
}
