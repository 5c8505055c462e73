//! What Prometheus reads of a mesh: every page of every process, strictly.

use std::collections::BTreeSet;

use mobula_e2e::{Up, draw, exposition, get, prompt, send};

/// A name that has to be escaped in labels.
const CONFIG: &str = r#"
applications:
- name: 'a "quoted" \ name'
  route_prefix: /
  import_path: mobula.image:text_to_image
  args: {model: fake}
"#;

#[tokio::test]
async fn every_metrics_page_of_a_mesh_is_read_strictly_and_its_counters_only_grow() -> anyhow::Result<()> {
    let up = Up::serving(CONFIG).await?;
    let ask = async |seed: u64| -> anyhow::Result<()> {
        draw(&up.client()?, prompt("a red circle", seed)).await?;
        assert_eq!(get(up.http(), "/imagine?prompt=a%20cat").await?.status, 200);
        assert_eq!(get(up.http(), "/imagine?prompt=").await?.status, 422);
        assert_eq!(get(up.http(), "/nothing").await?.status, 404);
        let body = r#"{"prompt": "a cat", "model": "no \"such\"\nmodel"}"#.to_owned();
        let request =
            http::Request::post("/v1/images/generations").header("content-type", "application/json");
        assert_eq!(send(up.http(), request.body(body)?).await?.status, 404);
        Ok(())
    };
    ask(1).await?;
    let before = pages(&up).await?;
    let services: BTreeSet<_> = before.iter().map(|(name, _)| name.as_str()).collect();
    let wanted = [
        "mobula-controller",
        "mobula-inference",
        "mobula-preprocess",
        "mobula-proxy",
    ];
    assert!(services.iter().copied().eq(wanted), "{services:?}");
    for (name, page) in &before {
        for metric in [
            "mobula_build_info",
            "process_resident_memory_bytes",
            "mobula_grpc_requests_total",
        ] {
            let is_there = page.keys().any(|(known, _)| known == metric);
            assert!(is_there, "{name} has no {metric}");
        }
    }
    let shown = before.iter().flat_map(|(_, page)| page.keys());
    let mut applications = shown.filter_map(|(_, labels)| labels.get("application"));
    assert!(applications.any(|name| name == r#"a "quoted" \ name"#));

    ask(2).await?;
    for ((name, old), (_, new)) in before.iter().zip(pages(&up).await?) {
        for ((metric, labels), was) in old.iter().filter(|((metric, _), _)| metric.ends_with("_total")) {
            let is = new.get(&(metric.clone(), labels.clone()));
            assert!(
                is.is_some_and(|is| is >= was),
                "{name} {metric} {labels:?}: {was}, then {is:?}"
            );
        }
    }
    Ok(())
}

/// The metrics pages of all services, by the names of their binaries.
async fn pages(up: &Up) -> anyhow::Result<Vec<(String, exposition::Page)>> {
    let mut pages = Vec::new();
    for process in up.processes() {
        for address in process.listens() {
            // The admin port is the one that says so; the others speak something else.
            let answer = get(address, "/metrics").await;
            let Some(answer) = answer.ok().filter(|answer| answer.status == 200) else {
                continue;
            };
            assert_eq!(
                answer.header("content-type"),
                "text/plain; version=0.0.4; charset=utf-8"
            );
            let page = exposition::read(&answer.text());
            let page = page.map_err(|error| error.context(process.name.clone()))?;
            pages.push((process.name.clone(), page));
        }
    }
    pages.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(pages)
}
