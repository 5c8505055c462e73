//! The answers of a stream to one request, as they come. Nothing is drawn on that nobody reads: one event is turned at a time.
//!
//! Every answer says in `triton_final_response` whether it is the last one. A picture is held until something else is known, so
//! that the last one can say so; who asks for an empty last answer gets one, as in Triton.

use std::collections::VecDeque;

use futures::{
    Stream, StreamExt as _,
    stream::{SelectAll, select_all, unfold},
};
use mobula_proto::{
    common::v1::Timings,
    image::v1::{Parameters as Made, generate_response::Event},
};

use super::{
    ask::Answer,
    drawn,
    infer::{Begun, Oip, named},
    pipeline::Output,
};
use crate::{Error, events::Events};

/// Whether an answer is the last one to its request.
pub(crate) const FINAL: &str = "triton_final_response";

/// An answer that is the last one, or not.
pub(crate) fn marked(mut answer: Answer, is_final: bool) -> Answer {
    answer.parameters.insert(FINAL.to_owned(), is_final.into());
    answer
}

struct Told {
    oip: Oip,
    begun: Begun,
    events: SelectAll<Tagged>,
    ready: VecDeque<Answer>,
    /// A picture that may be the last thing there is to say.
    held: Option<Answer>,
    ends: Vec<(Made, Timings)>,
    is_over: bool,
}

/// The events of one prompt with its number.
type Tagged = futures::stream::BoxStream<'static, (usize, Result<Event, Error>)>;

/// The answers to a request that has begun, then at most one error.
pub(crate) fn tell(oip: Oip, mut begun: Begun) -> impl Stream<Item = Result<Answer, Error>> + Send {
    let tagged = |(nth, events): (usize, Events)| events.map(move |event| (nth, event)).boxed();
    let events = select_all(begun.events.drain(..).enumerate().map(tagged));
    let told = Told {
        oip,
        begun,
        events,
        ready: VecDeque::new(),
        held: None,
        ends: Vec::new(),
        is_over: false,
    };
    unfold(told, async |mut told| Some((told.next().await?, told)))
}

impl Told {
    async fn next(&mut self) -> Option<Result<Answer, Error>> {
        loop {
            if let Some(answer) = self.ready.pop_front() {
                return Some(Ok(answer));
            }
            if self.is_over {
                return None;
            }
            let step = match self.events.next().await {
                Some((nth, Ok(event))) => self.take(nth, event).await,
                Some((_, Err(error))) => Err(named(error)),
                None => {
                    self.end();
                    Ok(())
                }
            };
            if let Err(error) = step {
                // The other prompts' work ends with it.
                self.events.clear();
                (self.is_over, self.held) = (true, None);
                return Some(Err(error));
            }
        }
    }

    async fn take(&mut self, nth: usize, event: Event) -> Result<(), Error> {
        match event {
            Event::Image(image) => {
                let mut pixels = Vec::new();
                if self.begun.reply.has(Output::Pixels) {
                    pixels.push(self.oip.pixels(&self.begun, &image).await?);
                }
                let answer = drawn::picture(nth, image, pixels, &self.begun.reply.outputs)?;
                self.flush();
                self.held = Some(answer);
            }
            Event::Done(done) => self.ends.extend(done.parameters.zip(done.timings)),
            event @ (Event::Accepted(_)
            | Event::Waiting(_)
            | Event::Started(_)
            | Event::Step(_)
            | Event::Preview(_)
            | Event::Restarted(_)) => {
                if let Some(answer) = drawn::progress(nth, event, self.begun.reply.progress) {
                    self.flush();
                    self.ready.push_back(marked(answer, false));
                }
            }
        }
        Ok(())
    }

    /// Says what was held: it was not the last.
    fn flush(&mut self) {
        let held = self.held.take().map(|answer| marked(answer, false));
        self.ready.extend(held);
    }

    fn end(&mut self) {
        self.is_over = true;
        if self.begun.reply.empty_final {
            self.flush();
        }
        let mut last = self.held.take().unwrap_or_default();
        last.parameters.extend(drawn::ending(&self.ends));
        self.ready.push_back(marked(last, true));
    }
}
