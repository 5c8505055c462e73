//! The names users give the ways in which noise levels are spread, as in `sigma_schedule=karras`.
//!
//! Those that a diffusers class has as a flag of its configuration are that flag; the others are the formulas that users know from
//! k-diffusion's front ends. Invariant: `parse(display(schedule)) == schedule`.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::Class;
use super::choice::plain;
use crate::Error;

/// How noise levels are spread, when a request asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Schedule {
    /// Karras et al. 2022 (arXiv 2206.00364), equation 5: `use_karras_sigmas`.
    Karras,
    /// Evenly in the logarithm of the noise level: `use_exponential_sigmas`.
    Exponential,
    /// By the beta distribution with both shapes 0.6 (Lee et al. 2024, arXiv 2407.12173): `use_beta_sigmas`.
    Beta,
    /// Evenly in the log-SNR (Lu et al. 2022, arXiv 2206.00927): `use_lu_lambdas`.
    Lu,
    /// `timestep_spacing` "trailing".
    SgmUniform,
    /// Every n-th training timestep from the last one down.
    Simple,
    /// `timestep_spacing` "linspace".
    Normal,
    /// `timestep_spacing` "leading" with an offset of 1.
    DdimUniform,
    /// Align Your Steps (Sabour et al. 2024, arXiv 2404.14507): the table of Stable Diffusion 1.5, interpolated in the logarithm.
    Ays,
    /// The same of Stable Diffusion XL; a scheduler configuration does not tell the two models apart, so the name does.
    AysXl,
    /// The interpolation of arctangents that is optimal for a Gaussian (Sabour et al. 2024, arXiv 2404.14507, appendix).
    KlOptimal,
}

impl Schedule {
    /// Every schedule, in the order in which they are listed to users.
    pub const ALL: [Self; 11] = [
        Self::Karras,
        Self::Exponential,
        Self::Beta,
        Self::Lu,
        Self::SgmUniform,
        Self::Simple,
        Self::Normal,
        Self::DdimUniform,
        Self::Ays,
        Self::AysXl,
        Self::KlOptimal,
    ];

    /// The name users give.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Karras => "karras",
            Self::Exponential => "exponential",
            Self::Beta => "beta",
            Self::Lu => "lu",
            Self::SgmUniform => "sgm_uniform",
            Self::Simple => "simple",
            Self::Normal => "normal",
            Self::DdimUniform => "ddim_uniform",
            Self::Ays => "ays",
            Self::AysXl => "ays_xl",
            Self::KlOptimal => "kl_optimal",
        }
    }

    /// The keys of a configuration that it stands for; none for those that no class has as a key.
    pub(super) fn keys(self, class: Class) -> Vec<(&'static str, Value)> {
        match self {
            Self::Karras | Self::Exponential if class == Class::EdmEuler => {
                vec![("sigma_schedule", self.name().into())]
            }
            Self::Karras => vec![("use_karras_sigmas", true.into())],
            Self::Exponential => vec![("use_exponential_sigmas", true.into())],
            Self::Beta => vec![("use_beta_sigmas", true.into())],
            Self::Lu => vec![("use_lu_lambdas", true.into())],
            Self::SgmUniform => vec![("timestep_spacing", "trailing".into())],
            Self::Normal => vec![("timestep_spacing", "linspace".into())],
            Self::DdimUniform => vec![("timestep_spacing", "leading".into()), ("steps_offset", 1.into())],
            Self::Simple | Self::Ays | Self::AysXl | Self::KlOptimal => Vec::new(),
        }
    }

    /// The schedule of a name in its plain form, other front ends' names included.
    fn find(plain: &str) -> Option<Self> {
        let alias = match plain {
            "uniform" | "linspace" => Some(Self::Normal),
            "trailing" => Some(Self::SgmUniform),
            "leading" | "ddim" => Some(Self::DdimUniform),
            "align_your_steps" => Some(Self::Ays),
            "align_your_steps_xl" => Some(Self::AysXl),
            "lu_lambdas" => Some(Self::Lu),
            _ => None,
        };
        alias.or_else(|| Self::ALL.into_iter().find(|schedule| schedule.name() == plain))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::find(&plain(name)).ok_or_else(|| Error::UnknownSchedule {
            // What a stranger sent is echoed, but not at any length.
            name: name.chars().take(64).collect(),
            accepted: Self::ALL.map(Self::name).join(", "),
        })
    }
}
