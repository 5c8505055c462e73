//! The solvers users name, in snake case, as in `scheduler=euler_a`; how noise levels are spread is a [`Schedule`](super::Schedule).

use std::fmt;

use serde_json::Value;

use super::Class;

/// What solves: a diffusers class, with its order and algorithm where users name these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `ddim`: `DDIMScheduler`.
    Ddim,
    /// `ddpm`: `DDPMScheduler`.
    Ddpm,
    /// `pndm`: `PNDMScheduler`.
    Pndm,
    /// `lms`: `LMSDiscreteScheduler`.
    Lms,
    /// `euler`: `EulerDiscreteScheduler`.
    Euler,
    /// `euler_a`: `EulerAncestralDiscreteScheduler`.
    EulerAncestral,
    /// `heun`: `HeunDiscreteScheduler`.
    Heun,
    /// `dpm2`: `KDPM2DiscreteScheduler`.
    Kdpm2,
    /// `dpm2_a`: `KDPM2AncestralDiscreteScheduler`.
    Kdpm2Ancestral,
    /// `dpmpp_2m`: `DPMSolverMultistepScheduler` with `dpmsolver++` of order 2 (or 1, where a model's own says so).
    DpmppTwoM,
    /// `dpmpp_2m_sde`: the same with `sde-dpmsolver++`.
    DpmppTwoMSde,
    /// `dpmpp_3m`: `dpmsolver++` of order 3.
    DpmppThreeM,
    /// `dpmpp_3m_sde`: `sde-dpmsolver++` of order 3.
    DpmppThreeMSde,
    /// `dpm_2m`: `dpmsolver` of order 2.
    DpmTwoM,
    /// `dpm_2m_sde`: `sde-dpmsolver` of order 2.
    DpmTwoMSde,
    /// `dpm_3m`: `dpmsolver` of order 3.
    DpmThreeM,
    /// `dpmpp_2s`: `DPMSolverSinglestepScheduler`.
    DpmppTwoS,
    /// `dpmpp_sde`: `DPMSolverSDEScheduler`.
    DpmppSde,
    /// `deis`: `DEISMultistepScheduler`.
    Deis,
    /// `unipc`: `UniPCMultistepScheduler`.
    UniPc,
    /// `lcm`: `LCMScheduler`.
    Lcm,
    /// `tcd`: `TCDScheduler`.
    Tcd,
    /// `edm_euler`: `EDMEulerScheduler`.
    EdmEuler,
    /// `flow_euler`: `FlowMatchEulerDiscreteScheduler`.
    FlowEuler,
}

impl Kind {
    /// Every kind, in the order in which they are listed to users.
    pub const ALL: [Self; 24] = [
        Self::Ddim,
        Self::Ddpm,
        Self::Pndm,
        Self::Lms,
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Kdpm2,
        Self::Kdpm2Ancestral,
        Self::DpmppTwoM,
        Self::DpmppTwoMSde,
        Self::DpmppThreeM,
        Self::DpmppThreeMSde,
        Self::DpmTwoM,
        Self::DpmTwoMSde,
        Self::DpmThreeM,
        Self::DpmppTwoS,
        Self::DpmppSde,
        Self::Deis,
        Self::UniPc,
        Self::Lcm,
        Self::Tcd,
        Self::EdmEuler,
        Self::FlowEuler,
    ];

    /// The name users give.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Ddpm => "ddpm",
            Self::Pndm => "pndm",
            Self::Lms => "lms",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler_a",
            Self::Heun => "heun",
            Self::Kdpm2 => "dpm2",
            Self::Kdpm2Ancestral => "dpm2_a",
            Self::DpmppTwoM => "dpmpp_2m",
            Self::DpmppTwoMSde => "dpmpp_2m_sde",
            Self::DpmppThreeM => "dpmpp_3m",
            Self::DpmppThreeMSde => "dpmpp_3m_sde",
            Self::DpmTwoM => "dpm_2m",
            Self::DpmTwoMSde => "dpm_2m_sde",
            Self::DpmThreeM => "dpm_3m",
            Self::DpmppTwoS => "dpmpp_2s",
            Self::DpmppSde => "dpmpp_sde",
            Self::Deis => "deis",
            Self::UniPc => "unipc",
            Self::Lcm => "lcm",
            Self::Tcd => "tcd",
            Self::EdmEuler => "edm_euler",
            Self::FlowEuler => "flow_euler",
        }
    }

    /// The diffusers class that does it.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Ddim => Class::Ddim,
            Self::Ddpm => Class::Ddpm,
            Self::Pndm => Class::Pndm,
            Self::Lms => Class::Lms,
            Self::Euler => Class::Euler,
            Self::EulerAncestral => Class::EulerAncestral,
            Self::Heun => Class::Heun,
            Self::Kdpm2 => Class::Kdpm2,
            Self::Kdpm2Ancestral => Class::Kdpm2Ancestral,
            Self::DpmppTwoM
            | Self::DpmppTwoMSde
            | Self::DpmppThreeM
            | Self::DpmppThreeMSde
            | Self::DpmTwoM
            | Self::DpmTwoMSde
            | Self::DpmThreeM => Class::DpmMultistep,
            Self::DpmppTwoS => Class::DpmSinglestep,
            Self::DpmppSde => Class::DpmSde,
            Self::Deis => Class::Deis,
            Self::UniPc => Class::UniPc,
            Self::Lcm => Class::Lcm,
            Self::Tcd => Class::Tcd,
            Self::EdmEuler => Class::EdmEuler,
            Self::FlowEuler => Class::FlowEuler,
        }
    }

    /// The keys that the name decides, whatever a carried configuration says.
    pub(super) fn keys(self) -> Vec<(&'static str, Value)> {
        let solver = |algorithm: &str, order: u64| {
            vec![
                ("algorithm_type", Value::from(algorithm)),
                ("solver_order", Value::from(order)),
            ]
        };
        // diffusers has no step to level zero for the solvers over the predicted noise.
        let noise = |algorithm: &str, order: u64| {
            let mut keys = solver(algorithm, order);
            keys.push(("final_sigmas_type", Value::from("sigma_min")));
            keys
        };
        match self {
            Self::DpmppTwoM => solver("dpmsolver++", 2),
            Self::DpmppTwoMSde => solver("sde-dpmsolver++", 2),
            Self::DpmppThreeM => solver("dpmsolver++", 3),
            Self::DpmppThreeMSde => solver("sde-dpmsolver++", 3),
            Self::DpmTwoM => noise("dpmsolver", 2),
            Self::DpmTwoMSde => noise("sde-dpmsolver", 2),
            Self::DpmThreeM => noise("dpmsolver", 3),
            Self::DpmppTwoS => solver("dpmsolver++", 2),
            Self::Deis => vec![("algorithm_type", Value::from("deis"))],
            Self::Ddim
            | Self::Ddpm
            | Self::Pndm
            | Self::Lms
            | Self::Euler
            | Self::EulerAncestral
            | Self::Heun
            | Self::Kdpm2
            | Self::Kdpm2Ancestral
            | Self::DpmppSde
            | Self::UniPc
            | Self::Lcm
            | Self::Tcd
            | Self::EdmEuler
            | Self::FlowEuler => Vec::new(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
