//! The top of the document: Ray's `ServeDeploySchema`, and our worker groups beside it.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    Application, Config, Grpc, Http, Options, ProxyLocation,
    application::{self, Context},
    group, logging,
    reader::{Bounds, Fields, Node},
    scaling::seconds,
    tree::Tree,
};

/// Replicas of all applications together that are there without any load: twenty times the largest mesh that was tried. Each
/// costs the controller a kilobyte, and every look at them their number.
pub const MAX_REPLICAS_OF_ALL: u64 = 100_000;
/// The longest timeout, a day.
const MAX_TIMEOUT_S: f64 = 86_400.0;

const HTTP_DOOR: &str = "the HTTP door is set by the flags of mobula-proxy";
const GRPC_DOOR: &str = "the gRPC door is set by the flags of mobula-proxy";

/// Reads a whole document.
pub(crate) fn read(node: &Node<'_>) -> Option<Config> {
    let mut fields = node.fields()?;
    let options = options(&mut fields);
    let worker_groups = fields
        .get("worker_groups")
        .map(|n| group::read(&n))
        .unwrap_or_default();
    let timeouts = [options.http.request_timeout, options.grpc.request_timeout];
    let context = Context {
        request_timeout_s: timeouts
            .into_iter()
            .flatten()
            .min()
            .map(|timeout| timeout.as_secs_f64()),
    };
    let list = fields.need("applications", "a list of what to serve");
    let nodes = list.as_ref().and_then(Node::list);
    let mut applications: Vec<Application> = Vec::new();
    let (mut names, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
    for node in nodes.iter().flatten() {
        unique(node, &mut names, &mut prefixes);
        let Some(application) = application::read(node, &context) else {
            continue;
        };
        for deployment in &application.deployments {
            if let Some(why) = group::shortage(&worker_groups, deployment) {
                node.refuse(why);
            }
        }
        applications.push(application);
    }
    let parts = applications.iter().flat_map(|app| &app.deployments);
    let replicas: u64 = parts.map(|part| u64::from(part.count.initial())).sum();
    if let Some(list) = list.filter(|_| replicas > MAX_REPLICAS_OF_ALL) {
        list.refuse(format!(
            "have {replicas} replicas together before there is any load; at most {MAX_REPLICAS_OF_ALL} are taken"
        ));
    }
    fields.finish(&[]);
    Some(Config {
        options,
        worker_groups,
        applications,
    })
}

/// Refuses a name or a route that another application has, whatever else is wrong with either.
fn unique(node: &Node<'_>, names: &mut BTreeSet<String>, prefixes: &mut BTreeSet<String>) {
    let text = |key: &str, otherwise: &str| match node.tree.get(key) {
        Some(tree) if key == "route_prefix" && tree.is_null() => None,
        Some(tree) if !tree.is_null() => tree.as_text().map(str::to_owned),
        Some(_) | None => node.tree.as_map().map(|_| otherwise.to_owned()),
    };
    if let Some(name) = text("name", "default")
        && !names.insert(name.clone())
    {
        node.refuse(format!(
            "another application is named {name:?}; names must be unique"
        ));
    }
    if let Some(prefix) = text("route_prefix", "/")
        && !prefixes.insert(prefix.clone())
    {
        node.refuse(format!(
            "another application has the route_prefix {prefix:?}; prefixes must be unique (\"/\" when not given, null for no \
             route)"
        ));
    }
}

fn options(fields: &mut Fields<'_>) -> Options {
    let locations = [
        ProxyLocation::EveryNode,
        ProxyLocation::HeadOnly,
        ProxyLocation::Disabled,
    ]
    .map(|location| (location.name(), location));
    let proxy_location = fields
        .read("proxy_location", ProxyLocation::EveryNode, |n| {
            n.choice(&locations)
        })
        .ignored("a proxy runs wherever mobula-proxy is started");
    let http = fields
        .get("http_options")
        .and_then(|n| http(&n))
        .unwrap_or_default();
    let grpc = fields
        .get("grpc_options")
        .and_then(|n| grpc(&n))
        .unwrap_or_default();
    let log = fields.get("logging_config");
    if let Some(node) = &log {
        logging::logging(node);
    }
    logging::tracing(fields);
    if let Some(node) = fields.get("controller_options") {
        controller(&node);
    }
    let percent = |n: &Node<'_>| n.number(Bounds::from_zero(100.0)).map(Some);
    let target_capacity = fields.read("target_capacity", None, percent).honoured();
    Options {
        target_capacity,
        proxy_location,
        http,
        grpc,
        logging: log.map(|node| Tree::to_json(node.tree)),
    }
}

fn timeout(node: &Node<'_>) -> Option<Option<Duration>> {
    seconds(node, Bounds::span(MAX_TIMEOUT_S)).map(Some)
}

fn port(node: &Node<'_>) -> Option<u16> {
    node.whole(1..=65_535).and_then(|port| u16::try_from(port).ok())
}

fn http(node: &Node<'_>) -> Option<Http> {
    let mut fields = node.fields()?;
    let d = Http::default();
    let keep = |n: &Node<'_>| n.whole(0..=86_400).map(|s| Duration::from_secs(s.unsigned_abs()));
    let why = "the HTTP door closes a connection over HTTP/1.1 on which nothing came for 30 s, and one over HTTP/2 when its \
               peer does not answer";
    let http = Http {
        host: fields.read("host", d.host, Node::text).ignored(HTTP_DOOR),
        port: fields.read("port", d.port, port).ignored(HTTP_DOOR),
        root_path: fields
            .read("root_path", d.root_path, Node::any_text)
            .ignored("answers hold no addresses that it would change"),
        request_timeout: fields.read("request_timeout_s", None, timeout).honoured(),
        keep_alive: fields
            .read("keep_alive_timeout_s", d.keep_alive, keep)
            .ignored(why),
    };
    for key in [
        "ssl_keyfile",
        "ssl_certfile",
        "ssl_keyfile_password",
        "ssl_ca_certs",
    ] {
        // To pass over it would send in the clear what somebody wants to have encrypted.
        if let Some(node) = fields.get(key) {
            node.refuse("is not supported: the HTTP door speaks no TLS; put something before it that does, and leave this out");
        }
    }
    fields.finish(&[
        ("location", "its name is proxy_location, at the top"),
        ("middlewares", "they are Python, which cannot be run here"),
        ("num_cpus", "a proxy takes no resources of workers"),
    ]);
    Some(http)
}

fn grpc(node: &Node<'_>) -> Option<Grpc> {
    let mut fields = node.fields()?;
    let d = Grpc::default();
    let functions = |n: &Node<'_>| n.list()?.iter().map(Node::text).collect::<Option<Vec<_>>>();
    let why =
        "they are Python; the gRPC door serves mobula.image.v1, ray.serve and grpc.health.v1 without them";
    let grpc = Grpc {
        port: fields.read("port", d.port, port).ignored(GRPC_DOOR),
        servicer_functions: fields
            .read("grpc_servicer_functions", d.servicer_functions, functions)
            .ignored(why),
        request_timeout: fields.read("request_timeout_s", None, timeout).honoured(),
        reflection: fields
            .read("enable_reflection", d.reflection, Node::flag)
            .ignored("the gRPC door always tells what it serves"),
    };
    fields.finish(&[]);
    Some(grpc)
}

/// Reads `controller_options`, of which Ray takes `runtime_env.env_vars` alone.
fn controller(node: &Node<'_>) {
    let Some(mut fields) = node.fields() else { return };
    if let Some(mut env) = fields.get("runtime_env").and_then(|n| n.fields()) {
        if let Some(node) = env.get("env_vars") {
            for (_, node) in node.entries().unwrap_or_default() {
                node.any_text();
            }
            node.ignored("the controller has the environment that it is started with");
        }
        env.finish(&[]);
    }
    fields.finish(&[]);
}
