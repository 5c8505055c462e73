//! `mobula up` as a user runs it: processes that are killed one after the other under load, and what is left behind.

use mobula_e2e::{Load, Up, draw, prompt, until};
use mobula_proto::image::v1::GenerateRequest;
use nix::sys::signal::Signal;

const CALLERS: usize = 4;

/// The fake engine at 1 ms a step, with two inference workers.
const CONFIG: &str = "
applications:
- name: fake
  route_prefix: /
  import_path: mobula.image:text_to_image
  args:
    model: fake
    options: {base_us: 1000}
  deployments:
  - name: pipeline
    num_replicas: 2
    ray_actor_options: {num_cpus: 1}
";

fn numbered(n: usize) -> GenerateRequest {
    GenerateRequest {
        steps: Some(20),
        ..prompt("a picture under load", n as u64)
    }
}

#[tokio::test]
async fn every_process_can_be_killed_under_load_and_no_request_fails() -> anyhow::Result<()> {
    let mut up = Up::serving(CONFIG).await?;
    until("two inference workers", || async {
        (up.named("mobula-inference").len() == 2).then_some(())
    })
    .await?;
    let load = Load::start(&up.client()?, CALLERS, numbered);
    load.more(CALLERS * 2).await?;

    for name in [
        "mobula-inference",
        "mobula-preprocess",
        "mobula-controller",
        "mobula-proxy",
    ] {
        let before = up.named(name);
        for victim in &before {
            victim.kill()?;
            until(&format!("another {name} for {}", victim.pid), || async {
                let now = up.named(name);
                (now.len() == before.len() && !now.contains(victim)).then_some(())
            })
            .await
            .map_err(|error| error.context(up.output()))?;
            load.more(CALLERS * 2)
                .await
                .map_err(|error| error.context(up.output()))?;
        }
    }

    let report = load.finish().await;
    assert!(report.failures.is_empty(), "{report:?}\n{}", up.output());
    assert!(
        report.cut <= CALLERS,
        "only the killed proxy's own connections break: {report:?}"
    );

    up.signal(Signal::SIGTERM)?;
    let status = up.ended().await?;
    assert!(status.success(), "{status}: {}", up.output());
    up.gone().await
}

#[tokio::test]
async fn replicas_outlive_their_controller() -> anyhow::Result<()> {
    let up = Up::start(&["--engine", "fake"], &[]).await?;
    let workers = || [up.named("mobula-inference"), up.named("mobula-preprocess")].concat();
    let before = workers();
    let replicas = |status: mobula_proto::control::v1::GetStatusResponse| {
        let deployments = status
            .applications
            .into_iter()
            .flat_map(|application| application.deployments);
        deployments
            .flat_map(|deployment| deployment.replicas)
            .map(|replica| replica.replica_id)
            .collect::<Vec<_>>()
    };
    let old = replicas(up.status().await?);
    for controller in up.named("mobula-controller") {
        controller.kill()?;
    }
    let new = until("a controller with the replicas", || async {
        let status = up.status().await.ok()?;
        let running = status
            .applications
            .iter()
            .all(|application| application.state() == mobula_proto::control::v1::ApplicationState::Running);
        (running && !status.applications.is_empty()).then(|| replicas(status))
    });
    assert_eq!(new.await?, old, "{}", up.output());
    assert_eq!(workers(), before);
    draw(&up.client()?, prompt("a red circle", 1)).await?.picture()?;
    Ok(())
}

#[tokio::test]
async fn nothing_outlives_a_killed_mobula_up() -> anyhow::Result<()> {
    let mut up = Up::start(&["--engine", "fake"], &[]).await?;
    assert_eq!(
        up.processes().len(),
        5,
        "up, controller, proxy and two workers: {:?}",
        up.processes()
    );
    up.signal(Signal::SIGKILL)?;
    up.ended().await?;
    up.gone().await
}

#[tokio::test]
async fn a_request_under_way_is_finished_before_the_mesh_stops() -> anyhow::Result<()> {
    let mut up = Up::serving(&CONFIG.replace("base_us: 1000", "base_us: 50000")).await?;
    let mut events = up.client()?.generate(numbered(1)).await?.into_inner();
    let mut drawn = false;
    let mut told = false;
    while let Some(message) = events.message().await? {
        use mobula_proto::image::v1::generate_response::Event;
        match message.event {
            Some(Event::Step(_)) if !told => {
                told = true;
                up.signal(Signal::SIGINT)?;
            }
            Some(Event::Image(_)) => drawn = true,
            _ => {}
        }
    }
    assert!(told && drawn, "{}", up.output());
    let status = up.ended().await?;
    assert!(status.success(), "{status}: {}", up.output());
    up.gone().await
}

#[tokio::test]
async fn a_second_interrupt_stops_at_once() -> anyhow::Result<()> {
    // 20 steps of 10 s: the request would hold up the stop for as long as it may take.
    let mut up = Up::serving(&CONFIG.replace("base_us: 1000", "base_us: 10000000")).await?;
    let mut client = up.client()?;
    let request = tokio::spawn(async move {
        let mut events = client.generate(numbered(1)).await?.into_inner();
        while events.message().await?.is_some() {}
        Ok::<(), tonic::Status>(())
    });
    until("the request at its replica", || async {
        let status = up.status().await.ok()?;
        let replicas = status
            .applications
            .iter()
            .flat_map(|a| &a.deployments)
            .flat_map(|d| &d.replicas);
        let ongoing: u32 = replicas
            .filter_map(|r| r.load.as_ref())
            .map(|load| load.ongoing_requests)
            .sum();
        (ongoing > 0).then_some(())
    })
    .await?;
    up.signal(Signal::SIGINT)?;
    until("the stop to begin", || async {
        up.output().contains("stopping").then_some(())
    })
    .await?;
    let began = tokio::time::Instant::now();
    up.signal(Signal::SIGINT)?;
    assert!(up.ended().await?.success(), "{}", up.output());
    up.gone().await?;
    assert!(began.elapsed().as_secs() < 10, "it took {:?}", began.elapsed());
    assert!(request.await?.is_err());
    Ok(())
}

#[tokio::test]
async fn a_mesh_that_cannot_come_up_says_what_it_waits_for_and_can_be_interrupted() -> anyhow::Result<()> {
    let config = CONFIG.replace("num_cpus: 1}", "num_cpus: 4096}");
    let mut up = Up::spawn(&[], &[], Some(&config))?;
    until("the reason", || async {
        up.output().contains("4096").then_some(())
    })
    .await
    .map_err(|error| error.context(up.output()))?;
    up.signal(Signal::SIGTERM)?;
    assert_eq!(up.ended().await?.code(), Some(130), "{}", up.output());
    up.gone().await
}
