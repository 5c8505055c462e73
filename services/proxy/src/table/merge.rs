//! What a table keeps of the one before while workers come back to a controller that has just started. Pure.

use std::collections::HashMap;

use mobula_proto::control::v1::{ApplicationRoute, ReplicaEndpoint, WatchRoutesResponse};

/// What `next` says, and what `before` had besides; true when something was kept. Linear in what both say.
pub(super) fn merge(before: &WatchRoutesResponse, next: &WatchRoutesResponse) -> (WatchRoutesResponse, bool) {
    let mut merged = next.clone();
    let mut kept = false;
    let places = places(&next.applications, |application| &application.name);
    for old in &before.applications {
        match places.get(&*old.name) {
            Some(place) => kept |= merge_application(&mut merged.applications[*place], old),
            None => {
                merged.applications.push(old.clone());
                kept = true;
            }
        }
    }
    (merged, kept)
}

fn merge_application(next: &mut ApplicationRoute, before: &ApplicationRoute) -> bool {
    let mut kept = false;
    for old in &before.deployments {
        // An application has a handful.
        let Some(deployment) = next.deployments.iter_mut().find(|d| d.name == old.name) else {
            next.deployments.push(old.clone());
            kept = true;
            continue;
        };
        let said = places(&deployment.replicas, |replica| &replica.replica_id);
        let lacks = |old: &&ReplicaEndpoint| !said.contains_key(&*old.replica_id);
        let lacking: Vec<_> = old.replicas.iter().filter(lacks).cloned().collect();
        kept |= !lacking.is_empty();
        deployment.replicas.extend(lacking);
    }
    kept
}

/// Where the first of each name is.
fn places<T>(all: &[T], name: impl Fn(&T) -> &str) -> HashMap<&str, usize> {
    let each = all.iter().enumerate().rev();
    each.map(|(place, one)| (name(one), place)).collect()
}
