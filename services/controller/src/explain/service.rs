//! Why an application, a deployment or a replica is as it is.

use mobula_proto::control::v1::{self as pb, DeploymentState, ReplicaState};

use super::{Sheet, routing, unknown, word};
use crate::Error;

/// Replicas and decisions that are told one by one.
const TOLD: usize = 5;

pub(super) fn application(name: &str, status: &pb::GetStatusResponse) -> Result<pb::ExplainResponse, Error> {
    let names = || status.applications.iter().map(|a| a.name.as_str());
    let found = status.applications.iter().find(|a| a.name == name);
    let application = found.ok_or_else(|| unknown("application", name, names()))?;
    let state = word(application.state().as_str_name(), "APPLICATION_STATE_");
    let mut sheet = Sheet::new(match application.message.as_str() {
        "" => format!("it is {state}"),
        message => format!("it is {state}: {message}"),
    });
    if !application.route_prefix.is_empty() {
        sheet.find("route", format!("HTTP below {}", application.route_prefix));
    } else {
        sheet.find(
            "route",
            "none over HTTP (route_prefix is null); gRPC callers name it",
        );
    }
    for deployment in &application.deployments {
        add_deployment(deployment, status, &mut sheet);
    }
    Ok(sheet.done())
}

pub(super) fn deployment(name: &str, status: &pb::GetStatusResponse) -> Result<pb::ExplainResponse, Error> {
    let pairs = || {
        status
            .applications
            .iter()
            .flat_map(|a| a.deployments.iter().map(move |d| (a, d)))
    };
    let full = |(a, d): (&pb::ApplicationStatus, &pb::DeploymentStatus)| format!("{}/{}", a.name, d.name);
    let mut named = pairs().filter(|(a, d)| full((a, d)) == name || d.name == name);
    let known: Vec<String> = pairs().map(full).collect();
    let Some((_, deployment)) = named.next() else {
        return Err(unknown("deployment", name, known.iter().map(String::as_str)));
    };
    if named.next().is_some() {
        return Err(Error::Field {
            field: "deployment",
            why: format!("{name:?} is in several applications: say application/{name}"),
        });
    }
    let state = word(deployment.state().as_str_name(), "DEPLOYMENT_STATE_");
    let mut sheet = Sheet::new(match deployment.message.as_str() {
        "" => format!("it is {state}"),
        message => format!("it is {state}: {message}"),
    });
    add_deployment(deployment, status, &mut sheet);
    Ok(sheet.done())
}

pub(super) fn replica(id: &str, status: &pb::GetStatusResponse) -> Result<pb::ExplainResponse, Error> {
    let deployments = || status.applications.iter().flat_map(|a| a.deployments.iter());
    let replicas = || deployments().flat_map(|d| d.replicas.iter().map(move |r| (d, r)));
    let known = || replicas().map(|(_, r)| r.replica_id.as_str());
    // The last part is unique enough to be typed.
    let is_it = |known: &str| known == id || known.rsplit('#').next() == Some(id);
    let found = replicas().find(|(_, r)| is_it(&r.replica_id));
    let (deployment, replica) = found.ok_or_else(|| unknown("replica", id, known()))?;
    let state = word(replica.state().as_str_name(), "REPLICA_STATE_");
    let mut sheet = Sheet::new(match replica.message.as_str() {
        "" => format!("it is {state}"),
        message => format!("it is {state}: {message}"),
    });
    if !replica.worker_id.is_empty() {
        sheet.find("worker", format!("it is on {}", replica.worker_id));
    }
    if let Some(gpus) = gpus(replica) {
        sheet.find("devices", format!("it has {gpus} of its worker"));
        let shares = others_on(replica, replicas().map(|(_, r)| r));
        if !shares.is_empty() {
            sheet.find("devices", format!("shared with {}", shares.join(", ")));
        }
    }
    if replica.failures > 0 {
        sheet.find("failures", format!("{} in a row before it", replica.failures));
        sheet.advise("see the worker's log for the whole error");
    }
    if replica.outdated {
        sheet.find("rollout", "it is as before the update that runs, and is replaced");
    }
    if let Some(load) = replica.load {
        let text = format!(
            "{} requests, {} rows to compute",
            load.ongoing_requests, load.queued_rows
        );
        sheet.find("load", text);
    }
    routing::add(std::slice::from_ref(replica), status, &mut sheet);
    if replica.state() == ReplicaState::Pending {
        pending(deployment, status, &mut sheet);
    }
    Ok(sheet.done())
}

/// The GPUs of a replica in words.
pub(super) fn gpus(replica: &pb::ReplicaStatus) -> Option<String> {
    let numbers: Vec<String> = replica.gpus.iter().map(u32::to_string).collect();
    match numbers.len() {
        0 => None,
        1 => Some(format!("GPU {}", numbers[0])),
        _ => Some(format!("GPUs {}", numbers.join(", "))),
    }
}

/// Other replicas of the same worker that have one of the same GPUs.
fn others_on<'a>(
    replica: &pb::ReplicaStatus,
    all: impl Iterator<Item = &'a pb::ReplicaStatus>,
) -> Vec<&'a str> {
    all.filter(|other| other.worker_id == replica.worker_id && other.replica_id != replica.replica_id)
        .filter(|other| other.gpus.iter().any(|gpu| replica.gpus.contains(gpu)))
        .map(|other| other.replica_id.as_str())
        .take(TOLD)
        .collect()
}

fn add_deployment(deployment: &pb::DeploymentStatus, status: &pb::GetStatusResponse, sheet: &mut Sheet) {
    let name = &deployment.name;
    let of = |state| deployment.replicas.iter().filter(move |r| r.state() == state);
    let running = of(ReplicaState::Running).count();
    sheet.find(
        name,
        format!(
            "{running} of {} replicas run; {} ({})",
            deployment.target_replicas,
            word(deployment.state().as_str_name(), "DEPLOYMENT_STATE_"),
            word(deployment.trigger().as_str_name(), "DEPLOYMENT_TRIGGER_"),
        ),
    );
    if let Some(rollout) = &deployment.rollout {
        let why = match rollout.message.as_str() {
            "" => String::new(),
            message => format!("; {message}"),
        };
        sheet.find(
            "rollout",
            format!(
                "{}: {} of {} replicas are as they shall be, {} as before{why}",
                word(rollout.state().as_str_name(), "ROLLOUT_STATE_"),
                rollout.updated,
                rollout.target,
                rollout.outdated,
            ),
        );
    }
    for state in [
        ReplicaState::Failed,
        ReplicaState::Pending,
        ReplicaState::Starting,
    ] {
        let mut told: Vec<&str> = Vec::new();
        for replica in of(state) {
            // Alike replicas wait for the same reason.
            if !told.contains(&replica.message.as_str()) && told.len() < TOLD {
                told.push(&replica.message);
                let state = word(state.as_str_name(), "REPLICA_STATE_").to_lowercase();
                sheet.find(
                    "replica",
                    format!("{} is {state}: {}", replica.replica_id, replica.message),
                );
            }
        }
    }
    routing::add(&deployment.replicas, status, sheet);
    if of(ReplicaState::Pending).next().is_some() {
        pending(deployment, status, sheet);
    }
    if let Some(scaling) = &deployment.scaling {
        sheet.find(
            "autoscaling",
            format!(
                "{} by policy {} between {} and {}: {} ({:.1} requests wait or run, {:.1} s of predicted work)",
                word(scaling.state().as_str_name(), "SCALING_STATE_"),
                scaling.policy,
                scaling.min_replicas,
                scaling.max_replicas,
                scaling.message,
                scaling.total_requests,
                scaling.work_s
            ),
        );
        for decision in scaling.decisions.iter().take(TOLD) {
            sheet.find(
                "decision",
                format!(
                    "from {} to {} replicas: {}",
                    decision.from, decision.to, decision.reason
                ),
            );
        }
        // At its bound it is STABLE, whatever is asked for.
        if deployment.target_replicas >= scaling.max_replicas
            && scaling.desired_replicas > f64::from(scaling.max_replicas)
        {
            sheet.advise(format!(
                "raise max_replicas of {name}: it is at {}",
                scaling.max_replicas
            ));
        }
    }
    match deployment.state() {
        DeploymentState::DeployFailed => {
            sheet.advise(format!(
                "mend what {name} says, and deploy again; or `mobula rollback`"
            ));
        }
        DeploymentState::Unspecified
        | DeploymentState::Updating
        | DeploymentState::Healthy
        | DeploymentState::Unhealthy
        | DeploymentState::Upscaling
        | DeploymentState::Downscaling => {}
    }
}

/// A replica has no place: what holds the groups up that could give it one.
fn pending(deployment: &pb::DeploymentStatus, status: &pb::GetStatusResponse, sheet: &mut Sheet) {
    let groups = status
        .worker_groups
        .iter()
        .filter(|g| g.kind() == deployment.kind());
    for group in groups {
        sheet.find(
            "worker group",
            format!(
                "{}: {} attached, {} starting, {} wanted of at most {}{}{}",
                group.name,
                group.attached,
                group.starting,
                group.wanted,
                group.max,
                if group.message.is_empty() { "" } else { "; " },
                group.message
            ),
        );
        if group.wanted >= group.max && group.attached >= group.max {
            sheet.advise(format!(
                "raise max of worker group {}: all {} run",
                group.name, group.max
            ));
        }
    }
}
