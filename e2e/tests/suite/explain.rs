//! What proxies tell of their replicas, explained by command. The proxy is one of the test's own: what makes one leave a replica
//! out is tried with the proxy itself.

use mobula_e2e::{Up, draw, prompt, until};
use mobula_kit::channel;
use mobula_proto::control::v1::control_service_client::ControlServiceClient;
use mobula_proto::control::v1::{ReportDemandRequest, RestrainedReplica, WatchRoutesRequest};
use tokio_stream::StreamExt as _;

#[tokio::test]
async fn a_replica_that_a_proxy_ejects_is_explained_for_as_long_as_the_proxy_says_so() -> anyhow::Result<()> {
    let up = Up::start(&["--engine", "fake"], &[]).await?;
    let drawn = draw(&up.client()?, prompt("a red circle", 3)).await?;
    let replica = drawn.replicas.first().cloned().unwrap_or_default();

    let mut client = ControlServiceClient::new(channel::lazy(&up.controller().to_string())?);
    let watch = WatchRoutesRequest {
        proxy_id: "tester".into(),
        http_address: "127.0.0.1:1".into(),
        grpc_address: "127.0.0.1:2".into(),
    };
    let _routes = client.watch_routes(watch).await?.into_inner();
    let report = ReportDemandRequest {
        proxy_id: "tester".into(),
        restrained: vec![RestrainedReplica {
            replica_id: replica.clone(),
            ejected_ms: 600_000,
            ejections: 2,
            slow_start_ms: 610_000,
        }],
        ..Default::default()
    };
    // The stream stays open: what was said on it is forgotten with it.
    let reports = tokio_stream::iter([report]).chain(tokio_stream::pending());
    let told = tokio::spawn(async move { client.report_demand(reports).await });
    for subject in [["replica", &replica], ["deployment", "default/pipeline"]] {
        let text = until("the ejection", || async {
            let told = up.told(&["explain", subject[0], subject[1]]).await.ok()?;
            told.contains("ejected").then_some(told)
        })
        .await?;
        let says = format!("{replica} is sent nothing by tester for ");
        assert!(
            text.contains(&says) && text.contains("for the 2. time in a row"),
            "{text}"
        );
        assert!(text.contains("what to do: see the log of the worker"), "{text}");
    }
    told.abort();
    until("the end of what was said", || async {
        let told = up.told(&["explain", "replica", &replica]).await.ok()?;
        (!told.contains("ejected")).then_some(())
    })
    .await
}
