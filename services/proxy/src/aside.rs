//! Small calls on any replica of a preprocess pool. They cost little and change nothing, so one is simply made again
//! elsewhere when a replica is full or gone.

use std::sync::Arc;

use mobula_proto::preprocess::v1::preprocess_service_client::PreprocessServiceClient;
use mobula_serving::route::Cost;
use tonic::{Request, Status, transport::Channel};

use crate::{
    Error,
    fault::{Fault, classify},
    generate::Job,
    metrics::Reroute,
    permit::Permit,
    pool::Pool,
};

/// A client of the replica that a permit is for.
pub(crate) type Client = PreprocessServiceClient<Channel>;

/// Makes a call until a replica answers it; `make` gives the message for the replica with this id.
pub(crate) async fn call<M, T>(
    job: &Job,
    pool: &Arc<Pool>,
    make: impl Fn(String) -> M,
    send: impl AsyncFn(Client, Request<M>) -> Result<T, Status>,
) -> Result<T, Error> {
    let mut place = pool.place();
    loop {
        let permit = place.acquire(Cost::rows(1)).await?;
        let mut request = Request::new(make(permit.replica().id.clone()));
        if let Some(deadline) = job.deadline {
            deadline.apply(&mut request);
        }
        mobula_kit::trace::inject(request.metadata_mut());
        let client = PreprocessServiceClient::new(permit.channel())
            .max_decoding_message_size(mobula_kit::grpc::MAX_MESSAGE_BYTES);
        match send(client, request).await {
            Ok(answer) => {
                permit.accepted();
                return Ok(answer);
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
        Fault::Gone(status) => {
            tracing::info!(
                request_id = &*job.id,
                replica = permit.replica().id,
                why = status.message(),
                "preprocess replica lost"
            );
            job.shared.metrics.rerouted(Reroute::Unreachable);
            permit.failed();
            Ok(())
        }
        Fault::TimedOut => Err(Error::DeadlinePassed),
        Fault::Final(status) => Err(Error::Worker(Box::new(status))),
    }
}
