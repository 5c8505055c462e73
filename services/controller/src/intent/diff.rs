//! What is different between two intents, field by field, and what each difference costs.
//!
//! Pure. The cost of a field is found by trying it alone: the application as it was with this one field as it will be,
//! read again and compared deployment by deployment. Fields that only work together are weighed together.

use std::collections::BTreeSet;

use mobula_proto::control::v1 as pb;
use mobula_schema::{Application, Count, Deployment};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::store::{Desired, Entry};

/// Fields of one application that are tried alone; beyond that all are taken to cost what the dearest does.
const MAX_TRIED: usize = 64;
/// A longer value is told by its length: it is in the config, and a history of them would not fit one answer.
const MAX_VALUE_BYTES: usize = 16 << 10;

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) kind: Kind,
    /// Empty when it concerns more than one application.
    pub(crate) application: String,
    /// Empty when the application as a whole is meant.
    pub(crate) deployment: String,
    /// In the config's words; empty when all of it is meant.
    pub(crate) field: String,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
    pub(crate) effect: Effect,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Added,
    Removed,
    Changed,
}

/// What a change costs, from nothing to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effect {
    /// Replicas go on as they are.
    None,
    /// Running replicas are told.
    Light,
    /// Replicas are started or stopped.
    Scale,
    /// Replicas are replaced.
    Rollout,
}

/// Everything that is different, in the order of the names.
pub(super) fn changes(before: &Desired, after: &Desired) -> Vec<Change> {
    let mut found = Vec::new();
    for (path, [from, to]) in differences(&before.options, &after.options, &[]) {
        let field = path.join(".");
        let effect = if field == "target_capacity" {
            Effect::Scale
        } else {
            Effect::None
        };
        found.push(change("", "", field, [from, to], effect));
    }
    let names: BTreeSet<_> = before
        .applications
        .keys()
        .chain(after.applications.keys())
        .collect();
    for name in names {
        let all_of_it = |kind, [before, after]: [Option<&Entry>; 2]| Change {
            kind,
            application: name.clone(),
            deployment: String::new(),
            field: String::new(),
            before: before.map(|entry| fitting(&entry.document)),
            after: after.map(|entry| fitting(&entry.document)),
            effect: Effect::Scale,
        };
        match (before.applications.get(name), after.applications.get(name)) {
            (None, None) => {}
            (None, new @ Some(_)) => found.push(all_of_it(Kind::Added, [None, new])),
            (old @ Some(_), None) => found.push(all_of_it(Kind::Removed, [old, None])),
            (Some(old), Some(new)) => {
                let edits = edits(&old.document, &new.document);
                let effects = effects(&old.document, &new.document, &edits);
                for (edit, effect) in edits.into_iter().zip(effects) {
                    let Edit {
                        deployment,
                        path,
                        values,
                    } = edit;
                    let values = [values[0].as_ref(), values[1].as_ref()];
                    found.push(change(name, &deployment, path.join("."), values, effect));
                }
                if old.source != new.source {
                    let values = [old, new].map(|entry| serde_json::json!(entry.source));
                    let [from, to] = &values;
                    found.push(change(
                        name,
                        "",
                        "source".into(),
                        [Some(from), Some(to)],
                        Effect::None,
                    ));
                }
            }
        }
    }
    found
}

/// A number of replicas that stands in no document.
pub(super) fn target(application: &str, deployment: &str, values: [u32; 2]) -> Change {
    let [from, to] = values.map(Value::from);
    let field = "target_num_replicas".to_owned();
    change(
        application,
        deployment,
        field,
        [Some(&from), Some(&to)],
        Effect::Scale,
    )
}

fn change(
    application: &str,
    deployment: &str,
    field: String,
    [before, after]: [Option<&Value>; 2],
    effect: Effect,
) -> Change {
    let kind = match (before, after) {
        (None, _) => Kind::Added,
        (_, None) => Kind::Removed,
        (Some(_), Some(_)) => Kind::Changed,
    };
    Change {
        kind,
        application: application.to_owned(),
        deployment: deployment.to_owned(),
        field,
        before: before.map(fitting),
        after: after.map(fitting),
        effect,
    }
}

fn fitting(value: &Value) -> Value {
    let length = value.to_string().len();
    if length > MAX_VALUE_BYTES {
        Value::String(format!("({length} bytes)"))
    } else {
        value.clone()
    }
}

/// One field of an application's document that is different.
struct Edit {
    /// Empty for a field of the application itself.
    deployment: String,
    path: Vec<String>,
    values: [Option<Value>; 2],
}

fn edits(before: &Value, after: &Value) -> Vec<Edit> {
    let edit = |deployment: &str, (path, [from, to]): Difference<'_>| Edit {
        deployment: deployment.to_owned(),
        path,
        values: [from.cloned(), to.cloned()],
    };
    let none = Map::new();
    let [from, to] = [before, after].map(|document| document.as_object().unwrap_or(&none));
    let mut found: Vec<Edit> = differences(from, to, &["name", "deployments"])
        .into_iter()
        .map(|difference| edit("", difference))
        .collect();
    let names: BTreeSet<&str> = [before, after]
        .into_iter()
        .flat_map(|document| deployments(document).map(|(name, _)| name))
        .collect();
    for name in names {
        // A deployment that is not written is the graph's own, with everything at its default.
        let [from, to] = [before, after].map(|document| {
            let mut all = deployments(document);
            all.find(|(other, _)| *other == name)
                .map_or(&none, |(_, fields)| fields)
        });
        let different = differences(from, to, &["name"]);
        found.extend(different.into_iter().map(|difference| edit(name, difference)));
    }
    found
}

fn deployments(document: &Value) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
    let list = document.get("deployments").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|deployment| Some((deployment.get("name")?.as_str()?, deployment.as_object()?)))
}

type Difference<'a> = (Vec<String>, [Option<&'a Value>; 2]);

/// Fields that differ, at the depth where they do; lists are compared as a whole.
fn differences<'a>(
    before: &'a Map<String, Value>,
    after: &'a Map<String, Value>,
    except: &[&str],
) -> Vec<Difference<'a>> {
    let mut found = Vec::new();
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for key in keys.into_iter().filter(|key| !except.contains(&key.as_str())) {
        match (before.get(key), after.get(key)) {
            (Some(Value::Object(from)), Some(Value::Object(to))) => {
                for (mut path, values) in differences(from, to, &[]) {
                    path.insert(0, key.clone());
                    found.push((path, values));
                }
            }
            (from, to) if from != to => found.push((vec![key.clone()], [from, to])),
            _ => {}
        }
    }
    found
}

/// True if replicas have to be replaced to make one document of the other.
pub(super) fn needs_rollout(before: &Value, after: &Value) -> bool {
    match (read(before), read(after)) {
        (Some(before), Some(after)) => weigh(&before, &after) == Effect::Rollout,
        _ => false,
    }
}

fn read(document: &Value) -> Option<Application> {
    let read = mobula_schema::application(document);
    read.ok().map(|(application, _)| application)
}

/// What each edit costs.
fn effects(before: &Value, after: &Value, edits: &[Edit]) -> Vec<Effect> {
    // Documents that are kept were accepted once; one that no longer is, is replaced as a whole.
    let (Some(old), Some(new)) = (read(before), read(after)) else {
        return vec![Effect::Rollout; edits.len()];
    };
    let together = weigh(&old, &new);
    let alone = |edit: &Edit| {
        let mut document = before.clone();
        apply(&mut document, edit);
        read(&document).map_or(together, |tried| weigh(&old, &tried))
    };
    if edits.len() > MAX_TRIED || together == Effect::None {
        return vec![together; edits.len()];
    }
    edits.iter().map(alone).collect()
}

/// What it costs to make one application of the other.
fn weigh(old: &Application, new: &Application) -> Effect {
    let names = |app: &Application| -> BTreeSet<String> {
        app.deployments
            .iter()
            .map(|deployment| deployment.name.clone())
            .collect()
    };
    if names(old) != names(new) {
        return Effect::Rollout;
    }
    let pair = |deployment: &Deployment| {
        let other = new.deployments.iter().find(|other| other.name == deployment.name);
        other.map_or(Effect::Rollout, |other| compare(deployment, other))
    };
    old.deployments.iter().map(pair).max().unwrap_or(Effect::None)
}

fn compare(old: &Deployment, new: &Deployment) -> Effect {
    if old.version() != new.version() {
        return Effect::Rollout;
    }
    let moves = match (&old.count, &new.count) {
        (Count::Fixed(from), Count::Fixed(to)) => from != to,
        // Delays and factors move nothing by themselves.
        (Count::Auto(from), Count::Auto(to)) => (from.min, from.max) != (to.min, to.max),
        (Count::Fixed(_), Count::Auto(_)) | (Count::Auto(_), Count::Fixed(_)) => true,
    };
    if moves {
        return Effect::Scale;
    }
    let mut same_count = new.clone();
    same_count.count = old.count.clone();
    if old.light() == same_count.light() {
        Effect::None
    } else {
        Effect::Light
    }
}

fn apply(document: &mut Value, edit: &Edit) {
    let mut at = document;
    if !edit.deployment.is_empty() {
        let Some(fields) = at.as_object_mut() else { return };
        let list = fields
            .entry("deployments")
            .or_insert_with(|| Value::Array(Vec::new()));
        let Some(list) = list.as_array_mut() else { return };
        let named = |value: &Value| value.get("name").and_then(Value::as_str) == Some(&edit.deployment);
        let index = list.iter().position(named).unwrap_or_else(|| {
            list.push(serde_json::json!({ "name": edit.deployment }));
            list.len() - 1
        });
        at = &mut list[index];
    }
    let Some((last, parents)) = edit.path.split_last() else {
        return;
    };
    for key in parents {
        let Some(fields) = at.as_object_mut() else { return };
        at = fields
            .entry(key.clone())
            .or_insert_with(|| Value::Object(Map::new()));
    }
    let Some(fields) = at.as_object_mut() else { return };
    match &edit.values[1] {
        Some(value) => drop(fields.insert(last.clone(), value.clone())),
        None => drop(fields.remove(last)),
    }
}

impl From<Change> for pb::Change {
    fn from(change: Change) -> Self {
        let kind = match change.kind {
            Kind::Added => pb::ChangeKind::Added,
            Kind::Removed => pb::ChangeKind::Removed,
            Kind::Changed => pb::ChangeKind::Changed,
        };
        let effect = match change.effect {
            Effect::None => pb::ChangeEffect::None,
            Effect::Light => pb::ChangeEffect::Light,
            Effect::Rollout => pb::ChangeEffect::Rollout,
            Effect::Scale => pb::ChangeEffect::Scale,
        };
        let text = |value: Option<Value>| value.map(|value| value.to_string()).unwrap_or_default();
        Self {
            kind: kind.into(),
            application: change.application,
            deployment: change.deployment,
            field: change.field,
            before: text(change.before),
            after: text(change.after),
            effect: effect.into(),
        }
    }
}
