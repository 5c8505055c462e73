//! The `mobula` command against a mesh: what a user types, and what comes back.

use mobula_e2e::{Up, decode, get, until};
use nix::sys::signal::Signal;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_user_draws_looks_and_is_told_what_is_wrong() -> anyhow::Result<()> {
    let mut up = Up::start(&["--engine", "fake"], &[]).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("out.png").display().to_string();

    let output = up
        .mobula(&["imagine", "a red circle", "-o", &file, "--seed", "7"])
        .await?;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("seed 7"),
        "{}",
        text(&output.stdout)
    );
    let one = std::fs::read(&file)?;
    decode(&one)?;

    let output = up
        .mobula(&["imagine", "a red circle", "-o", "-", "--seed", "7", "-q"])
        .await?;
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(output.stdout, one, "the same bytes, on standard output");

    let output = up
        .mobula(&["imagine", "two", "-o", &file, "--seed", "1", "--seed", "2"])
        .await?;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(folder.path().join("out-0.png").is_file() && folder.path().join("out-1.png").is_file());

    let output = up.mobula(&["imagine", "", "--width", "129", "-o", &file]).await?;
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(
        told.contains("  prompt: ") && told.contains("  width: "),
        "{told}"
    );

    let output = up.mobula(&["status"]).await?;
    let told = text(&output.stdout);
    assert!(
        output.status.success() && told.contains("RUNNING") && !told.contains('\u{1b}'),
        "{told}"
    );
    let output = up.mobula(&["status", "--json"]).await?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(status["applications"][0]["state"], "RUNNING", "{status}");
    assert_eq!(status["workers"].as_array().map(Vec::len), Some(2), "{status}");

    up.signal(Signal::SIGTERM)?;
    assert!(up.ended().await?.success(), "{}", up.output());
    let output = up.mobula(&["imagine", "a red circle", "-o", &file]).await?;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("start one with `mobula up`"),
        "{}",
        text(&output.stderr)
    );
    let output = up.mobula(&["status"]).await?;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("no controller at"),
        "{}",
        text(&output.stderr)
    );
    Ok(())
}

#[tokio::test]
async fn manifests_of_rays_samples_run_as_they_are_and_draw() -> anyhow::Result<()> {
    let up = Up::start(&["--engine", "fake"], &[]).await?;
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/schema/tests/samples");
    for sample in [
        "kuberay-stable-diffusion",
        "eks-stable-diffusion",
        "gke-stable-diffusion-tpu",
    ] {
        let file = format!("{samples}/{sample}.yaml");
        let output = up.mobula(&["deploy", &file, "--wait", "60"]).await?;
        assert!(output.status.success(), "{sample}: {}", text(&output.stderr));
        let picture = get(up.http(), "/imagine?prompt=a%20cat&img_size=64").await?;
        assert_eq!(picture.status, 200, "{sample}");
        decode(&picture.body)?;
    }
    Ok(())
}

#[tokio::test]
async fn an_interrupted_user_frees_the_mesh() -> anyhow::Result<()> {
    // 500 steps of 100 ms.
    let up = Up::serving(
        "
applications:
- name: slow
  route_prefix: /
  import_path: mobula.image:text_to_image
  args: {model: fake, options: {base_us: 100000}}
",
    )
    .await?;
    let folder = tempfile::tempdir()?;
    let mut imagine = tokio::process::Command::new(Up::command()?)
        .args(["imagine", "a red circle", "--steps", "500", "-o", "out.png"])
        .current_dir(folder.path())
        .env("MOBULA_SERVER", up.grpc().to_string())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let ongoing = async || -> Option<u32> {
        let status = up.status().await.ok()?;
        let replicas = status
            .applications
            .iter()
            .flat_map(|a| &a.deployments)
            .flat_map(|d| &d.replicas);
        Some(
            replicas
                .filter_map(|r| r.load.as_ref())
                .map(|load| load.ongoing_requests)
                .sum(),
        )
    };
    until("the request at its replica", || async {
        ongoing().await.filter(|n| *n > 0)
    })
    .await?;
    let pid = imagine
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .unwrap_or_default();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGINT)?;
    let output = imagine.wait().await?;
    assert_eq!(output.code(), Some(130));
    until("an idle replica", || async {
        ongoing().await.filter(|n| *n == 0)
    })
    .await?;
    assert!(!folder.path().join("out.png").exists());
    Ok(())
}

#[tokio::test]
async fn imagine_waits_for_a_mesh_that_is_on_its_way() -> anyhow::Result<()> {
    let up = Up::spawn(&["--engine", "fake"], &[], None)?;
    let output = up
        .mobula(&["imagine", "a red circle", "-o", "-", "-q", "--wait", "60"])
        .await?;
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output.stderr),
        up.output()
    );
    decode(&output.stdout)?;
    Ok(())
}

#[tokio::test]
async fn two_meshes_do_not_share_a_state_folder() -> anyhow::Result<()> {
    let up = Up::start(&["--engine", "fake"], &[]).await?;
    let free = "127.0.0.1:0";
    let output = tokio::process::Command::new(Up::command()?)
        .args([
            "up",
            "--engine",
            "fake",
            "--http",
            free,
            "--grpc",
            free,
            "--controller",
            free,
        ])
        .args([
            "--proxy-admin",
            free,
            "--controller-admin",
            free,
            "--rest",
            free,
            "--state-dir",
        ])
        .arg(up.state_dir())
        .output()
        .await?;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("uses the state folder"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(up.processes().len(), 5, "the first mesh is undisturbed");
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_named_before_anything_starts() -> anyhow::Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let folder = tempfile::tempdir()?;
    let output = tokio::process::Command::new(Up::command()?)
        .args([
            "up",
            "--engine",
            "fake",
            "--http",
            "127.0.0.1:0",
            "--grpc",
            &address,
            "--state-dir",
        ])
        .arg(folder.path())
        .output()
        .await?;
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(
        told.contains(&format!("--grpc {address}: the port is in use")),
        "{told}"
    );
    Ok(())
}

#[tokio::test]
async fn a_broken_model_ends_the_start_with_the_file_that_is_wrong() -> anyhow::Result<()> {
    let model = tempfile::tempdir()?;
    std::fs::write(model.path().join("model_index.json"), "{}")?;
    let folder = model.path().display().to_string();
    let Err(error) = Up::start(&["--model", &folder], &[]).await else {
        anyhow::bail!("it came up")
    };
    let told = format!("{error:#}");
    assert!(
        told.contains("the mesh cannot draw") && told.contains("model_index.json"),
        "{told}"
    );
    Ok(())
}
