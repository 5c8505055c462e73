//! What is told about a finished picture. Pure.

use std::time::Duration;

use mobula_proto::common::v1::Timings;
use mobula_proto::image::v1::{Done, Image};

use crate::human;

/// Digits of a model's digest that are shown; enough to tell models apart.
const DIGEST_DIGITS: usize = 12;

/// Three lines about one picture: the file, its digest, where the time went.
pub(crate) fn picture(name: &str, image: &Image) -> String {
    let mut text = format!("{name}: {}x{}, seed {}", image.width, image.height, image.seed);
    text.push_str(&format!("\n  sha256 {}", image.digest));
    if let Some(timings) = &image.timings {
        text.push_str(&format!("\n  time   {}", split(timings)));
    }
    text
}

/// What the pictures were made with, and which words were lost.
pub(crate) fn done(done: &Done) -> String {
    let Some(parameters) = &done.parameters else {
        return String::new();
    };
    let digest: String = parameters.model_digest.chars().take(DIGEST_DIGITS).collect();
    let mut text = format!(
        "  with   {} ({digest}), {}{}, {}, guidance {}",
        parameters.model,
        parameters.scheduler,
        match parameters.sigma_schedule.as_str() {
            "" => String::new(),
            schedule => format!(" {schedule}"),
        },
        human::count(parameters.steps as usize, "step"),
        parameters.guidance_scale,
    );
    if parameters.strength > 0.0 {
        text.push_str(&format!(", strength {}", parameters.strength));
    }
    for (which, lost) in [
        ("prompt", &parameters.truncated_prompt),
        ("negative prompt", &parameters.truncated_negative_prompt),
    ] {
        if !lost.is_empty() {
            text.push_str(&format!(
                "\n  note: the {which} is too long for the model; not seen: \"{lost}\""
            ));
        }
    }
    text
}

fn split(timings: &Timings) -> String {
    let parts = [
        ("queue", timings.queue_us),
        ("tokens", timings.preprocess_us),
        ("text", timings.encode_us),
        ("denoise", timings.denoise_us),
        ("decode", timings.decode_us),
        ("png", timings.image_us),
    ];
    let parts: Vec<_> = parts
        .into_iter()
        .filter(|(_, us)| *us > 0)
        .map(|(what, us)| format!("{what} {}", micros(us)))
        .collect();
    let total = micros(timings.total_us);
    if parts.is_empty() {
        total
    } else {
        format!("{total} ({})", parts.join(", "))
    }
}

fn micros(us: u64) -> String {
    human::duration(Duration::from_micros(us))
}

#[cfg(test)]
mod tests {
    use mobula_proto::image::v1::Parameters;

    use super::*;

    #[test]
    fn a_picture_is_told_with_seed_digest_and_times() {
        let image = Image {
            width: 128,
            height: 64,
            seed: 7,
            digest: "ab12".into(),
            timings: Some(Timings {
                denoise_us: 400_000,
                decode_us: 22_000,
                total_us: 431_000,
                ..Timings::default()
            }),
            ..Image::default()
        };
        assert_eq!(
            picture("out.png", &image),
            "out.png: 128x64, seed 7\n  sha256 ab12\n  time   431 ms (denoise 400 ms, decode 22 ms)"
        );
    }

    #[test]
    fn lost_words_are_told() {
        let parameters = Parameters {
            model: "demo".into(),
            model_digest: "0123456789abcdef".into(),
            scheduler: "euler".into(),
            steps: 20,
            guidance_scale: 7.5,
            sigma_schedule: "karras".into(),
            strength: 0.5,
            truncated_prompt: "and a cat".into(),
            ..Parameters::default()
        };
        assert_eq!(
            done(&Done {
                parameters: Some(parameters),
                ..Done::default()
            }),
            "  with   demo (0123456789ab), euler karras, 20 steps, guidance 7.5, strength 0.5\n  \
             note: the prompt is too long for the model; not seen: \"and a cat\""
        );
    }
}
