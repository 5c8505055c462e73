//! Which text encoder of a model is meant, and how many token ids of its own it has.

use std::{
    fs,
    io::{ErrorKind, Read},
    path::Path,
};

use serde_json::Value;

use crate::Error;

/// A text encoder of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// `text_encoder`: takes an embedding's only tensor, or `clip_l`.
    First,
    /// `text_encoder_2` of Stable Diffusion XL and of its refiner: takes `clip_g`.
    Second,
}

/// What a text encoder's config.json says of its token table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// Ids of its own, from 0; an embedding's come behind them.
    pub size: u32,
    /// Numbers in a vector.
    pub width: usize,
}

/// What transformers' CLIPTextConfig takes where config.json names nothing.
const CLIP: Vocabulary = Vocabulary {
    size: 49_408,
    width: 512,
};
/// The configurations of text encoders have a few hundred bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Larger tables are a mistake in the file.
const MAX_VOCABULARY: u64 = 1 << 24;

impl Encoder {
    /// The encoder's folder in a model folder.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::First => "text_encoder",
            Self::Second => "text_encoder_2",
        }
    }
}

impl Vocabulary {
    /// Reads `<model>/<encoder's folder>/config.json`; what it does not name is as transformers' CLIPTextConfig has it.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`], [`Error::Malformed`] and [`Error::TooLarge`] name the file.
    pub fn of_model(model: &Path, encoder: Encoder) -> Result<Self, Error> {
        let path = model.join(encoder.folder()).join("config.json");
        let unreadable = |source| Error::Unreadable {
            path: path.clone(),
            source,
        };
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(CLIP),
            file => file.map_err(unreadable)?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_CONFIG_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            return Err(Error::too_large(
                &path,
                format!("more than {MAX_CONFIG_BYTES} bytes"),
            ));
        }
        let config: Value = serde_json::from_slice(&bytes).map_err(|why| Error::malformed(&path, why))?;
        let number = |key: &str, default: u64| match config.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_u64()
                .filter(|value| (1..=MAX_VOCABULARY).contains(value))
                .ok_or_else(|| {
                    Error::malformed(&path, format!("{key} is {value}, not 1 to {MAX_VOCABULARY}"))
                }),
        };
        Ok(Self {
            size: number("vocab_size", CLIP.size.into())? as u32,
            width: number("hidden_size", CLIP.width as u64)? as usize,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vocabulary, Error> {
        let model = tempfile::tempdir().unwrap();
        fs::create_dir(model.path().join("text_encoder_2")).unwrap();
        fs::write(model.path().join("text_encoder_2/config.json"), text).unwrap();
        Vocabulary::of_model(model.path(), Encoder::Second)
    }

    #[test]
    fn a_configuration_names_size_and_width() {
        let vocabulary = read(r#"{"vocab_size": 1000, "hidden_size": 1280}"#).unwrap();
        assert_eq!((vocabulary.size, vocabulary.width), (1000, 1280));
    }

    #[test]
    fn what_is_not_named_is_clips_own() {
        assert_eq!(read("{}").unwrap(), CLIP);
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(Vocabulary::of_model(empty.path(), Encoder::First).unwrap(), CLIP);
    }

    #[test]
    fn a_wrong_number_is_named_with_its_file() {
        let why = read(r#"{"vocab_size": -4}"#).unwrap_err().to_string();
        assert!(
            why.contains("config.json") && why.contains("vocab_size is -4"),
            "{why}"
        );
        assert!(matches!(read("{"), Err(Error::Malformed { .. })));
    }
}
