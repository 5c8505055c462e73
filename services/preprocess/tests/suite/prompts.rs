//! Prompt syntaxes against their references: the golden values of tools/reference/prompts.py.

use std::{fs, path::Path};

use crate::support::{GOLDEN, model, one};
use mobula_preprocess::{
    Error,
    prompt::{Ask, Limits, Part, Syntax, attention, compel, schedule, tokenize},
};
use mobula_proto::common::v1::{Emphasis, PromptVariant, PromptWindow};
use serde::Deserialize;

const WINDOW: usize = 77;

#[derive(Deserialize)]
struct Golden {
    steps: u32,
    a1111: Vec<Edited>,
    compel: Vec<Weighted>,
    long: Vec<String>,
    models: std::collections::BTreeMap<String, Windows>,
}

/// Last step, text, and its parts; none where a weight is no number.
type Span = (u32, String, Option<Vec<(String, f64)>>);

#[derive(Deserialize)]
struct Edited {
    text: String,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
struct Weighted {
    text: String,
    parts: Vec<(String, f64)>,
}

#[derive(Deserialize)]
struct Windows {
    /// Last step, windows, digest; none where the text is refused.
    a1111: Vec<Option<Vec<(u32, usize, String)>>>,
    /// Share, windows, digest.
    compel: Vec<Vec<(f64, usize, String)>>,
}

fn golden() -> Golden {
    serde_json::from_slice(&fs::read(Path::new(GOLDEN).join("prompts.json")).unwrap()).unwrap()
}

/// FNV-1a, 64 bits, of which 32 are kept.
fn digest(windows: &[PromptWindow]) -> String {
    let weights = |window: &PromptWindow| match window.weights.is_empty() {
        true => vec![1.0; WINDOW],
        false => window.weights.clone(),
    };
    let bytes = windows.iter().flat_map(|window| {
        let ids = window.ids.iter().flat_map(|id| id.to_le_bytes());
        let weights = weights(window).into_iter().flat_map(f32::to_le_bytes);
        ids.chain(weights).collect::<Vec<u8>>()
    });
    let value = bytes.fold(0xCBF2_9CE4_8422_2325_u64, |value, byte| {
        (value ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    format!("{:08x}", value >> 32)
}

#[test]
fn a_text_changes_on_the_way_as_in_the_web_ui() {
    let Golden { a1111, steps, .. } = golden();
    let mut compared = 0;
    for Edited { text, spans } in a1111 {
        let seen = schedule::read(&text, steps, &Limits::default()).unwrap();
        let wanted: Vec<(u32, String)> = spans.into_iter().map(|(end, text, _)| (end, text)).collect();
        assert_eq!(seen, wanted, "{text:?}");
        compared += 1;
    }
    assert!(compared > 500);
}

#[test]
fn weights_are_those_of_the_web_ui() {
    let (mut compared, mut refused) = (0, 0);
    for (_, text, wanted) in golden().a1111.into_iter().flat_map(|edited| edited.spans) {
        let seen = attention::read(&text, &Limits::default());
        let Some(wanted) = wanted else {
            assert!(seen.is_err(), "{text:?}");
            refused += 1;
            continue;
        };
        let part = |(text, weight): (String, f64)| match (text.as_str(), weight) {
            ("BREAK", -1.0) => Part::Break,
            _ => Part::Text(text, weight),
        };
        let wanted: Vec<Part> = wanted.into_iter().map(part).collect();
        // Numbers come out of JSON with the last digit rounded.
        let same = |pair: (&Part, &Part)| match pair {
            (Part::Text(text, weight), Part::Text(wanted, other)) => {
                text == wanted && (weight - other).abs() <= 1e-14 * other.abs()
            }
            (seen, wanted) => seen == wanted,
        };
        let seen = seen.unwrap_or_default();
        let all = seen.len() == wanted.len() && seen.iter().zip(&wanted).all(same);
        assert!(all, "{text:?}: {seen:?} is not {wanted:?}");
        compared += 1;
    }
    assert!(compared > 700 && refused > 0, "{compared} {refused}");
}

#[test]
fn parts_are_those_of_compel() {
    let mut compared = 0;
    for Weighted { text, parts } in golden().compel {
        let seen = compel::read(&text, &Limits::default()).unwrap();
        let same = |((text, weight), (wanted, other)): (&(String, f64), &(String, f64))| {
            text == wanted && (weight - other).abs() <= 1e-14 * other.abs()
        };
        let all = seen.len() == parts.len() && seen.iter().zip(&parts).all(same);
        assert!(all, "{text:?}: {seen:?} is not {parts:?}");
        compared += 1;
    }
    assert!(compared > 500);
}

#[test]
fn windows_are_those_of_the_web_ui() {
    let golden = golden();
    let texts: Vec<&String> = golden
        .a1111
        .iter()
        .map(|edited| &edited.text)
        .chain(&golden.long)
        .collect();
    for (name, windows) in &golden.models {
        let model = model(&[("tokenizer", name)]);
        assert_eq!(texts.len(), windows.a1111.len());
        for (text, wanted) in texts.iter().zip(&windows.a1111) {
            let seen = one(&model, text, Syntax::A1111, golden.steps);
            let Some(wanted) = wanted else {
                assert!(matches!(seen, Err(Error::Invalid { field, .. }) if field == "texts[0]"));
                continue;
            };
            // The service joins spans with the same text and fills all up to as many windows.
            let prompt = seen.unwrap().prompt.unwrap();
            let mut spans = prompt.spans.iter();
            let mut span = spans.next().unwrap();
            for (end, windows, wanted) in wanted {
                if span.until_step != 0 && *end > span.until_step {
                    span = spans.next().unwrap();
                }
                let seen = &span.variants[0].windows;
                assert_eq!(digest(&seen[..*windows]), *wanted, "{name}: {text:?} at {end}");
            }
            assert!(spans.next().is_none() && span.until_step == 0, "{name}: {text:?}");
        }
    }
}

#[test]
fn windows_and_shares_are_those_of_compel() {
    let golden = golden();
    let texts: Vec<&String> = golden
        .compel
        .iter()
        .map(|weighted| &weighted.text)
        .chain(&golden.long)
        .collect();
    for (name, windows) in &golden.models {
        let model = model(&[("tokenizer", name)]);
        assert_eq!(texts.len(), windows.compel.len());
        for (text, wanted) in texts.iter().zip(&windows.compel) {
            let prompt = one(&model, text, Syntax::Compel, 1).unwrap().prompt.unwrap();
            let variants = &prompt.spans[0].variants;
            assert_eq!(variants.len(), wanted.len(), "{name}: {text:?}");
            for (PromptVariant { weight, windows }, (share, count, wanted)) in variants.iter().zip(wanted) {
                let off = (f64::from(*weight) - share).abs() / share;
                assert!(off < 1e-6, "{name}: {text:?}: {weight} is not {share}");
                assert_eq!(digest(&windows[..*count]), *wanted, "{name}: {text:?}");
            }
            let is_weighted = prompt.empty.is_some();
            assert_eq!(is_weighted, prompt.emphasis() == Emphasis::Empty);
        }
    }
}

#[test]
fn two_encoders_get_windows_side_by_side_padded_each_in_its_way() {
    let both = model(&[("tokenizer", "sd1"), ("tokenizer_2", "sd2")]);
    let (first, second) = (model(&[("tokenizer", "sd1")]), model(&[("tokenizer", "sd2")]));
    let long = "a (red:1.2) circle, ".repeat(40);
    for (text, syntax) in [
        ("a red circle", Syntax::Plain),
        ("a (red:1.2) [circle|square]", Syntax::A1111),
        (&long, Syntax::A1111),
        ("a (red)1.2 (circle)0.5", Syntax::Compel),
    ] {
        let prompt = |model| one(model, text, syntax, 4).unwrap().prompt.unwrap();
        let (both, first, second) = (prompt(&both), prompt(&first), prompt(&second));
        let windows = |prompt: &mobula_proto::common::v1::Prompt| -> Vec<PromptWindow> {
            let variants = prompt.spans.iter().flat_map(|span| &span.variants);
            variants
                .flat_map(|variant| variant.windows.clone())
                .chain(prompt.empty.clone())
                .collect()
        };
        let (both, first, second) = (windows(&both), windows(&first), windows(&second));
        assert!(both.len() == first.len() && both.len() == second.len());
        for ((both, first), second) in both.iter().zip(first).zip(second) {
            assert_eq!((&both.ids, &both.weights), (&first.ids, &first.weights));
            assert_eq!((&both.ids_2, &both.weights_2), (&second.ids, &second.weights));
        }
    }
}

#[test]
fn a_refiner_has_only_the_second_tokenizer() {
    let (refiner, second) = (model(&[("tokenizer_2", "sd2")]), model(&[("tokenizer", "sd2")]));
    for syntax in [Syntax::Plain, Syntax::A1111] {
        let seen = one(&refiner, "a (red:1.2) circle", syntax, 1).unwrap();
        assert_eq!(seen, one(&second, "a (red:1.2) circle", syntax, 1).unwrap());
    }
}

#[test]
fn all_texts_of_a_call_get_as_many_windows_as_the_longest() {
    let model = model(&[("tokenizer", "sd1")]);
    let texts = ["a red circle, ".repeat(60), "blue".into(), String::new()];
    let ask = Ask {
        texts: &texts,
        syntax: Syntax::A1111,
        steps: 1,
        limits: Limits::default(),
    };
    let texts = tokenize(&model, ask).unwrap();
    let windows = |at: usize| {
        texts[at].prompt.as_ref().unwrap().spans[0].variants[0]
            .windows
            .clone()
    };
    assert!(windows(0).len() > 2);
    for at in [1, 2] {
        assert_eq!(windows(at).len(), windows(0).len());
        assert!(windows(at)[1..].iter().all(|window| *window == windows(2)[0]));
    }
    assert_eq!((texts[1].token_count, texts[2].token_count), (3, 2));
}

#[test]
fn limits_are_named() {
    let model = model(&[("tokenizer", "sd1")]);
    let why = |text: &str, syntax, steps| one(&model, text, syntax, steps).unwrap_err().to_string();
    for (text, syntax, steps, part) in [
        (
            "a ".repeat(75 * 16 + 1),
            Syntax::A1111,
            1,
            "at least 17 windows of tokens, more than 16",
        ),
        (
            "a ".repeat(75 * 16 + 1),
            Syntax::Compel,
            1,
            "at least 17 windows of tokens, more than 16",
        ),
        ("[a|b]".into(), Syntax::A1111, 1001, "1001 steps"),
        (
            format!("[{}|b]", "a ".repeat(75 * 4)),
            Syntax::A1111,
            1000,
            "variants of the call, more than 2048",
        ),
        (
            format!("[{}|b]", " ".repeat(60_000)),
            Syntax::A1111,
            1000,
            "bytes in all, more than 4194304",
        ),
        (
            "(a)0.5 b ".repeat(16),
            Syntax::Compel,
            1,
            "16 parts with a weight below 1",
        ),
        ("(".repeat(40), Syntax::Compel, 1, "33 deep, more than 32"),
        (
            format!("{}a{}", "(".repeat(40), ")".repeat(40)),
            Syntax::A1111,
            1,
            "33 deep, more than 32",
        ),
        ("(a)1001".into(), Syntax::Compel, 1, "weight 1001"),
        ("(\"a\", \"b\").and()".into(), Syntax::Compel, 1, ".and()"),
        ("(\"a\", \"b\").blend(1, 1)".into(), Syntax::Compel, 1, ".blend()"),
        ("cat.swap(dog)".into(), Syntax::Compel, 1, ".swap()"),
        ("a withLora(b, 1)".into(), Syntax::Compel, 1, "withLora()"),
        ("a AND b".into(), Syntax::A1111, 1, "AND"),
    ] {
        let why = why(&text, syntax, steps);
        assert!(why.starts_with("texts[0]: ") && why.contains(part), "{why}");
    }
}

#[test]
fn a_long_row_of_quotations_is_read_once() {
    // Took minutes while every quotation was looked for to the end of the line.
    for (text, parts) in [("\"a\" ", 1), ("\"=\\\" ", 1), ("(a)1.5 b ", 2)] {
        let seen = compel::read(&text.repeat(60_000 / text.len()), &Limits::default()).unwrap();
        assert_eq!(seen.len() % parts, 0);
    }
}
