//! What requests that draw have come to, as answers. Pure.

use bytes::BytesMut;
use mobula_proto::{
    common::v1::{Pixels, Timings},
    image::v1::{Image, Parameters as Made, generate_response::Event},
};

use super::{
    ask::{Answer, Parameters, Value},
    datatype::Datatype,
    pipeline::{self, Output},
    spec::{IMAGE, PIXELS, PREVIEW, SEED},
    tensor::{Tensor, wrong},
};
use crate::{Error, finished::Finished};

/// One answer with the pictures of all requests, in order. `pixels` are theirs, where they are asked for.
///
/// # Errors
/// [`Error::Invalid`] when pixels of several sizes are to be one tensor.
pub(crate) fn answer(all: Vec<Finished>, pixels: Vec<Pixels>, outputs: &[Output]) -> Result<Answer, Error> {
    let mut parameters = all
        .first()
        .map(|first| pipeline::about(&first.made))
        .unwrap_or_default();
    parameters.extend(times(all.iter().map(|one| one.timings)));
    let images: Vec<_> = all.into_iter().flat_map(|one| one.images).collect();
    let outputs = tensors(images, pixels, outputs)?;
    Ok(Answer { parameters, outputs })
}

/// An answer with one picture, as it comes.
pub(crate) fn picture(
    prompt: usize,
    image: Image,
    pixels: Vec<Pixels>,
    outputs: &[Output],
) -> Result<Answer, Error> {
    let mut parameters = told("image", prompt);
    parameters.insert("index".to_owned(), image.index.into());
    let outputs = tensors(vec![image], pixels, outputs)?;
    Ok(Answer { parameters, outputs })
}

/// An answer that tells of an event that is no picture; none where nothing is to be told.
pub(crate) fn progress(prompt: usize, event: Event, is_progress: bool) -> Option<Answer> {
    let say = |kind, values: &[(&str, Value)]| {
        let mut parameters = told(kind, prompt);
        parameters.extend(
            values
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        Answer {
            parameters,
            outputs: Vec::new(),
        }
    };
    match event {
        Event::Preview(preview) => {
            let mut answer = say(
                "preview",
                &[
                    ("index", preview.image_index.into()),
                    ("step", preview.step.into()),
                ],
            );
            answer.outputs = vec![Tensor::bytes(PREVIEW, vec![preview.png])];
            Some(answer)
        }
        _ if !is_progress => None,
        Event::Accepted(accepted) => Some(say(
            "accepted",
            &[
                ("request_id", accepted.request_id.as_str().into()),
                ("queue_position", accepted.queue_position.into()),
                ("eta_ms", accepted.eta_ms.into()),
            ],
        )),
        Event::Waiting(waiting) => Some(say(
            "waiting",
            &[
                ("queue_position", waiting.queue_position.into()),
                ("eta_ms", waiting.eta_ms.into()),
            ],
        )),
        Event::Started(started) => Some(say(
            "started",
            &[("replica_id", started.replica_id.as_str().into())],
        )),
        Event::Step(step) => Some(say(
            "step",
            &[("step", step.index.into()), ("of", step.of.into())],
        )),
        Event::Restarted(restarted) => Some(say(
            "restarted",
            &[
                ("reason", restarted.reason.as_str().into()),
                ("attempt", restarted.attempt.into()),
            ],
        )),
        Event::Image(_) | Event::Done(_) => None,
    }
}

/// What ends a stream's answers to a request.
pub(crate) fn ending(ends: &[(Made, Timings)]) -> Parameters {
    let mut parameters = ends
        .first()
        .map(|(made, _)| pipeline::about(made))
        .unwrap_or_default();
    parameters.extend(times(ends.iter().map(|(_, timings)| *timings)));
    parameters
}

fn told(kind: &str, prompt: usize) -> Parameters {
    let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
    [
        ("event".to_owned(), kind.into()),
        ("prompt_index".to_owned(), prompt.into()),
    ]
    .into()
}

/// Where the time went: of several requests, which ran at a time, the longest.
fn times(all: impl Iterator<Item = Timings>) -> Parameters {
    let mut longest = Timings::default();
    for t in all {
        longest = Timings {
            queue_us: longest.queue_us.max(t.queue_us),
            preprocess_us: longest.preprocess_us.max(t.preprocess_us),
            encode_us: longest.encode_us.max(t.encode_us),
            denoise_us: longest.denoise_us.max(t.denoise_us),
            decode_us: longest.decode_us.max(t.decode_us),
            image_us: longest.image_us.max(t.image_us),
            total_us: longest.total_us.max(t.total_us),
            ticks: longest.ticks.max(t.ticks),
        };
    }
    [
        ("queue_us", longest.queue_us),
        ("preprocess_us", longest.preprocess_us),
        ("encode_us", longest.encode_us),
        ("denoise_us", longest.denoise_us),
        ("decode_us", longest.decode_us),
        ("image_us", longest.image_us),
        ("total_us", longest.total_us),
    ]
    .map(|(name, micros)| (name.to_owned(), micros.into()))
    .into()
}

fn tensors(images: Vec<Image>, pixels: Vec<Pixels>, outputs: &[Output]) -> Result<Vec<Tensor>, Error> {
    let mut pixels = Some(pixels);
    let tensor = |output: &Output| match output {
        Output::Image => Ok(Tensor::bytes(
            IMAGE,
            images.iter().map(|image| image.data.clone()).collect(),
        )),
        Output::Seed => {
            let seeds: Vec<_> = images.iter().map(|image| image.seed).collect();
            Ok(Tensor::uint64(SEED, &seeds))
        }
        Output::Pixels => stack(pixels.take().unwrap_or_default()),
    };
    outputs.iter().map(tensor).collect()
}

/// Pictures of one size as one tensor.
fn stack(pixels: Vec<Pixels>) -> Result<Tensor, Error> {
    let first = pixels
        .first()
        .map(|first| (first.width, first.height))
        .unwrap_or_default();
    if let Some(other) = pixels.iter().find(|one| (one.width, one.height) != first) {
        let why = format!(
            "would be pictures of {} x {} and of {} x {}; give width and height, or ask for {IMAGE}",
            first.0, first.1, other.width, other.height
        );
        return Err(Error::Invalid(vec![wrong(PIXELS, why)]));
    }
    let shape = vec![pixels.len() as i64, first.1.into(), first.0.into(), 3];
    let mut pixels = pixels.into_iter();
    let data = match (pixels.next(), pixels.len()) {
        (Some(only), 0) => only.data,
        (first, _) => {
            let mut whole = BytesMut::new();
            first.iter().for_each(|one| whole.extend_from_slice(&one.data));
            pixels.for_each(|one| whole.extend_from_slice(&one.data));
            whole.freeze()
        }
    };
    Ok(Tensor::of(PIXELS, Datatype::Uint8, shape, data))
}

#[cfg(test)]
mod tests {
    use mobula_proto::image::v1 as image;

    use super::*;
    use crate::finished::Drawn;

    fn picture_of(index: u32, seed: u64) -> Event {
        Event::Image(Image {
            index,
            seed,
            data: format!("file {seed}").into(),
            ..Image::default()
        })
    }

    fn done(total_us: u64) -> Event {
        let timings = Timings {
            total_us,
            ..Timings::default()
        };
        let made = Made {
            guidance_scale: 7.1,
            ..Made::default()
        };
        Event::Done(image::Done {
            timings: Some(timings),
            parameters: Some(made),
        })
    }

    fn pixels(width: u32, height: u32, value: u8) -> Pixels {
        Pixels {
            width,
            height,
            data: vec![value; (width * height * 3) as usize].into(),
        }
    }

    #[test]
    fn pictures_of_several_prompts_are_one_row_in_their_order() {
        let finished = |events: Vec<Event>| {
            let mut drawn = Drawn::default();
            events.into_iter().for_each(|event| drawn.take(event));
            drawn.end().unwrap()
        };
        let all = vec![
            finished(vec![picture_of(1, 8), picture_of(0, 7), done(5)]),
            finished(vec![picture_of(0, 9), done(4)]),
        ];
        let answer = answer(all, Vec::new(), &[Output::Seed, Output::Image]).unwrap();
        assert_eq!(answer.outputs[0], Tensor::uint64("seed", &[7, 8, 9]));
        let files = ["file 7", "file 8", "file 9"].map(bytes::Bytes::from).to_vec();
        assert_eq!(answer.outputs[1], Tensor::bytes("image", files));
        assert_eq!(answer.parameters["total_us"], Value::Integer(5));
        assert_eq!(
            answer.parameters["guidance_scale"],
            Value::Number(7.1),
            "as people write it"
        );
    }

    #[test]
    fn a_request_without_a_picture_or_an_end_is_no_answer() {
        let mut drawn = Drawn::default();
        drawn.take(picture_of(0, 1));
        assert!(drawn.end().is_err());
        let mut drawn = Drawn::default();
        drawn.take(done(1));
        assert!(drawn.end().is_err());
    }

    #[test]
    fn pixels_are_one_tensor_of_one_size() {
        let tensor = stack(vec![pixels(2, 1, 5), pixels(2, 1, 6)]).unwrap();
        assert_eq!(tensor.shape, [2, 1, 2, 3]);
        assert_eq!(tensor.into_raw(), [[5; 6], [6; 6]].concat());
        let error = stack(vec![pixels(2, 1, 5), pixels(1, 2, 6)]).unwrap_err();
        assert_eq!(error.violations()[0].0, "pixels");
        assert!(error.to_string().contains("2 x 1 and of 1 x 2"), "{error}");
    }

    #[test]
    fn only_what_was_asked_for_is_told_on_the_way() {
        let step = || Event::Step(image::Step { index: 3, of: 9 });
        assert!(progress(0, step(), false).is_none());
        let told = progress(1, step(), true).unwrap();
        let says = |name: &str| told.parameters[name].clone();
        assert_eq!(
            (says("event"), says("prompt_index")),
            ("step".into(), 1u32.into())
        );
        assert_eq!((says("step"), says("of")), (3u32.into(), 9u32.into()));
        let preview = Event::Preview(image::Preview {
            png: "png".into(),
            ..Default::default()
        });
        let told = progress(0, preview, false).unwrap();
        assert_eq!(told.outputs, [Tensor::bytes("preview", vec!["png".into()])]);
    }
}
