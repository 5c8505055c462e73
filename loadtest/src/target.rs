//! The two doors: one request in, one outcome out.

mod grpc;
mod http;

use std::time::Duration;

use crate::{Args, Error, Outcome, Shot};

/// A door of the mesh; cheap to clone, shares its connections.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Grpc(grpc::Target),
    Http(Box<http::Target>),
}

/// What every request of a run has in common.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) model: String,
    pub(crate) steps: Option<u32>,
    pub(crate) size: Option<u32>,
    pub(crate) guidance_scale: Option<f32>,
    pub(crate) timeout: Duration,
}

impl Target {
    pub(crate) fn new(args: &Args) -> Result<Self, Error> {
        let common = Common {
            model: args.model.clone(),
            steps: args.steps,
            size: args.size,
            guidance_scale: args.guidance_scale,
            timeout: Duration::from_secs_f64(args.timeout),
        };
        if args.target.starts_with("http://") {
            Ok(Self::Http(Box::new(http::Target::new(&args.target, common)?)))
        } else {
            Ok(Self::Grpc(grpc::Target::new(
                &args.target,
                args.connections,
                common,
            )?))
        }
    }

    /// Asks for one picture and waits for its end, at most the run's timeout.
    pub(crate) async fn draw(&self, number: u64, shot: &Shot) -> Outcome {
        match self {
            Self::Grpc(target) => target.draw(number, shot).await,
            Self::Http(target) => target.draw(shot).await,
        }
    }
}

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A file that is no PNG is a failure, whatever the status said.
fn picture(digest: String, bytes: &[u8]) -> Outcome {
    if bytes.starts_with(PNG_SIGNATURE) {
        Outcome::Picture {
            digest,
            bytes: bytes.len(),
        }
    } else {
        Outcome::Failed("not a PNG".into())
    }
}
