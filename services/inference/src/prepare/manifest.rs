//! Writes what `prepare` found out into mobula.json; keys that are not its own stay as somebody wrote them.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::draft::Draft;
use super::footprint::Footprint;
use crate::error::Error;
use crate::model::{Division, Divisions, MANIFEST, Prepared};
use crate::profile::Profile;

/// The file's content.
pub(super) struct Manifest(Map<String, Value>);

impl Manifest {
    /// Reads the file; an absent one is empty.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let wrong = |why: String| Error::File {
            path: MANIFEST.to_owned(),
            why,
        };
        let text = match std::fs::read_to_string(folder.join(MANIFEST)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self(Map::new())),
            Err(error) => return Err(wrong(format!("cannot be read: {error}"))),
        };
        match serde_json::from_str(&text) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(wrong("is no JSON object".to_owned())),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// Says which UNet was prepared, or that none needs to be.
    pub(super) fn set_prepared(&mut self, prepared: Option<&Prepared>) {
        match prepared {
            Some(unet) => self.0.insert("prepared".to_owned(), json!({ "unet": unet })),
            None => self.0.remove("prepared"),
        };
    }

    /// Puts the measured curves in.
    pub(super) fn set_profile(&mut self, profile: &Profile) {
        self.0.insert("profile".to_owned(), json!(profile));
    }

    /// Puts in how calls are best divided among so many threads, beside what is known of other numbers of them.
    pub(super) fn set_division(&mut self, mut known: Divisions, threads: usize, division: Division) {
        known.put(threads, division);
        self.0.insert("lanes".to_owned(), json!(known));
    }

    /// Puts in the memory where computing has this name.
    pub(super) fn set_footprint(&mut self, computes: &str, footprint: &Footprint) {
        let all = self.0.entry("footprint").or_insert_with(|| json!({}));
        if !all.is_object() {
            *all = json!({});
        }
        all[computes] = json!(footprint);
    }

    /// Writes the file.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(&self.0).map_err(|error| Error::File {
            path: MANIFEST.to_owned(),
            why: error.to_string(),
        })?;
        Draft::write(&folder.join(MANIFEST), format!("{text}\n").as_bytes())?.publish()
    }
}
