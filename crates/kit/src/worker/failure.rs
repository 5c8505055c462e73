//! Why a replica failed, and whether another try can help.

use std::fmt;

/// What a replica failed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For people: what is wrong with which file, option or device.
    pub why: String,
    /// The assignment itself is at fault (a model that is missing or no model, an option that there is not): the same again
    /// on this worker would fail alike. Only what is known to be so counts; all else may pass.
    pub permanent: bool,
}

impl Failure {
    /// One that another try on the same worker cannot mend.
    #[must_use]
    pub fn permanent(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            permanent: true,
        }
    }
}

impl From<String> for Failure {
    /// One that may pass.
    fn from(why: String) -> Self {
        Self {
            why,
            permanent: false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
