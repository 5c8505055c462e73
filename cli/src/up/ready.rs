//! When a mesh that was just started draws: asks controller and proxy over and over, shows what is still missing, and
//! tells a mesh that is slow from one that never will.

use std::time::Duration;

use mobula_kit::channel::Link;
use mobula_proto::control::v1::serve_service_client::ServeServiceClient;
use mobula_proto::control::v1::{
    ApplicationState, ApplicationStatus, GetStatusRequest, GetStatusResponse, ReplicaState,
};
use mobula_proto::image::v1::image_service_client::ImageServiceClient;
use mobula_proto::image::v1::{ListModelsRequest, Model};
use tonic::Code;
use tonic::transport::Channel;

/// Between two looks: small beside the second that a start takes, and an answer costs microseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A look may not hang on a service that was killed in the middle of it.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// What a look at the mesh says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not yet, and what is missing.
    Waiting(String),
    /// It draws.
    Ready(Ready),
    /// Nothing will draw, and why.
    Hopeless(String),
}

/// A mesh that draws.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    /// Applications that draw.
    pub(crate) applications: Vec<String>,
    /// What is wrong with others.
    pub(crate) warnings: Vec<String>,
}

/// Looks at a mesh through its two gRPC doors.
#[derive(Debug)]
pub(crate) struct Watcher {
    controller: ServeServiceClient<Link>,
    /// None where the proxy's doors take other callers than this command.
    proxy: Option<ImageServiceClient<Channel>>,
}

impl Watcher {
    pub(crate) fn new(controller: Link, proxy: Option<Channel>) -> Self {
        Self {
            controller: ServeServiceClient::new(controller),
            proxy: proxy.map(ImageServiceClient::new),
        }
    }

    /// Looks until the mesh draws or never will; `missing` hears what is still missing, whenever that changes.
    pub(crate) async fn settled(&mut self, mut missing: impl FnMut(&str)) -> Result<Ready, String> {
        let mut told = String::new();
        loop {
            match self.look().await {
                Verdict::Ready(ready) => return Ok(ready),
                Verdict::Hopeless(why) => return Err(why),
                Verdict::Waiting(what) => {
                    if what != told {
                        missing(&what);
                        told = what;
                    }
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn look(&mut self) -> Verdict {
        let mut request = tonic::Request::new(GetStatusRequest {});
        request.set_timeout(ANSWER_WAIT);
        let Ok(status) = self.controller.get_status(request).await else {
            return Verdict::Waiting("the controller starts".into());
        };
        let status = status.into_inner();
        let models = match &mut self.proxy {
            Some(proxy) => {
                let mut request = tonic::Request::new(ListModelsRequest {});
                request.set_timeout(ANSWER_WAIT);
                match proxy.list_models(request).await {
                    Ok(models) => Some(models.into_inner().models),
                    // Its doors want a key, which is nobody's business here: that it answers has to do.
                    Err(refused) if refused.code() == Code::Unauthenticated => heard(&status),
                    Err(_) => None,
                }
            }
            None => heard(&status),
        };
        judge(&status.applications, models.as_deref())
    }
}

/// What a proxy that cannot be asked will say: one that follows the controller knows what it knows.
fn heard(status: &GetStatusResponse) -> Option<Vec<Model>> {
    let known = |application: &ApplicationStatus| Model {
        name: application.name.clone(),
        ready_replicas: 1,
        ..Model::default()
    };
    let models = || status.applications.iter().map(known).collect();
    (!status.proxies.is_empty()).then(models)
}

/// Judges what the controller says of its applications and the proxy of its models (`None`: it does not answer yet).
fn judge(applications: &[ApplicationStatus], models: Option<&[Model]>) -> Verdict {
    use ApplicationState as State;
    if applications.is_empty() {
        return Verdict::Waiting("the controller reads its applications".into());
    }
    let drawable = |name: &str| {
        models
            .unwrap_or_default()
            .iter()
            .any(|m| m.name == name && m.ready_replicas > 0)
    };
    let mut ready = Ready::default();
    for application in applications {
        match application.state() {
            State::DeployFailed => {
                ready
                    .warnings
                    .push(format!("{}: {}", application.name, why(application)));
            }
            State::Running if drawable(&application.name) => {
                ready.applications.push(application.name.clone())
            }
            State::Running if models.is_none() => return Verdict::Waiting("the proxy starts".into()),
            State::Running => {
                return Verdict::Waiting(format!("the proxy learns the way to {}", application.name));
            }
            State::Unspecified | State::NotStarted | State::Deploying | State::Unhealthy => {
                return Verdict::Waiting(format!("{}: {}", application.name, why(application)));
            }
            State::Deleting => {}
        }
    }
    match (ready.applications.is_empty(), ready.warnings.is_empty()) {
        (false, _) => Verdict::Ready(ready),
        (true, false) => Verdict::Hopeless(ready.warnings.join("\n  ")),
        (true, true) => Verdict::Waiting("applications go away".into()),
    }
}

/// Why an application does not run yet: the first replica that says something, else its own message.
fn why(application: &ApplicationStatus) -> String {
    let replicas = application
        .deployments
        .iter()
        .flat_map(|deployment| &deployment.replicas);
    let waiting = |state: ReplicaState| {
        replicas
            .clone()
            .find(|replica| replica.state() == state && !replica.message.is_empty())
    };
    [
        ReplicaState::Failed,
        ReplicaState::Pending,
        ReplicaState::Starting,
    ]
    .into_iter()
    .find_map(waiting)
    .map(|replica| replica.message.clone())
    .or_else(|| Some(application.message.clone()).filter(|message| !message.is_empty()))
    .unwrap_or_else(|| "replicas start".into())
}

#[cfg(test)]
mod tests {
    use mobula_proto::control::v1::{DeploymentStatus, ReplicaStatus};

    use super::*;

    fn application(name: &str, state: ApplicationState, replica: (ReplicaState, &str)) -> ApplicationStatus {
        let replica = ReplicaStatus {
            state: replica.0.into(),
            message: replica.1.into(),
            ..ReplicaStatus::default()
        };
        let deployment = DeploymentStatus {
            replicas: vec![replica],
            ..DeploymentStatus::default()
        };
        ApplicationStatus {
            name: name.into(),
            state: state.into(),
            deployments: vec![deployment],
            ..ApplicationStatus::default()
        }
    }

    fn model(name: &str, ready_replicas: u32) -> Model {
        Model {
            name: name.into(),
            ready_replicas,
            ..Model::default()
        }
    }

    #[test]
    fn an_application_draws_once_the_proxy_knows_a_replica() {
        let demo = [application(
            "demo",
            ApplicationState::Running,
            (ReplicaState::Running, ""),
        )];
        assert_eq!(judge(&demo, None), Verdict::Waiting("the proxy starts".into()));
        assert!(matches!(
            judge(&demo, Some(&[model("demo", 0)])),
            Verdict::Waiting(_)
        ));
        let ready = Ready {
            applications: vec!["demo".into()],
            warnings: vec![],
        };
        assert_eq!(judge(&demo, Some(&[model("demo", 1)])), Verdict::Ready(ready));
    }

    #[test]
    fn a_start_that_waits_says_what_for() {
        let demo = [application(
            "demo",
            ApplicationState::Deploying,
            (ReplicaState::Starting, "loads unet/model.onnx"),
        )];
        assert_eq!(
            judge(&demo, Some(&[])),
            Verdict::Waiting("demo: loads unet/model.onnx".into())
        );
    }

    #[test]
    fn a_model_that_cannot_be_loaded_is_hopeless_unless_another_application_draws() {
        let broken = application(
            "big",
            ApplicationState::DeployFailed,
            (ReplicaState::Failed, "unet is missing"),
        );
        assert_eq!(
            judge(std::slice::from_ref(&broken), Some(&[])),
            Verdict::Hopeless("big: unet is missing".into())
        );
        let demo = application("demo", ApplicationState::Running, (ReplicaState::Running, ""));
        let ready = Ready {
            applications: vec!["demo".into()],
            warnings: vec!["big: unet is missing".into()],
        };
        assert_eq!(
            judge(&[broken, demo], Some(&[model("demo", 1)])),
            Verdict::Ready(ready)
        );
    }

    #[test]
    fn a_proxy_that_cannot_be_asked_is_there_once_the_controller_hears_it() {
        let running = application("demo", ApplicationState::Running, (ReplicaState::Running, ""));
        let mut status = GetStatusResponse {
            applications: vec![running],
            ..GetStatusResponse::default()
        };
        assert!(heard(&status).is_none());
        status.proxies.push(Default::default());
        let verdict = judge(&status.applications, heard(&status).as_deref());
        assert!(matches!(verdict, Verdict::Ready(_)), "{verdict:?}");
    }

    #[test]
    fn a_controller_without_applications_is_waited_for() {
        assert!(matches!(judge(&[], Some(&[])), Verdict::Waiting(_)));
    }
}
