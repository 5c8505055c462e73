//! vocab.json and merges.txt, and turning token ids back to text.
//!
//! Files are read as CLIPTokenizer reads them. Refuses what is not JSON of token to id, and text that is not UTF-8.
//! Invariant: one token per id for turning back, the last that the file names.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::Path,
};

use serde::de::{Deserializer, MapAccess, Visitor};

use super::{bpe::END_OF_WORD, unicode::is_python_space};
use crate::Error;

/// CLIP's merges are so many at most; CLIPTokenizer reads no further (49152 - 256 - 2).
const MAX_MERGES: usize = 48_894;

/// The printable character that stands for each byte in vocab.json (`bytes_to_unicode`).
pub(super) const BYTE_CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let (mut byte, mut hidden) = (0, 0);
    while byte < 256 {
        let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let point = if printable { byte as u32 } else { 256 + hidden };
        chars[byte] = match char::from_u32(point) {
            Some(char) => char,
            None => panic!("no surrogates below 512"),
        };
        hidden += !printable as u32;
        byte += 1;
    }
    chars
};

/// Tokens and their ids, in the order of vocab.json.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    tokens: Vec<(String, u32)>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// Reads vocab.json.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let text = read(path)?;
        let tokens = serde_json::Deserializer::from_str(&text)
            .deserialize_map(Tokens)
            .map_err(|why| Error::malformed(path, why))?;
        let ids = tokens.iter().cloned().collect();
        Ok(Self { tokens, ids })
    }

    /// The token's id.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// How many tokens there are: the id that the first token added without one gets.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Tokens with their ids, in the order of the file.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.tokens.iter().map(|(token, id)| (token.as_str(), *id))
    }
}

/// A JSON object in its own order; serde's maps would lose it.
struct Tokens;

impl<'de> Visitor<'de> for Tokens {
    type Value = Vec<(String, u32)>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object of token to id")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tokens = Vec::new();
        while let Some(entry) = map.next_entry()? {
            tokens.push(entry);
        }
        Ok(tokens)
    }
}

/// merges.txt.
#[derive(Debug)]
pub(super) struct Merges(String);

impl Merges {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        // Python reads text files with universal newlines.
        Ok(Self(read(path)?.replace("\r\n", "\n").replace('\r', "\n")))
    }

    /// The pairs in the order of their ranks; the first line is a comment, lines that name no pair are skipped.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = self
            .0
            .trim_matches(is_python_space)
            .split('\n')
            .skip(1)
            .take(MAX_MERGES);
        lines.filter_map(|line| {
            let mut parts = line.split(is_python_space).filter(|part| !part.is_empty());
            Some((parts.next()?, parts.next()?)).filter(|_| parts.next().is_none())
        })
    }
}

/// Bytes of tokens by id, to turn ids back to text.
#[derive(Debug)]
pub(super) struct Spelling {
    /// Sorted, with the end of each one's bytes in `text`.
    ends: Vec<(u32, u32)>,
    text: Vec<u8>,
}

impl Spelling {
    /// Takes each id's token; of several for one id the last counts.
    pub(super) fn new<'a>(tokens: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let bytes: HashMap<char, u8> = BYTE_CHARS.into_iter().zip(0..=u8::MAX).collect();
        let tokens: BTreeMap<u32, &str> = tokens.map(|(token, id)| (id, token)).collect();
        let mut spelling = Self {
            ends: Vec::with_capacity(tokens.len()),
            text: Vec::new(),
        };
        for (id, token) in tokens {
            for char in token.chars() {
                match bytes.get(&char) {
                    Some(byte) => spelling.text.push(*byte),
                    // Only an added token has other characters; transformers fails on them here.
                    None => spelling
                        .text
                        .extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            spelling.ends.push((id, spelling.text.len() as u32));
        }
        spelling
    }

    /// The token's bytes; none for an id that has no token.
    pub(super) fn of(&self, id: u32) -> &[u8] {
        let Ok(at) = self.ends.binary_search_by_key(&id, |(id, _)| *id) else {
            return &[];
        };
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before].1);
        &self.text[start as usize..self.ends[at].1 as usize]
    }
}

/// `convert_tokens_to_string`: bytes to text, the end of a word to a space.
pub(super) fn to_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .replace(END_OF_WORD, " ")
        .trim_matches(is_python_space)
        .to_owned()
}

/// `clean_up_tokenization`: English spacing, only where tokenizer_config.json asks for it.
pub(super) fn clean_up(text: String) -> String {
    let rules = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    rules
        .iter()
        .fold(text, |text, (from, to)| match text.contains(from) {
            true => text.replace(from, to),
            false => text,
        })
}

/// Reads a text file, so that an error names it.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.into(),
        source,
    };
    // A pipe or a device would be read for ever.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(std::io::Error::other("it is no regular file")));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|why| Error::malformed(path, why.utf8_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_spelled_as_clip_spells_them() {
        let spelled = |byte: u8| BYTE_CHARS[byte as usize];
        assert_eq!(
            (spelled(b'a'), spelled(0), spelled(b' '), spelled(0xad)),
            ('a', 'Ā', 'Ġ', 'Ń')
        );
    }

    #[test]
    fn merges_skip_the_first_line_and_lines_without_a_pair() {
        let merges = Merges("#version: 0.2\na b\n\nc\nd e f\n c  d</w> \n".into());
        assert_eq!(merges.pairs().collect::<Vec<_>>(), [("a", "b"), ("c", "d</w>")]);
    }

    #[test]
    fn ids_are_spelled_by_the_last_token_that_has_them() {
        let spelling = Spelling::new([("Ġa", 3), ("old", 7), ("猫 new", 7)].into_iter());
        assert_eq!(spelling.of(3), b" a");
        assert_eq!(spelling.of(7), "猫 new".as_bytes());
        assert_eq!(spelling.of(4), b"");
    }
}
