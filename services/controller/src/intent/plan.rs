//! What a change makes of the intent, before it is accepted.
//!
//! Pure: documents in, documents and the checked config out. Knows nothing of versions, times and the disk.

use std::collections::BTreeMap;

use mobula_schema::{Config, Count, Parsed, Problem};
use serde_json::{Map, Value, json};

use super::diff::{self, Change};
use crate::{
    Error,
    store::{Desired, Entry, Source, Targets},
};

/// The most replicas that an external scaler may ask for; the schema's own limit of `num_replicas`.
const MAX_REPLICAS: u32 = 10_000;

/// An intent that somebody wants.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) options: Map<String, Value>,
    /// With the source and the origin that they are to have; origin 0 means that the document is new.
    pub(super) applications: BTreeMap<String, Entry>,
    /// Names of the applications that the caller gave, in the order of the text.
    given: Given,
    /// Numbers that are set outside the documents.
    pub(super) targets: Vec<((String, String), u32)>,
    /// Changes that the documents do not show.
    pub(super) changes: Vec<Change>,
}

/// How the paths of problems read to the caller.
#[derive(Debug)]
enum Given {
    /// A whole config with these applications.
    Config(Vec<String>),
    /// One application.
    Application(String),
    /// Neither: what is kept was to be put together anew.
    Nothing,
}

/// A whole config: total for what whole configs deployed.
pub(super) fn deploy(current: &Desired, parsed: &Parsed) -> Plan {
    let mut options = parsed.document.as_object().cloned().unwrap_or_default();
    options.remove("applications");
    let mut applications = current.applications.clone();
    applications.retain(|_, entry| entry.source == Source::Imperative);
    let mut names = Vec::new();
    for application in &parsed.config.applications {
        names.push(application.name.clone());
        applications.insert(application.name.clone(), fresh(application, Source::Declarative));
    }
    Plan {
        options,
        applications,
        given: Given::Config(names),
        targets: Vec::new(),
        changes: Vec::new(),
    }
}

/// One application beside the others.
pub(super) fn put(current: &Desired, application: &mobula_schema::Application) -> Plan {
    let name = application.name.clone();
    let mut plan = same(current, Given::Application(name.clone()));
    plan.applications
        .insert(name, fresh(application, Source::Imperative));
    plan
}

/// Without one application.
pub(super) fn delete(current: &Desired, name: &str) -> Result<Plan, Error> {
    let mut plan = same(current, Given::Nothing);
    if plan.applications.remove(name).is_none() {
        return Err(no_application(name));
    }
    Ok(plan)
}

/// Nothing at all, as after Ray's shutdown.
pub(super) fn nothing() -> Plan {
    same(&Desired::default(), Given::Nothing)
}

/// Another number of replicas: in the document where it stands there, outside of it where an external scaler counts.
pub(super) fn scale(
    current: (&Desired, &Config, &Targets),
    (application, deployment): (&str, &str),
    replicas: u32,
) -> Result<Plan, Error> {
    let (desired, config, targets) = current;
    let app = config.applications.iter().find(|app| app.name == application);
    let app = app.ok_or_else(|| no_application(application))?;
    let part = app.deployments.iter().find(|part| part.name == deployment);
    let part = part.ok_or_else(|| {
        let names: Vec<_> = app.deployments.iter().map(|part| part.name.as_str()).collect();
        Error::Unknown(format!(
            "application {application:?} has no deployment {deployment:?} (it has {})",
            names.join(", ")
        ))
    })?;
    let fixed = match &part.count {
        Count::Fixed(count) => *count,
        Count::Auto(scaler) => {
            let to_none = if replicas == 0 && scaler.min > 0 {
                "; with min_replicas: 0 it goes to none by itself when nothing is asked"
            } else {
                ""
            };
            return Err(Error::ScalesItself(format!(
                "{application}/{deployment} scales by itself, from {} to {} replicas (autoscaling_config); give it a \
                 fixed num_replicas, or set external_scaler_enabled: true, to scale it from outside{to_none}",
                scaler.min, scaler.max
            )));
        }
    };
    if replicas == 0 && !app.external_scaler {
        return Err(Error::Invalid(vec![Problem {
            path: "replicas".into(),
            line: None,
            why: format!(
                "must be at least 1, not 0: num_replicas of {application}/{deployment} is fixed, and Ray has no fixed 0; set \
                 external_scaler_enabled: true in {application:?} to scale to 0 from outside, or autoscaling_config with \
                 min_replicas: 0 to have it go to none by itself"
            ),
        }]));
    }
    if replicas > MAX_REPLICAS {
        return Err(Error::Invalid(vec![Problem {
            path: "replicas".into(),
            line: None,
            why: format!("must be at most {MAX_REPLICAS}, not {replicas}"),
        }]));
    }
    let mut plan = same(desired, Given::Application(application.to_owned()));
    let key = (application.to_owned(), deployment.to_owned());
    if app.external_scaler {
        let before = targets.get(&key).copied().unwrap_or(fixed);
        if before != replicas {
            plan.changes
                .push(diff::target(application, deployment, [before, replicas]));
        }
        plan.targets.push((key, replicas));
    } else if fixed != replicas {
        let entry = plan.applications.get_mut(application);
        let entry = entry.ok_or_else(|| no_application(application))?;
        // Its origin stays: a number of replicas is nothing that an update goes back to.
        write_count(&mut entry.document, deployment, replicas);
    }
    Ok(plan)
}

/// Everything as it was in an earlier revision.
pub(super) fn back(earlier: &Desired) -> Plan {
    same(earlier, Given::Nothing)
}

/// One application as it was in an earlier revision.
pub(super) fn back_one(current: &Desired, name: &str, earlier: &Entry) -> Plan {
    let mut plan = same(current, Given::Nothing);
    plan.applications.insert(name.to_owned(), earlier.clone());
    plan
}

impl Plan {
    /// Reads the plan as one config.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, at the paths of the text that the caller gave.
    pub(super) fn check(&self) -> Result<Config, Vec<Problem>> {
        // What was given comes last, so that a clash between it and what is there is a problem of what was given.
        let given: &[String] = match &self.given {
            Given::Config(names) => names,
            Given::Application(name) => std::slice::from_ref(name),
            Given::Nothing => &[],
        };
        let kept = self.applications.keys().filter(|name| !given.contains(name));
        let order: Vec<&String> = kept.chain(given).collect();
        let documents = order.iter().filter_map(|name| self.applications.get(*name));
        let documents: Vec<_> = documents.map(|entry| &entry.document).collect();
        let mut whole = self.options.clone();
        whole.insert("applications".into(), json!(documents));
        let parsed = mobula_schema::parse(&Value::Object(whole).to_string());
        let told = |problems: Vec<Problem>| -> Vec<Problem> {
            let problems = problems.into_iter();
            problems.map(|problem| self.told(problem, &order)).collect()
        };
        let mut config = parsed.map_err(told)?.config;
        config.applications.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(config)
    }

    /// A problem of the whole, in the words of the text that was given.
    fn told(&self, problem: Problem, order: &[&String]) -> Problem {
        let place = problem.path.strip_prefix("applications[").and_then(|rest| {
            let (index, rest) = rest.split_once(']')?;
            let name = *order.get(index.parse::<usize>().ok()?)?;
            Some((name, rest.trim_start_matches('.').to_owned()))
        });
        let path = match (place, &self.given) {
            (Some((name, rest)), Given::Application(given)) if name == given => {
                if rest.is_empty() {
                    "(document)".into()
                } else {
                    rest
                }
            }
            (Some((name, rest)), Given::Config(names)) => {
                match names.iter().position(|given| given == name) {
                    Some(index) => join(&format!("applications[{index}]"), &rest),
                    None => join(&format!("application {name:?}, which is there"), &rest),
                }
            }
            (Some((name, rest)), Given::Application(_) | Given::Nothing) => {
                join(&format!("application {name:?}, which is there"), &rest)
            }
            (None, _) => problem.path,
        };
        Problem {
            path,
            // The line is one of the text that was put together here.
            line: None,
            why: problem.why,
        }
    }
}

/// Refuses more replicas than the schema takes, those included that an external scaler asks for.
pub(super) fn bounded(config: &Config, targets: &Targets) -> Result<(), Error> {
    let parts = config.applications.iter().flat_map(|app| {
        app.deployments.iter().map(move |part| {
            let key = (app.name.clone(), part.name.clone());
            let set = targets.get(&key).filter(|_| app.external_scaler);
            u64::from(set.copied().unwrap_or_else(|| part.count.initial()))
        })
    });
    let all: u64 = parts.sum();
    if all <= mobula_schema::MAX_REPLICAS_OF_ALL {
        return Ok(());
    }
    Err(Error::Invalid(vec![Problem {
        path: "replicas".into(),
        line: None,
        why: format!(
            "would be {all} in all applications together; at most {} are taken",
            mobula_schema::MAX_REPLICAS_OF_ALL
        ),
    }]))
}

/// Targets that still say something: of deployments that are there and count as they did.
pub(super) fn carry(targets: &Targets, before: &Config, after: &Config) -> Targets {
    let count = |config: &Config, (application, deployment): &(String, String)| {
        let app = config.applications.iter().find(|app| app.name == *application)?;
        let part = app.deployments.iter().find(|part| part.name == *deployment)?;
        Some((part.count.clone(), app.external_scaler))
    };
    let holds = |key: &(String, String)| match (count(before, key), count(after, key)) {
        (Some((Count::Fixed(old), was)), Some((Count::Fixed(new), is))) => old == new && was && is,
        (Some((Count::Auto(_), _)), Some((Count::Auto(_), _))) => true,
        _ => false,
    };
    let held = targets.iter().filter(|(key, _)| holds(key));
    held.map(|(key, count)| (key.clone(), *count)).collect()
}

fn same(desired: &Desired, given: Given) -> Plan {
    Plan {
        options: desired.options.clone(),
        applications: desired.applications.clone(),
        given,
        targets: Vec::new(),
        changes: Vec::new(),
    }
}

/// An application that is new, or given anew.
fn fresh(application: &mobula_schema::Application, source: Source) -> Entry {
    let mut document = application.document.clone();
    if let Some(fields) = document.as_object_mut() {
        // One that is not named is `default`; with its name, it says the same wherever it is put.
        fields.insert("name".into(), application.name.clone().into());
    }
    Entry {
        document,
        source,
        resource_version: 0,
        deployed_unix_ms: 0,
        origin: 0,
    }
}

fn write_count(document: &mut Value, deployment: &str, replicas: u32) {
    let Some(fields) = document.as_object_mut() else {
        return;
    };
    let list = fields
        .entry("deployments")
        .or_insert_with(|| Value::Array(Vec::new()));
    let Some(list) = list.as_array_mut() else { return };
    let written = list
        .iter_mut()
        .find(|part| part.get("name").and_then(Value::as_str) == Some(deployment));
    match written.and_then(Value::as_object_mut) {
        Some(part) => drop(part.insert("num_replicas".into(), replicas.into())),
        None => list.push(json!({ "name": deployment, "num_replicas": replicas })),
    }
}

fn join(head: &str, rest: &str) -> String {
    if rest.is_empty() {
        head.to_owned()
    } else {
        format!("{head}.{rest}")
    }
}

pub(super) fn no_application(name: &str) -> Error {
    Error::Unknown(format!("there is no application {name:?}"))
}
