//! The diffusers scheduler classes that are served, and what the constructors of each take for granted.

use super::Schedule;

/// The diffusers scheduler classes that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// `DDIMScheduler`
    Ddim,
    /// `DDPMScheduler`
    Ddpm,
    /// `PNDMScheduler`
    Pndm,
    /// `LMSDiscreteScheduler`
    Lms,
    /// `EulerDiscreteScheduler`
    Euler,
    /// `EulerAncestralDiscreteScheduler`
    EulerAncestral,
    /// `HeunDiscreteScheduler`
    Heun,
    /// `KDPM2DiscreteScheduler`
    Kdpm2,
    /// `KDPM2AncestralDiscreteScheduler`
    Kdpm2Ancestral,
    /// `DPMSolverMultistepScheduler`
    DpmMultistep,
    /// `DPMSolverSinglestepScheduler`
    DpmSinglestep,
    /// `DPMSolverSDEScheduler`
    DpmSde,
    /// `DEISMultistepScheduler`
    Deis,
    /// `UniPCMultistepScheduler`
    UniPc,
    /// `LCMScheduler`
    Lcm,
    /// `TCDScheduler`
    Tcd,
    /// `EDMEulerScheduler`
    EdmEuler,
    /// `FlowMatchEulerDiscreteScheduler`
    FlowEuler,
}

/// How timesteps are laid over the training timesteps (Lin et al. 2023, arXiv 2305.08891, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spacing {
    Linspace,
    Leading,
    Trailing,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 18] = [
        Self::Ddim,
        Self::Ddpm,
        Self::Pndm,
        Self::Lms,
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Kdpm2,
        Self::Kdpm2Ancestral,
        Self::DpmMultistep,
        Self::DpmSinglestep,
        Self::DpmSde,
        Self::Deis,
        Self::UniPc,
        Self::Lcm,
        Self::Tcd,
        Self::EdmEuler,
        Self::FlowEuler,
    ];

    /// The name in scheduler_config.json.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "DDIMScheduler",
            Self::Ddpm => "DDPMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::Lms => "LMSDiscreteScheduler",
            Self::Euler => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Self::Heun => "HeunDiscreteScheduler",
            Self::Kdpm2 => "KDPM2DiscreteScheduler",
            Self::Kdpm2Ancestral => "KDPM2AncestralDiscreteScheduler",
            Self::DpmMultistep => "DPMSolverMultistepScheduler",
            Self::DpmSinglestep => "DPMSolverSinglestepScheduler",
            Self::DpmSde => "DPMSolverSDEScheduler",
            Self::Deis => "DEISMultistepScheduler",
            Self::UniPc => "UniPCMultistepScheduler",
            Self::Lcm => "LCMScheduler",
            Self::Tcd => "TCDScheduler",
            Self::EdmEuler => "EDMEulerScheduler",
            Self::FlowEuler => "FlowMatchEulerDiscreteScheduler",
        }
    }

    /// Model calls of a whole step, as diffusers' `order` attribute says.
    pub(super) fn order(self) -> usize {
        match self {
            Self::Heun | Self::Kdpm2 | Self::Kdpm2Ancestral | Self::DpmSde => 2,
            Self::Ddim
            | Self::Ddpm
            | Self::Pndm
            | Self::Lms
            | Self::Euler
            | Self::EulerAncestral
            | Self::DpmMultistep
            | Self::DpmSinglestep
            | Self::Deis
            | Self::UniPc
            | Self::Lcm
            | Self::Tcd
            | Self::EdmEuler
            | Self::FlowEuler => 1,
        }
    }

    /// Whether it has betas, a prediction type and a place for timesteps: all but the EDM and the flow matching class.
    pub(super) fn has_betas(self) -> bool {
        !matches!(self, Self::EdmEuler | Self::FlowEuler)
    }

    /// Whether it knows `timestep_spacing` and `steps_offset`.
    pub(super) fn has_spacing(self) -> bool {
        self.has_betas() && self != Self::DpmSinglestep
    }

    /// Whether it knows `rescale_betas_zero_snr`.
    pub(super) fn has_zero_snr(self) -> bool {
        matches!(
            self,
            Self::Ddim
                | Self::Ddpm
                | Self::Euler
                | Self::EulerAncestral
                | Self::DpmMultistep
                | Self::UniPc
                | Self::Lcm
                | Self::Tcd
        )
    }

    /// Whether its `clip_sample` is true where a configuration does not say.
    pub(super) fn clips_by_default(self) -> bool {
        matches!(self, Self::Ddim | Self::Ddpm)
    }

    /// Whether it knows `use_karras_sigmas`, `use_exponential_sigmas` and `use_beta_sigmas`.
    pub(super) fn has_levels(self) -> bool {
        matches!(
            self,
            Self::Lms
                | Self::Euler
                | Self::Heun
                | Self::Kdpm2
                | Self::Kdpm2Ancestral
                | Self::DpmMultistep
                | Self::DpmSinglestep
                | Self::DpmSde
                | Self::Deis
                | Self::UniPc
                | Self::FlowEuler
        )
    }

    /// Whether it knows `use_flow_sigmas`, `flow_shift`, `use_dynamic_shifting` and `time_shift_type`.
    pub(super) fn has_flow(self) -> bool {
        matches!(
            self,
            Self::DpmMultistep | Self::DpmSinglestep | Self::Deis | Self::UniPc
        )
    }

    /// `timestep_spacing` where a configuration does not say.
    pub(super) fn spacing(self) -> Spacing {
        match self {
            Self::Ddim | Self::Ddpm | Self::Pndm | Self::Lcm | Self::Tcd => Spacing::Leading,
            Self::Lms
            | Self::Euler
            | Self::EulerAncestral
            | Self::Heun
            | Self::Kdpm2
            | Self::Kdpm2Ancestral
            | Self::DpmMultistep
            | Self::DpmSinglestep
            | Self::DpmSde
            | Self::Deis
            | Self::UniPc
            | Self::EdmEuler
            | Self::FlowEuler => Spacing::Linspace,
        }
    }

    /// `beta_start`, `beta_end` and whether `beta_schedule` is "scaled_linear", where a configuration does not say.
    pub(super) fn betas(self) -> (f64, f64, bool) {
        const SMALL: (f64, f64) = (0.0001, 0.02);
        const STABLE: (f64, f64) = (0.00085, 0.012);
        let (start, end) = match self {
            Self::Heun | Self::Kdpm2 | Self::Kdpm2Ancestral | Self::DpmSde | Self::Lcm | Self::Tcd => STABLE,
            Self::Ddim
            | Self::Ddpm
            | Self::Pndm
            | Self::Lms
            | Self::Euler
            | Self::EulerAncestral
            | Self::DpmMultistep
            | Self::DpmSinglestep
            | Self::Deis
            | Self::UniPc
            | Self::EdmEuler
            | Self::FlowEuler => SMALL,
        };
        (start, end, matches!(self, Self::Lcm | Self::Tcd))
    }

    /// The schedules a request may name with it.
    pub(super) fn schedules(self) -> &'static [Schedule] {
        use Schedule::{
            Ays, AysXl, Beta, DdimUniform, Exponential, Karras, KlOptimal, Lu, Normal, SgmUniform, Simple,
        };
        match self {
            Self::Ddim | Self::Ddpm | Self::Pndm => &[SgmUniform, Normal, DdimUniform],
            Self::EulerAncestral => &[SgmUniform, Simple, Normal, DdimUniform, Ays, AysXl, KlOptimal],
            Self::Lms
            | Self::Euler
            | Self::Heun
            | Self::Kdpm2
            | Self::Kdpm2Ancestral
            | Self::DpmSde
            | Self::Deis
            | Self::UniPc => &[
                Karras,
                Exponential,
                Beta,
                SgmUniform,
                Simple,
                Normal,
                DdimUniform,
                Ays,
                AysXl,
                KlOptimal,
            ],
            Self::DpmMultistep => &[
                Karras,
                Exponential,
                Beta,
                Lu,
                SgmUniform,
                Simple,
                Normal,
                DdimUniform,
                Ays,
                AysXl,
                KlOptimal,
            ],
            // It has no timestep_spacing: its timesteps are always "linspace".
            Self::DpmSinglestep => &[Karras, Exponential, Beta, Simple, Ays, AysXl, KlOptimal],
            // The few timesteps they were distilled for.
            Self::Lcm | Self::Tcd => &[],
            Self::EdmEuler => &[Karras, Exponential],
            Self::FlowEuler => &[Karras, Exponential, Beta],
        }
    }
}
