//! Keys by their digests. Pure.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};

use super::file::Entry;
use crate::caller::{Caller, Grant, Meter};

/// SHA-256 of a key.
pub(super) type Digest = [u8; 32];

/// All keys that open a door.
#[derive(Default)]
pub(super) struct Ring(HashMap<Digest, Arc<Caller>>);

impl Ring {
    /// Takes these keys. Those that were there `before`, by any of their digests, go on with what was used of them.
    pub(super) fn new(entries: Vec<Entry>, before: &Self, now: Duration) -> Self {
        let mut callers = HashMap::new();
        for entry in entries {
            let known = entry.digests.iter().find_map(|digest| before.0.get(digest));
            let known = known.filter(|known| *known.tenant == *entry.tenant);
            let meter = match known.and_then(|known| known.meter()) {
                Some(meter) => {
                    meter.set(entry.limits, now);
                    Arc::clone(meter)
                }
                None => Meter::new(&entry.tenant, entry.limits, now),
            };
            let grant = Grant {
                models: entry.models,
                max_priority: entry.max_priority,
                meter,
            };
            let caller = Arc::new(Caller::with(&entry.tenant, entry.weight, grant));
            let digests = entry.digests.into_iter();
            callers.extend(digests.map(|digest| (digest, Arc::clone(&caller))));
        }
        Self(callers)
    }

    /// Whose key this is.
    pub(super) fn find(&self, key: &[u8]) -> Option<Arc<Caller>> {
        let digest: Digest = Sha256::digest(key).into();
        self.0.get(&digest).cloned()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("keys", &self.len()).finish()
    }
}

/// A key's digest as a list of keys has it.
#[cfg(test)]
pub(super) fn hex(key: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(key);
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::{super::file::parse, *};

    #[test]
    fn what_was_used_of_a_key_stays_used_when_the_list_changes() {
        let (old, new) = (hex(b"old"), hex(b"new"));
        let first = format!("- {{tenant: acme, sha256: {old}, requests_per_second: 0.001, burst: 1}}");
        let first = Ring::new(parse(&first).unwrap(), &Ring::default(), Duration::ZERO);
        let before = first.find(b"old").unwrap();
        drop(before.begin(Duration::ZERO).unwrap());
        let both = format!("- {{tenant: acme, sha256: {old} {new}, requests_per_second: 0.001, burst: 1}}");
        let both = Ring::new(parse(&both).unwrap(), &first, Duration::ZERO);
        assert_eq!(both.len(), 2);
        for key in [&b"old"[..], b"new"] {
            assert!(both.find(key).unwrap().begin(Duration::ZERO).is_err());
        }
        let rest = format!("- {{tenant: acme, sha256: {new}, requests_per_second: 0.001, burst: 1}}");
        let rest = Ring::new(parse(&rest).unwrap(), &both, Duration::ZERO);
        assert!(rest.find(b"old").is_none());
        assert!(rest.find(b"new").unwrap().begin(Duration::ZERO).is_err());
    }

    #[test]
    fn a_key_that_goes_to_another_tenant_begins_anew() {
        let of = |tenant: &str| {
            format!(
                "- {{tenant: {tenant}, sha256: {}, requests_per_second: 0.001, burst: 1}}",
                hex(b"key")
            )
        };
        let first = Ring::new(parse(&of("a")).unwrap(), &Ring::default(), Duration::ZERO);
        drop(first.find(b"key").unwrap().begin(Duration::ZERO).unwrap());
        let second = Ring::new(parse(&of("b")).unwrap(), &first, Duration::ZERO);
        assert!(second.find(b"key").unwrap().begin(Duration::ZERO).is_ok());
    }
}
