//! How one request ended.

use std::borrow::Cow;

/// What kind of end it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The right picture came.
    Right,
    /// Refused because of load, with when to come back.
    Refused,
    /// Refused because of load, without when to come back.
    RefusedBare,
    /// The deadline passed, here or there.
    Deadline,
    /// The server said that it failed, or that the request is wrong.
    Failed,
    /// The connection failed, or the answer was cut.
    Transport,
    /// An answer came and it is not what was asked for.
    Wrong,
}

impl Kind {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 7] = [
        Self::Right,
        Self::Refused,
        Self::RefusedBare,
        Self::Deadline,
        Self::Failed,
        Self::Transport,
        Self::Wrong,
    ];

    /// What reports call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Refused => "refused",
            Self::RefusedBare => "refused_without_delay",
            Self::Deadline => "deadline",
            Self::Failed => "failed",
            Self::Transport => "transport",
            Self::Wrong => "wrong",
        }
    }
}

/// The end of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// What kind of end.
    pub kind: Kind,
    /// What exactly: a status code or the transport's words; empty for the right picture.
    pub label: Cow<'static, str>,
    /// Length of the picture's file.
    pub bytes: usize,
}

impl Ending {
    /// The right picture came.
    #[must_use]
    pub fn right(bytes: usize) -> Self {
        Self {
            kind: Kind::Right,
            label: Cow::Borrowed(""),
            bytes,
        }
    }

    /// Anything else.
    pub fn other(kind: Kind, label: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            label: label.into(),
            bytes: 0,
        }
    }
}
