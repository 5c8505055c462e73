//! OpenAI's fields that choose nothing here: hints are read and have no effect, what would be promised and not kept is
//! refused by name. Pure.

use mobula_proto::image::v1::ImageFormat;

use super::{fields::Fields, format};

/// Words that are hints, by field.
const HINTS: &[(&str, &[&str])] = &[
    (
        "quality",
        &["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"],
    ),
    ("style", &["vivid", "natural"]),
    // Nothing is filtered: `low` asks for little of it, and `auto` leaves it to the server.
    ("moderation", &["low", "auto"]),
    ("complexity", &["low", "medium", "high"]),
    ("input_fidelity", &["high", "low"]),
];

/// Compression without loss, or of a JPEG with the least, as OpenAI's default is.
const LOSSLESS: u64 = 100;

/// Reads them all; gives the format that is asked for, and of a JPEG its quality, 1 to 100.
pub(super) fn read(fields: &mut Fields) -> (ImageFormat, u32) {
    for (field, words) in HINTS {
        fields.word(field, words);
    }
    // Who the caller's own users are: nobody's business here, and in no log.
    fields.text("user");
    fields.text("safety_identifier");
    if fields.word("background", &["auto", "opaque", "transparent"]) == Some("transparent") {
        fields.wrong("background", "is transparent; pictures are opaque here");
    }
    let asked = fields.word("output_format", format::WORDS);
    let chosen = asked.and_then(format::read).unwrap_or_default();
    if let Some(asked) = asked
        && format::read(asked).is_none()
    {
        let made: Vec<_> = format::MADE.iter().map(|made| format::word(*made)).collect();
        fields.wrong(
            "output_format",
            format!("is {asked}; pictures are {} here", made.join(" or ")),
        );
    }
    let level = fields
        .integer("output_compression", 0..=LOSSLESS)
        .unwrap_or(LOSSLESS);
    let is_lossy = chosen == ImageFormat::Jpeg;
    if level != LOSSLESS && !is_lossy {
        let why = format!("is {level}; png and webp are without loss here, which is {LOSSLESS}");
        fields.wrong("output_compression", why);
    }
    for field in ["frame_count", "frame_duration_ms", "svg"] {
        if fields.has(field) {
            fields.wrong(
                field,
                "is of a format that is not made here; pictures are png, jpeg or webp",
            );
        }
    }
    if fields.has("markup") {
        fields.wrong("markup", "cannot be followed; give a mask instead");
    }
    let quality = u32::try_from(level.max(1)).ok().filter(|_| is_lossy);
    (chosen, quality.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> Vec<String> {
        let mut fields = Fields::json(body.as_bytes()).unwrap();
        read(&mut fields);
        let words = |p: &crate::Problem| format!("{} {}", p.field, p.rule);
        fields.problems.iter().map(words).collect()
    }

    #[test]
    fn hints_are_read_and_promises_that_cannot_be_kept_are_refused() {
        let fine = r#"{"quality": "hd", "style": "vivid", "moderation": "low", "user": "u-1", "safety_identifier": "x",
            "background": "opaque", "output_format": "png", "output_compression": 100, "input_fidelity": "high"}"#;
        assert_eq!(told(fine), [""; 0]);
        let chosen = |body: &str| read(&mut Fields::json(body.as_bytes()).unwrap());
        assert_eq!(chosen(fine), (ImageFormat::Png, 0));
        assert_eq!(chosen(r#"{"output_format": "webp"}"#), (ImageFormat::Webp, 0));
        assert_eq!(chosen(r#"{"output_format": "jpeg"}"#), (ImageFormat::Jpeg, 100));
        let low = r#"{"output_format": "jpeg", "output_compression": 0}"#;
        assert_eq!((chosen(low), told(low)), ((ImageFormat::Jpeg, 1), Vec::new()));
        let body = r#"{"quality": "best", "user": 7, "background": "transparent", "output_format": "gif",
            "output_compression": 80, "frame_count": 4, "svg": {}, "markup": "x"}"#;
        let told = told(body);
        let names: Vec<_> = told.iter().map(|told| told.split(' ').next().unwrap()).collect();
        let expected = [
            "quality",
            "user",
            "background",
            "output_format",
            "output_compression",
            "frame_count",
            "svg",
            "markup",
        ];
        assert_eq!(names, expected);
        assert!(
            told[3].ends_with("is gif; pictures are png or jpeg or webp here"),
            "{told:?}"
        );
    }
}
