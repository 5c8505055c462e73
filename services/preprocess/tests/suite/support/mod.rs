//! Models for the tests of prompts.

mod files;

use std::{fs, path::Path};

use mobula_preprocess::{
    Error, Model,
    prompt::{Ask, Limits, Syntax, tokenize},
};
use mobula_proto::preprocess::v1::TokenizedText;
use serde_json::Value;

pub(crate) use files::{Case, Files, Span};

pub(crate) const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

/// A model with the golden vocabulary and the settings of a variant of cases.json, in each of the given folders.
pub(crate) fn model(folders: &[(&str, &str)]) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let cases: Value =
        serde_json::from_slice(&fs::read(Path::new(GOLDEN).join("cases.json")).unwrap()).unwrap();
    for (name, variant) in folders {
        let tokenizer = folder.path().join(name);
        fs::create_dir(&tokenizer).unwrap();
        for name in ["vocab.json", "merges.txt"] {
            fs::copy(Path::new(GOLDEN).join(name), tokenizer.join(name)).unwrap();
        }
        for (name, content) in cases["variants"][variant]["files"].as_object().unwrap() {
            fs::write(tokenizer.join(name), content.to_string()).unwrap();
        }
    }
    Model::load(folder.path()).unwrap()
}

pub(crate) fn one(model: &Model, text: &str, syntax: Syntax, steps: u32) -> Result<TokenizedText, Error> {
    let texts = [text.to_owned()];
    let ask = Ask {
        texts: &texts,
        syntax,
        steps,
        limits: Limits::default(),
    };
    tokenize(model, ask).map(|mut texts| texts.remove(0))
}
