//! Who a request is of, and what that caller may do. A door finds out before anything else of a request is read, and every
//! request carries it from there.
//!
//! It refuses to know how that is found out (`keys` does). Invariants: whoever shows nothing is the anonymous caller, who
//! has no name and no more weight than anybody; a request is told the same of a model that its key does not open whether
//! there is such a model or not; what a request used is given back once, by drop.

use std::{
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Extensions;
use mobula_proto::common::v1::Priority;
use mobula_serving::{
    fair::Claim,
    quota::{Left, Limits, Refusal, Usage},
    tick::Class,
};

use crate::{
    Error,
    metrics::{Tenant, Turned},
    table::NAME_SHOWN,
};

/// The share of one caller among others, where nothing says more.
pub(crate) const WEIGHT: f64 = 1.0;
/// Between an application and one of its models on demand, as everywhere at the doors.
const SEPARATOR: char = ':';

/// A caller, as far as it is known.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Whose shares and request ids these are; empty for all callers that nobody knows.
    pub(crate) tenant: Arc<str>,
    /// Its tenant's share among others who wait, above 0 and finite.
    pub(crate) weight: f64,
    /// What its key opens; none for those who need no key.
    grant: Option<Grant>,
}

/// What a key opens.
#[derive(Debug)]
pub(crate) struct Grant {
    /// Names of applications, and of their models as `application:model`; all where there is none.
    pub(crate) models: Option<Vec<String>>,
    /// The highest class that may be asked for.
    pub(crate) max_priority: Option<Priority>,
    pub(crate) meter: Arc<Meter>,
}

/// What was used of a key, from one reading of its file to the next.
#[derive(Debug)]
pub(crate) struct Meter {
    usage: Mutex<Usage>,
    counts: Tenant,
}

impl Meter {
    /// Nothing so far.
    pub(crate) fn new(tenant: &str, limits: Limits, now: Duration) -> Arc<Self> {
        Arc::new(Self {
            usage: Mutex::new(Usage::new(limits, now)),
            counts: Tenant::new(tenant),
        })
    }

    /// Changes the limits; what was used stays used.
    pub(crate) fn set(&self, limits: Limits, now: Duration) {
        self.lock().set(limits, now);
    }

    /// Nothing under this lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way; counted out by drop.
#[derive(Debug, Default)]
pub(crate) struct Under(Option<Arc<Meter>>);

impl Drop for Under {
    fn drop(&mut self) {
        if let Some(meter) = &self.0 {
            meter.lock().end();
        }
    }
}

/// Pixels that a request was charged for; given back by drop unless they are kept.
#[derive(Debug)]
pub(crate) struct Charge {
    meter: Option<Arc<Meter>>,
    pixels: u64,
}

impl Charge {
    /// The pictures were drawn, or work went into them that their caller threw away.
    pub(crate) fn keep(mut self) {
        if let Some(meter) = self.meter.take() {
            meter.counts.drawn(self.pixels);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(meter) = &self.meter {
            meter.lock().give_back(self.pixels as f64);
        }
    }
}

impl Caller {
    /// A caller with a key.
    pub(crate) fn with(tenant: &str, weight: f64, grant: Grant) -> Self {
        Self {
            tenant: tenant.into(),
            weight,
            grant: Some(grant),
        }
    }

    /// Whoever shows nothing.
    pub(crate) fn anonymous() -> Arc<Self> {
        static ANONYMOUS: LazyLock<Arc<Caller>> = LazyLock::new(|| {
            Arc::new(Caller {
                tenant: Arc::from(""),
                weight: WEIGHT,
                grant: None,
            })
        });
        Arc::clone(&ANONYMOUS)
    }

    /// As whom a request of it waits.
    pub(crate) fn claim(&self, priority: Priority) -> Claim {
        Claim {
            class: match priority {
                Priority::Low => Class::Low,
                Priority::Unspecified | Priority::Normal => Class::Normal,
                Priority::High => Class::High,
            },
            tenant: Arc::clone(&self.tenant),
            // Shares are ratios: a thousandth of the usual one is small enough.
            weight: (self.weight * 1_000.0) as u32,
        }
    }

    /// The caller that a door has noted with a request.
    pub(crate) fn of(extensions: &Extensions) -> Arc<Self> {
        extensions
            .get::<Arc<Self>>()
            .map_or_else(Self::anonymous, Arc::clone)
    }

    /// True when it has shown nothing.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.grant.is_none()
    }

    /// What was used of its key.
    pub(crate) fn meter(&self) -> Option<&Arc<Meter>> {
        self.grant.as_ref().map(|grant| &grant.meter)
    }

    /// True when its key opens only some models.
    pub(crate) fn is_restricted(&self) -> bool {
        self.names().is_some()
    }

    fn names(&self) -> Option<&[String]> {
        self.grant.as_ref()?.models.as_deref()
    }

    /// True when its key opens anything of this application.
    pub(crate) fn may_enter(&self, application: &str) -> bool {
        let of = |name: &String| {
            let rest = name.strip_prefix(application);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(SEPARATOR))
        };
        self.names().is_none_or(|names| names.iter().any(of))
    }

    /// True when its key opens this model of an application; an empty id is the application's own. Who may use an
    /// application may use all that it serves.
    pub(crate) fn may_use(&self, application: &str, model_id: &str) -> bool {
        let this = |name: &String| {
            let rest = name.strip_prefix(application);
            rest.is_some_and(|rest| {
                rest.is_empty() || !model_id.is_empty() && rest.strip_prefix(SEPARATOR) == Some(model_id)
            })
        };
        self.names().is_none_or(|names| names.iter().any(this))
    }

    /// Refuses a model that its key does not open.
    pub(crate) fn check(&self, application: &str, model_id: &str) -> Result<(), Error> {
        if self.may_use(application, model_id) {
            return Ok(());
        }
        self.turned(Turned::Model);
        let full = match model_id {
            "" => application.to_owned(),
            id => format!("{application}{SEPARATOR}{id}"),
        };
        Err(Error::Closed {
            model: full.chars().take(NAME_SHOWN).collect(),
        })
    }

    /// The class that a request gets that asks for this one.
    pub(crate) fn priority(&self, asked: i32) -> Result<i32, Error> {
        let Some(max) = self.grant.as_ref().and_then(|grant| grant.max_priority) else {
            return Ok(asked);
        };
        match Priority::try_from(asked) {
            Ok(Priority::Unspecified) => Ok(Priority::Normal.min(max).into()),
            Ok(class) if class > max => {
                self.turned(Turned::Priority);
                Err(Error::TooHigh { max })
            }
            // What is no class is told as a wrong field.
            Ok(_) | Err(_) => Ok(asked),
        }
    }

    /// Leaves out of an error what its key does not open.
    pub(crate) fn narrow(&self, mut error: Error) -> Error {
        if let Error::UnknownModel { known, .. } | Error::ModelNotNamed { known } = &mut error {
            known.retain(|name| self.opens(name));
        } else if let Error::UnknownModelId {
            application, known, ..
        } = &mut error
        {
            known.retain(|id| self.may_use(application, id));
        }
        error
    }

    /// True when its key opens what has this name, an application's or one of its models'.
    pub(crate) fn opens(&self, name: &str) -> bool {
        let (application, id) = name.split_once(SEPARATOR).unwrap_or((name, ""));
        self.may_enter(name) || self.may_use(application, id)
    }

    /// One of its requests begins.
    ///
    /// # Errors
    /// [`Error::OverLimit`] when it must not.
    pub(crate) fn begin(&self, now: Duration) -> Result<Under, Error> {
        let Some(meter) = self.meter() else {
            return Ok(Under(None));
        };
        let begun = meter.lock().begin(now);
        begun.map_err(|refusal| self.over(refusal))?;
        meter.counts.begun();
        Ok(Under(Some(Arc::clone(meter))))
    }

    /// Charges it for pictures of so many pixels.
    ///
    /// # Errors
    /// [`Error::OverLimit`] when it may not have them.
    pub(crate) fn charge(&self, pixels: u64, now: Duration) -> Result<Charge, Error> {
        let Some(meter) = self.meter() else {
            return Ok(Charge { meter: None, pixels });
        };
        let charged = meter.lock().charge(pixels as f64, now);
        charged.map_err(|refusal| self.over(refusal))?;
        Ok(Charge {
            meter: Some(Arc::clone(meter)),
            pixels,
        })
    }

    /// Requests that it may begin, where its key says how many.
    pub(crate) fn left(&self, now: Duration) -> Option<Left> {
        self.meter()?.lock().left(now)
    }

    fn over(&self, refusal: Refusal) -> Error {
        self.turned(Turned::Over(refusal.bound));
        Error::OverLimit {
            tenant: Arc::clone(&self.tenant),
            refusal,
        }
    }

    fn turned(&self, why: Turned) {
        if let Some(meter) = self.meter() {
            meter.counts.turned(why);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A caller of this tenant whose key opens these models.
    pub(crate) fn caller(tenant: &str, models: Option<&[&str]>) -> Caller {
        let models = models.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let grant = Grant {
            models,
            max_priority: None,
            meter: Meter::new(tenant, Limits::default(), Duration::ZERO),
        };
        Caller::with(tenant, WEIGHT, grant)
    }

    #[test]
    fn a_request_is_of_whom_its_door_has_noted_or_of_nobody_known() {
        let mut extensions = Extensions::new();
        let nobody = Caller::of(&extensions);
        assert_eq!((&*nobody.tenant, nobody.weight), ("", WEIGHT));
        assert!(nobody.is_anonymous());
        extensions.insert(Arc::new(caller("acme", None)));
        let known = Caller::of(&extensions);
        assert_eq!((&*known.tenant, known.is_anonymous()), ("acme", false));
    }

    #[test]
    fn a_key_opens_what_its_list_names_and_nothing_that_begins_alike() {
        let some = caller("acme", Some(&["demo", "art:ink"]));
        for (application, model_id, is_open) in [
            ("demo", "", true),
            ("demo", "any", true),
            ("demo2", "", false),
            ("dem", "", false),
            ("art", "", false),
            ("art", "ink", true),
            ("art", "inks", false),
            ("", "", false),
        ] {
            assert_eq!(
                some.may_use(application, model_id),
                is_open,
                "{application} {model_id}"
            );
        }
        assert!(some.may_enter("art") && some.opens("art") && some.opens("art:ink"));
        assert!(!some.may_enter("ar") && !some.opens("art:oil") && !some.opens("x"));
        assert!(caller("acme", None).may_use("any", "thing"));
        let text = some.check("demo2", "x").unwrap_err().to_string();
        assert!(text.contains("\"demo2:x\""), "{text}");
    }

    #[test]
    fn errors_name_only_what_the_key_opens() {
        let some = caller("acme", Some(&["demo", "art:ink"]));
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let known = names(&["art", "demo", "secret"]);
        let Error::ModelNotNamed { known } = some.narrow(Error::ModelNotNamed { known }) else {
            panic!("it stays what it is");
        };
        assert_eq!(known, ["art", "demo"]);
        let error = Error::UnknownModelId {
            application: "art".into(),
            model_id: "x".into(),
            known: names(&["ink", "oil"]),
        };
        let text = some.narrow(error).to_string();
        assert!(text.ends_with("there are: ink"), "{text}");
    }

    #[test]
    fn a_class_above_the_keys_is_refused_and_none_is_at_most_its_own() {
        let mut low = caller("acme", None);
        let set = |caller: &mut Caller, max| {
            if let Some(grant) = &mut caller.grant {
                grant.max_priority = max;
            }
        };
        set(&mut low, Some(Priority::Low));
        assert_eq!(low.priority(0).unwrap(), i32::from(Priority::Low));
        assert!(low.priority(Priority::Normal.into()).is_err());
        assert_eq!(low.priority(77).unwrap(), 77);
        set(&mut low, Some(Priority::High));
        assert_eq!(low.priority(0).unwrap(), i32::from(Priority::Normal));
        assert_eq!(low.priority(Priority::High.into()).unwrap(), 3);
    }

    #[test]
    fn what_was_charged_comes_back_unless_it_is_kept() {
        let limits = Limits {
            day: Some(100.0),
            running: Some(1),
            ..Limits::default()
        };
        let mut one = caller("acme", None);
        if let Some(grant) = &mut one.grant {
            grant.meter = Meter::new("acme", limits, Duration::ZERO);
        }
        let begun = one.begin(Duration::ZERO).unwrap();
        assert!(one.begin(Duration::ZERO).is_err());
        drop(begun);
        assert!(one.begin(Duration::ZERO).is_ok());
        drop(one.charge(100, Duration::ZERO).unwrap());
        one.charge(100, Duration::ZERO).unwrap().keep();
        assert!(one.charge(1, Duration::ZERO).is_err());
    }

    #[test]
    fn a_request_waits_in_its_class_with_its_tenants_weight() {
        let mut caller = caller("acme", None);
        caller.weight = 2.5;
        let claim = caller.claim(Priority::High);
        assert_eq!(
            (claim.class, &*claim.tenant, claim.share()),
            (Class::High, "acme", 2_500)
        );
        let claim = Caller::anonymous().claim(Priority::Unspecified);
        assert_eq!((claim.class, claim.share()), (Class::Normal, 1_000));
    }
}
