//! The control plane as processes: what is deployed, changed, asked and taken back, by command and over REST.

use http::{Method, StatusCode};
use mobula_e2e::{Answer, Up, draw, get, prompt, send, until};
use mobula_proto::control::v1::ApplicationState;
use mobula_proto::image::v1::GenerateRequest;
use serde_json::{Value, json};

/// A second application beside the one that `mobula up --engine fake` serves.
const ART: &str = "
name: art
route_prefix: /art
import_path: mobula.image:text_to_image
args: {model: fake}
deployments:
- name: preprocess
  ray_actor_options: {num_cpus: 0.1}
- name: pipeline
  num_replicas: 1
  ray_actor_options: {num_cpus: 0.1}
";

/// A request for an application.
fn of(application: &str, seed: u64) -> GenerateRequest {
    GenerateRequest {
        model: application.into(),
        steps: Some(4),
        ..prompt("a red circle", seed)
    }
}

async fn picture(up: &Up, application: &str) -> anyhow::Result<String> {
    let drawn = draw(&up.client()?, of(application, 7)).await?;
    Ok(drawn.picture()?.digest.clone())
}

async fn names(up: &Up) -> anyhow::Result<Vec<String>> {
    let applications = up.status().await?.applications;
    Ok(applications.into_iter().map(|a| a.name).collect())
}

async fn rest(
    up: &Up,
    method: Method,
    path: &str,
    if_match: Option<&str>,
    body: &str,
) -> anyhow::Result<Answer> {
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("accept", "application/json");
    if let Some(tag) = if_match {
        request = request.header("if-match", tag);
    }
    send(up.rest(), request.body(body.to_owned())?).await
}

fn parsed(answer: &Answer) -> anyhow::Result<Value> {
    serde_json::from_str(&answer.text()).map_err(|error| anyhow::anyhow!("{error}: {}", answer.text()))
}

#[tokio::test]
async fn a_second_application_is_deployed_scaled_taken_back_and_deleted_by_command() -> anyhow::Result<()> {
    let up = Up::start(&["--engine", "fake"], &[]).await?;
    up.write("art.yaml", ART)?;

    let told = up
        .told(&["deploy", "--application", "art.yaml", "--dry-run"])
        .await?;
    assert!(told.contains("+ art") && told.contains("dry run"), "{told}");
    assert_eq!(names(&up).await?, ["default"], "a dry run deploys nothing");

    let told = up
        .told(&[
            "deploy",
            "--application",
            "art.yaml",
            "--wait",
            "60",
            "--reason",
            "more art",
        ])
        .await?;
    assert!(told.contains("+ art") && told.contains("accepted"), "{told}");
    assert_eq!(names(&up).await?, ["art", "default"]);
    let drawn = picture(&up, "art").await?;

    let told = up.told(&["deploy", "--application", "art.yaml"]).await?;
    assert!(told.contains("nothing changes"), "{told}");

    let told = up.told(&["scale", "art/pipeline", "2"]).await?;
    assert!(told.contains("num_replicas: 1 -> 2"), "{told}");
    up.settled("art", "pipeline", 2).await?;
    let told = up.told(&["config", "art"]).await?;
    assert!(told.contains("num_replicas: 2"), "{told}");

    let told = up.told(&["history"]).await?;
    let lines: Vec<&str> = told.lines().filter(|line| !line.starts_with(' ')).collect();
    assert!(
        lines[0].contains(" scale ") && lines[0].contains("(current)"),
        "{told}"
    );
    assert!(
        lines[1].contains(" put ") && lines[1].ends_with(": more art"),
        "{told}"
    );

    let told = up.told(&["rollback"]).await?;
    assert!(told.contains("num_replicas: 2 -> 1"), "{told}");
    up.settled("art", "pipeline", 1).await?;

    let told = up.told(&["delete", "art"]).await?;
    assert!(told.contains("- art"), "{told}");
    up.deleted("art").await?;
    assert!(picture(&up, "art").await.is_err(), "nobody draws for it any more");
    picture(&up, "default").await?;

    let output = up.mobula(&["delete", "art"]).await?;
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("there is no application \"art\""), "{told}");

    up.told(&["rollback"]).await?;
    up.settled("art", "pipeline", 1).await?;
    assert_eq!(picture(&up, "art").await?, drawn);
    Ok(())
}

#[tokio::test]
async fn check_lists_every_problem_with_its_path_and_line() -> anyhow::Result<()> {
    let up = Up::start(&["--engine", "fake"], &[]).await?;
    up.write(
        "bad.yaml",
        "applications:
- name: bad
  import_path: mobula.image:text_to_image
  args: {model: fake}
  deployments:
  - name: pipeline
    num_replicas: -1
  - name: nobody
",
    )?;
    for arguments in [
        ["check", "bad.yaml"].as_slice(),
        &["check", "bad.yaml", "--against"],
    ] {
        let output = up.mobula(arguments).await?;
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        for part in [
            "line 7: applications[0].deployments[0].num_replicas: refused: ",
            "line 8: applications[0].deployments[1].name: refused: ",
        ] {
            assert!(told.contains(part), "{arguments:?} lacks {part:?}: {told}");
        }
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("2 problems"),
            "{:?}",
            output.stderr
        );
    }
    let before = up.told(&["config", "--json"]).await?;
    let output = up.mobula(&["deploy", "bad.yaml"]).await?;
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains("applications[0].deployments[0].num_replicas") && told.contains("nobody"),
        "{told}"
    );
    assert_eq!(up.told(&["config", "--json"]).await?, before);
    picture(&up, "default").await?;
    Ok(())
}

#[tokio::test]
async fn everything_that_is_shown_can_be_explained() -> anyhow::Result<()> {
    let up = Up::start(&["--engine", "fake"], &[]).await?;
    let drawn = draw(&up.client()?, of("default", 3)).await?;
    drawn.picture()?;
    let replica = drawn.replicas.first().cloned().unwrap_or_default();

    let told = up.told(&["explain", "replica", &replica]).await?;
    assert!(told.contains("RUNNING"), "{told}");
    let told = up.told(&["explain", "deployment", "default/pipeline"]).await?;
    assert!(told.contains("HEALTHY") && told.contains("1"), "{told}");
    let told = up.told(&["explain", "application", "default"]).await?;
    assert!(told.contains("RUNNING"), "{told}");
    // Proxies tell of ended requests with their next report.
    let told = until("the request to be known", || async {
        up.told(&["explain", "request", &drawn.request_id]).await.ok()
    })
    .await?;
    assert!(told.contains(&replica), "{told}");

    let output = up.mobula(&["explain", "replica", "nobody"]).await?;
    assert_eq!(output.status.code(), Some(1));

    // What cannot be placed says why.
    up.write("big.yaml", &ART.replace("num_cpus: 0.1", "num_cpus: 4096"))?;
    up.told(&["deploy", "--application", "big.yaml"]).await?;
    let told = until("a reason", || async {
        let told = up.told(&["explain", "deployment", "art/pipeline"]).await.ok()?;
        told.contains("4096").then_some(told)
    })
    .await?;
    assert!(told.contains("start a larger worker or lower num_cpus"), "{told}");
    assert!(
        up.named("mobula-inference").len() <= 2,
        "no worker is started for what none could hold, but one to see what it has"
    );
    Ok(())
}

#[tokio::test]
async fn applications_are_put_read_and_deleted_over_rest_and_stale_writes_are_refused() -> anyhow::Result<()>
{
    let up = Up::start(&["--engine", "fake"], &[]).await?;
    let path = "/api/serve/applications/art";
    let body = json!({
        "route_prefix": "/art",
        "import_path": "mobula.image:text_to_image",
        "args": {"model": "fake"},
        "deployments": [{"name": "pipeline", "ray_actor_options": {"num_cpus": 0.1}}],
    });

    let dry = rest(
        &up,
        Method::PUT,
        &format!("{path}?dry_run=true"),
        None,
        &body.to_string(),
    )
    .await?;
    assert_eq!(dry.status, StatusCode::OK, "{}", dry.text());
    assert_eq!(parsed(&dry)?["changes"][0]["kind"], "ADDED", "{}", dry.text());
    assert_eq!(get(up.rest(), path).await?.status, StatusCode::NOT_FOUND);

    let put = rest(&up, Method::PUT, path, None, &body.to_string()).await?;
    assert_eq!(put.status, StatusCode::OK, "{}", put.text());
    let first = put.header("etag").to_owned();
    up.settled("art", "pipeline", 1).await?;
    let read = get(up.rest(), path).await?;
    let details = parsed(&read)?;
    assert_eq!(read.header("etag"), first);
    assert_eq!(details["status"], "RUNNING", "{details}");
    assert_eq!(details["deployed_app_config"]["args"], body["args"]);
    picture(&up, "art").await?;

    let mut more = body.clone();
    more["deployments"][0]["num_replicas"] = json!(2);
    let put = rest(&up, Method::PUT, path, Some(&first), &more.to_string()).await?;
    assert_eq!(put.status, StatusCode::OK, "{}", put.text());
    assert_eq!(parsed(&put)?["changes"][0]["effect"], "SCALE", "{}", put.text());
    let second = put.header("etag").to_owned();
    assert_ne!(first, second);
    up.settled("art", "pipeline", 2).await?;

    let stale = rest(&up, Method::PUT, path, Some(&first), &body.to_string()).await?;
    assert_eq!(stale.status, StatusCode::CONFLICT, "{}", stale.text());
    assert_eq!(
        format!("\"{}\"", parsed(&stale)?["resource_version"]),
        second,
        "the answer says which it is"
    );
    let stale = rest(&up, Method::DELETE, path, Some(&first), "").await?;
    assert_eq!(stale.status, StatusCode::CONFLICT, "{}", stale.text());
    up.settled("art", "pipeline", 2).await?;

    let gone = rest(&up, Method::DELETE, path, Some(&second), "").await?;
    assert_eq!(gone.status, StatusCode::OK, "{}", gone.text());
    up.deleted("art").await?;
    assert_eq!(
        rest(&up, Method::DELETE, path, None, "").await?.status,
        StatusCode::NOT_FOUND
    );
    Ok(())
}

#[tokio::test]
async fn a_backup_is_restored_in_another_mesh() -> anyhow::Result<()> {
    let up = Up::start(&["--engine", "fake"], &[]).await?;
    up.write("art.yaml", ART)?;
    up.told(&["deploy", "--application", "art.yaml", "--wait", "60"])
        .await?;
    up.told(&["backup", "mesh.json"]).await?;
    let backup = std::fs::read_to_string(up.state_dir().with_file_name("mesh.json"))?;
    let config = up.told(&["config", "--json"]).await?;

    let other = Up::start(&["--engine", "fake"], &[]).await?;
    other.write("damaged.json", &backup[..backup.len() / 2])?;
    let output = other.mobula(&["restore", "damaged.json"]).await?;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        names(&other).await?,
        ["default"],
        "a damaged backup changes nothing"
    );

    other.write("mesh.json", &backup)?;
    let told = other.told(&["restore", "mesh.json"]).await?;
    assert!(told.contains("+ art"), "{told}");
    other.settled("art", "pipeline", 1).await?;
    assert_eq!(other.told(&["config", "--json"]).await?, config);
    assert_eq!(picture(&other, "art").await?, picture(&up, "art").await?);
    Ok(())
}

#[tokio::test]
async fn what_was_deployed_over_the_api_outlives_the_controller_and_its_replicas_are_adopted()
-> anyhow::Result<()> {
    let up = Up::start(&["--engine", "fake"], &[]).await?;
    up.write("art.yaml", ART)?;
    up.told(&["deploy", "--application", "art.yaml", "--wait", "60"])
        .await?;
    up.told(&["scale", "art/pipeline", "2"]).await?;
    let replicas = up.settled("art", "pipeline", 2).await?;
    let (config, history) = (
        up.told(&["config", "--json"]).await?,
        up.told(&["history", "--json"]).await?,
    );
    let workers = || {
        let mut pids: Vec<i32> = [up.named("mobula-inference"), up.named("mobula-preprocess")]
            .concat()
            .into_iter()
            .map(|process| process.pid)
            .collect();
        pids.sort_unstable();
        pids
    };
    let before = workers();

    for controller in up.named("mobula-controller") {
        controller.kill()?;
    }
    until("another controller", || async {
        let status = up.status().await.ok()?;
        let all = status
            .applications
            .iter()
            .all(|a| a.state() == ApplicationState::Running);
        (all && status.applications.len() == 2).then_some(())
    })
    .await
    .map_err(|error| error.context(up.output()))?;
    let adopted = up.settled("art", "pipeline", 2).await?;
    assert_eq!(adopted, replicas, "{}", up.output());
    assert_eq!(workers(), before, "no worker was started again");
    assert_eq!(up.told(&["config", "--json"]).await?, config);
    assert_eq!(up.told(&["history", "--json"]).await?, history);
    picture(&up, "art").await?;
    picture(&up, "default").await?;
    Ok(())
}
