//! The names users give schedulers, in snake case, as in `scheduler=euler_karras`.
//!
//! It refuses a `_karras` that diffusers does not have instead of dropping it. Invariant: `parse(display(kind)) == kind`.

use std::fmt;
use std::str::FromStr;

use super::Class;
use crate::Error;

/// A scheduler as users name it; `_karras` spaces the noise levels as in Karras et al. 2022 (arXiv 2206.00364, equation 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `pndm`: diffusers' `PNDMScheduler`.
    Pndm,
    /// `ddim`: diffusers' `DDIMScheduler`.
    Ddim,
    /// `euler`: diffusers' `EulerDiscreteScheduler`.
    Euler,
    /// `euler_karras`: the same with `use_karras_sigmas`.
    EulerKarras,
    /// `euler_a`: diffusers' `EulerAncestralDiscreteScheduler`.
    EulerAncestral,
    /// `dpmpp_2m`: diffusers' `DPMSolverMultistepScheduler`.
    DpmppTwoM,
    /// `dpmpp_2m_karras`: the same with `use_karras_sigmas`.
    DpmppTwoMKarras,
}

impl Kind {
    /// Every kind, in the order in which they are listed to users.
    pub const ALL: [Self; 7] = [
        Self::Pndm,
        Self::Ddim,
        Self::Euler,
        Self::EulerKarras,
        Self::EulerAncestral,
        Self::DpmppTwoM,
        Self::DpmppTwoMKarras,
    ];

    /// The name users give.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pndm => "pndm",
            Self::Ddim => "ddim",
            Self::Euler => "euler",
            Self::EulerKarras => "euler_karras",
            Self::EulerAncestral => "euler_a",
            Self::DpmppTwoM => "dpmpp_2m",
            Self::DpmppTwoMKarras => "dpmpp_2m_karras",
        }
    }

    /// The diffusers class that does it.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Pndm => Class::Pndm,
            Self::Ddim => Class::Ddim,
            Self::Euler | Self::EulerKarras => Class::Euler,
            Self::EulerAncestral => Class::EulerAncestral,
            Self::DpmppTwoM | Self::DpmppTwoMKarras => Class::DpmMultistep,
        }
    }

    /// Whether the name asks for Karras noise levels.
    #[must_use]
    pub fn karras(self) -> bool {
        matches!(self, Self::EulerKarras | Self::DpmppTwoMKarras)
    }

    /// The kind of a class, with or without Karras noise levels where the class has them.
    pub(super) fn of(class: Class, karras: bool) -> Self {
        match (class, karras) {
            (Class::Pndm, _) => Self::Pndm,
            (Class::Ddim, _) => Self::Ddim,
            (Class::EulerAncestral, _) => Self::EulerAncestral,
            (Class::Euler, false) => Self::Euler,
            (Class::Euler, true) => Self::EulerKarras,
            (Class::DpmMultistep, false) => Self::DpmppTwoM,
            (Class::DpmMultistep, true) => Self::DpmppTwoMKarras,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| Error::UnknownScheduler {
                // What a stranger sent is echoed, but not at any length.
                name: name.chars().take(64).collect(),
                accepted: Self::ALL.map(Self::name).join(", "),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_round_trip() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse::<Kind>().unwrap(), kind);
            assert_eq!(Kind::of(kind.class(), kind.karras()), kind);
        }
    }

    #[test]
    fn karras_is_refused_where_diffusers_has_none_and_the_names_are_listed() {
        for name in [
            "pndm_karras",
            "ddim_karras",
            "euler_a_karras",
            "EULER",
            "",
            "unipc",
        ] {
            let error = name.parse::<Kind>().unwrap_err().to_string();
            assert!(
                error.contains("dpmpp_2m_karras") && error.contains("euler_a"),
                "{error}"
            );
        }
    }
}
