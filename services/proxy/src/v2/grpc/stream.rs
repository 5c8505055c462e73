//! `ModelStreamInfer`: requests of one stream, so many at a time, and their answers as they come.
//!
//! All of it is driven by who reads the answers: who does not read has nothing drawn, and no more requests are read from him
//! than may run. Invariant: what is wrong with one request is told in an answer with its id, and touches no other.

use std::pin::Pin;

use futures::{
    FutureExt as _, Stream, StreamExt as _,
    future::Either,
    stream::{BoxStream, SelectAll, once, unfold},
};
use mobula_kit::Stop;
use mobula_proto::oip::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use tonic::{Status, Streaming};

use super::{message, read};
use crate::{
    Error,
    v2::{
        ask::{Answer, To},
        catalog::Which,
        infer::{self, Oip, Terms},
        story::{self, marked},
    },
};

/// The answers of a stream.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

struct Under<T> {
    oip: Oip,
    stop: Stop,
    terms: Terms,
    requests: T,
    /// Answers to each request, then nothing once, so that its end is seen.
    running: SelectAll<BoxStream<'static, Option<ModelStreamInferResponse>>>,
    /// Requests that have not ended.
    under_way: usize,
    /// No more requests are read.
    is_read: bool,
}

/// What happens next in a stream.
enum Next {
    Request(Result<Option<ModelInferRequest>, Status>),
    Answer(ModelStreamInferResponse),
    /// Of one request.
    Ended,
    Draining,
}

/// The answers to the requests of a stream.
pub(super) fn answers(
    (oip, stop): (Oip, Stop),
    terms: Terms,
    requests: Streaming<ModelInferRequest>,
) -> Answers {
    let under = Under {
        oip,
        stop,
        terms,
        requests,
        running: SelectAll::new(),
        under_way: 0,
        is_read: false,
    };
    Box::pin(unfold(Some(under), async |under| under?.next().await))
}

impl Under<Streaming<ModelInferRequest>> {
    /// The next answer, and the stream as it is then; none after an error.
    async fn next(mut self) -> Option<(Result<ModelStreamInferResponse, Status>, Option<Self>)> {
        loop {
            if self.is_read && self.under_way == 0 {
                // What was sent and not read must not seem to have been heard.
                let drained = self.stop.is_triggered();
                return drained.then(|| (Err(Status::unavailable(crate::ray::DRAINING)), None));
            }
            let may_read = !self.is_read && self.under_way < self.oip.max_stream_requests;
            let next = tokio::select! {
                biased;
                () = self.stop.triggered(), if !self.is_read => Next::Draining,
                request = self.requests.message(), if may_read => Next::Request(request),
                Some(answer) = self.running.next(), if self.under_way > 0 => match answer {
                    Some(answer) => Next::Answer(answer),
                    None => Next::Ended,
                },
            };
            match next {
                Next::Ended => self.under_way -= 1,
                Next::Answer(answer) => return Some((Ok(answer), Some(self))),
                Next::Request(Ok(Some(request))) => {
                    self.under_way += 1;
                    let answers = one(self.oip.clone(), self.terms.clone(), request);
                    self.running
                        .push(answers.map(Some).chain(once(std::future::ready(None))).boxed());
                }
                Next::Request(Ok(None)) | Next::Draining => self.is_read = true,
                Next::Request(Err(status)) => {
                    return Some((Err(crate::malformed::within_stream(status)), None));
                }
            }
        }
    }
}

/// A request that was read and begun.
enum Begun {
    /// It has one answer.
    Whole(Answer),
    /// Its answers are told as they come.
    Told(Oip, infer::Begun),
}

/// The answers to one request.
fn one(
    oip: Oip,
    terms: Terms,
    request: ModelInferRequest,
) -> impl Stream<Item = ModelStreamInferResponse> + Send + 'static {
    let (to, version, ask) = read(request);
    let begin = {
        let to = to.clone();
        async move {
            let table = oip.generator.heard_table().await;
            let which = Which::find((&table, &terms.caller), &to.model, &version)?;
            if which.stage.is_some() {
                let (_, answer) = oip.infer(which, ask?, terms).await?;
                return Ok(Begun::Whole(answer));
            }
            let begun = oip.begin(which, ask?, terms)?;
            if begun.reply.decoupled_by.is_some() {
                return Ok(Begun::Told(oip, begun));
            }
            Ok(Begun::Whole(oip.collect(begun).await?))
        }
    };
    let answers = begin.map(|begun: Result<_, Error>| match begun {
        Err(error) => Either::Left(once(std::future::ready(Err(error)))),
        Ok(Begun::Whole(answer)) => Either::Left(once(std::future::ready(Ok(marked(answer, true))))),
        Ok(Begun::Told(oip, begun)) => Either::Right(story::tell(oip, begun)),
    });
    let answers = answers.flatten_stream();
    answers.map(move |answer| write(&to, answer))
}

fn write(to: &To, answer: Result<Answer, Error>) -> ModelStreamInferResponse {
    match answer {
        Ok(answer) => ModelStreamInferResponse {
            error_message: String::new(),
            infer_response: Some(message::write(to, answer)),
        },
        Err(error) => {
            let infer_response: ModelInferResponse = message::write(to, marked(Answer::default(), true));
            ModelStreamInferResponse {
                error_message: Status::from(error).message().to_owned(),
                infer_response: Some(infer_response),
            }
        }
    }
}
