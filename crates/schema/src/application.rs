//! One application: the fields of Ray's `ServeApplicationSchema`, its graph's arguments and its deployments.

use std::collections::{BTreeMap, BTreeSet};

use mobula_serving::{place::Kind, scale::Policy};

use crate::{
    Application, Count, Deployment,
    deployment::{self, Asked},
    env, graph,
    graph::Graph,
    logging,
    note::Verdict,
    reader::{Bounds, Fields, Node},
    scaling,
    tree::Value,
};

/// Models that one replica can be told to hold.
const MAX_MODELS: u32 = 1_000;
/// Rows that a batch can be told to have.
const MAX_BATCH: u32 = 100_000;
/// The longest wait for a batch, an hour.
const MAX_WAIT_S: f64 = 3_600.0;

/// What stands in a path of an address as it is (RFC 3986, `pchar`), and the slash; anything else a client may write in several
/// ways, of which proxies would know one.
const PLAIN: &str = "/-._~!$&'()*+,;=:@";
/// Letters of a route prefix: it is in every proxy's table and metrics.
const MAX_PREFIX: usize = 1_000;

/// What an application has to fit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Context {
    /// Seconds that a request may take.
    pub(crate) request_timeout_s: Option<f64>,
}

/// What the graph is built with.
#[derive(Debug, Default)]
struct Args {
    model: Option<String>,
    engine: Option<String>,
    options: BTreeMap<String, String>,
    models: BTreeMap<String, String>,
    max_models: Option<u32>,
}

/// Reads one application.
pub(crate) fn read(node: &Node<'_>, context: &Context) -> Option<Application> {
    let mut fields = node.fields()?;
    let name = match fields.get("name") {
        Some(node) => name(&node),
        None => Some("default".to_owned()),
    };
    let route_prefix = match fields.get("route_prefix") {
        Some(node) => prefix(&node),
        None if fields.is_null("route_prefix") => None,
        None => Some("/".to_owned()),
    };
    let path = fields.need("import_path", graph::TEXT_TO_IMAGE);
    let graph = path.as_ref().and_then(graph::read);
    let named = fields.get("runtime_env").and_then(|n| env::read(&n));
    let args_at = fields.get("args");
    let args = args_at.as_ref().and_then(arguments).unwrap_or_default();
    let external = fields
        .read("external_scaler_enabled", false, Node::flag)
        .honoured();
    let policy = fields.get("autoscaling_policy");
    if let Some(node) = fields.get("logging_config") {
        logging::logging(&node);
    }

    // The deployments are read against a graph even when there is none, so that all problems are found.
    let known = graph.or_else(|| graph::find(graph::TEXT_TO_IMAGE))?;
    let mut deployments = known.deployments();
    let list = fields.get("deployments");
    let asked = overrides(list.as_ref(), known, graph.is_some(), &mut deployments);
    scale(&mut deployments, &asked, policy.as_ref(), external);
    let draws = known.draws();
    batches(
        (&deployments[draws], asked[draws].as_ref()),
        args_at.as_ref(),
        context,
    );
    usual(&fields, &deployments, &asked);
    for (place, asked) in asked.iter().enumerate() {
        if let Some(named) = named_by(asked.as_ref()).filter(|_| place != draws) {
            named.unused(&format!("{}, or for all deployments,", known.pipeline()));
        }
    }
    let of_pipeline = named_by(asked[draws].as_ref());
    if args.model.is_none() && of_pipeline.is_none() && named.is_none() {
        node.translated(
            "no model is named (args.model, MOBULA_MODEL): each worker serves its own model folder",
        );
    }
    model(&mut deployments, args, of_pipeline, named.as_ref());
    fields.ignore(
        "docs_path",
        "the HTTP door has no page of documentation; the README describes its call",
    );
    fields.finish(&[
        (
            "host",
            "the address is the proxy's for all applications; give it in http_options",
        ),
        (
            "port",
            "the port is the proxy's for all applications; give it in http_options",
        ),
    ]);
    graph?;
    Some(Application {
        name: name?,
        route_prefix,
        import_path: path?.text()?,
        img_size: known.img_size,
        external_scaler: external,
        deployments,
        document: node.tree.to_json(),
    })
}

fn name(node: &Node<'_>) -> Option<String> {
    let name = node.text()?;
    if name.len() > 100 || name.contains(|c: char| c == '#' || c.is_control()) {
        node.refuse("must have at most 100 bytes, none of them # or a control character");
        return None;
    }
    Some(name)
}

/// Ray's rule: starts with `/`, ends with none unless it is `/`, holds no pattern.
fn prefix(node: &Node<'_>) -> Option<String> {
    let prefix = node.text()?;
    let why = if !prefix.starts_with('/') {
        "must start with \"/\""
    } else if prefix.len() > 1 && prefix.ends_with('/') {
        "must not end with \"/\" unless it is \"/\""
    } else if prefix.contains(['{', '}']) {
        "must hold no pattern: { and } are not accepted"
    } else if prefix == "/-" || prefix.starts_with("/-/") {
        "must not be below \"/-\", which is the proxy's own"
    } else if prefix.len() > 1 && prefix[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        "must be a plain path: no part may be empty, . or .., which clients take out of addresses"
    } else if !prefix
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || PLAIN.contains(c))
    {
        "must be a plain path: letters of ASCII, digits and -._~!$&'()*+,;=:@, as they are in the address without % before them"
    } else if prefix.len() > MAX_PREFIX {
        "must have at most 1000 letters"
    } else {
        return Some(prefix);
    };
    node.refuse(format!("{why}, not {}", crate::reader::shown(node.tree)));
    None
}

fn arguments(node: &Node<'_>) -> Option<Args> {
    let mut fields = node.fields()?;
    let model = fields.get("model").and_then(|n| n.text());
    let engine = fields.get("engine").and_then(|n| {
        let engine = n.choice(&[("onnx", "onnx"), ("fake", "fake")])?;
        if engine == "onnx" && model.as_deref() == Some("fake") {
            n.refuse("must be fake for the model \"fake\", which has no files");
        }
        Some(engine.to_owned())
    });
    let text = |key: &'static str, fields: &mut Fields<'_>| -> BTreeMap<String, String> {
        let entries = fields.get(key).and_then(|n| n.entries()).unwrap_or_default();
        let pair = |(name, node): (&str, Node<'_>)| Some((name.to_owned(), node.scalar()?));
        entries.into_iter().filter_map(pair).collect()
    };
    let options = text("options", &mut fields);
    let models = text("models", &mut fields);
    if models
        .iter()
        .any(|(id, folder)| id.is_empty() || folder.is_empty())
    {
        fields
            .node
            .refuse("models must be folders by model id, none of them empty");
    }
    let max_models = fields
        .get("max_num_models_per_replica")
        .and_then(|n| n.count(1..=MAX_MODELS));
    let why = "requests join the batch that runs at its next step; no batch is waited for";
    fields.ignore("max_batch_size", why);
    fields.ignore("batch_wait_timeout_s", why);
    fields.finish(&[]);
    let honoured = [
        "model",
        "engine",
        "options",
        "models",
        "max_num_models_per_replica",
    ];
    honoured
        .iter()
        .filter_map(|key| node.below(key))
        .for_each(|node| node.honoured());
    Some(Args {
        model,
        engine,
        options,
        models,
        max_models,
    })
}

/// The model that a deployment's environment names.
fn named_by<'a, 'b>(asked: Option<&'b Asked<'a>>) -> Option<&'b env::Named<'a>> {
    asked.and_then(|asked| asked.model.as_ref())
}

/// Reads the list of deployments over the graph's, and gives back what was asked of each of those.
fn overrides<'a>(
    list: Option<&Node<'a>>,
    graph: &Graph,
    certain: bool,
    deployments: &mut [Deployment],
) -> Vec<Option<Asked<'a>>> {
    let mut asked: Vec<Option<Asked<'a>>> = deployments.iter().map(|_| None).collect();
    let names: Vec<String> = deployments.iter().map(|d| d.name.clone()).collect();
    let mut seen = BTreeSet::new();
    for node in list.and_then(Node::list).into_iter().flatten() {
        let Some(mut fields) = node.fields() else { continue };
        let named = fields
            .need("name", &names.join(" or "))
            .and_then(|node| Some((node.text()?, node)));
        let place = named.and_then(|(name, at)| {
            let place = names.iter().position(|known| *known == name);
            if !seen.insert(name.clone()) {
                at.refuse(format!(
                    "another deployment is named {name:?}; names must be unique"
                ));
                // What the first one says is checked against the rest.
                return None;
            } else if place.is_none() && certain {
                let meant = crate::suggest::nearest(&name, names.iter().map(String::as_str));
                let meant = meant
                    .map(|meant| format!("; did you mean {meant}?"))
                    .unwrap_or_default();
                at.refuse(format!(
                    "is none of the graph's deployments ({}): {name:?}{meant}",
                    names.join(", ")
                ));
            }
            place
        });
        // A deployment of the wrong name is still read, into nothing.
        let mut nowhere = graph.deployments().remove(graph.draws());
        match place {
            Some(i) => asked[i] = Some(deployment::read(fields, graph, &mut deployments[i])),
            None => drop(deployment::read(fields, graph, &mut nowhere)),
        }
    }
    asked
}

/// What the application says of the numbers of all its deployments.
fn scale(
    deployments: &mut [Deployment],
    asked: &[Option<Asked<'_>>],
    policy: Option<&Node<'_>>,
    external: bool,
) {
    let policy = policy.and_then(|node| Some((scaling::policy(node)?, node)));
    let mut scaled = false;
    for (deployment, asked) in deployments.iter_mut().zip(asked) {
        let Count::Auto(config) = &mut deployment.count else {
            continue;
        };
        scaled = true;
        if let Some((policy @ Policy::Work { .. }, _)) = &policy {
            config.policy = *policy;
        }
        if external {
            match asked.as_ref().and_then(|asked| asked.counted.as_ref()) {
                Some(at) => at
                    .refuse("excludes external_scaler_enabled, as in Ray: somebody else counts the replicas"),
                // The graph's own scaling is no wish of the document.
                None => deployment.count = Count::Fixed(deployment.count.initial()),
            }
        }
    }
    if let Some((Policy::Work { .. }, node)) = policy
        && !scaled
    {
        node.ignored("no deployment of the application has autoscaling_config");
    }
}

/// Batches of Ray that would starve, or wait longer than requests may take.
fn batches((drawing, asked): (&Deployment, Option<&Asked<'_>>), args: Option<&Node<'_>>, context: &Context) {
    let user = asked.and_then(|asked| asked.node.below("user_config"));
    let most = drawing.max_ongoing_requests;
    for node in args.cloned().into_iter().chain(user) {
        // The free mapping of user_config may have anything of these names.
        let number = |key| {
            node.below(key)
                .filter(|n| matches!(n.tree.value, Value::Number(_)))
        };
        if let Some(node) = number("max_batch_size")
            && let Some(size) = node.count(1..=MAX_BATCH)
            && size > most
        {
            node.refuse(format!(
                "max_batch_size ({size}) is over max_ongoing_requests ({most}): a batch would never fill, and each would wait \
                 its batch_wait_timeout_s"
            ));
        }
        if let Some(node) = number("batch_wait_timeout_s")
            && let Some(wait) = node.number(Bounds::from_zero(MAX_WAIT_S))
            && let Some(timeout) = context.request_timeout_s
            && wait >= timeout
        {
            node.refuse(format!(
                "batch_wait_timeout_s ({wait}) is not below request_timeout_s ({timeout}): a lone request would time out"
            ));
        }
    }
}

/// Says where a number is ours because the document has none.
fn usual(fields: &Fields<'_>, deployments: &[Deployment], asked: &[Option<Asked<'_>>]) {
    let own = |i: usize| {
        asked
            .iter()
            .map(move |asked| asked.as_ref().is_none_or(|asked| asked.defaults[i]))
    };
    let mut words = Vec::new();
    let usual = deployments.iter().zip(own(0)).filter(|(_, own)| *own);
    let usual =
        usual.map(|(deployment, _)| format!("{} for {}", deployment.max_ongoing_requests, deployment.name));
    let usual = usual.collect::<Vec<_>>().join(" and ");
    if !usual.is_empty() {
        words.push(format!(
            "max_ongoing_requests is {usual} (Ray: 5, which would starve batches)"
        ));
    }
    if own(1).any(|own| own) {
        let most = graph::MAX_QUEUED_REQUESTS;
        words.push(format!(
            "max_queued_requests is {most} (Ray: no bound, which lets requests wait for ever)"
        ));
    }
    if !words.is_empty() {
        let node = &fields.node;
        node.note(
            Verdict::Translated,
            format!("where nothing is said, {}", words.join(", ")),
        );
    }
}

/// Settles which model is drawn with: the arguments go before the pipeline's environment, that before the application's.
fn model(
    deployments: &mut [Deployment],
    args: Args,
    of_pipeline: Option<&env::Named<'_>>,
    of_application: Option<&env::Named<'_>>,
) {
    let named = of_pipeline.or(of_application);
    let model = match (args.model, named) {
        (Some(model), named) => {
            named.inspect(|named| named.unused("args.model"));
            model
        }
        (None, Some(named)) => named.folder(),
        (None, None) => String::new(),
    };
    if let (Some(first), Some(other)) = (of_pipeline, of_application) {
        other.unused(&format!("{} of the deployment", first.name()));
    }
    let usual = if model == "fake" { "fake" } else { "onnx" };
    let engine = args.engine.unwrap_or_else(|| usual.to_owned());
    for deployment in deployments {
        deployment.model.clone_from(&model);
        deployment.models.clone_from(&args.models);
        deployment.max_models = args.max_models.unwrap_or(deployment.max_models);
        if deployment.kind == Kind::Inference {
            deployment.engine.clone_from(&engine);
            deployment.options.clone_from(&args.options);
        }
    }
}
