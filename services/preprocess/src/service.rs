//! `PreprocessService`: checks a request, leases the replica, computes here or on the pool.
//!
//! Refuses requests beyond the limits below before anything is computed. Holds no state of its own.

use std::sync::Arc;

use mobula_kit::worker::{Lease, Replicas};
use mobula_proto::{
    common::v1::Pixels,
    image::v1::PromptSyntax,
    preprocess::v1::{
        ImageKind, PrepareImageRequest, PrepareImageResponse, TokenizeRequest, TokenizeResponse,
        TokenizedText, preprocess_service_server::PreprocessService,
    },
};
use tokio::{sync::Semaphore, time::Instant};
use tonic::{Request, Response, Status};
use tracing::Span;

use crate::{
    Error, Loader, Model,
    image::{self, Kind, Raster},
    metrics::{Metrics, Place},
    pool::Pool,
    prompt::{self, Ask, Limits, Syntax},
    replica::Replica,
};

/// Texts in a request: the prompts of a picture are two, or four for two text encoders.
pub(crate) const MAX_TEXTS: usize = 16;
/// Bytes in a text, as the contract says: 77 tokens are seldom more than 500 bytes.
pub(crate) const MAX_TEXT_BYTES: usize = 64 * 1024;
/// Files at a time, those that wait for a thread included: at 16 MiB each they hold 256 MiB.
const MAX_PICTURES: usize = 16;

/// Answers `mobula.preprocess.v1.PreprocessService`.
#[derive(Debug)]
pub struct Service {
    replicas: Replicas<Loader>,
    pool: Pool,
    metrics: Arc<Metrics>,
    inline_bytes: usize,
    pictures: Arc<Semaphore>,
}

impl Service {
    pub(crate) fn new(replicas: Replicas<Loader>, pool: Pool, metrics: Metrics, inline_bytes: usize) -> Self {
        Self {
            replicas,
            pool,
            metrics: Arc::new(metrics),
            inline_bytes,
            pictures: Arc::new(Semaphore::new(MAX_PICTURES)),
        }
    }

    async fn texts(&self, request: TokenizeRequest) -> Result<TokenizeResponse, Error> {
        let syntax = syntax(&request)?;
        check(&request.texts)?;
        let lease = self.replicas.lease(&request.replica_id)?;
        told(&lease, self.tokenized(&lease, request, syntax).await)
    }

    async fn tokenized(
        &self,
        lease: &Lease<Replica>,
        request: TokenizeRequest,
        syntax: Syntax,
    ) -> Result<TokenizeResponse, Error> {
        let model = lease.model(&request.model_id).await?;
        let span = tracing::debug_span!(
            "tokenize",
            texts = request.texts.len(),
            tokens = tracing::field::Empty
        );
        let bytes: usize = request
            .texts
            .iter()
            .map(|text| cost(text, syntax, request.steps))
            .sum();
        let work = Work {
            model,
            syntax,
            request,
        };
        let texts = if bytes <= self.inline_bytes {
            work.run(Place::Inline, &self.metrics, &span)?
        } else {
            let metrics = Arc::clone(&self.metrics);
            self.pool
                .run(move || work.run(Place::Pool, &metrics, &span))
                .await??
        };
        Ok(TokenizeResponse { texts })
    }

    async fn picture(&self, request: PrepareImageRequest) -> Result<PrepareImageResponse, Error> {
        let kind = match request.kind() {
            ImageKind::Picture => Kind::Picture,
            ImageKind::Mask => Kind::Mask,
            ImageKind::Transparency => Kind::Transparency,
            ImageKind::Unspecified => {
                let why = format!(
                    "is {}; IMAGE_KIND_PICTURE, IMAGE_KIND_MASK or IMAGE_KIND_TRANSPARENCY is needed",
                    request.kind
                );
                return Err(invalid("kind", why));
            }
        };
        // A replica that drains finishes what it has, so the lease lives as long as the work.
        let lease = self.replicas.lease(&request.replica_id)?;
        told(&lease, self.prepared(&lease, request, kind).await)
    }

    async fn prepared(
        &self,
        lease: &Lease<Replica>,
        request: PrepareImageRequest,
        kind: Kind,
    ) -> Result<PrepareImageResponse, Error> {
        lease.model(&request.model_id).await?;
        let permit = Arc::clone(&self.pictures).try_acquire_owned();
        let permit = permit.map_err(|_| Error::Pictures { limit: MAX_PICTURES })?;
        let span = tracing::debug_span!("prepare picture", bytes = request.data.len());
        let metrics = Arc::clone(&self.metrics);
        let prepared = self.pool.run(move || {
            let _entered = span.enter();
            let _permit = permit;
            let begun = Instant::now();
            let prepared = image::prepare(image::Ask {
                data: &request.data,
                width: request.width,
                height: request.height,
                kind,
                limits: image::Limits::default(),
            });
            metrics.picture(prepared.is_ok(), begun.elapsed());
            prepared
        });
        let raster = prepared
            .await?
            .map_err(|refused| invalid(refused.field, refused.why))?;
        Ok(PrepareImageResponse {
            pixels: Some(raster.into()),
        })
    }
}

#[tonic::async_trait]
impl PreprocessService for Service {
    async fn tokenize(
        &self,
        request: Request<TokenizeRequest>,
    ) -> Result<Response<TokenizeResponse>, Status> {
        // INVALID_ARGUMENT: no text, too many, one that is too large, or whose syntax is not served. NOT_FOUND: no such
        // replica here. RESOURCE_EXHAUSTED: the replica or the tokenizer queue is full. UNAVAILABLE: the replica starts,
        // drains or has failed, or the service stops. INTERNAL: the tokenizer failed.
        Ok(Response::new(self.texts(request.into_inner()).await?))
    }

    async fn prepare_image(
        &self,
        request: Request<PrepareImageRequest>,
    ) -> Result<Response<PrepareImageResponse>, Status> {
        // INVALID_ARGUMENT: the kind is missing, the file is broken, of another format or beyond the limits. NOT_FOUND: no
        // such replica here. RESOURCE_EXHAUSTED: the replica or the queue is full, or too many pictures are here.
        // UNAVAILABLE: the replica starts, drains or has failed, or the service stops. INTERNAL: the decoder panicked.
        Ok(Response::new(self.picture(request.into_inner()).await?))
    }
}

/// Counts a request that fails as an error of its replica.
fn told<T>(lease: &Lease<Replica>, result: Result<T, Error>) -> Result<T, Error> {
    result.inspect_err(|error| lease.fails(error.reason()))
}

fn invalid(field: &str, why: String) -> Error {
    Error::Invalid {
        field: field.into(),
        why,
    }
}

/// How a request's texts are written.
fn syntax(request: &TokenizeRequest) -> Result<Syntax, Error> {
    match PromptSyntax::try_from(request.syntax) {
        Ok(PromptSyntax::Unspecified | PromptSyntax::Plain) => Ok(Syntax::Plain),
        Ok(PromptSyntax::A1111) => Ok(Syntax::A1111),
        Ok(PromptSyntax::Compel) => Ok(Syntax::Compel),
        Err(_) => Err(invalid(
            "syntax",
            format!(
                "is {}, which no known syntax has; plain, a1111 and compel are known",
                request.syntax
            ),
        )),
    }
}

/// Bytes that are tokenized for a text, at most: a text that changes on the way once a step, one with weak parts once
/// without each of them.
fn cost(text: &str, syntax: Syntax, steps: u32) -> usize {
    let times = match syntax {
        Syntax::A1111 if text.contains('[') => steps.max(1) as usize,
        Syntax::Compel => {
            1 + text
                .matches(['-', ')', '"'])
                .count()
                .min(Limits::default().variants)
        }
        Syntax::Plain | Syntax::A1111 => 1,
    };
    text.len().saturating_mul(times)
}

/// Names the first text that is beyond the limits.
fn check(texts: &[String]) -> Result<(), Error> {
    if texts.is_empty() {
        return Err(invalid("texts", "must hold at least one text".into()));
    }
    if texts.len() > MAX_TEXTS {
        let why = format!("holds {} texts, more than {MAX_TEXTS}", texts.len());
        return Err(invalid("texts", why));
    }
    match texts.iter().position(|text| text.len() > MAX_TEXT_BYTES) {
        Some(at) => {
            let why = format!("is {} bytes long, more than {MAX_TEXT_BYTES}", texts[at].len());
            Err(invalid(&format!("texts[{at}]"), why))
        }
        None => Ok(()),
    }
}

/// A request's texts with what they need.
struct Work {
    model: Arc<Model>,
    syntax: Syntax,
    request: TokenizeRequest,
}

impl Work {
    fn run(&self, place: Place, metrics: &Metrics, span: &Span) -> Result<Vec<TokenizedText>, Error> {
        let _entered = span.enter();
        let begun = Instant::now();
        let ask = Ask {
            texts: &self.request.texts,
            syntax: self.syntax,
            steps: self.request.steps,
            limits: Limits::default(),
        };
        let texts = prompt::tokenize(&self.model, ask)?;
        metrics.tokenized(&texts, place, begun.elapsed());
        if !span.is_disabled() {
            span.record(
                "tokens",
                texts.iter().map(|text| u64::from(text.token_count)).sum::<u64>(),
            );
        }
        Ok(texts)
    }
}

impl From<Raster> for Pixels {
    fn from(raster: Raster) -> Self {
        Self {
            width: raster.width,
            height: raster.height,
            data: raster.data.into(),
        }
    }
}
