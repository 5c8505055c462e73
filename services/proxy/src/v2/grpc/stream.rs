//! `ModelStreamInfer`: requests of one stream, so many at a time, and their answers as they come.
//!
//! All of it is driven by who reads the answers: who does not read has nothing drawn, and no more requests are read from him
//! than may run, nor more than may be held. Invariants: what is wrong with one request is told in an answer with its id, and
//! touches no other; of a stream no more is held than [`HELD_MAX`] and one request.

use std::{pin::Pin, sync::Arc};

use futures::{
    FutureExt as _, Stream, StreamExt as _,
    future::Either,
    stream::{BoxStream, SelectAll, once, unfold},
};
use mobula_kit::Stop;
use mobula_proto::oip::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use prost::Message as _;
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

/// Bytes of requests under way from which on no more are read of a stream: pictures and states of a few.
const HELD_MAX: usize = 64 << 20;

struct Under<T> {
    oip: Oip,
    stop: Stop,
    terms: Terms,
    /// Which of the models on demand, where a request's name does not say.
    model_id: Arc<str>,
    requests: T,
    /// Answers to each request, then its end.
    running: SelectAll<BoxStream<'static, Said>>,
    under_way: UnderWay,
    /// No more requests are read.
    is_read: bool,
}

/// What is said of a request.
enum Said {
    Answer(ModelStreamInferResponse),
    /// It has ended, and had so many bytes.
    Ended(usize),
}

/// Requests of a stream that have not ended.
#[derive(Debug, Default)]
struct UnderWay {
    requests: usize,
    bytes: usize,
}

impl UnderWay {
    /// One more of so many bytes.
    fn begun(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes += bytes;
    }

    /// One less.
    fn ended(&mut self, bytes: usize) {
        self.requests -= 1;
        self.bytes -= bytes;
    }

    /// Whether another one may be read, where so many may run.
    fn has_room(&self, most: usize) -> bool {
        self.requests < most && self.bytes < HELD_MAX
    }
}

/// What happens next in a stream.
enum Next {
    Request(Result<Option<ModelInferRequest>, Status>),
    Said(Said),
    Draining,
}

/// The answers to the requests of a stream.
pub(super) fn answers(
    (oip, stop): (Oip, Stop),
    (terms, model_id): (Terms, String),
    requests: Streaming<ModelInferRequest>,
) -> Answers {
    let under = Under {
        oip,
        stop,
        terms,
        model_id: model_id.into(),
        requests,
        running: SelectAll::new(),
        under_way: UnderWay::default(),
        is_read: false,
    };
    Box::pin(unfold(Some(under), async |under| under?.next().await))
}

impl Under<Streaming<ModelInferRequest>> {
    /// The next answer, and the stream as it is then; none after an error.
    async fn next(mut self) -> Option<(Result<ModelStreamInferResponse, Status>, Option<Self>)> {
        loop {
            if self.is_read && self.under_way.requests == 0 {
                // What was sent and not read must not seem to have been heard.
                let drained = self.stop.is_triggered();
                return drained.then(|| (Err(Status::unavailable(crate::ray::DRAINING)), None));
            }
            let may_read = !self.is_read && self.under_way.has_room(self.oip.max_stream_requests);
            let next = tokio::select! {
                biased;
                () = self.stop.triggered(), if !self.is_read => Next::Draining,
                request = self.requests.message(), if may_read => Next::Request(request),
                Some(said) = self.running.next(), if self.under_way.requests > 0 => Next::Said(said),
            };
            match next {
                Next::Said(Said::Ended(bytes)) => self.under_way.ended(bytes),
                Next::Said(Said::Answer(answer)) => return Some((Ok(answer), Some(self))),
                Next::Request(Ok(Some(request))) => {
                    let bytes = request.encoded_len();
                    self.under_way.begun(bytes);
                    let asks = (self.terms.clone(), Arc::clone(&self.model_id));
                    let answers = one(self.oip.clone(), asks, request).map(Said::Answer);
                    let end = once(std::future::ready(Said::Ended(bytes)));
                    self.running.push(answers.chain(end).boxed());
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
    (terms, model_id): (Terms, Arc<str>),
    request: ModelInferRequest,
) -> impl Stream<Item = ModelStreamInferResponse> + Send + 'static {
    let (to, version, ask) = read(request);
    let begin = {
        let to = to.clone();
        async move {
            let table = oip.generator.heard_table().await;
            let which = Which::find_or((&table, &terms.caller), (&to.model, &model_id), &version)?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn so_many_requests_and_bytes_are_under_way() {
        let mut under_way = UnderWay::default();
        assert!(under_way.has_room(2));
        under_way.begun(usize::MAX / 2);
        assert!(!under_way.has_room(2), "the largest goes alone");
        under_way.ended(usize::MAX / 2);
        under_way.begun(1);
        under_way.begun(1);
        assert!(!under_way.has_room(2));
        under_way.ended(1);
        assert!(under_way.has_room(2));
    }

    proptest! {
        #[test]
        fn what_is_held_is_bounded_and_nobody_is_shut_out_for_good(
            requests in proptest::collection::vec(0usize..40 << 20, 1..200), most in 1usize..40
        ) {
            let largest = requests.iter().copied().max().unwrap_or_default();
            let (mut under_way, mut running) = (UnderWay::default(), Vec::new());
            for bytes in requests {
                while !under_way.has_room(most) {
                    under_way.ended(running.remove(0));
                }
                under_way.begun(bytes);
                running.push(bytes);
                prop_assert!(under_way.bytes < HELD_MAX + largest.max(1));
                prop_assert!(under_way.requests <= most);
            }
            running.into_iter().for_each(|bytes| under_way.ended(bytes));
            prop_assert_eq!((under_way.requests, under_way.bytes), (0, 0));
            prop_assert!(under_way.has_room(most));
        }
    }
}
