//! Who a request is of. A door finds out before anything else of a request is read, and every request carries it from there.
//!
//! It refuses to know how that is found out. Invariant: whoever shows nothing is the anonymous caller, who has no name, no
//! more weight than anybody, and nothing of what named callers are allowed beyond it.

use std::sync::{Arc, LazyLock};

use http::Extensions;

/// The share of one caller among others, where nothing says more.
const WEIGHT: f64 = 1.0;

/// A caller, as far as it is known.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Whose shares and request ids these are; empty for all callers that nobody knows.
    pub(crate) tenant: Arc<str>,
    /// Its tenant's share among others who wait, above 0 and finite.
    pub(crate) weight: f64,
}

impl Caller {
    /// Whoever shows nothing.
    pub(crate) fn anonymous() -> Arc<Self> {
        static ANONYMOUS: LazyLock<Arc<Caller>> = LazyLock::new(|| {
            Arc::new(Caller {
                tenant: Arc::from(""),
                weight: WEIGHT,
            })
        });
        Arc::clone(&ANONYMOUS)
    }

    /// The caller that a door has noted with a request.
    pub(crate) fn of(extensions: &Extensions) -> Arc<Self> {
        extensions
            .get::<Arc<Self>>()
            .map_or_else(Self::anonymous, Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_of_whom_its_door_has_noted_or_of_nobody_known() {
        let mut extensions = Extensions::new();
        let nobody = Caller::of(&extensions);
        assert_eq!((&*nobody.tenant, nobody.weight), ("", WEIGHT));
        extensions.insert(Arc::new(Caller {
            tenant: "acme".into(),
            weight: 2.0,
        }));
        let known = Caller::of(&extensions);
        assert_eq!((&*known.tenant, known.weight), ("acme", 2.0));
    }
}
