//! KubeRay's RayService as a `ServeDeploySchema`: `serveConfigV2` is the config, worker groups become `worker_groups`.
//!
//! Refuses what would change what runs and cannot be had (`suspend`, the config format before `serveConfigV2`). What belongs
//! to Ray's own processes is noted and has no effect. Invariant: every value keeps the path and line at which it was written.

mod pods;

use crate::{
    graph::{self, Device},
    group::MAX_WORKERS,
    note::{Problem, Sink, Verdict},
    reader::{Fields, Node, join},
    source,
    tree::{Entries, Tree, Value},
};

const NOT_KUBERAY: &str = "is read by KubeRay's operator, which does not run here";

/// Fields of the manifest that have no meaning without Ray's processes, and why.
const WITHOUT: [(&str, &str); 7] = [
    (
        "serviceUnhealthySecondThreshold",
        "KubeRay itself takes it and does not read it; a replica is unhealthy by its own health checks",
    ),
    (
        "deploymentUnhealthySecondThreshold",
        "KubeRay itself takes it and does not read it; a replica is unhealthy by its own health checks",
    ),
    (
        "upgradeStrategy",
        "replicas are replaced in place, some at a time (rolling_update_percentage); there is no second cluster",
    ),
    (
        "rayClusterDeletionDelaySeconds",
        "there is no second cluster to delete",
    ),
    ("serveService", "mobula-proxy has a service of its own"),
    (
        "excludeHeadPodFromServeSvc",
        "there is no head; every proxy takes requests",
    ),
    ("managedBy", NOT_KUBERAY),
];

/// Fields of the cluster that have no meaning without Ray's processes, and why.
const WITHOUT_CLUSTER: [(&str, &str); 8] = [
    ("rayVersion", "no Ray runs here"),
    (
        "gcsFaultToleranceOptions",
        "the controller keeps its state itself, and proxies and workers go on without it",
    ),
    ("authOptions", "they are of Ray's dashboard and head"),
    ("tlsOptions", "they are of Ray's processes"),
    ("networkPolicy", NOT_KUBERAY),
    ("managedBy", NOT_KUBERAY),
    ("headServiceAnnotations", "there is no head"),
    ("upgradeStrategy", NOT_KUBERAY),
];

/// Makes a config of a manifest; nothing if what it must have is not there, which is a problem then.
pub(crate) fn convert(tree: &Tree, text: &str, sink: &Sink) -> Option<Tree> {
    let mut fields = Node::root(tree, sink).fields()?;
    if let Some(node) = fields.get("apiVersion") {
        node.choice(&[("ray.io/v1", ()), ("ray.io/v1alpha1", ())]);
    }
    for key in ["kind", "metadata", "status"] {
        fields.get(key);
    }
    let spec = fields
        .need("spec", "what the service is")
        .and_then(|node| node.fields());
    fields.finish(&[]);
    let mut spec = spec?;
    let config = spec.need("serveConfigV2", "the config of Ray Serve, as text");
    let config = config.and_then(|node| inner(&node, text, sink));
    let cluster = spec.get("rayClusterConfig").and_then(|node| node.fields());
    let groups = cluster.map(cluster_of).unwrap_or_default();
    for (key, why) in WITHOUT {
        spec.ignore(key, why);
    }
    if let Some(node) = spec.get("suspend")
        && node.flag() == Some(true)
    {
        node.refuse("stops everything; delete the applications instead");
    }
    spec.finish(&[(
        "serveConfig",
        "it is the format before serveConfigV2; write the config of Ray Serve as text into serveConfigV2",
    )]);
    let mut config = config?;
    if !groups.is_empty() {
        device(&mut config, &groups, sink);
        attach(&mut config, groups, sink);
    }
    Some(config)
}

/// The config inside the manifest, with lines of the manifest.
fn inner(node: &Node<'_>, text: &str, sink: &Sink) -> Option<Tree> {
    let config = node.text()?;
    let start = node.line.filter(|line| is_block(text, *line, &config));
    let place = |line: Option<u64>| match (start, line) {
        (Some(start), Some(line)) => Some(start + line),
        (Some(_) | None, _) => node.line,
    };
    let mut documents = match source::read(&config) {
        Ok(documents) => documents,
        Err(Problem { line, why, .. }) => {
            sink.refuse(&node.path, place(line), why);
            return None;
        }
    };
    if documents.len() > 1 {
        node.refuse("holds several documents; give one");
        return None;
    }
    let mut tree = documents.pop()?;
    shift(&mut tree, &place);
    Some(tree.written_at(node.path.clone()))
}

/// True if the text of the value begins on the line after its key, as it does behind `|`.
fn is_block(text: &str, key: u64, value: &str) -> bool {
    let below = usize::try_from(key).ok().and_then(|line| text.lines().nth(line));
    below.map(str::trim) == value.lines().next().map(str::trim)
}

fn shift(tree: &mut Tree, place: &impl Fn(Option<u64>) -> Option<u64>) {
    tree.line = place(tree.line);
    match &mut tree.value {
        Value::List(items) => items.iter_mut().for_each(|item| shift(item, place)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, tree)| shift(tree, place)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
    }
}

/// Reads a cluster, and gives back its worker groups.
fn cluster_of(mut cluster: Fields<'_>) -> Vec<pods::Group> {
    for (key, why) in WITHOUT_CLUSTER {
        cluster.ignore(key, why);
    }
    cluster.ignore(
        "headGroupSpec",
        "the controller and a proxy stand for the head; they are started with flags of their own",
    );
    cluster.ignore("suspend", "KubeRay sets it by the suspend of the service");
    let grows = cluster
        .read("enableInTreeAutoscaling", false, Node::flag)
        .honoured();
    let mut idle = None;
    if let Some(mut options) = cluster.get("autoscalerOptions").and_then(|node| node.fields()) {
        idle = options.get("idleTimeoutSeconds");
        if let Some(node) = &idle {
            node.translated("is idle_timeout_s of the worker groups");
        }
        for key in [
            "version",
            "upscalingMode",
            "resources",
            "image",
            "imagePullPolicy",
            "env",
            "envFrom",
            "volumeMounts",
            "securityContext",
            "command",
            "args",
        ] {
            options.ignore(key, "Ray's autoscaler does not run here");
        }
        options.finish(&[]);
    }
    let list = cluster.get("workerGroupSpecs").and_then(|node| node.list());
    let groups = list.iter().flatten();
    let groups = groups
        .filter_map(|node| pods::group(node, grows, idle.as_ref(), MAX_WORKERS))
        .collect();
    cluster.finish(&[]);
    groups
}

/// Adds the groups to the config.
fn attach(config: &mut Tree, groups: Vec<pods::Group>, sink: &Sink) {
    let root = config.origin.as_deref().unwrap_or_default().to_owned();
    let Some(entries) = config.as_map_mut() else {
        return;
    };
    if let Some((_, given)) = entries.iter().find(|(key, _)| key == "worker_groups") {
        let why = "is given beside the worker groups of rayClusterConfig; leave one out";
        sink.refuse(&join(&root, "worker_groups"), given.line, why);
        return;
    }
    // Replicas that draw go where accelerators are; without any, everywhere.
    let devices = groups.iter().any(|group| group.accelerated);
    let list = groups.into_iter().map(|group| {
        let kind = if devices && !group.accelerated {
            "preprocess"
        } else {
            "inference"
        };
        group.tree(kind, sink)
    });
    let list: Vec<Tree> = list.collect();
    entries.push(("worker_groups".into(), Tree::new(Value::List(list))));
}

/// Writes the GPU that a sample's code asks for into its config, where the cluster has GPUs: one replica to each, and a
/// worker more when none is free.
fn device(config: &mut Tree, groups: &[pods::Group], sink: &Sink) {
    if !groups.iter().any(|group| group.gpus > 0.0) {
        return;
    }
    let root = config.origin.as_deref().unwrap_or_default().to_owned();
    let list = config
        .as_map_mut()
        .and_then(|entries| entries.iter_mut().find(|(key, _)| key == "applications"));
    let list = list
        .and_then(|(_, tree)| tree.as_list_mut())
        .into_iter()
        .flatten();
    for (i, application) in list.enumerate() {
        let path = application.get("import_path");
        let (graph, line) = match path.and_then(|path| Some((graph::find(path.as_text()?)?, path.line))) {
            Some((graph, line)) if graph.device == Device::Gpu => (graph, line),
            Some(_) | None => continue,
        };
        let at = format!("{}[{i}].import_path", join(&root, "applications"));
        let gpu = || {
            let one = Tree::new(Value::Number(1.into()));
            Tree { line, ..one }.written_at(at.clone())
        };
        if ask(application, graph.pipeline(), gpu).is_some() {
            let why = format!(
                "the code asks for one GPU for each replica of {}: num_gpus is 1",
                graph.pipeline()
            );
            sink.note(&at, line, Verdict::Translated, why);
        }
    }
}

/// Adds `num_gpus` to the deployment's options, unless it has some or the document is no config.
fn ask(application: &mut Tree, name: &str, gpu: impl FnOnce() -> Tree) -> Option<()> {
    let deployments = below(application, "deployments", || Value::List(Vec::new()))?.as_list_mut()?;
    let found = deployments
        .iter()
        .position(|d| d.get("name").and_then(Tree::as_text) == Some(name));
    let i = found.unwrap_or_else(|| {
        let named = ("name".to_owned(), Tree::new(Value::Text(name.to_owned())));
        deployments.push(Tree::new(Value::Map(vec![named])));
        deployments.len() - 1
    });
    // Options in a config go before all of those in the code.
    if deployments[i].given("ray_actor_options").is_some() {
        return None;
    }
    let options = below(&mut deployments[i], "ray_actor_options", || {
        Value::Map(Entries::new())
    })?;
    options.as_map_mut()?.push(("num_gpus".into(), gpu()));
    Some(())
}

/// The field of a mapping, made if there is nothing in it.
fn below<'a>(tree: &'a mut Tree, key: &str, empty: impl FnOnce() -> Value) -> Option<&'a mut Tree> {
    let entries = tree.as_map_mut()?;
    let at = entries.iter().position(|(name, _)| name == key);
    let at = at.unwrap_or_else(|| {
        entries.push((key.to_owned(), Tree::default()));
        entries.len() - 1
    });
    let found = &mut entries[at].1;
    if found.is_null() {
        found.value = empty();
    }
    Some(found)
}
