//! Why a worker or a worker group is as it is.

use mobula_proto::control::v1 as pb;

use super::{Sheet, unknown};
use crate::Error;

pub(super) fn explain(name: &str, status: &pb::GetStatusResponse) -> Result<pb::ExplainResponse, Error> {
    if let Some(group) = status.worker_groups.iter().find(|g| g.name == name) {
        return Ok(of_group(group, status));
    }
    let known = || {
        let groups = status.worker_groups.iter().map(|g| g.name.as_str());
        groups.chain(status.workers.iter().map(|w| w.worker_id.as_str()))
    };
    let found = status.workers.iter().find(|w| w.worker_id == name);
    let worker = found.ok_or_else(|| unknown("worker or worker group", name, known()))?;
    let replicas: Vec<&pb::ReplicaStatus> = status
        .applications
        .iter()
        .flat_map(|a| &a.deployments)
        .flat_map(|d| &d.replicas)
        .filter(|r| r.worker_id == name)
        .collect();
    let mut sheet = Sheet::new(match (worker.leaving, replicas.len()) {
        (true, n) => format!("it leaves; {n} replicas are still on it"),
        (false, 0) => "it is attached and holds no replica".to_owned(),
        (false, 1) => "it is attached and holds one replica".to_owned(),
        (false, n) => format!("it is attached and holds {n} replicas"),
    });
    sheet.find("address", format!("{}, process {}", worker.address, worker.pid));
    sheet.find("heartbeat", format!("{} ms ago", worker.heartbeat_age_ms));
    if let (Some(has), Some(used)) = (&worker.resources, &worker.used) {
        sheet.find("resources", room(used, has));
    }
    for replica in replicas {
        let on = super::service::gpus(replica).map(|gpus| format!(" on {gpus}"));
        let state = replica.state().as_str_name();
        let text = format!("{state}{}: {}", on.unwrap_or_default(), replica.message);
        sheet.find(&replica.replica_id, text);
    }
    Ok(sheet.done())
}

fn of_group(group: &pb::WorkerGroupStatus, status: &pb::GetStatusResponse) -> pb::ExplainResponse {
    let mut sheet = Sheet::new(format!(
        "{} of {} wanted workers are attached, {} are starting (at least {}, at most {})",
        group.attached, group.wanted, group.starting, group.min, group.max
    ));
    sheet.find("group", group.message.clone());
    for worker in status.workers.iter().filter(|w| w.group == group.name) {
        sheet.find("worker", format!("{} at {}", worker.worker_id, worker.address));
    }
    if group.wanted >= group.max {
        sheet.advise(format!(
            "raise max of {} for more: it is {}",
            group.name, group.max
        ));
    }
    sheet.done()
}

fn room(used: &pb::Resources, has: &pb::Resources) -> String {
    let mut parts = vec![format!("{} of {} CPUs", used.cpus, has.cpus)];
    if has.gpus > 0.0 {
        parts.push(format!("{} of {} GPUs", used.gpus, has.gpus));
    }
    let mib = |bytes: u64| bytes >> 20;
    if has.memory_bytes > 0 {
        parts.push(format!(
            "{} of {} MiB of memory",
            mib(used.memory_bytes),
            mib(has.memory_bytes)
        ));
    }
    if has.vram_bytes > 0 {
        parts.push(format!(
            "{} of {} MiB of GPU memory",
            mib(used.vram_bytes),
            mib(has.vram_bytes)
        ));
    }
    let mut custom: Vec<_> = has.custom.iter().collect();
    custom.sort_by_key(|(name, _)| name.as_str());
    for (name, amount) in custom {
        let used = used.custom.get(name).copied().unwrap_or(0.0);
        parts.push(format!("{used} of {amount} {name}"));
    }
    format!("{} are taken", parts.join(", "))
}
