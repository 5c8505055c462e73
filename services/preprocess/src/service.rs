//! `PreprocessService`: checks a request, leases the replica, tokenizes here or on the pool.
//!
//! Refuses requests beyond the limits below before anything is computed. Holds no state of its own.

use std::sync::Arc;

use mobula_kit::worker::Replicas;
use mobula_proto::preprocess::v1::{
    TokenSequence, TokenizeRequest, TokenizeResponse, preprocess_service_server::PreprocessService,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tracing::Span;

use crate::{
    Error, Loader,
    metrics::{Metrics, Place},
    pool::Pool,
    tokenizer::{Sequence, Tokenizer},
};

/// Texts in a request: the prompts of a picture are two, or four for two text encoders.
pub(crate) const MAX_TEXTS: usize = 16;
/// Bytes in a text, as the contract says: 77 tokens are seldom more than 500 bytes.
pub(crate) const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Answers `mobula.preprocess.v1.PreprocessService`.
#[derive(Debug)]
pub struct Service {
    replicas: Replicas<Loader>,
    pool: Pool,
    metrics: Arc<Metrics>,
    inline_bytes: usize,
}

impl Service {
    pub(crate) fn new(replicas: Replicas<Loader>, pool: Pool, metrics: Metrics, inline_bytes: usize) -> Self {
        Self {
            replicas,
            pool,
            metrics: Arc::new(metrics),
            inline_bytes,
        }
    }

    async fn answer(&self, request: TokenizeRequest) -> Result<TokenizeResponse, Error> {
        check(&request.texts)?;
        let lease = self.replicas.lease(&request.replica_id)?;
        let tokenizer = Arc::clone(&lease.tokenizer);
        let span = tracing::debug_span!(
            "tokenize",
            texts = request.texts.len(),
            tokens = tracing::field::Empty
        );
        let bytes: usize = request.texts.iter().map(String::len).sum();
        let sequences = if bytes <= self.inline_bytes {
            tokenize(&tokenizer, &request.texts, Place::Inline, &self.metrics, &span)?
        } else {
            let metrics = Arc::clone(&self.metrics);
            self.pool
                .run(move || tokenize(&tokenizer, &request.texts, Place::Pool, &metrics, &span))
                .await??
        };
        Ok(TokenizeResponse {
            sequences: sequences.into_iter().map(Into::into).collect(),
        })
    }
}

#[tonic::async_trait]
impl PreprocessService for Service {
    async fn tokenize(
        &self,
        request: Request<TokenizeRequest>,
    ) -> Result<Response<TokenizeResponse>, Status> {
        // INVALID_ARGUMENT: no text, too many, or one that is too large. NOT_FOUND: no such replica here.
        // RESOURCE_EXHAUSTED: the replica or the tokenizer queue is full. UNAVAILABLE: the replica starts, drains or has
        // failed, or the service stops. INTERNAL: the tokenizer failed.
        Ok(Response::new(self.answer(request.into_inner()).await?))
    }
}

/// Names the first text that is beyond the limits.
fn check(texts: &[String]) -> Result<(), Error> {
    let invalid = |field: String, why: String| Err(Error::Invalid { field, why });
    if texts.is_empty() {
        return invalid("texts".into(), "must hold at least one text".into());
    }
    if texts.len() > MAX_TEXTS {
        return invalid(
            "texts".into(),
            format!("holds {} texts, more than {MAX_TEXTS}", texts.len()),
        );
    }
    match texts.iter().position(|text| text.len() > MAX_TEXT_BYTES) {
        Some(at) => {
            let why = format!("is {} bytes long, more than {MAX_TEXT_BYTES}", texts[at].len());
            invalid(format!("texts[{at}]"), why)
        }
        None => Ok(()),
    }
}

fn tokenize(
    tokenizer: &Tokenizer,
    texts: &[String],
    place: Place,
    metrics: &Metrics,
    span: &Span,
) -> Result<Vec<Sequence>, Error> {
    let _entered = span.enter();
    let begun = Instant::now();
    let sequences = texts
        .iter()
        .map(|text| tokenizer.window(text))
        .collect::<Result<Vec<_>, _>>()?;
    metrics.tokenized(&sequences, place, begun.elapsed());
    if !span.is_disabled() {
        span.record(
            "tokens",
            sequences
                .iter()
                .map(|sequence| sequence.token_count)
                .sum::<usize>(),
        );
    }
    Ok(sequences)
}

impl From<Sequence> for TokenSequence {
    fn from(sequence: Sequence) -> Self {
        // A text of 64 KiB has fewer tokens than there are numbers.
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            ids: sequence.ids,
            token_count: count(sequence.token_count),
            truncated_count: count(sequence.truncated_count),
            truncated_text: sequence.truncated_text,
        }
    }
}
