//! Which replicas the proxies send less than their share, and why: each proxy decides by what it saw itself.

use mobula_proto::control::v1 as pb;

use super::{Sheet, request::seconds};

/// Replicas and proxies that are told of, of each finding.
const TOLD: usize = 5;

/// Adds what the proxies say of these replicas.
pub(super) fn add(replicas: &[pb::ReplicaStatus], status: &pb::GetStatusResponse, sheet: &mut Sheet) {
    let is_asked = |id: &str| replicas.iter().any(|replica| replica.replica_id == id);
    let said = || {
        let proxies = status.proxies.iter();
        proxies
            .flat_map(|proxy| proxy.restrained.iter().map(move |said| (proxy, said)))
            .filter(|(_, said)| is_asked(&said.replica_id))
    };
    let time = |ms: u64| seconds(ms.saturating_mul(1000));
    for (proxy, said) in said().filter(|(_, said)| said.ejected_ms > 0).take(TOLD) {
        let times = match said.ejections {
            0 | 1 => String::new(),
            times => format!(", for the {times}. time in a row"),
        };
        let text = format!(
            "{} is sent nothing by {} for {} more{times}: it failed requests that it took; then it gets more and more, and all \
             of its share in {}",
            said.replica_id,
            proxy.proxy_id,
            time(said.ejected_ms),
            time(said.slow_start_ms),
        );
        sheet.find("ejected", text);
        sheet.advise(format!(
            "see the log of the worker of {} for why its requests fail",
            said.replica_id
        ));
    }
    let slow = said().filter(|(_, said)| said.ejected_ms == 0 && said.slow_start_ms > 0);
    for (proxy, said) in slow.take(TOLD) {
        let text = format!(
            "{} is new to {}, or came back: it gets more and more, and all of its share in {}",
            said.replica_id,
            proxy.proxy_id,
            time(said.slow_start_ms),
        );
        sheet.find("slow start", text);
    }
}
