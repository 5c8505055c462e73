//! Files that are damaged, cut, somebody else's or of a newer controller: refused in words, and left as they are.

use std::fs;

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{super::tables, disk::read, *};

/// Header and both roots of a redb file, where a wrong bit does most.
const HEADER_BYTES: usize = 64 + 2 * 128;
/// The byte of it that says which root is the newest.
const GOD_BYTE: usize = 9;

/// A closed file with some history, its path and its bytes.
fn written(dir: &Path) -> (PathBuf, Vec<u8>) {
    let mut store = Store::open(Place::Dir(dir.to_path_buf()), BOUNDS).unwrap();
    for version in 1..=12 {
        put(&mut store, version);
    }
    drop(store);
    let path = dir.join(FILE);
    let bytes = fs::read(&path).unwrap();
    (path, bytes)
}

/// Opens a directory whose file has these bytes, and says why that is refused.
fn refused(dir: &Path, path: &Path, bytes: &[u8]) -> String {
    fs::write(path, bytes).unwrap();
    let error = Store::open(Place::Dir(dir.to_path_buf()), BOUNDS).unwrap_err();
    assert!(fs::read(path).unwrap() == bytes, "the file is as it was");
    let said = error.to_string();
    for part in [
        path.to_str().unwrap(),
        "left as it is",
        "move it away",
        "--restore",
    ] {
        assert!(said.replace("It was left", "left").contains(part), "{said}");
    }
    said
}

/// Flips bits all over these bytes and reads them: what is not refused says what it said. Gives tries and refusals.
fn flip_everywhere(bytes: &[u8]) -> (usize, usize) {
    let sound = read(bytes).unwrap();
    let mut random = StdRng::seed_from_u64(SEED);
    let (mut tries, mut refusals) = (0, 0);
    let mut flip = |flips: &[(usize, u8)]| {
        let mut bytes = bytes.to_vec();
        for (at, mask) in flips {
            bytes[*at] ^= mask;
        }
        tries += 1;
        // A panic is a refusal, as in the store itself.
        match std::panic::catch_unwind(|| read(&bytes)) {
            Ok(Ok(found)) => assert!(found == sound, "another content after {flips:?}"),
            Ok(Err(_)) | Err(_) => refusals += 1,
        }
    };
    for at in 0..HEADER_BYTES {
        flip(&[(at, 1 << random.random_range(0..8))]);
    }
    for bit in 0..8 {
        flip(&[(GOD_BYTE, 1 << bit)]);
    }
    for _ in 0..200 {
        let flips: Vec<_> = (0..random.random_range(1..=16))
            .map(|_| (random.random_range(0..bytes.len()), random.random_range(1..=255)))
            .collect();
        flip(&flips);
    }
    (tries, refusals)
}

#[test]
fn a_file_with_flipped_bits_is_refused_or_says_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let (_, bytes) = written(dir.path());
    let (tries, refusals) = flip_everywhere(&bytes);
    println!(
        "{tries} damaged files of {} bytes, {refusals} refused",
        bytes.len()
    );
    assert!(refusals > 20, "{refusals} of {tries}");
}

#[test]
fn a_file_of_a_killed_controller_with_flipped_bits_is_refused_or_says_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(Place::Dir(dir.path().to_path_buf()), BOUNDS).unwrap();
    for version in 1..=12 {
        put(&mut store, version);
    }
    // Read while it is open: this is what a kill leaves.
    let bytes = fs::read(dir.path().join(FILE)).unwrap();
    let (tries, refusals) = flip_everywhere(&bytes);
    println!(
        "{tries} damaged files of {} bytes, {refusals} refused",
        bytes.len()
    );
    assert!(refusals > 20, "{refusals} of {tries}");
}

#[test]
fn a_damaged_page_is_refused_in_words_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut bytes) = written(dir.path());
    let found = bytes
        .windows(8)
        .rposition(|window| window == b"model-12")
        .unwrap();
    for at in 0..bytes.len() - 8 {
        if &bytes[at..at + 8] == b"model-12" {
            bytes[at] = b'M';
        }
    }
    assert_ne!(bytes[found], b'm');
    let said = refused(dir.path(), &path, &bytes);
    assert!(said.contains("damaged"), "{said}");
}

#[test]
fn a_file_that_was_cut_is_refused_wherever_it_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (path, bytes) = written(dir.path());
    for length in [
        0,
        1,
        9,
        100,
        320,
        4096,
        bytes.len() / 2,
        bytes.len() - 4096,
        bytes.len() - 1,
    ] {
        let said = refused(dir.path(), &path, &bytes[..length]);
        assert!(
            said.contains("empty") || said.contains("damaged"),
            "{length}: {said}"
        );
    }
}

#[test]
fn a_file_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    for bytes in [&b"applications: []\n"[..], &[0; 8192], &[255; 100_000]] {
        let said = refused(dir.path(), &path, bytes);
        assert!(said.contains("no state file"), "{said}");
    }
    // A database, but not ours.
    let other = file::builder().create(dir.path().join("other")).unwrap();
    drop(other);
    let bytes = fs::read(dir.path().join("other")).unwrap();
    let said = refused(dir.path(), &path, &bytes);
    assert!(said.contains("no state file"), "{said}");
}

#[test]
fn a_file_of_a_newer_format_is_refused_with_the_version() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = written(dir.path());
    let database = file::builder().open(&path).unwrap();
    tables::pretend(&database, FORMAT + 1).unwrap();
    drop(database);
    let bytes = fs::read(&path).unwrap();
    let said = refused(dir.path(), &path, &bytes);
    assert!(
        said.contains("newer controller (format 2; this one reads 1)"),
        "{said}"
    );
}

#[test]
fn a_start_that_was_cut_short_leaves_nothing_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("controller.new"), "half").unwrap();
    let mut store = Store::open(Place::Dir(dir.path().to_path_buf()), BOUNDS).unwrap();
    put(&mut store, 1);
    assert_eq!(store.load().unwrap().desired.resource_version, 1);
}
