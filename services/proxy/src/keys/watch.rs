//! Reads the list of keys at the start, and again whenever its file changes. A file is looked at, not listened to: that works
//! in containers and on shared folders, and with Kubernetes' secrets, which are links that are swapped.

use std::{
    convert::Infallible,
    fs::Metadata,
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{Keys, file, ring::Ring};
use crate::{Config, Error, clock::Clock};

/// How often the file is looked at: a key that was taken back opens nothing after a few seconds.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Bytes that are read of a file: more than the most keys take.
const FILE_MAX: u64 = 64 << 20;

/// Keeps the keys as their file is.
#[derive(Debug)]
pub(crate) struct Watch {
    keys: Keys,
    file: Option<PathBuf>,
    seen: Option<Seen>,
}

/// What tells that a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    modified: Option<SystemTime>,
    length: u64,
    #[cfg(unix)]
    inode: u64,
}

/// A list and what was seen of its file; or why there is none, and what was seen.
type Looked = Result<(String, Seen), (String, Option<Seen>)>;

impl Seen {
    fn of(about: &Metadata) -> Self {
        Self {
            modified: about.modified().ok(),
            length: about.len(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(about),
        }
    }
}

impl Watch {
    /// Reads the keys for the first time.
    ///
    /// # Errors
    /// [`Error::Kit`] when there should be some and they cannot be read.
    pub(crate) fn start(config: &Config, clock: Clock) -> Result<(Keys, Self), Error> {
        let (text, seen) = match (&config.api_keys_file, &config.api_keys) {
            (Some(path), _) => {
                let (text, seen) = read(path).map_err(|why| unusable(path, why))?;
                (Some(text), Some(seen))
            }
            (None, Some(text)) => (Some(text.0.clone()), None),
            (None, None) => (None, None),
        };
        let parse = |text: String| {
            let entries = file::parse(&text).map_err(|why| match &config.api_keys_file {
                Some(path) => unusable(path, why),
                None => mobula_kit::Error::Config {
                    setting: "--api-keys (MOBULA_API_KEYS)",
                    value: "..".to_owned(),
                    why,
                },
            })?;
            Ok::<_, mobula_kit::Error>(Ring::new(entries, &Ring::default(), clock.now()))
        };
        let keys = Keys::new(text.map(parse).transpose()?, clock);
        let watch = Self {
            keys: keys.clone(),
            file: config.api_keys_file.clone(),
            seen,
        };
        Ok((keys, watch))
    }

    /// Looks at the file for ever.
    pub(crate) async fn run(mut self) -> Infallible {
        let Some(path) = self.file.take() else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let (path, seen) = (path.clone(), self.seen);
            let looked = tokio::task::spawn_blocking(move || look(&path, seen));
            // Only the runtime's end cancels it.
            let Ok(Some(looked)) = looked.await else {
                continue;
            };
            self.take(looked);
        }
    }

    /// Takes in what was found.
    fn take(&mut self, looked: Looked) {
        let (result, seen) = match looked {
            Ok((text, seen)) => (self.keys.replace(&text), Some(seen)),
            Err((why, seen)) => (Err(why), seen),
        };
        // What is wrong is told once, and again when the file changes.
        self.seen = seen;
        self.keys.0.metrics.read(result.is_ok());
        match result {
            Ok(keys) => tracing::info!(keys, "API keys were read again"),
            Err(why) => tracing::error!(
                why,
                "the file of API keys cannot be used; the keys that were there stay"
            ),
        }
    }
}

/// Reads the file if it has changed.
fn look(path: &Path, seen: Option<Seen>) -> Option<Looked> {
    let now = std::fs::metadata(path).map(|about| Seen::of(&about));
    match now {
        Ok(now) if Some(now) == seen => None,
        Ok(now) => Some(read(path).map_err(|why| (why, Some(now)))),
        // Told once: nothing was seen of it the last time either.
        Err(_) if seen.is_none() => None,
        Err(error) => Some(Err((error.to_string(), None))),
    }
}

fn read(path: &Path) -> Result<(String, Seen), String> {
    let open = || {
        let file = std::fs::File::open(path)?;
        // Of the file that is read, whatever its name means by now.
        let seen = Seen::of(&file.metadata()?);
        let mut text = String::new();
        file.take(FILE_MAX + 1).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>((text, seen))
    };
    match open() {
        Ok((text, _)) if text.len() as u64 > FILE_MAX => Err(format!("it has more than {FILE_MAX} bytes")),
        Ok(read) => Ok(read),
        Err(error) => Err(error.to_string()),
    }
}

fn unusable(path: &Path, why: String) -> mobula_kit::Error {
    mobula_kit::Error::Config {
        setting: "--api-keys-file (MOBULA_API_KEYS_FILE)",
        value: path.display().to_string(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ring::hex, *};
    use crate::caller::Caller;

    fn tenant(keys: &Keys, key: &'static str) -> Option<String> {
        let mut request = http::Request::builder()
            .header("x-api-key", key)
            .body(())
            .unwrap();
        keys.note(&mut request).ok()?;
        Some(Caller::of(request.extensions()).tenant.to_string())
    }

    #[test]
    fn a_file_is_read_when_it_changes_and_a_bad_one_keeps_the_keys_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.yaml");
        let write = |tenant: &str, key: &[u8]| {
            let text = format!("- {{tenant: {tenant}, sha256: {}}}", hex(key));
            std::fs::write(&path, text).unwrap();
        };
        write("a", b"one");
        let config = Config {
            api_keys_file: Some(path.clone()),
            ..Config::default()
        };
        let (keys, mut watch) = Watch::start(&config, Clock::start()).unwrap();
        assert_eq!(tenant(&keys, "one").as_deref(), Some("a"));
        let look_again = |watch: &mut Watch| {
            let looked = look(&path, watch.seen);
            let changed = looked.is_some();
            looked.into_iter().for_each(|looked| watch.take(looked));
            changed
        };
        assert!(!look_again(&mut watch), "nothing has changed");
        write("longer", b"two");
        assert!(look_again(&mut watch));
        assert_eq!(
            (tenant(&keys, "one"), tenant(&keys, "two")),
            (None, Some("longer".into()))
        );
        std::fs::write(&path, "- {tenant: broken").unwrap();
        assert!(look_again(&mut watch));
        assert!(!look_again(&mut watch), "it is told once");
        assert_eq!(tenant(&keys, "two").as_deref(), Some("longer"));
        std::fs::remove_file(&path).unwrap();
        assert!(look_again(&mut watch));
        assert!(!look_again(&mut watch), "it is told once");
        assert_eq!(tenant(&keys, "two").as_deref(), Some("longer"));
        write("back", b"three");
        assert!(look_again(&mut watch));
        assert_eq!(tenant(&keys, "three").as_deref(), Some("back"));
    }

    #[test]
    fn a_start_without_usable_keys_says_which_setting_is_wrong() {
        let missing = Config {
            api_keys_file: Some("/nowhere/keys.yaml".into()),
            ..Config::default()
        };
        let error = Watch::start(&missing, Clock::start()).unwrap_err().to_string();
        assert!(
            error.starts_with("--api-keys-file (MOBULA_API_KEYS_FILE) is \"/nowhere/keys.yaml\""),
            "{error}"
        );
        let broken = Config {
            api_keys: Some("- {tenant: acme, sha256: mob_secret}".to_owned().into()),
            ..Config::default()
        };
        let error = Watch::start(&broken, Clock::start()).unwrap_err().to_string();
        assert!(
            error.contains("64 hexadecimal") && !error.contains("mob_secret"),
            "{error}"
        );
        assert!(!format!("{broken:?}").contains("mob_secret"));
    }
}
