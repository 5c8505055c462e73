//! What a request that draws has come to: its pictures and what is said of them, for doors that answer with all at once.

use futures::StreamExt as _;
use mobula_proto::{
    common::v1::Timings,
    image::v1::{Image, Parameters, generate_response::Event},
};

use crate::{Error, events::Events};

/// A request whose events ended too early.
pub(crate) const NO_PICTURE: Error = Error::Answer("a request ended without a picture");

/// The pictures of one request, as they come.
#[derive(Debug, Default)]
pub(crate) struct Drawn {
    images: Vec<Image>,
    end: Option<(Parameters, Timings)>,
}

/// One request's pictures, all of them in their order, at least one.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) images: Vec<Image>,
    pub(crate) made: Parameters,
    pub(crate) timings: Timings,
}

impl Drawn {
    /// Takes in an event; of one that is not looked at here nothing is sent to doors that collect (`events::Reader`).
    pub(crate) fn take(&mut self, event: Event) {
        match event {
            Event::Image(image) => self.images.push(image),
            Event::Done(done) => self.end = done.parameters.zip(done.timings),
            Event::Accepted(_)
            | Event::Waiting(_)
            | Event::Started(_)
            | Event::Step(_)
            | Event::Preview(_)
            | Event::Restarted(_) => {}
        }
    }

    /// Its pictures in their order, and what is said of them.
    ///
    /// # Errors
    /// [`NO_PICTURE`] when it ended too early.
    pub(crate) fn end(mut self) -> Result<Finished, Error> {
        match self.end {
            Some((made, timings)) if !self.images.is_empty() => {
                self.images.sort_by_key(|image| image.index);
                Ok(Finished {
                    images: self.images,
                    made,
                    timings,
                })
            }
            Some(_) | None => Err(NO_PICTURE),
        }
    }
}

impl Finished {
    /// Reads the events to their end.
    ///
    /// # Errors
    /// Those of the request; [`NO_PICTURE`] when it ended too early.
    pub(crate) async fn read(mut events: Events) -> Result<Self, Error> {
        let mut drawn = Drawn::default();
        while let Some(event) = events.next().await {
            drawn.take(event?);
        }
        drawn.end()
    }
}
