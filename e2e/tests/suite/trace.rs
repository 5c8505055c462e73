//! One trace spans the whole request, from the proxy through preprocess to the engine's stages; and none of it is lost when
//! the mesh stops.

use mobula_e2e::{Collector, Up, draw, prompt};
use nix::sys::signal::Signal;

/// What the engine does for one picture.
const STAGES: [&str; 4] = ["encode_text", "denoise", "decode", "encode_image"];

#[tokio::test]
async fn one_trace_spans_proxy_preprocess_and_every_stage() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let endpoint = format!("http://{}", collector.address);
    let mut up = Up::start(
        &["--engine", "fake"],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)],
    )
    .await?;
    draw(&up.client()?, prompt("a red circle", 7)).await?.picture()?;

    // A service that stops sends what it has: nothing has to be waited for.
    up.signal(Signal::SIGTERM)?;
    up.ended().await?;
    let spans = collector.spans();
    let root = spans
        .iter()
        .find(|span| span.service == "mobula-proxy" && span.name.ends_with("Generate"));
    let Some(root) = root else {
        anyhow::bail!("no root in {spans:#?}\n{}", up.output())
    };
    let trace: Vec<_> = spans
        .iter()
        .filter(|span| span.trace_id == root.trace_id)
        .collect();
    let has = |service: &str, name: &str| {
        trace
            .iter()
            .any(|span| span.service == service && span.name == name)
    };
    assert!(has("mobula-preprocess", "tokenize"), "{trace:#?}");
    for stage in STAGES {
        assert!(has("mobula-inference", stage), "{stage} is not in {trace:#?}");
    }
    // Every span but the root hangs below another one of the trace.
    let orphans: Vec<_> = trace
        .iter()
        .filter(|span| {
            !span.parent_id.is_empty() && !trace.iter().any(|other| other.span_id == span.parent_id)
        })
        .collect();
    assert!(orphans.is_empty(), "{orphans:#?}");
    Ok(())
}
