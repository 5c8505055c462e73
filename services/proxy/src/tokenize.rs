//! Prompts to token ids, on any preprocess replica. The call costs microseconds and changes nothing, so it is simply made
//! again elsewhere when a replica is full or gone.

use mobula_proto::preprocess::v1::{
    TokenSequence, TokenizeRequest, preprocess_service_client::PreprocessServiceClient,
};
use mobula_serving::route::Cost;
use tonic::Request;
use tracing::{Instrument, debug_span};

use crate::{
    Error,
    fault::{Fault, classify},
    generate::Job,
    metrics::Reroute,
    permit::Permit,
    pool::Pool,
    validate::Plan,
};

use std::sync::Arc;

/// A plan's prompts as tokens.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) prompt: TokenSequence,
    /// Empty without guidance.
    pub(crate) negative: TokenSequence,
}

/// Tokenizes the prompts of a plan.
pub(crate) async fn run(job: &Job, pool: &Arc<Pool>, plan: &Plan) -> Result<Tokens, Error> {
    let mut texts = vec![plan.prompt.clone()];
    if plan.is_guided() {
        texts.push(plan.negative_prompt.clone());
    }
    let mut place = pool.place();
    loop {
        let permit = place.acquire(Cost::rows(1)).await?;
        let span = debug_span!("tokenize", replica = permit.replica().id, otel.kind = "client");
        let fault = match call(job, &permit, texts.clone()).instrument(span).await {
            Ok(sequences) => {
                permit.accepted();
                return tokens(sequences, texts.len());
            }
            Err(fault) => fault,
        };
        match fault {
            Fault::Full => {
                job.shared.metrics.rerouted(Reroute::Full);
                permit.refused();
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
            }
            Fault::TimedOut => return Err(Error::DeadlinePassed),
            Fault::Final(status) => return Err(Error::Worker(Box::new(status))),
        }
    }
}

async fn call(job: &Job, permit: &Permit, texts: Vec<String>) -> Result<Vec<TokenSequence>, Fault> {
    let mut request = Request::new(TokenizeRequest {
        replica_id: permit.replica().id.clone(),
        texts,
    });
    if let Some(deadline) = job.deadline {
        deadline.apply(&mut request);
    }
    mobula_kit::trace::inject(request.metadata_mut());
    let mut client = PreprocessServiceClient::new(permit.channel());
    let response = client
        .tokenize(request)
        .await
        .map_err(|status| classify(status, false))?;
    Ok(response.into_inner().sequences)
}

fn tokens(sequences: Vec<TokenSequence>, texts: usize) -> Result<Tokens, Error> {
    if sequences.len() != texts {
        return Err(Error::Answer(
            "tokenize gave another number of sequences than texts",
        ));
    }
    let mut sequences = sequences.into_iter();
    let mut next = || sequences.next().unwrap_or_default();
    Ok(Tokens {
        prompt: next(),
        negative: next(),
    })
}
