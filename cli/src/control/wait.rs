//! Waits until what was deployed runs, and says what it waits for.

use std::collections::BTreeSet;
use std::time::Duration;

use mobula_kit::channel::Link;
use mobula_proto::control::v1::serve_service_client::ServeServiceClient;
use mobula_proto::control::v1::{self as pb, ApplicationState, GetStatusRequest, RolloutState};
use tokio::time::Instant;

use super::timed;
use crate::Error;
use crate::human::tell;
use crate::remote::Remote;

/// How often the controller is asked.
const PERIOD: Duration = Duration::from_millis(250);

/// Reasons that are told; a wait that has more of them is looked at with `mobula status`.
const MAX_TOLD: usize = 1000;

/// How far a mesh is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Done,
    /// Not yet, and why.
    Waits(String),
    /// It will not come by itself.
    Failed(String),
}

/// Asks until everything runs.
///
/// # Errors
/// [`Error::Deploy`] when an application fails, was rolled back, or the time is over.
pub(super) async fn until_running(
    remote: &Remote,
    client: &mut ServeServiceClient<Link>,
    limit: Duration,
) -> Result<(), Error> {
    let end = Instant::now() + limit;
    let mut told = BTreeSet::new();
    loop {
        let answer = client.get_status(timed(GetStatusRequest {})).await;
        let status = answer.map_err(|status| remote.explain(status))?.into_inner();
        let why = match progress(&status) {
            Progress::Done => return Ok(()),
            Progress::Failed(why) => return Err(Error::Deploy(why)),
            Progress::Waits(why) => why,
        };
        if Instant::now() >= end {
            return Err(Error::Deploy(format!(
                "not everything runs after {} s: {why}",
                limit.as_secs()
            )));
        }
        if told.len() < MAX_TOLD && told.insert(gist(&why)) {
            tell(&why);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// A reason without what changes while it is the same: the seconds until the next try, and how many tries there were.
fn gist(why: &str) -> String {
    let mut words = why.split(' ').peekable();
    let mut gist = String::new();
    while let Some(word) = words.next() {
        let is_number = word.bytes().all(|c| c.is_ascii_digit()) && !word.is_empty();
        let unit = words
            .peek()
            .map_or("", |next| next.trim_end_matches([':', ';', ',', ')']));
        match (is_number, unit) {
            (true, "s") => {}
            // "failed 3 times in a row," is "failed," once more.
            (true, "times") => while words.next_if(|word| !word.ends_with(',')).is_some() {},
            _ => {
                gist.push_str(word.trim_end_matches(','));
                gist.push(' ');
            }
        }
        if (is_number, unit) == (true, "times") {
            words.next();
        }
    }
    gist
}

fn progress(status: &pb::GetStatusResponse) -> Progress {
    let mut waits = None;
    for application in &status.applications {
        let say = |what: &str| match application.message.as_str() {
            "" => format!("{} {what}", application.name),
            message => format!("{} {what}: {message}", application.name),
        };
        for deployment in &application.deployments {
            let Some(rollout) = &deployment.rollout else {
                continue;
            };
            let name = format!("{}/{}", application.name, deployment.name);
            match rollout.state() {
                RolloutState::RolledBack | RolloutState::RollingBack => {
                    return Progress::Failed(format!("{name} {}", rollout.message));
                }
                RolloutState::Progressing => {
                    waits.get_or_insert_with(|| format!("{name}: {}", rollout.message));
                }
                RolloutState::Unspecified | RolloutState::Complete => {}
            }
        }
        match application.state() {
            ApplicationState::Running => {}
            ApplicationState::DeployFailed => return Progress::Failed(say("failed")),
            ApplicationState::Deleting => drop(waits.get_or_insert_with(|| say("is deleted"))),
            ApplicationState::Unspecified
            | ApplicationState::NotStarted
            | ApplicationState::Deploying
            | ApplicationState::Unhealthy => drop(waits.get_or_insert_with(|| say("is on its way"))),
        }
    }
    waits.map_or(Progress::Done, Progress::Waits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(state: ApplicationState, rollout: Option<RolloutState>) -> pb::GetStatusResponse {
        pb::GetStatusResponse {
            applications: vec![pb::ApplicationStatus {
                name: "sd".into(),
                state: state.into(),
                message: "why".into(),
                deployments: vec![pb::DeploymentStatus {
                    name: "pipeline".into(),
                    rollout: rollout.map(|state| pb::Rollout {
                        state: state.into(),
                        message: "1 of 2 replicas are updated".into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_reason_is_the_same_whatever_the_countdown_says_and_another_when_it_says_more() {
        let tried = |times: &str, seconds: u32, why: &str| {
            gist(&format!(
                "sd is on its way: pipeline: 0 of 1 replicas run: failed{times}, is tried again in {seconds} s: {why}"
            ))
        };
        let first = tried("", 4, "device lost");
        assert_eq!(first, tried("", 3, "device lost"));
        assert_eq!(first, tried(" 12 times in a row", 60, "device lost"));
        assert_ne!(first, tried("", 4, "no such file"));
        assert_ne!(
            gist("1 of 2 replicas are updated"),
            gist("2 of 2 replicas are updated")
        );
        let ended = |seconds| {
            gist(&format!(
                "the last a worker ended; the next is started in {seconds} s"
            ))
        };
        assert_eq!(ended(1), ended(2));
    }

    #[test]
    fn it_is_done_when_all_run_and_no_update_is_under_way() {
        use ApplicationState::{DeployFailed, Deploying, Running};
        let of = |state, rollout| progress(&mesh(state, rollout));
        assert_eq!(of(Running, None), Progress::Done);
        assert_eq!(of(Running, Some(RolloutState::Complete)), Progress::Done);
        assert_eq!(
            of(Running, Some(RolloutState::Progressing)),
            Progress::Waits("sd/pipeline: 1 of 2 replicas are updated".into())
        );
        assert_eq!(
            of(Deploying, None),
            Progress::Waits("sd is on its way: why".into())
        );
        assert!(matches!(of(DeployFailed, None), Progress::Failed(_)));
        assert!(matches!(
            of(Running, Some(RolloutState::RolledBack)),
            Progress::Failed(_)
        ));
    }
}
