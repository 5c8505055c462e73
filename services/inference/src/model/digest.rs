//! The digest by which a model is known: it changes when any file of the folder changes, and not when the folder moves.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::MANIFEST;
use crate::error::Error;

/// Read at a time; large enough that the system calls do not matter.
const BLOCK: usize = 1 << 20;

/// Ending of the networks that `prepare` writes.
pub(crate) const PREPARED: &str = ".batched.onnx";

/// SHA-256 over all files of a folder: for each, in the order of their relative paths, the path's length, the path, the
/// content's length and the content (lengths as 64-bit little-endian). Names that begin with a dot are left out, and what
/// `prepare` writes: its manifest and networks, which change nothing of a picture. Lower-case hexadecimal.
///
/// # Errors
/// [`Error::File`] for what cannot be read.
pub fn digest(folder: &Path) -> Result<String, Error> {
    let mut files = Vec::new();
    list(folder, "", &mut files)?;
    files.retain(|(name, _)| name != MANIFEST && !name.ends_with(PREPARED));
    files.sort();
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    for (name, path) in files {
        let wrong = |error: std::io::Error| Error::File {
            path: name.clone(),
            why: error.to_string(),
        };
        let file = File::open(&path).map_err(wrong)?;
        let length = file.metadata().map_err(wrong)?.len();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(length.to_le_bytes());
        content(file, &mut block, &mut hash).map_err(wrong)?;
    }
    Ok(format!("{:x}", hash.finalize()))
}

/// A number by which to see that a folder's files were replaced, without reading them: over their names, sizes and times.
///
/// # Errors
/// [`Error::File`] for what cannot be listed.
pub fn fingerprint(folder: &Path) -> Result<String, Error> {
    if !folder.is_dir() {
        return Err(Error::File {
            path: folder.display().to_string(),
            why: "is no folder".into(),
        });
    }
    let mut files = Vec::new();
    list(folder, "", &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    for (name, path) in files {
        let wrong = |error: std::io::Error| Error::File {
            path: name.clone(),
            why: error.to_string(),
        };
        let about = std::fs::metadata(&path).map_err(wrong)?;
        let time = about.modified().map_err(wrong)?;
        hash.update(format!("{name} {} {time:?};", about.len()));
    }
    Ok(format!("{:x}", hash.finalize()))
}

/// Bytes of those files of a folder that are to be counted.
///
/// # Errors
/// [`Error::File`] for what cannot be read.
pub(super) fn bytes(folder: &Path, counts: impl Fn(&Path) -> bool) -> Result<u64, Error> {
    let mut files = Vec::new();
    list(folder, "", &mut files)?;
    let sizes = files.iter().filter(|(_, path)| counts(path)).map(|(name, path)| {
        let about = std::fs::metadata(path).map_err(|error| Error::File {
            path: name.clone(),
            why: error.to_string(),
        });
        Ok(about?.len())
    });
    sizes.sum()
}

/// SHA-256 of one file, lower-case hexadecimal.
///
/// # Errors
/// [`Error::File`] when it cannot be read.
pub fn file_digest(path: &Path) -> Result<String, Error> {
    let wrong = |error: std::io::Error| Error::File {
        path: path.display().to_string(),
        why: error.to_string(),
    };
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    let file = File::open(path).map_err(wrong)?;
    content(file, &mut block, &mut hash).map_err(wrong)?;
    Ok(format!("{:x}", hash.finalize()))
}

/// Hashes what is in a file, a block at a time.
fn content(mut file: File, block: &mut [u8], hash: &mut Sha256) -> std::io::Result<()> {
    loop {
        match file.read(block)? {
            0 => return Ok(()),
            read => hash.update(&block[..read]),
        }
    }
}

fn list(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> Result<(), Error> {
    let wrong = |error: std::io::Error| Error::File {
        path: format!("{prefix}."),
        why: error.to_string(),
    };
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let (path, name) = (entry.path(), format!("{prefix}{name}"));
        // `is_dir` follows links: model folders are often links into a store.
        if path.is_dir() {
            list(&path, &format!("{name}/"), files)?
        } else if path.is_file() {
            files.push((name, path))
        } else {
            // A pipe or a device would be read for ever.
            return Err(Error::File {
                path: name,
                why: "is no regular file".into(),
            });
        }
    }
    Ok(())
}
