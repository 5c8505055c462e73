//! The state as a compact table. Pure: a view and a paint in, text out.

use std::time::Duration;

use super::view::{Application, Deployment, Replica, Resources, View, Worker, WorkerGroup};
use crate::human;
use crate::paint::Paint;

/// Spaces between two columns.
const GAP: usize = 2;

/// Renders everything; every line ends with a line feed.
pub(crate) fn render(view: &View, paint: Paint) -> String {
    let up = human::duration(Duration::from_millis(view.uptime_ms));
    let mut text = format!("Mobula {}, controller up {up}\n", view.version);
    if view.applications.is_empty() {
        text.push_str("\nno application is deployed\n");
    }
    for application in &view.applications {
        text.push('\n');
        text.push_str(&render_application(application, paint));
    }
    text.push('\n');
    text.push_str(&render_workers(&view.workers, paint));
    text.push_str(&render_groups(&view.worker_groups, paint));
    if !view.proxies.is_empty() {
        let rows = view.proxies.iter().map(|proxy| {
            vec![
                proxy.proxy_id.clone().into(),
                proxy.http_address.clone().into(),
                proxy.grpc_address.clone().into(),
            ]
        });
        text.push('\n');
        text.push_str(&table(&["PROXY", "HTTP", "GRPC"], rows.collect(), paint));
    }
    text
}

fn render_application(application: &Application, paint: Paint) -> String {
    let route = match application.route_prefix.as_str() {
        "" => "no HTTP route".to_owned(),
        prefix => format!("at {prefix}"),
    };
    let mut text = format!(
        "{} {} {route}\n",
        paint.heading(&application.name),
        colour(application.state, paint),
    );
    if !application.message.is_empty() {
        text.push_str(&format!("  {}\n", application.message.replace('\n', "\n  ")));
    }
    let rows: Vec<_> = application
        .deployments
        .iter()
        .flat_map(|deployment| {
            deployment
                .replicas
                .iter()
                .map(move |replica| row(deployment, replica))
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&table(
            &["DEPLOYMENT", "REPLICA", "STATE", "WORKER", "ON", "LOAD", "WHY"],
            rows,
            paint,
        ));
    }
    for deployment in &application.deployments {
        for line in remarks(deployment) {
            text.push_str(&format!("  {}\n", paint.warn(line)));
        }
    }
    text
}

/// What the replicas' lines do not say: how many are missing, how an update goes, how it scales.
fn remarks(deployment: &Deployment) -> Vec<String> {
    let mut lines = Vec::new();
    let name = &deployment.name;
    if deployment.running_replicas < deployment.target_replicas {
        lines.push(format!(
            "{name}: {} of {} running",
            deployment.running_replicas, deployment.target_replicas
        ));
    }
    if let Some(rollout) = deployment.rollout.as_ref().filter(|r| r.state != "COMPLETE") {
        lines.push(format!("{name}: update {}: {}", rollout.state, rollout.message));
    }
    if let Some(scaling) = &deployment.scaling {
        lines.push(format!(
            "{name}: scales from {} to {}: {}",
            scaling.min_replicas, scaling.max_replicas, scaling.message
        ));
    }
    lines
}

/// Worker groups, but for those that have nothing to say.
fn render_groups(groups: &[WorkerGroup], paint: Paint) -> String {
    if groups.is_empty() {
        return String::new();
    }
    let rows = groups.iter().map(|group| {
        vec![
            group.name.clone().into(),
            format!("{}/{}", group.attached, group.wanted).into(),
            group.starting.to_string().into(),
            format!("{} to {}", group.min, group.max).into(),
            group.message.clone().into(),
        ]
    });
    let head = ["WORKER GROUP", "ATTACHED", "STARTING", "MAY HAVE", "WHY"];
    format!("\n{}", table(&head, rows.collect(), paint))
}

fn row(deployment: &Deployment, replica: &Replica) -> Vec<Cell> {
    // `application#deployment#random`: the first two are said already.
    let id = replica.replica_id.rsplit('#').next().unwrap_or_default();
    let worker = if replica.worker_id.is_empty() {
        "-"
    } else {
        &replica.worker_id
    };
    vec![
        deployment.name.clone().into(),
        id.to_owned().into(),
        Cell {
            text: replica.state.into(),
            state: true,
        },
        worker.to_owned().into(),
        device(replica).into(),
        load(replica).into(),
        replica.message.replace('\n', "; ").into(),
    ]
}

/// `CPU` of `CPUExecutionProvider`, with how its cores are divided, or the GPUs that it was given: `CPU, 2 lanes`, `CUDA, GPU 0`.
fn device(replica: &Replica) -> String {
    let name = replica.execution_provider.as_str();
    let provider = name.strip_suffix("ExecutionProvider").unwrap_or(name);
    let lanes = (replica.lanes > 1).then(|| format!("{} lanes", replica.lanes));
    let gpus = replica.gpus.iter().map(|gpu| format!("GPU {gpu}"));
    let more: Vec<String> = lanes.into_iter().chain(gpus).collect();
    let parts: Vec<&str> = Some(provider)
        .filter(|provider| !provider.is_empty())
        .into_iter()
        .chain(more.iter().map(String::as_str))
        .collect();
    if parts.is_empty() {
        "-".into()
    } else {
        parts.join(", ")
    }
}

/// `idle`, or what is under way with the time that the queue still takes.
fn load(replica: &Replica) -> String {
    match (replica.ongoing_requests, replica.queued_rows) {
        (0, 0) => "idle".into(),
        (ongoing, 0) => format!("{ongoing} ongoing"),
        (ongoing, rows) => {
            let left = Duration::from_nanos(rows.saturating_mul(replica.row_ns));
            let left = if left.is_zero() {
                String::new()
            } else {
                format!(" ({})", human::duration(left))
            };
            format!("{ongoing} ongoing, {rows} rows{left}")
        }
    }
}

fn render_workers(workers: &[Worker], paint: Paint) -> String {
    if workers.is_empty() {
        return "no worker is attached\n".into();
    }
    let rows = workers.iter().map(|worker| {
        let seen = human::duration(Duration::from_millis(worker.heartbeat_age_ms));
        vec![
            worker.worker_id.clone().into(),
            worker.kind.to_owned().into(),
            Cell {
                text: if worker.alive { "ALIVE" } else { "LOST" }.into(),
                state: true,
            },
            worker.address.clone().into(),
            worker.pid.to_string().into(),
            used(&worker.used, &worker.resources).into(),
            human::bytes(worker.resident_bytes).into(),
            format!("{seen} ago").into(),
        ]
    });
    table(
        &[
            "WORKER", "KIND", "STATE", "ADDRESS", "PID", "USED", "RESIDENT", "SEEN",
        ],
        rows.collect(),
        paint,
    )
}

/// `1/2 CPU, 0.5/1 GPU, 0 B/8.0 GiB`: what replicas take of what there is; kinds that the worker lacks are left out.
fn used(used: &Resources, all: &Resources) -> String {
    let mut parts = vec![format!(
        "{}/{} CPU",
        human::amount(used.cpus),
        human::amount(all.cpus)
    )];
    if all.gpus > 0.0 {
        parts.push(format!(
            "{}/{} GPU",
            human::amount(used.gpus),
            human::amount(all.gpus)
        ));
    }
    if all.memory_bytes > 0 {
        parts.push(format!(
            "{}/{}",
            human::bytes(used.memory_bytes),
            human::bytes(all.memory_bytes)
        ));
    }
    for (name, amount) in &all.custom {
        let taken = used.custom.get(name).copied().unwrap_or(0.0);
        parts.push(format!(
            "{}/{} {name}",
            human::amount(taken),
            human::amount(*amount)
        ));
    }
    parts.join(", ")
}

/// Text, and whether it is a state that has a colour.
struct Cell {
    text: String,
    state: bool,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, state: false }
    }
}

/// Aligns columns by their widest cell; colours come after the padding, because escape codes have no width.
fn table(head: &[&str], rows: Vec<Vec<Cell>>, paint: Paint) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.text.chars().count());
        cells
            .chain(head.get(column).map(|text| text.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<(&str, String)>| {
        let mut line = String::from("  ");
        for ((text, painted), width) in cells.into_iter().zip(&widths) {
            line.push_str(&painted);
            line.push_str(&" ".repeat(width + GAP - text.chars().count().min(*width)));
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut text = line(head.iter().map(|cell| (*cell, paint.dim(cell))).collect());
    for row in &rows {
        let painted = |cell: &Cell| {
            if cell.state {
                colour(&cell.text, paint)
            } else {
                cell.text.clone()
            }
        };
        text.push_str(&line(
            row.iter()
                .map(|cell| (cell.text.as_str(), painted(cell)))
                .collect(),
        ));
    }
    text
}

fn colour(state: &str, paint: Paint) -> String {
    match state {
        "RUNNING" | "ALIVE" => paint.good(state),
        "FAILED" | "DEPLOY_FAILED" | "UNHEALTHY" | "LOST" => paint.bad(state),
        _ => paint.warn(state),
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::Proxy;
    use super::*;

    fn replica(id: &str, state: &'static str) -> Replica {
        Replica {
            replica_id: format!("demo#pipeline#{id}"),
            state,
            message: String::new(),
            worker_id: String::new(),
            ongoing_requests: 0,
            queued_rows: 0,
            row_ns: 0,
            execution_provider: String::new(),
            gpus: Vec::new(),
            lanes: 0,
        }
    }

    fn view() -> View {
        let running = Replica {
            worker_id: "inference-1".into(),
            ongoing_requests: 3,
            queued_rows: 40,
            row_ns: 2_500_000,
            execution_provider: "CPUExecutionProvider".into(),
            lanes: 2,
            ..replica("k3x", "RUNNING")
        };
        let pending = Replica {
            message: "no inference worker has 2 CPUs free".into(),
            ..replica("p9z", "PENDING")
        };
        View {
            version: "0.1.0".into(),
            uptime_ms: 185_000,
            applications: vec![Application {
                name: "demo".into(),
                route_prefix: "/".into(),
                state: "DEPLOYING",
                message: String::new(),
                deployments: vec![Deployment {
                    name: "pipeline".into(),
                    state: "UPDATING",
                    trigger: "CONFIG_UPDATE_STARTED",
                    message: String::new(),
                    scaling: None,
                    rollout: None,
                    target_replicas: 2,
                    running_replicas: 1,
                    replicas: vec![running, pending],
                }],
            }],
            workers: vec![Worker {
                worker_id: "inference-1".into(),
                kind: "inference",
                alive: true,
                address: "127.0.0.1:41234".into(),
                pid: 4711,
                resources: Resources {
                    cpus: 2.0,
                    memory_bytes: 8 << 30,
                    ..Resources::default()
                },
                used: Resources {
                    cpus: 1.0,
                    ..Resources::default()
                },
                resident_bytes: 120 << 20,
                heartbeat_age_ms: 300,
            }],
            worker_groups: vec![],
            resource_version: 1,
            proxies: vec![Proxy {
                proxy_id: "proxy-1".into(),
                http_address: "127.0.0.1:8000".into(),
                grpc_address: "127.0.0.1:9000".into(),
            }],
        }
    }

    #[test]
    fn the_whole_state_fits_a_screen_and_says_why_a_replica_waits() {
        let expected = "\
Mobula 0.1.0, controller up 3 min 5 s

demo DEPLOYING at /
  DEPLOYMENT  REPLICA  STATE    WORKER       ON            LOAD                         WHY
  pipeline    k3x      RUNNING  inference-1  CPU, 2 lanes  3 ongoing, 40 rows (100 ms)
  pipeline    p9z      PENDING  -            -             idle                         no inference worker has 2 CPUs free
  pipeline: 1 of 2 running

  WORKER       KIND       STATE  ADDRESS          PID   USED                  RESIDENT  SEEN
  inference-1  inference  ALIVE  127.0.0.1:41234  4711  1/2 CPU, 0 B/8.0 GiB  120 MiB   300 ms ago

  PROXY    HTTP            GRPC
  proxy-1  127.0.0.1:8000  127.0.0.1:9000
";
        assert_eq!(render(&view(), Paint::PLAIN), expected);
    }

    #[test]
    fn an_empty_mesh_is_not_an_empty_answer() {
        let view = View {
            applications: vec![],
            workers: vec![],
            worker_groups: vec![],
            resource_version: 1,
            proxies: vec![],
            ..view()
        };
        let text = render(&view, Paint::PLAIN);
        assert!(
            text.contains("no application is deployed") && text.contains("no worker is attached"),
            "{text}"
        );
    }
}
