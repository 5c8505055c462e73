//! A file that is written under another name first, and has its own only when it is good.
//!
//! Invariant: a file is there whole or as it was before; a draft that is dropped leaves nothing.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// A file under its first name.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    file: PathBuf,
}

impl Draft {
    /// Writes the content of `file` beside its place.
    pub(super) fn write(file: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // Beside its place, because a rename does not cross file systems; the dot keeps it out of digests.
        let draft = Self {
            path: file.with_file_name(format!(".{name}.new")),
            file: file.to_owned(),
        };
        std::fs::write(&draft.path, bytes).map_err(|error| draft.wrong(&error))?;
        Ok(draft)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The name it has.
    pub(super) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Gives it its name.
    pub(super) fn publish(self) -> Result<(), Error> {
        std::fs::rename(&self.path, &self.file).map_err(|error| self.wrong(&error))
    }

    fn wrong(&self, error: &std::io::Error) -> Error {
        Error::File {
            path: self.file.display().to_string(),
            why: format!("cannot be written: {error}"),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename there is nothing under this name.
        let _ = std::fs::remove_file(&self.path);
    }
}
