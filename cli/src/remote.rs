//! Talking to the mesh: how an address becomes a channel and how a status becomes a sentence.
//!
//! Refuses to retry: the mesh retries where that is safe, and a person reads the error and decides.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use mobula_kit::{
    channel::{Dial, Link},
    tls::ClientArgs,
};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::{Error, human};

/// A service that a command talks to.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) address: String,
    pub(crate) who: Who,
    /// Over TLS or plain.
    pub(crate) dial: Dial,
}

/// Whom a command talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The proxy; without it there is no mesh.
    Mesh,
    /// The controller; without it the mesh draws on.
    Controller,
}

impl Remote {
    /// A service at this address, dialled as these flags say.
    pub(crate) fn new(address: &str, who: Who, tls: &ClientArgs) -> Result<Self, Error> {
        Ok(Self {
            address: address.to_owned(),
            who,
            dial: Dial {
                tls: tls.open().map_err(Error::Setting)?,
                token: None,
            },
        })
    }

    /// The same, with a token in every call.
    pub(crate) fn link(&self) -> Result<Link, Error> {
        Ok(InterceptedService::new(self.channel()?, self.dial.bearer()))
    }

    /// Makes a channel that connects with the first call.
    pub(crate) fn channel(&self) -> Result<Channel, Error> {
        let (address, flag) = (self.address.clone(), self.flag());
        self.dial.lazy(&self.address).map_err(|source| {
            if matches!(source, mobula_kit::Error::Tls { .. }) {
                return Error::Setting(source);
            }
            Error::Address {
                address,
                flag,
                source,
            }
        })
    }

    /// The flag by which the user says where it is.
    fn flag(&self) -> &'static str {
        match self.who {
            Who::Mesh => "--server",
            Who::Controller => "--controller",
        }
    }

    /// Turns what the mesh answered into what the user reads.
    pub(crate) fn explain(&self, status: Status) -> Error {
        let status = mobula_kit::status::received(status);
        match transport(&status) {
            Some(Transport::Refused) => {
                let (address, flag) = (self.address.clone(), self.flag());
                match self.who {
                    Who::Mesh => Error::NoMesh { address, flag },
                    Who::Controller => Error::NoController { address, flag },
                }
            }
            Some(Transport::Other(why)) => {
                Error::Refused(format!("lost the connection to {}: {why}", self.address))
            }
            None => Error::Refused(sentence(&status)),
        }
    }
}

/// Whether the connection broke, or never came about.
pub(crate) fn is_broken(status: &Status) -> bool {
    transport(status).is_some()
}

/// What went wrong below gRPC.
enum Transport {
    /// Nobody listens, or nobody can be reached.
    Refused,
    /// Something else, in words.
    Other(String),
}

fn transport(status: &Status) -> Option<Transport> {
    let mut source = status.source();
    let mut deepest = None;
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            let unreachable = matches!(
                io.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::AddrNotAvailable
                    | io::ErrorKind::TimedOut
            );
            return Some(if unreachable {
                Transport::Refused
            } else {
                Transport::Other(io.to_string())
            });
        }
        deepest = Some(error.to_string());
        source = error.source();
    }
    // A status that came over the wire has no source; one made by the transport names what broke.
    deepest.map(Transport::Other)
}

/// A refusal in words: the fields that are wrong, or the message, and when to come back.
fn sentence(status: &Status) -> String {
    let violations = mobula_kit::status::violations(status);
    let mut text = if violations.is_empty() {
        match (status.message(), tells_all(status.code())) {
            ("", _) => words(status.code()).to_owned(),
            (message, true) => message.to_owned(),
            (message, false) => format!("{}: {message}", words(status.code())),
        }
    } else {
        let fields: Vec<_> = violations
            .iter()
            .map(|(field, why)| format!("\n  {field}: {why}"))
            .collect();
        format!("the request was refused{}", fields.concat())
    };
    if let Some(after) = mobula_kit::status::retry_after(status).filter(|after| *after > Duration::ZERO) {
        text.push_str(&format!("\n  try again in {}", human::duration(after)));
    }
    text
}

/// Codes that the mesh sends with a message that needs no introduction.
fn tells_all(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::Unavailable
    )
}

fn words(code: Code) -> &'static str {
    match code {
        Code::Ok => "done",
        Code::Cancelled => "the request was cancelled",
        Code::Unknown => "the mesh failed",
        Code::InvalidArgument => "the request was refused",
        Code::DeadlineExceeded => "not done in time (see --timeout)",
        Code::NotFound => "not found",
        Code::AlreadyExists => "already running",
        Code::PermissionDenied | Code::Unauthenticated => "not allowed",
        Code::ResourceExhausted => "the mesh is full",
        Code::FailedPrecondition => "the mesh cannot do this now",
        Code::Aborted => "the request was aborted",
        Code::OutOfRange => "out of range",
        Code::Unimplemented => "this mesh cannot do that (is it older than this command?)",
        Code::Internal => "the mesh failed",
        Code::Unavailable => "the mesh cannot take the request now",
        Code::DataLoss => "data was lost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> Remote {
        Remote {
            address: "127.0.0.1:9000".into(),
            who: Who::Mesh,
            dial: Dial::default(),
        }
    }

    #[test]
    fn wrong_fields_are_listed_one_per_line() {
        let status = mobula_kit::status::invalid_fields(vec![
            ("width".into(), "is 100 and must be a multiple of 8".into()),
            ("steps".into(), "is 0 and must be at least 1".into()),
        ]);
        assert_eq!(
            remote().explain(status).to_string(),
            "the request was refused\n  width: is 100 and must be a multiple of 8\n  steps: is 0 and must be at least 1"
        );
    }

    #[test]
    fn a_full_mesh_says_when_to_come_back() {
        let status = mobula_kit::status::retryable(
            Code::ResourceExhausted,
            "QUEUE_FULL",
            "64 requests are waiting",
            Duration::from_millis(1_500),
        );
        assert_eq!(
            remote().explain(status).to_string(),
            "64 requests are waiting\n  try again in 1.5 s"
        );
    }

    #[test]
    fn a_refused_connection_says_how_to_start_a_mesh() {
        let status = Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert!(matches!(
            remote().explain(status),
            Error::NoMesh { flag: "--server", .. }
        ));
    }

    #[test]
    fn an_empty_message_is_replaced_by_words() {
        let text = remote()
            .explain(Status::new(Code::DeadlineExceeded, ""))
            .to_string();
        assert_eq!(text, "not done in time (see --timeout)");
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_reads_as_no_mesh() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let remote = Remote {
            address,
            who: Who::Mesh,
            dial: Dial::default(),
        };
        let mut client =
            mobula_proto::image::v1::image_service_client::ImageServiceClient::new(remote.channel().unwrap());
        let status = client
            .list_models(mobula_proto::image::v1::ListModelsRequest {})
            .await
            .unwrap_err();
        let error = remote.explain(status);
        assert!(matches!(error, Error::NoMesh { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_at_once_is_broken_and_an_answer_is_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = Remote {
            address: listener.local_addr().unwrap().to_string(),
            who: Who::Mesh,
            dial: Dial::default(),
        };
        let cut = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
            }
        });
        let mut client =
            mobula_proto::image::v1::image_service_client::ImageServiceClient::new(remote.channel().unwrap());
        let status = client
            .list_models(mobula_proto::image::v1::ListModelsRequest {})
            .await
            .unwrap_err();
        assert!(is_broken(&status), "{status:?}");
        assert!(!is_broken(&Status::unavailable("no replica")));
        cut.abort();
    }
}
