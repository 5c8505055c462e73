//! One safetensors file as an embedding.
//!
//! Three forms are known: diffusers' (one tensor, named by its token), AUTOMATIC1111's (`emb_params`) and that of Stable
//! Diffusion XL (`clip_l` and `clip_g`). Refuses everything else by name.

use std::{fs, io::Read, path::Path};

use safetensors::SafeTensors;

use crate::{Error, Matrix};

/// 75 vectors of 2048 and 75 of 8192 float32 numbers have 3 MB.
const MAX_FILE_BYTES: u64 = 8 << 20;
/// Triggers are words; longer ones are a mistake in the file.
const MAX_TRIGGER_BYTES: usize = 256;

/// An embedding: words in prompts, and the vectors that they stand for.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The file's name without its ending.
    pub trigger: String,
    /// The token that a file in diffusers' form names, where it is another.
    pub alias: Option<String>,
    /// Vectors for `text_encoder`, or the only one there is.
    pub vectors_1: Option<Matrix>,
    /// Vectors for `text_encoder_2`.
    pub vectors_2: Option<Matrix>,
}

impl Entry {
    /// Reads a file.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Unreadable {
            path: path.into(),
            source,
        };
        // A pipe or a device would be read for ever.
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(unreadable(std::io::Error::other("it is no regular file")));
        }
        let file = fs::File::open(path).map_err(unreadable)?;
        let mut bytes = Vec::new();
        // One more than allowed is read, so that a file that grows meanwhile is bounded too.
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            let why = format!("an embedding has at most {MAX_FILE_BYTES} bytes");
            return Err(Error::too_large(path, why));
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let trigger = stem.ok_or_else(|| Error::malformed(path, "its name is not UTF-8: rename it"))?;
        Self::parse(trigger, &bytes).map_err(|why| Error::malformed(path, why))
    }

    /// Reads a file's bytes, whose name is `trigger`.
    ///
    /// # Errors
    ///
    /// What is wrong with them, in words.
    pub fn parse(trigger: &str, bytes: &[u8]) -> Result<Self, String> {
        word("the file's name", trigger)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|why| why.to_string())?;
        let read = |name: &str| match tensors.tensor(name) {
            Ok(tensor) => Matrix::read(name, &tensor).map(Some),
            Err(_) => Ok(None),
        };
        let entry = |vectors_1, vectors_2, alias| Self {
            trigger: trigger.into(),
            alias,
            vectors_1,
            vectors_2,
        };
        let (clip_l, clip_g) = (read("clip_l")?, read("clip_g")?);
        if clip_l.is_some() || clip_g.is_some() {
            return Ok(entry(clip_l, clip_g, None));
        }
        if let Some(vectors) = read("emb_params")? {
            return Ok(entry(Some(vectors), None, None));
        }
        let names = tensors.names();
        let [name] = names[..] else {
            return Err(format!(
                "it holds {} tensors, not one that is named by its token, nor emb_params, nor clip_l and clip_g",
                names.len()
            ));
        };
        word("the tensor's name", name)?;
        let alias = Some(name.to_owned()).filter(|name| name != trigger);
        Ok(entry(read(name)?, None, alias))
    }

    /// The words that stand for it.
    pub fn triggers(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.trigger.as_str()).chain(self.alias.as_deref())
    }
}

/// Refuses what cannot be found in a prompt.
fn word(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > MAX_TRIGGER_BYTES || text.trim() != text {
        return Err(format!(
            "{what} is {:?}; a trigger has 1 to {MAX_TRIGGER_BYTES} bytes and no white space around it",
            text.chars().take(40).collect::<String>()
        ));
    }
    Ok(())
}
