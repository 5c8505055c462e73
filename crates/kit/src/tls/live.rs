//! The certificates in use, and the look for newer ones.
//!
//! Connections that are there keep what they began with; the next ones get what was read last. Invariant: what is in use
//! was made from files that went together.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    EXPIRY, RELOADS,
    material::{Content, Files, Material, Use},
};
use crate::{Error, chain, metrics};

/// Certificates in use.
pub(super) struct Live {
    of: Use,
    files: Files,
    current: RwLock<Arc<Material>>,
    looked: Mutex<Looked>,
}

/// What the last look saw.
struct Looked {
    /// What is in use.
    good: Content,
    /// What is wrong with what is there now; told once.
    told: Option<String>,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// What is in use.
    Same,
    /// Something newer, in use from now on.
    Newer,
    /// Something that cannot be used.
    Broken,
}

impl Live {
    /// Reads the files and keeps what they hold.
    pub(super) fn open(of: Use, files: Files) -> Result<Self, Error> {
        metrics::install();
        let good = files.read()?;
        let material = Arc::new(files.make(&good)?);
        let live = Self {
            of,
            files,
            current: RwLock::new(Arc::clone(&material)),
            looked: Mutex::new(Looked { good, told: None }),
        };
        live.show(&material);
        Ok(live)
    }

    /// What is in use now.
    pub(super) fn current(&self) -> Arc<Material> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// It has a certificate for ports.
    pub(super) fn is_server(&self) -> bool {
        self.current().servers.is_some()
    }

    /// Looks again and again, for ever.
    pub(super) async fn watch(self: Arc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let live = Arc::clone(&self);
            // Files may be on a slow disk. A look that panics is one that found nothing.
            let _ = tokio::task::spawn_blocking(move || live.look()).await;
        }
    }

    /// Reads the files, and uses what they hold if it is new and can be used.
    pub(super) fn look(&self) -> Found {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.files.read();
        if read.as_ref().is_ok_and(|content| *content == looked.good) {
            looked.told = None;
            return Found::Same;
        }
        let made = read.and_then(|content| self.files.make(&content).map(|material| (content, material)));
        match made {
            Ok((content, material)) => {
                let material = Arc::new(material);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&material);
                *looked = Looked {
                    good: content,
                    told: None,
                };
                ::metrics::counter!(RELOADS, "result" => "ok").increment(1);
                tracing::info!(of = self.of.name(), "certificates were read again and are in use");
                self.show(&material);
                Found::Newer
            }
            Err(error) => {
                let why = chain(&error);
                // Once per trouble, not with every look.
                if looked.told.as_ref() != Some(&why) {
                    ::metrics::counter!(RELOADS, "result" => "failed").increment(1);
                    tracing::error!(
                        of = self.of.name(),
                        "new certificates cannot be used, those before stay: {why}"
                    );
                    looked.told = Some(why);
                }
                Found::Broken
            }
        }
    }

    fn show(&self, material: &Material) {
        let Some(expires) = material.expires else { return };
        ::metrics::gauge!(EXPIRY, "use" => self.of.name()).set(expires as f64);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if expires <= now.as_secs() {
            let since = now.as_secs() - expires;
            tracing::warn!(
                of = self.of.name(),
                "the certificate ended {since} s ago: nobody will trust it"
            );
        }
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("of", &self.of)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}
