//! What is written into a picture's PNG text chunks: how it was made, for people, for other tools, and for machines.
//!
//! - `parameters`: the infotext of Stable Diffusion web UI (A1111), which most galleries and tools read.
//! - `mobula-*`: one chunk per parameter, named as the HTTP headers are.
//! - `Software`, a keyword of the PNG specification, and `AI-Generated`, so that a picture says what it is.
//!
//! Invariant: with what is written anybody with the same model draws the same picture again.

use std::fmt::Write as _;

use mobula_proto::inference::v1::TextChunk;

use crate::validate::Plan;

/// Characters of the digest in the infotext; A1111 shows ten.
const SHORT_DIGEST: usize = 10;

/// The model that draws.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model<'a> {
    /// Name by which it was asked for.
    pub(crate) name: &'a str,
    /// SHA-256 over its files, hexadecimal.
    pub(crate) digest: &'a str,
}

/// All chunks of all pictures of a request.
pub(crate) fn chunks(plan: &Plan, model: Model<'_>) -> Vec<TextChunk> {
    let mut chunks = Vec::with_capacity(7 + 2 * plan.seeds.len());
    for (index, &seed) in (0u32..).zip(&plan.seeds) {
        let image_index = (plan.seeds.len() > 1).then_some(index);
        chunks.push(TextChunk {
            image_index,
            ..chunk("parameters", infotext(plan, model, seed))
        });
        chunks.push(TextChunk {
            image_index,
            ..chunk("mobula-seed", seed.to_string())
        });
    }
    chunks.push(chunk("mobula-scheduler", plan.scheduler.clone()));
    chunks.push(chunk("mobula-steps", plan.steps.to_string()));
    chunks.push(chunk("mobula-guidance-scale", plan.guidance_scale.to_string()));
    chunks.push(chunk("mobula-model", model.name.to_owned()));
    chunks.push(chunk("mobula-model-digest", model.digest.to_owned()));
    chunks.push(chunk(
        "Software",
        concat!("Mobula ", env!("CARGO_PKG_VERSION")).to_owned(),
    ));
    chunks.push(chunk("AI-Generated", "true".to_owned()));
    chunks
}

fn chunk(keyword: &'static str, text: String) -> TextChunk {
    TextChunk {
        keyword: keyword.to_owned(),
        text,
        image_index: None,
    }
}

/// The infotext as A1111's `create_infotext` writes it.
fn infotext(plan: &Plan, model: Model<'_>, seed: u64) -> String {
    let mut text = String::with_capacity(plan.prompt.len() + plan.negative_prompt.len() + 256);
    text.push_str(&plan.prompt);
    if !plan.negative_prompt.is_empty() {
        text.push_str("\nNegative prompt: ");
        text.push_str(&plan.negative_prompt);
    }
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\nSteps: {}, Sampler: {}, CFG scale: {}, Seed: {seed}, Size: {}x{}, Model hash: {}, Model: {}, Version: mobula {}",
        plan.steps,
        sampler(&plan.scheduler),
        plan.guidance_scale,
        plan.width,
        plan.height,
        model.digest.get(..SHORT_DIGEST).unwrap_or(model.digest),
        quoted(model.name),
        env!("CARGO_PKG_VERSION"),
    );
    text
}

/// The name that A1111 gives a scheduler; those it does not have keep theirs.
fn sampler(scheduler: &str) -> String {
    let (base, karras) = match scheduler.strip_suffix("_karras") {
        Some(base) => (base, " Karras"),
        None => (scheduler, ""),
    };
    let name = match base {
        "pndm" => "PLMS",
        "ddim" => "DDIM",
        "euler" => "Euler",
        "euler_a" => "Euler a",
        "dpmpp_2m" => "DPM++ 2M",
        other => other,
    };
    format!("{name}{karras}")
}

/// A value with a comma, colon or line break is a JSON string, as A1111's `quote` makes it.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use mobula_serving::route::Cost;

    use super::*;

    fn plan() -> Plan {
        Plan {
            prompt: "a red circle".into(),
            negative_prompt: String::new(),
            width: 128,
            height: 64,
            steps: 20,
            guidance_scale: 7.5,
            scheduler: "dpmpp_2m_karras".into(),
            seeds: vec![42],
            preview_interval: 0,
            cost: Cost::rows(1),
        }
    }

    const MODEL: Model<'_> = Model {
        name: "demo",
        digest: "0123456789abcdef",
    };

    #[test]
    fn the_infotext_is_what_other_tools_read() {
        let expected = concat!(
            "a red circle\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 42, Size: 128x64, ",
            "Model hash: 0123456789, Model: demo, Version: mobula ",
            env!("CARGO_PKG_VERSION"),
        );
        assert_eq!(infotext(&plan(), MODEL, 42), expected);
    }

    #[test]
    fn a_negative_prompt_has_its_own_line() {
        let plan = Plan {
            negative_prompt: "blue".into(),
            guidance_scale: 7.0,
            ..plan()
        };
        let text = infotext(&plan, MODEL, 1);
        assert!(
            text.starts_with("a red circle\nNegative prompt: blue\nSteps: 20"),
            "{text}"
        );
        assert!(text.contains("CFG scale: 7,"), "{text}");
    }

    #[test]
    fn each_picture_has_its_own_seed_and_all_share_the_rest() {
        let chunks = chunks(
            &Plan {
                seeds: vec![5, 6],
                ..plan()
            },
            MODEL,
        );
        let of = |keyword: &str| -> Vec<_> {
            chunks
                .iter()
                .filter(|c| c.keyword == keyword)
                .map(|c| (c.image_index, c.text.as_str()))
                .collect()
        };
        assert_eq!(of("mobula-seed"), [(Some(0), "5"), (Some(1), "6")]);
        assert_eq!(of("mobula-steps"), [(None, "20")]);
        assert_eq!(of("parameters").len(), 2);
        assert_eq!(of("AI-Generated"), [(None, "true")]);
    }

    #[test]
    fn a_model_name_that_would_break_the_list_is_quoted() {
        assert_eq!(quoted("a, b"), "\"a, b\"");
        assert_eq!(quoted("plain"), "plain");
    }
}
