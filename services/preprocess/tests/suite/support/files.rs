//! Golden files: cases in a JSON file, and their bytes in another beside it.

use std::{fs, path::Path};

use serde::{Deserialize, de::DeserializeOwned};

use super::GOLDEN;

/// Where bytes are in the file of bytes, and how many.
pub(crate) type Span = (usize, usize);

/// A case that is about a file.
pub(crate) trait Case: DeserializeOwned {
    /// What it is called.
    fn name(&self) -> &str;
    /// Where its file is.
    fn file(&self) -> Span;
}

/// The cases of `NAME.json` and the bytes of `NAME.bin`.
pub(crate) struct Files<C> {
    pub(crate) cases: Vec<C>,
    bytes: Vec<u8>,
}

impl<C: Case> Files<C> {
    /// Reads both.
    pub(crate) fn read(name: &str) -> Self {
        #[derive(Deserialize)]
        struct Golden<C> {
            cases: Vec<C>,
        }
        let read = |ending: &str| fs::read(Path::new(GOLDEN).join(format!("{name}.{ending}"))).unwrap();
        let golden: Golden<C> = serde_json::from_slice(&read("json")).unwrap();
        Self {
            cases: golden.cases,
            bytes: read("bin"),
        }
    }

    /// The bytes of a span.
    pub(crate) fn part(&self, (start, length): Span) -> &[u8] {
        &self.bytes[start..start + length]
    }

    /// The file of a case.
    pub(crate) fn file(&self, name: &str) -> Vec<u8> {
        let case = self.cases.iter().find(|case| case.name() == name).unwrap();
        self.part(case.file()).to_vec()
    }
}
