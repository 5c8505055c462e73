//! An application of the table from what the controller says of it: which deployment does what, and its pools.

//!
//! Where several deployments do the same, as while an application goes from one graph to another, the first one that has a
//! replica does it. The others keep their replicas for requests that have begun there.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use mobula_proto::control::v1::{ApplicationRoute, DeploymentRoute, Stage, WorkerKind};

use super::{Application, Fleet, Split, Table};
use crate::{channels::Channels, metrics::Ingress, pool::Pool};

/// The deployment that does a stage; one of all stages does it too.
fn of_stage(route: &ApplicationRoute, stage: Stage) -> Option<&DeploymentRoute> {
    first(route, |d| {
        d.kind() == WorkerKind::Inference && (d.stages.is_empty() || d.stages().any(|s| s == stage))
    })
}

/// The first deployment that will do and has a replica, or else the first.
fn first(route: &ApplicationRoute, will_do: impl Fn(&DeploymentRoute) -> bool) -> Option<&DeploymentRoute> {
    let all = || route.deployments.iter().filter(|d| will_do(d));
    all().find(|d| !d.replicas.is_empty()).or_else(|| all().next())
}

/// Models of which every part beside the denoiser has a replica; none where one has not said what it is.
fn whole(split: &Split) -> Option<BTreeSet<String>> {
    let (texts, pictures) = split.encode_text.digests().zip(split.decode.digests())?;
    Some(texts.intersection(&pictures).cloned().collect())
}

/// Pools by application and deployment.
pub(super) type Pools = HashMap<(String, String), Arc<Pool>>;

impl Fleet {
    /// An application, and the pools of deployments that others have taken the place of and that have no replica left.
    pub(super) fn application<'r>(
        &self,
        route: &'r ApplicationRoute,
        before: &Table,
        pools: &mut Pools,
        channels: &mut Channels,
    ) -> (Application, Vec<Arc<Pool>>) {
        let mut serving: HashSet<&str> = HashSet::new();
        let mut pool_of = |deployment: &'r DeploymentRoute| {
            let key = (route.name.clone(), deployment.name.clone());
            let make = || Arc::new(Pool::new(&route.name, &deployment.name, self.settings.clone()));
            let pool = Arc::clone(pools.entry(key).or_insert_with(make));
            pool.metrics.route(&route.route_prefix);
            pool.serve();
            pool.update(deployment, channels);
            serving.insert(&deployment.name);
            pool
        };
        let tokenizes = first(route, |d| d.kind() == WorkerKind::Preprocess);
        let preprocess = tokenizes.map(&mut pool_of);
        let draws = of_stage(route, Stage::Denoise);
        let mut pipeline = draws.map(&mut pool_of);
        let mut split = None;
        if draws.is_some_and(|d| !d.stages.is_empty()) {
            let [encode_text, decode, encode] =
                [Stage::EncodeText, Stage::Decode, Stage::Encode].map(|stage| of_stage(route, stage));
            split = encode_text.zip(decode).map(|(encode_text, decode)| Split {
                encode_text: pool_of(encode_text),
                decode: pool_of(decode),
                // Without a VAE encoder no picture is started from, which the model says.
                encode: pool_of(encode.unwrap_or(decode)),
            });
            // A denoiser alone draws nothing.
            pipeline = pipeline.filter(|_| split.is_some());
        }
        if let Some(pool) = &pipeline {
            pool.set_whole(split.as_ref().and_then(whole));
        }
        let beside = route.deployments.iter().filter(|d| !serving.contains(&*d.name));
        let leaves = beside.filter_map(|deployment| {
            let pool = pools.get(&(route.name.clone(), deployment.name.clone()))?;
            if !deployment.replicas.is_empty() {
                pool.update(deployment, channels);
                return None;
            }
            pool.retire();
            Some(Arc::clone(pool))
        });
        let leaves = leaves.collect();
        let reported = pipeline
            .iter()
            .flat_map(|pool| pool.replicas())
            .find_map(|replica| replica.model(None));
        let before = before.find(&route.name);
        let known = || before.and_then(|application| application.model.clone());
        // What callers reach of an application is the deployment that draws.
        let deployment = draws.map_or("", |deployment| &*deployment.name);
        let ingress = before
            .map(|application| &application.ingress)
            .filter(|ingress| ingress.is(&route.name, deployment, &route.route_prefix));
        let make = || Arc::new(Ingress::new(&route.name, deployment, &route.route_prefix));
        let statistics = before.map(|application| Arc::clone(&application.statistics));
        let application = Application {
            name: route.name.clone(),
            route_prefix: route.route_prefix.clone(),
            img_size: route.img_size,
            preprocess,
            pipeline,
            split,
            model: reported.or_else(known),
            ingress: ingress.map_or_else(make, Arc::clone),
            statistics: statistics.unwrap_or_default(),
        };
        (application, leaves)
    }
}
