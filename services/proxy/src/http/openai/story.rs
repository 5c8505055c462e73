//! A request's events as OpenAI's: partial pictures at even steps, then the pictures. Pure.
//!
//! Invariant: of each picture at most as many partial ones as were asked for are told, in order, also after a restart.

use bytes::Bytes;
use mobula_proto::image::v1::generate_response::Event;
use serde_json::{Value, json};

use super::{
    answer::{size, usage},
    error, format,
    path::Endpoint,
    pieces::Pieces,
    translate::interval,
};
use crate::Error;

/// What was told so far.
#[derive(Debug)]
pub(super) struct Story {
    /// How the types of its events begin.
    name: &'static str,
    /// Partial pictures of each.
    partial: u32,
    /// The size that was asked for.
    size: String,
    /// Steps in all, once they are known.
    steps: u32,
    /// Partial pictures that were told, of each.
    told: Vec<u32>,
}

impl Story {
    /// Begins, for an answer with so many pictures of so many partial ones each.
    pub(super) fn new(
        endpoint: &Endpoint,
        (pictures, partial): (u32, u32),
        asked: Option<(u32, u32)>,
    ) -> Self {
        Self {
            name: match endpoint {
                Endpoint::Edits => "image_edit",
                Endpoint::Generations
                | Endpoint::Variations
                | Endpoint::Models
                | Endpoint::Model(_)
                | Endpoint::File(_) => "image_generation",
            },
            partial,
            size: asked.map_or_else(|| "auto".to_owned(), |(width, height)| size(width, height)),
            steps: 0,
            told: vec![0; pictures as usize],
        }
    }

    /// What an event is told as, at a time in seconds; nothing when it is not.
    pub(super) fn tell(&mut self, event: Event, now: u64) -> Option<Pieces> {
        match event {
            Event::Step(step) => {
                self.steps = step.of;
                None
            }
            Event::Preview(preview) => {
                let told = self.told.get_mut(preview.image_index as usize)?;
                let due = (*told + 1) * interval(self.steps, self.partial);
                if *told == self.partial || preview.step < due || preview.step >= self.steps {
                    return None;
                }
                let index = *told;
                *told += 1;
                let about = json!({
                    "partial_image_index": index,
                    "image_index": preview.image_index,
                    "size": self.size,
                    "output_format": "png",
                });
                Some(self.event("partial_image", preview.png, about, now))
            }
            Event::Image(image) => {
                let about = json!({
                    "image_index": image.index,
                    "size": size(image.width, image.height),
                    "output_format": format::word(image.format()),
                    "seed": image.seed,
                    "usage": usage(),
                });
                Some(self.event("completed", image.data, about, now))
            }
            Event::Accepted(_)
            | Event::Waiting(_)
            | Event::Started(_)
            | Event::Restarted(_)
            | Event::Done(_) => None,
        }
    }

    fn event(&self, kind: &str, data: Bytes, mut about: Value, now: u64) -> Pieces {
        let kind = format!("{}.{kind}", self.name);
        let common = [
            ("type", json!(kind)),
            ("created_at", json!(now)),
            ("background", json!("opaque")),
            ("quality", json!("auto")),
        ];
        if let Some(about) = about.as_object_mut() {
            about.extend(common.map(|(name, value)| (name.to_owned(), value)));
        }
        Pieces::default()
            .text(format!("event: {kind}\ndata: "))
            .picture(data, &about)
            .text("\n\n")
    }
}

/// What a stream ends with that fails.
pub(super) fn failed(error: Error) -> Pieces {
    Pieces::default().text(format!("event: error\ndata: {}\n\n", error::event(error)))
}

#[cfg(test)]
mod tests {
    use mobula_proto::image::v1::{Image, Preview, Restarted, Step};

    use super::*;

    fn step(of: u32) -> Event {
        Event::Step(Step { index: 1, of })
    }

    fn preview(image_index: u32, step: u32) -> Event {
        let png = Bytes::from_static(b"p");
        Event::Preview(Preview {
            image_index,
            step,
            png,
        })
    }

    fn told(story: &mut Story, event: Event) -> Option<(String, Value)> {
        let all: Vec<Bytes> = story.tell(event, 1_700_000_000)?.map(Result::unwrap).collect();
        let text = String::from_utf8(all.concat()).unwrap();
        let (name, data) = text.strip_suffix("\n\n").unwrap().split_once('\n').unwrap();
        let name = name.strip_prefix("event: ").unwrap().to_owned();
        Some((
            name,
            serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
        ))
    }

    #[test]
    fn partial_pictures_are_told_at_even_steps_once_each() {
        let mut story = Story::new(&Endpoint::Generations, (2, 3), Some((128, 64)));
        assert!(told(&mut story, step(20)).is_none());
        let mut seen = Vec::new();
        for at in 1..=20 {
            for picture in 0..2 {
                if let Some((name, data)) = told(&mut story, preview(picture, at)) {
                    assert_eq!(name, "image_generation.partial_image");
                    assert_eq!((&data["type"], &data["size"]), (&json!(name), &json!("128x64")));
                    assert_eq!(data["b64_json"], "cA==");
                    seen.push((picture, at, data["partial_image_index"].as_u64().unwrap()));
                }
            }
            if at == 12 {
                let restarted = Restarted::default();
                assert!(told(&mut story, Event::Restarted(restarted)).is_none());
                assert!(told(&mut story, preview(0, 5)).is_none(), "it was told before");
            }
        }
        let expected = [5, 10, 15].iter().enumerate();
        let expected: Vec<_> = expected
            .flat_map(|(nth, at)| [(0, *at, nth as u64), (1, *at, nth as u64)])
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_last_step_is_no_partial_picture() {
        let mut story = Story::new(&Endpoint::Edits, (1, 3), None);
        told(&mut story, step(2));
        assert_eq!(
            told(&mut story, preview(0, 1)).unwrap().0,
            "image_edit.partial_image"
        );
        assert!(told(&mut story, preview(0, 2)).is_none());
        assert!(
            told(&mut story, preview(7, 1)).is_none(),
            "there is no such picture"
        );
    }

    #[test]
    fn a_picture_is_told_with_all_that_clients_expect() {
        let mut story = Story::new(&Endpoint::Edits, (1, 0), None);
        assert!(told(&mut story, preview(0, 1)).is_none(), "none was asked for");
        let image = Image {
            seed: 7,
            width: 128,
            height: 64,
            data: Bytes::from_static(b"png"),
            ..Image::default()
        };
        let (name, data) = told(&mut story, Event::Image(image)).unwrap();
        assert_eq!(name, "image_edit.completed");
        for (field, value) in [
            ("type", json!(name)),
            ("b64_json", json!("cG5n")),
            ("created_at", json!(1_700_000_000)),
            ("background", json!("opaque")),
            ("output_format", json!("png")),
            ("quality", json!("auto")),
            ("size", json!("128x64")),
            ("seed", json!(7)),
        ] {
            assert_eq!(data[field], value, "{field}");
        }
        assert_eq!(data["usage"]["total_tokens"], 0);
    }
}
