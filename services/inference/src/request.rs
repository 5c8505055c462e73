//! A request as it comes from the wire, checked field by field before it costs anything.
//!
//! Every wrong field is named, all of them at once. It changes nothing about a request and takes no default.

use std::sync::Arc;

use mobula_diffusion::{Kind, scheduler};
use mobula_proto::inference::v1::GenerateRequest;

use crate::engine::Info;
use crate::png::{self, Text};

/// Pictures in one request at most; more are as well asked for by several.
const MAX_SEEDS: usize = 64;
/// Text chunks in a picture, and characters in them: a prompt and what it was drawn with, with room.
const MAX_CHUNKS: usize = 64;
const MAX_TEXT: usize = 1 << 20;
/// Above it a picture is noise in every model.
pub(crate) const MAX_GUIDANCE: f32 = 1000.0;
/// Longest request id that is taken into logs.
const MAX_REQUEST_ID: usize = 256;

/// What a checked request asks for.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) prompt: Arc<[u32]>,
    /// Present exactly with guidance.
    pub(crate) negative: Option<Arc<[u32]>>,
    /// `None` is the model's own.
    pub(crate) scheduler: Option<Kind>,
    /// Index and seed of each picture that is wanted.
    pub(crate) pictures: Vec<(u32, u64)>,
    pub(crate) text: Vec<Text>,
}

/// Wrong fields and why.
struct Violations(Vec<(String, String)>);

impl Violations {
    fn expect(&mut self, right: bool, field: &str, why: impl FnOnce() -> String) {
        if !right {
            self.0.push((field.to_owned(), why()));
        }
    }
}

/// Checks a request for a model.
///
/// # Errors
/// All wrong fields, each with the reason.
pub(crate) fn check(
    request: GenerateRequest,
    info: &Info,
    max_size: u32,
) -> Result<Checked, Vec<(String, String)>> {
    let mut wrong = Violations(Vec::new());
    let guided = request.guidance_scale > 1.0;
    check_ids(&mut wrong, "prompt_ids", &request.prompt_ids, info);
    if guided {
        check_ids(
            &mut wrong,
            "negative_prompt_ids",
            &request.negative_prompt_ids,
            info,
        );
    }
    for (field, side) in [("width", request.width), ("height", request.height)] {
        let multiple = info.multiple as u32;
        wrong.expect(
            side > 0 && side.is_multiple_of(multiple) && side <= max_size,
            field,
            || format!("{side} is no multiple of {multiple} from {multiple} to {max_size}"),
        );
    }
    let max_steps = scheduler::MAX_STEPS as u32;
    wrong.expect((1..=max_steps).contains(&request.steps), "steps", || {
        format!("{} is not between 1 and {max_steps}", request.steps)
    });
    wrong.expect(
        (0.0..=MAX_GUIDANCE).contains(&request.guidance_scale),
        "guidance_scale",
        || format!("{} is not between 0 and {MAX_GUIDANCE}", request.guidance_scale),
    );
    let parsed = match request.scheduler.as_str() {
        "" => None,
        name => name
            .parse()
            .map_err(|error: mobula_diffusion::Error| {
                wrong.expect(false, "scheduler", || {
                    error.to_string().replace("scheduler: ", "")
                });
            })
            .ok(),
    };
    let seeds = request.seeds.len();
    wrong.expect((1..=MAX_SEEDS).contains(&seeds), "seeds", || {
        format!("{seeds} seeds, expected 1 to {MAX_SEEDS}")
    });
    for index in &request.skip_images {
        wrong.expect((*index as usize) < seeds, "skip_images", || {
            format!("{index} is none of {seeds} pictures")
        });
    }
    wrong.expect(request.request_id.len() <= MAX_REQUEST_ID, "request_id", || {
        format!("longer than {MAX_REQUEST_ID} bytes")
    });
    check_chunks(&mut wrong, &request);
    if !wrong.0.is_empty() {
        return Err(wrong.0);
    }
    let GenerateRequest {
        prompt_ids,
        negative_prompt_ids,
        seeds,
        skip_images,
        text_chunks,
        ..
    } = request;
    Ok(Checked {
        prompt: prompt_ids.into(),
        negative: guided.then(|| negative_prompt_ids.into()),
        scheduler: parsed,
        pictures: (0..)
            .zip(seeds)
            .filter(|(index, _)| !skip_images.contains(index))
            .collect(),
        text: text_chunks
            .into_iter()
            .map(|chunk| Text {
                keyword: chunk.keyword,
                text: chunk.text,
                only: chunk.image_index,
            })
            .collect(),
    })
}

fn check_ids(wrong: &mut Violations, field: &str, ids: &[u32], info: &Info) {
    wrong.expect(ids.len() == info.window, field, || {
        format!("{} ids, expected {}", ids.len(), info.window)
    });
    let above = ids.iter().find(|id| **id >= info.vocabulary);
    wrong.expect(above.is_none(), field, || {
        format!(
            "id {} is not below {}",
            above.copied().unwrap_or_default(),
            info.vocabulary
        )
    });
}

fn check_chunks(wrong: &mut Violations, request: &GenerateRequest) {
    let chunks = &request.text_chunks;
    let length: usize = chunks.iter().map(|chunk| chunk.text.len()).sum();
    wrong.expect(
        chunks.len() <= MAX_CHUNKS && length <= MAX_TEXT,
        "text_chunks",
        || {
            format!(
                "{} chunks of {length} bytes, expected at most {MAX_CHUNKS} and {MAX_TEXT}",
                chunks.len()
            )
        },
    );
    let keyword = chunks.iter().find(|chunk| !png::is_keyword(&chunk.keyword));
    wrong.expect(keyword.is_none(), "text_chunks", || {
        let keyword: String = keyword
            .iter()
            .flat_map(|chunk| chunk.keyword.chars())
            .take(80)
            .collect();
        format!("{keyword:?} is no PNG keyword")
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobula_proto::inference::v1::TextChunk;

    const INFO: Info = Info {
        window: 3,
        vocabulary: 10,
        width: 4,
        channels: 4,
        scale: 8,
        multiple: 16,
        mixed_timesteps: true,
    };

    fn right() -> GenerateRequest {
        GenerateRequest {
            prompt_ids: vec![1, 2, 3],
            negative_prompt_ids: vec![4, 5, 6],
            width: 32,
            height: 64,
            steps: 20,
            guidance_scale: 7.5,
            scheduler: "euler_a".into(),
            seeds: vec![5, 6, 7],
            skip_images: vec![1],
            ..GenerateRequest::default()
        }
    }

    #[test]
    fn a_right_request_is_taken_as_it_is() {
        let checked = check(right(), &INFO, 64).unwrap();
        assert_eq!(checked.pictures, [(0, 5), (2, 7)]);
        assert_eq!(checked.scheduler, Some(Kind::EulerAncestral));
        assert_eq!(checked.negative.as_deref(), Some(&[4, 5, 6][..]));
        let unguided = GenerateRequest {
            guidance_scale: 1.0,
            negative_prompt_ids: vec![],
            ..right()
        };
        assert_eq!(check(unguided, &INFO, 64).unwrap().negative, None);
    }

    #[test]
    fn each_wrong_field_is_named() {
        let cases: [(&str, GenerateRequest); 16] = [
            (
                "prompt_ids",
                GenerateRequest {
                    prompt_ids: vec![1, 2],
                    ..right()
                },
            ),
            (
                "prompt_ids",
                GenerateRequest {
                    prompt_ids: vec![1, 2, 10],
                    ..right()
                },
            ),
            (
                "negative_prompt_ids",
                GenerateRequest {
                    negative_prompt_ids: vec![],
                    ..right()
                },
            ),
            ("width", GenerateRequest { width: 0, ..right() }),
            ("width", GenerateRequest { width: 24, ..right() }),
            (
                "height",
                GenerateRequest {
                    height: 80,
                    ..right()
                },
            ),
            ("steps", GenerateRequest { steps: 0, ..right() }),
            (
                "steps",
                GenerateRequest {
                    steps: 10_000,
                    ..right()
                },
            ),
            (
                "guidance_scale",
                GenerateRequest {
                    guidance_scale: f32::NAN,
                    ..right()
                },
            ),
            (
                "guidance_scale",
                GenerateRequest {
                    guidance_scale: f32::INFINITY,
                    ..right()
                },
            ),
            (
                "guidance_scale",
                GenerateRequest {
                    guidance_scale: -1.0,
                    ..right()
                },
            ),
            (
                "scheduler",
                GenerateRequest {
                    scheduler: "pndm_karras".into(),
                    ..right()
                },
            ),
            (
                "seeds",
                GenerateRequest {
                    seeds: vec![],
                    skip_images: vec![],
                    ..right()
                },
            ),
            (
                "seeds",
                GenerateRequest {
                    seeds: vec![0; 65],
                    ..right()
                },
            ),
            (
                "skip_images",
                GenerateRequest {
                    skip_images: vec![3],
                    ..right()
                },
            ),
            ("text_chunks", {
                let chunk = TextChunk::default();
                GenerateRequest {
                    text_chunks: vec![chunk],
                    ..right()
                }
            }),
        ];
        for (field, request) in cases {
            let wrong = check(request, &INFO, 64).unwrap_err();
            assert_eq!(
                wrong.iter().map(|(field, _)| field.as_str()).collect::<Vec<_>>(),
                [field],
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn all_wrong_fields_are_told_at_once() {
        let wrong = check(GenerateRequest::default(), &INFO, 64).unwrap_err();
        let fields: Vec<_> = wrong.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["prompt_ids", "width", "height", "steps", "seeds"]);
    }
}
