//! Small calls beside the drawing, on any replica of a pool. They change nothing that the caller sees, so one is simply
//! made again elsewhere when a replica is full or gone.

use std::sync::Arc;

use mobula_proto::preprocess::v1::preprocess_service_client::PreprocessServiceClient;
use tonic::{Request, Status, transport::Channel};

use crate::{
    Error,
    fault::{Fault, classify, is_own_fault},
    generate::Job,
    metrics::Reroute,
    permit::Permit,
    place::Place,
    pool::{Pool, Want},
    replica::Replica,
};

/// A client of a preprocess replica.
pub(crate) fn client(channel: Channel) -> PreprocessServiceClient<Channel> {
    PreprocessServiceClient::new(channel).max_decoding_message_size(mobula_kit::grpc::MAX_MESSAGE_BYTES)
}

/// Makes a call for a model until a replica answers it; `make` gives the message for the replica with this id.
pub(crate) async fn call<M, T>(
    job: &Job,
    (pool, model_id): (&Arc<Pool>, Option<&Arc<str>>),
    make: impl Fn(String) -> M,
    send: impl AsyncFn(Channel, Request<M>) -> Result<T, Status>,
) -> Result<T, Error> {
    let place = pool.place(Want::least((&job.claim, job.failfast), model_id));
    at(job, place, make, send).await
}

/// The same from a place that it has already.
pub(crate) async fn at<M, T>(
    job: &Job,
    place: Place,
    make: impl Fn(String) -> M,
    send: impl AsyncFn(Channel, Request<M>) -> Result<T, Status>,
) -> Result<T, Error> {
    answered(job, place, make, send).await.map(|(answer, _)| answer)
}

/// The same, and tells which replica answered.
pub(crate) async fn answered<M, T>(
    job: &Job,
    mut place: Place,
    make: impl Fn(String) -> M,
    send: impl AsyncFn(Channel, Request<M>) -> Result<T, Status>,
) -> Result<(T, Arc<Replica>), Error> {
    loop {
        let acquired = place.acquire().await;
        job.trail.without(place.take_without());
        let mut permit = acquired?;
        let mut request = Request::new(make(permit.replica().id.clone()));
        if let Some(deadline) = job.deadline {
            deadline.apply(&mut request);
        }
        mobula_kit::trace::inject(request.metadata_mut());
        match send(permit.channel(), request).await {
            Ok(answer) => {
                permit.accepted();
                permit.helped();
                return Ok((answer, Arc::clone(permit.replica())));
            }
            Err(status) => failed(job, &permit, classify(status, false))?,
        }
    }
}

/// Takes note of a call that came to nothing.
fn failed(job: &Job, permit: &Permit, fault: Fault) -> Result<(), Error> {
    match fault {
        Fault::Full => {
            job.shared.metrics.rerouted(Reroute::Full);
            permit.refused();
            Ok(())
        }
        Fault::Lacks => {
            job.shared.metrics.rerouted(Reroute::Lacking);
            permit.lacks();
            Ok(())
        }
        Fault::Gone(status) => {
            tracing::info!(
                request_id = &*job.id,
                replica = permit.replica().id,
                why = status.message(),
                "replica lost"
            );
            job.shared.metrics.rerouted(Reroute::Unreachable);
            permit.failed();
            Ok(())
        }
        Fault::TimedOut => Err(Error::DeadlinePassed),
        Fault::Final(status) => {
            if is_own_fault(&status) {
                permit.broke();
            }
            Err(Error::Worker(Box::new(status)))
        }
    }
}
