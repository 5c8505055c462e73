//! What shall run, changed and asked for over real sockets.

use std::{path::Path, time::Duration};

use mobula_controller::{Config, Error, Listeners};
use mobula_kit::{Stop, status};
use mobula_proto::control::v1::{self as pb, serve_service_client::ServeServiceClient};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tonic::{Code, transport::Channel};

/// Nothing here takes as long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

const A: &str = "
name: a
route_prefix: /a
import_path: mobula.image:text_to_image
args: {model: fake}
deployments:
- name: pipeline
  num_replicas: 1
";

struct Controller {
    client: ServeServiceClient<Channel>,
    stop: Stop,
    task: JoinHandle<Result<(), Error>>,
}

impl Controller {
    async fn start(config: Config) -> Self {
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rest = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = grpc.local_addr().unwrap();
        let stop = Stop::new(Duration::from_secs(2));
        let listeners = Listeners {
            grpc: grpc.into(),
            rest: rest.into(),
            admin: admin.into(),
        };
        let task = tokio::spawn(mobula_controller::run(config, listeners, stop.clone()));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        let client = ServeServiceClient::new(channel.connect_lazy()).max_decoding_message_size(usize::MAX);
        Self { client, stop, task }
    }

    async fn at(dir: &Path) -> Self {
        let config = Config {
            state_dir: Some(dir.to_path_buf()),
            ..Config::default()
        };
        Self::start(config).await
    }

    async fn stop(self) {
        self.stop.trigger();
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
        timeout(PATIENCE, self.stop.wait()).await.unwrap();
    }

    async fn put(&mut self, config: &str, resource_version: u64) -> Result<pb::Accepted, tonic::Status> {
        let request = pb::PutApplicationRequest {
            config: config.into(),
            resource_version,
            ..Default::default()
        };
        let response = self.client.put_application(request).await?;
        Ok(response.into_inner().accepted.unwrap())
    }

    async fn config(&mut self, name: &str) -> Result<pb::GetConfigResponse, tonic::Status> {
        let request = pb::GetConfigRequest { name: name.into() };
        Ok(self.client.get_config(request).await?.into_inner())
    }

    async fn backup(&mut self) -> Vec<u8> {
        let mut pieces = self
            .client
            .backup(pb::BackupRequest {})
            .await
            .unwrap()
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await.unwrap() {
            bytes.extend_from_slice(&piece.data);
        }
        bytes
    }

    async fn restore(&mut self, bytes: &[u8]) -> Result<pb::Accepted, tonic::Status> {
        let pieces: Vec<_> = bytes
            .chunks(1000)
            .map(|data| pb::RestoreRequest {
                data: data.to_vec().into(),
            })
            .collect();
        let response = self.client.restore(tokio_stream::iter(pieces)).await?;
        Ok(response.into_inner().accepted.unwrap())
    }
}

#[tokio::test]
async fn a_controller_that_was_told_nothing_starts_empty_and_takes_a_config() {
    let mut controller = Controller::start(Config::default()).await;
    assert_eq!(
        controller.config("").await.unwrap().config,
        r#"{"applications":[]}"#
    );
    let request = pb::DeployRequest {
        config: format!(
            "applications:\n-{}",
            A.replace('\n', "\n  ").trim_start_matches("\n ")
        ),
        reason: "the first".into(),
        ..Default::default()
    };
    let accepted = controller
        .client
        .deploy(request)
        .await
        .unwrap()
        .into_inner()
        .accepted
        .unwrap();
    assert_eq!((accepted.resource_version, accepted.changes.len()), (1, 1));
    let history = controller
        .client
        .get_history(pb::GetHistoryRequest::default())
        .await
        .unwrap();
    let [revision] = &history.into_inner().revisions[..] else {
        panic!("one revision")
    };
    assert_eq!((revision.reason.as_str(), revision.current), ("the first", true));
    controller
        .client
        .get_status(pb::GetStatusRequest {})
        .await
        .unwrap();
    controller.stop().await;
}

#[tokio::test]
async fn every_problem_of_a_config_comes_back_with_its_field_and_line() {
    let mut controller = Controller::start(Config::default()).await;
    let broken = A.replace("num_replicas: 1", "num_replicas: -1\n  colour: red");
    let refused = controller.put(&broken, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let violations = status::violations(&refused);
    let fields: Vec<_> = violations.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(fields, ["deployments[0].num_replicas", "deployments[0].colour"]);
    assert!(violations[1].1.ends_with("(line 9)"), "{violations:?}");
    let config = format!("applications: [{{name: a}}, {{name: b, {}}}]", "x: 1, ".repeat(0));
    let request = pb::DeployRequest {
        config,
        ..Default::default()
    };
    let refused = controller.client.deploy(request).await.unwrap_err();
    let fields: Vec<_> = status::violations(&refused)
        .into_iter()
        .map(|(field, _)| field)
        .collect();
    for field in ["applications[0].import_path", "applications[1].import_path"] {
        assert!(fields.iter().any(|found| found == field), "{fields:?}");
    }
    controller.stop().await;
}

#[tokio::test]
async fn a_thousand_problems_fit_a_status() {
    let mut controller = Controller::start(Config::default()).await;
    let fields: String = (0..1000).map(|i| format!("unknown_field_{i}: 1\n")).collect();
    let refused = controller.put(&format!("{A}{fields}"), 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let violations = status::violations(&refused);
    let (_, last) = violations.last().unwrap();
    assert!(last.contains("more problems"), "{last}");
    controller.stop().await;
}

#[tokio::test]
async fn who_is_late_is_aborted_and_told_the_current_version() {
    let mut controller = Controller::start(Config::default()).await;
    let first = controller.put(A, 0).await.unwrap().resource_version;
    let second = controller
        .put(&A.replace("/a", "/b"), first)
        .await
        .unwrap()
        .resource_version;
    let refused = controller.put(&A.replace("/a", "/c"), first).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    assert_eq!(status::reason(&refused).as_deref(), Some("CONFLICT"));
    assert!(
        refused.message().contains(&format!("resource version {second}")),
        "{refused}"
    );
    let refused = controller
        .client
        .delete_application(pb::DeleteApplicationRequest {
            name: "a".into(),
            resource_version: first,
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    controller.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let mut controller = Controller::start(Config::default()).await;
    controller.put(A, 0).await.unwrap();
    let refused = controller.config("b").await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let request = pb::DeleteApplicationRequest {
        name: "b".into(),
        ..Default::default()
    };
    let refused = controller.client.delete_application(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let request = pb::ScaleRequest {
        application: "a".into(),
        deployment: "b".into(),
        replicas: 1,
        ..Default::default()
    };
    let refused = controller.client.scale(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let request = pb::RollbackRequest {
        to: 9,
        ..Default::default()
    };
    let refused = controller.client.rollback(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    controller.stop().await;
}

#[tokio::test]
async fn numbers_go_up_and_back_and_are_nobodys_where_a_scaler_counts() {
    let mut controller = Controller::start(Config::default()).await;
    controller.put(A, 0).await.unwrap();
    let scale = |replicas| pb::ScaleRequest {
        application: "a".into(),
        deployment: "pipeline".into(),
        replicas,
        ..Default::default()
    };
    let accepted = controller
        .client
        .scale(scale(3))
        .await
        .unwrap()
        .into_inner()
        .accepted
        .unwrap();
    assert_eq!(accepted.changes[0].effect(), pb::ChangeEffect::Scale);
    let request = pb::RollbackRequest::default();
    let accepted = controller
        .client
        .rollback(request)
        .await
        .unwrap()
        .into_inner()
        .accepted
        .unwrap();
    assert_eq!(
        (
            accepted.changes[0].before.as_str(),
            accepted.changes[0].after.as_str()
        ),
        ("3", "1")
    );
    let scales = A.replace(
        "num_replicas: 1",
        "autoscaling_config: {min_replicas: 1, max_replicas: 2}",
    );
    controller.put(&scales, 0).await.unwrap();
    let refused = controller.client.scale(scale(3)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    controller.stop().await;
}

#[tokio::test]
async fn a_check_answers_what_would_become_of_a_config() {
    let mut controller = Controller::start(Config::default()).await;
    let mut check = async |config: &str| {
        let request = pb::CheckRequest {
            config: config.into(),
        };
        controller.client.check(request).await.unwrap().into_inner()
    };
    let refused = check("applications: [{import_path: fruit:app}]").await;
    assert!(!refused.accepted);
    assert!(
        refused
            .notes
            .iter()
            .any(|note| note.verdict() == pb::Verdict::Refused)
    );
    let accepted =
        check("applications: [{import_path: 'mobula.image:text_to_image', args: {model: fake}}]").await;
    assert!(accepted.accepted && accepted.changes.len() == 1, "{accepted:?}");
    assert_eq!(controller.config("").await.unwrap().resource_version, 0);
    controller.stop().await;
}

#[tokio::test]
async fn a_backup_is_restored_elsewhere_and_a_damaged_one_nowhere() {
    let mut old = Controller::start(Config::default()).await;
    old.put(A, 0).await.unwrap();
    // More than one piece.
    let notes = "x".repeat(400_000);
    let large = A.replace("num_replicas: 1", &format!("user_config: {{notes: {notes}}}"));
    old.put(&large, 0).await.unwrap();
    let backup = old.backup().await;
    let dir = tempfile::tempdir().unwrap();
    let mut new = Controller::at(dir.path()).await;
    let refused = new.restore(&backup[..backup.len() / 2]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("damaged"), "{refused}");
    assert_eq!(new.config("").await.unwrap().resource_version, 0);
    let accepted = new.restore(&backup).await.unwrap();
    assert_eq!(accepted.resource_version, 3);
    let restored = new.config("").await.unwrap();
    assert_eq!(restored.config, old.config("").await.unwrap().config);
    new.stop().await;
    old.stop().await;
    let mut again = Controller::at(dir.path()).await;
    assert_eq!(again.config("").await.unwrap(), restored);
    again.stop().await;
}

#[tokio::test]
async fn two_controllers_do_not_share_a_directory_and_a_damaged_file_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Controller::at(dir.path()).await;
    first.put(A, 0).await.unwrap();
    let second = Controller::at(dir.path()).await;
    let error = timeout(PATIENCE, second.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("another controller"), "{error}");
    first.stop().await;
    let file = dir.path().join("controller.redb");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let third = Controller::at(dir.path()).await;
    let error = timeout(PATIENCE, third.task).await.unwrap().unwrap().unwrap_err();
    assert!(
        error.to_string().contains("controller.redb cannot be used"),
        "{error}"
    );
    assert_eq!(std::fs::read(&file).unwrap().len(), bytes.len() / 2);
}
