//! API keys: who has shown one at a door, and the file that says what each opens.
//!
//! Keys are kept as their SHA-256 alone. They are random (256 bits, as `mobula key new` makes them), so nothing can be tried
//! out against a digest, and a slow hash as passwords need would only give strangers a way to keep the processor busy. A
//! digest is looked up in a table: whoever asks cannot choose its first bytes, so that time tells nothing.
//!
//! Without a file or list of keys the doors are open, and what callers show is not looked at. Invariants: with one, no door
//! draws for who shows no key; a file that cannot be read changes nothing; no key or digest gets into a log or an error.

mod file;
mod ring;
mod watch;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};

use self::ring::Ring;
use crate::{Error, caller::Caller, clock::Clock, metrics::KeyMetrics};

pub(crate) use self::watch::Watch;

/// Where a key may be shown, beside `authorization: Bearer`.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The scheme of an `authorization` that holds a key.
const BEARER: &str = "bearer ";

/// The text of a list of keys, which nothing prints.
#[derive(Clone)]
pub struct Text(String);

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Text(..)")
    }
}

/// A cheap handle to the keys that there are.
#[derive(Debug, Clone)]
pub(crate) struct Keys(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// None where everybody may come in.
    ring: Option<RwLock<Arc<Ring>>>,
    clock: Clock,
    metrics: KeyMetrics,
}

impl Keys {
    /// Takes these keys; without any everybody may come in.
    fn new(ring: Option<Ring>, clock: Clock) -> Self {
        let metrics = KeyMetrics::new();
        metrics
            .there
            .set(ring.as_ref().map_or(0.0, |ring| ring.len() as f64));
        Self(Arc::new(Shared {
            ring: ring.map(|ring| RwLock::new(Arc::new(ring))),
            clock,
            metrics,
        }))
    }

    /// True when everybody may come in.
    pub(crate) fn is_open(&self) -> bool {
        self.0.ring.is_none()
    }

    /// Finds out who a request is of, and notes it with the request. What was shown is taken out of the headers: nothing
    /// behind a door has a use for it.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub(crate) fn note<B>(&self, request: &mut http::Request<B>) -> Result<(), Error> {
        match self.look(request)? {
            true => Ok(()),
            false => Err(self.refused(false)),
        }
    }

    /// The same where nobody has to show a key: whoever shows none stays nobody. False for those; true where no key is asked
    /// for.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for a key that is not known.
    pub(crate) fn look<B>(&self, request: &mut http::Request<B>) -> Result<bool, Error> {
        let Some(ring) = &self.0.ring else {
            return Ok(true);
        };
        let found = shown(request.headers()).map(|key| {
            let ring = ring.read().unwrap_or_else(PoisonError::into_inner);
            ring.find(key)
        });
        let Some(found) = found else {
            return Ok(false);
        };
        let caller = found.ok_or_else(|| self.refused(true))?;
        for name in [API_KEY, AUTHORIZATION] {
            request.headers_mut().remove(name);
        }
        request.extensions_mut().insert(caller);
        Ok(true)
    }

    fn refused(&self, is_shown: bool) -> Error {
        self.0.metrics.turned(is_shown);
        Error::Unauthenticated { is_shown }
    }

    /// Whether a list that is open to all names an application to this caller: what its key opens, and nothing without one.
    pub(crate) fn names(&self, caller: &Caller, application: &str) -> bool {
        (self.is_open() || !caller.is_anonymous()) && caller.may_enter(application)
    }

    /// Refuses a caller of whom nobody found out who it is, where that matters: a door that forgot to ask draws for nobody.
    pub(crate) fn check(&self, caller: &Caller) -> Result<(), Error> {
        if caller.is_anonymous() && !self.is_open() {
            return Err(Error::Unauthenticated { is_shown: false });
        }
        Ok(())
    }

    /// Reads a list of keys in place of the one there is. What was used of keys that stay stays used.
    fn replace(&self, text: &str) -> Result<usize, String> {
        let Some(ring) = &self.0.ring else {
            return Ok(0);
        };
        let entries = file::parse(text)?;
        let before = Arc::clone(&ring.read().unwrap_or_else(PoisonError::into_inner));
        let after = Arc::new(Ring::new(entries, &before, self.0.clock.now()));
        let count = after.len();
        *ring.write().unwrap_or_else(PoisonError::into_inner) = after;
        self.0.metrics.there.set(count as f64);
        Ok(count)
    }
}

/// The key that headers show.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get(API_KEY) {
        return Some(key.as_bytes().trim_ascii());
    }
    let (scheme, key) = headers
        .get(AUTHORIZATION)
        .map(HeaderValue::as_bytes)?
        .split_at_checked(BEARER.len())?;
    scheme
        .eq_ignore_ascii_case(BEARER.as_bytes())
        .then(|| key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_key_is_shown_as_a_bearer_or_by_its_own_header_which_goes_first() {
        for (given, key) in [
            (&[("authorization", "Bearer abc")][..], Some("abc")),
            (&[("authorization", "bEARER  abc ")], Some("abc")),
            (&[("x-api-key", " abc ")], Some("abc")),
            (
                &[("x-api-key", "abc"), ("authorization", "Bearer x")],
                Some("abc"),
            ),
            (&[("authorization", "Basic abc")], None),
            (&[("authorization", "Bearer")], None),
            (&[("authorization", "")], None),
            (&[], None),
        ] {
            assert_eq!(shown(&headers(given)), key.map(str::as_bytes), "{given:?}");
        }
    }

    #[test]
    fn whoever_shows_a_key_is_its_tenant_and_the_key_goes_no_further() {
        let text = format!("- {{tenant: acme, sha256: {}}}", ring::hex(b"secret"));
        let ring = Ring::new(
            file::parse(&text).unwrap(),
            &Ring::default(),
            std::time::Duration::ZERO,
        );
        let keys = Keys::new(Some(ring), Clock::start());
        let ask = |key: &'static str| {
            let mut request = http::Request::new(());
            *request.headers_mut() = headers(&[("x-api-key", key), ("authorization", "Bearer x")]);
            keys.note(&mut request).map(|()| request)
        };
        let request = ask("secret").unwrap();
        assert_eq!(&*Caller::of(request.extensions()).tenant, "acme");
        assert!(request.headers().is_empty());
        assert!(matches!(
            ask("no"),
            Err(Error::Unauthenticated { is_shown: true })
        ));
        let nobody = keys.note(&mut http::Request::new(()));
        assert!(matches!(nobody, Err(Error::Unauthenticated { is_shown: false })));
        assert!(keys.check(&Caller::anonymous()).is_err());
        assert!(keys.check(&Caller::of(request.extensions())).is_ok());
        let debug = format!("{keys:?}");
        assert!(
            !debug.contains("secret") && !debug.contains(&ring::hex(b"secret")),
            "{debug}"
        );
    }

    #[test]
    fn open_doors_do_not_look_at_what_is_shown() {
        let keys = Keys::new(None, Clock::start());
        let mut request = http::Request::new(());
        *request.headers_mut() = headers(&[("authorization", "Bearer anything")]);
        keys.note(&mut request).unwrap();
        let caller = Caller::of(request.extensions());
        assert!(caller.is_anonymous() && keys.check(&caller).is_ok());
    }
}
