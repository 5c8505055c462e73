//! Token ids against transformers' CLIPTokenizer: the golden values of tools/reference/tokenizer.py.

use std::{fs, path::Path};

use mobula_preprocess::tokenizer::{Sequence, Tokenizer};
use serde::Deserialize;
use serde_json::{Map, Value};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

#[derive(Deserialize)]
struct Golden {
    /// Text and how often it is repeated.
    texts: Vec<(String, usize)>,
    seed: u64,
    pieces: Vec<String>,
    ranges: Vec<(u32, u32)>,
    sweep: Sweep,
    variants: Map<String, Value>,
}

#[derive(Deserialize)]
struct Sweep {
    ranges: Vec<(u32, u32)>,
    block: u32,
    digests: Vec<String>,
}

#[derive(Deserialize)]
struct Variant {
    /// A folder of the repository, taken as it is.
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    files: Map<String, Value>,
    #[serde(default)]
    drop: Vec<String>,
    #[serde(default)]
    reverse: bool,
    /// tokenizer.json alone.
    #[serde(default)]
    fast: bool,
    /// tokenizer.json beside vocab.json and merges.txt.
    #[serde(default)]
    both: bool,
    /// One digest per text, eight characters each.
    digests: String,
    fuzz: String,
    /// Windows in full, padding left out.
    #[serde(default)]
    ids: Vec<Vec<u32>>,
}

impl Golden {
    fn read() -> Self {
        serde_json::from_slice(&fs::read(Path::new(GOLDEN).join("cases.json")).unwrap()).unwrap()
    }

    fn variant(&self, name: &str) -> Variant {
        Variant::deserialize(&self.variants[name]).unwrap()
    }

    /// The random strings, drawn as the script draws them.
    fn drawn(&self, count: usize) -> Vec<String> {
        let mut state = self.seed;
        let mut below = |bound: usize| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((mixed ^ (mixed >> 31)) % bound as u64) as usize
        };
        let mut draw = || {
            let mut text = String::new();
            for _ in 0..below(32) {
                if below(8) < 4 {
                    text += &self.pieces[below(self.pieces.len())];
                } else {
                    let (first, last) = self.ranges[below(self.ranges.len())];
                    let point = first + below((last - first + 1) as usize) as u32;
                    text.push(char::from_u32(point).unwrap());
                }
            }
            text
        };
        (0..count).map(|_| draw()).collect()
    }
}

impl Variant {
    /// Makes the variant's model folder, as the script does, and loads it.
    fn load(&self) -> Tokenizer {
        if let Some(model) = &self.model {
            return Tokenizer::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(model))
                .unwrap();
        }
        let model = tempfile::tempdir().unwrap();
        let folder = model.path().join("tokenizer");
        fs::create_dir(&folder).unwrap();
        for (name, content) in &self.files {
            fs::write(folder.join(name), content.to_string()).unwrap();
        }
        let golden = |name: &str| fs::read_to_string(Path::new(GOLDEN).join(name)).unwrap();
        if self.fast || self.both {
            fs::write(folder.join("tokenizer.json"), golden("tokenizer.json")).unwrap();
        }
        if !self.fast {
            let mut vocabulary: Map<String, Value> = serde_json::from_str(&golden("vocab.json")).unwrap();
            vocabulary.retain(|token, _| !self.drop.contains(token));
            fs::write(folder.join("vocab.json"), Value::from(vocabulary).to_string()).unwrap();
            let merges = golden("merges.txt");
            let mut lines: Vec<&str> = merges.lines().collect();
            if self.reverse {
                lines[1..].reverse();
            }
            fs::write(folder.join("merges.txt"), lines.join("\n") + "\n").unwrap();
        }
        Tokenizer::load(model.path()).unwrap()
    }
}

/// FNV-1a, 64 bits, of which 32 are kept.
fn digest(bytes: impl IntoIterator<Item = u8>) -> String {
    let value = bytes.into_iter().fold(0xCBF2_9CE4_8422_2325_u64, |value, byte| {
        (value ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    format!("{:08x}", value >> 32)
}

fn digest_of(sequence: &Sequence) -> String {
    let numbers = sequence
        .ids
        .iter()
        .copied()
        .chain([sequence.truncated_count as u32]);
    digest(
        numbers
            .flat_map(u32::to_le_bytes)
            .chain(sequence.truncated_text.bytes()),
    )
}

/// Compares text by text and shows the first few that differ.
fn compare<'a>(tokenizer: &Tokenizer, texts: impl IntoIterator<Item = &'a String>, digests: &str) {
    let digests: Vec<&str> = (0..digests.len() / 8)
        .map(|at| &digests[at * 8..at * 8 + 8])
        .collect();
    let texts: Vec<&String> = texts.into_iter().collect();
    assert_eq!(texts.len(), digests.len());
    let wrong: Vec<_> = texts
        .iter()
        .zip(digests)
        .filter(|(text, digest)| digest_of(&tokenizer.window(text).unwrap()) != *digest)
        .map(|(text, _)| text.chars().take(80).collect::<String>())
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} texts differ: {:?}",
        wrong.len(),
        texts.len(),
        &wrong[..wrong.len().min(10)]
    );
}

fn check(name: &str) {
    let golden = Golden::read();
    let variant = golden.variant(name);
    let tokenizer = variant.load();
    let texts: Vec<String> = golden
        .texts
        .iter()
        .map(|(text, times)| text.repeat(*times))
        .collect();
    for (text, ids) in texts.iter().zip(&variant.ids) {
        assert_eq!(tokenizer.window(text).unwrap().ids[..ids.len()], *ids, "{text:?}");
    }
    compare(&tokenizer, &texts, &variant.digests);
    compare(&tokenizer, &golden.drawn(variant.fuzz.len() / 8), &variant.fuzz);
}

#[test]
fn stable_diffusion_1_is_padded_with_its_end_token() {
    check("sd1");
}

#[test]
fn stable_diffusion_2_is_padded_with_an_exclamation_mark_which_is_a_special_token_then() {
    check("sd2");
}

#[test]
fn a_configuration_with_added_tokens_decoder_gives_the_same() {
    check("modern");
}

#[test]
fn without_any_configuration_clips_own_tokens_and_window_are_taken() {
    check("bare");
}

#[test]
fn added_tokens_strip_and_stand_alone_as_they_say_and_holes_become_the_unknown_token() {
    check("extra");
}

#[test]
fn added_tokens_json_is_honoured() {
    check("legacy");
}

#[test]
fn the_added_tokens_of_a_tokenizer_json_beside_the_vocabulary_count_where_nothing_newer_names_them() {
    check("both");
}

#[test]
fn merges_in_an_unusual_order_give_the_same() {
    check("reversed");
}

#[test]
fn padding_and_truncation_on_the_left_and_a_short_window_are_honoured() {
    check("sides");
}

#[test]
fn special_tokens_can_be_text() {
    check("whole");
}

#[test]
fn a_folder_with_only_tokenizer_json_gives_what_the_fast_class_gives() {
    check("fast");
}

#[test]
fn the_demo_models_tokenizer_gives_the_same() {
    check("demo");
}

#[test]
fn every_character_gives_the_same() {
    let Golden { sweep, variants, .. } = Golden::read();
    let tokenizer = Variant::deserialize(&variants["sd1"]).unwrap().load();
    let mut digests = sweep.digests.iter();
    for (first, last) in sweep.ranges {
        for block in (first..=last).step_by(sweep.block as usize) {
            let chars = (block..=last.min(block + sweep.block - 1)).filter_map(char::from_u32);
            let ids = chars.flat_map(|char| {
                let sequence = tokenizer.window(&format!("x{char}Σ {char}'s{char}7")).unwrap();
                sequence
                    .ids
                    .into_iter()
                    .take(sequence.token_count)
                    .flat_map(u32::to_le_bytes)
            });
            assert_eq!(digest(ids), *digests.next().unwrap(), "block {block:#x}");
        }
    }
}

mod properties {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
        let golden = Golden::read();
        let mut tokenizers: Vec<_> = ["sd1", "sd2", "extra", "sides", "fast"]
            .map(|name| golden.variant(name).load())
            .into();
        tokenizers.push(Tokenizer::load(Path::new("fake")).unwrap());
        tokenizers
    });

    /// Text of all kinds: any characters, many of one, pieces that mean something.
    fn text() -> impl Strategy<Value = String> {
        let repeated =
            (any::<char>(), 0..1000_usize).prop_map(|(char, times)| char.to_string().repeat(times));
        let pieces = prop::collection::vec("<\\|(start|end)oftext\\|>|<style>|'s|[a-z]{1,9}|\\s|!", 0..200);
        prop_oneof![
            any::<String>(),
            repeated,
            pieces.prop_map(|pieces| pieces.concat())
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn any_text_makes_a_full_window_that_says_where_its_text_ends(text in text()) {
            for tokenizer in TOKENIZERS.iter() {
                let (frame, sequence) = (tokenizer.frame(), tokenizer.window(&text).unwrap());
                prop_assert_eq!(sequence.ids.len(), frame.window);
                prop_assert!((2..=frame.window).contains(&sequence.token_count));
                let start = if frame.pads_left { frame.window - sequence.token_count } else { 0 };
                let used = start..start + sequence.token_count;
                prop_assert_eq!(sequence.ids[used.start], frame.bos);
                prop_assert_eq!(sequence.ids[used.end - 1], frame.eos);
                let padding = sequence.ids.iter().enumerate().filter(|(at, _)| !used.contains(at));
                prop_assert!(padding.into_iter().all(|(_, id)| *id == frame.pad));
                prop_assert!(sequence.truncated_count == 0 || sequence.token_count == frame.window);
                // A text gives the same whatever was tokenized before it.
                prop_assert_eq!(tokenizer.window(&text).unwrap(), sequence);
            }
        }
    }
}
