//! What a request says about the scheduler: a solver, a schedule, both in one name, or nothing.
//!
//! Names of other front ends ("DPM++ 2M SDE Karras", "K_EULER_ANCESTRAL") and diffusers' class names are taken for the same; case,
//! spaces and hyphens do not matter. It refuses a schedule that the solver does not have instead of dropping it. Invariant:
//! `parse(display(choice), "") == choice` for every choice with a kind.

use std::fmt;

use super::{Class, Kind, Schedule};
use crate::Error;

/// A solver and a schedule; where one is absent it is the model's own (a kind without a schedule spreads by timesteps).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Choice {
    /// What solves.
    pub kind: Option<Kind>,
    /// How noise levels are spread.
    pub schedule: Option<Schedule>,
}

/// Names of samplers that exist elsewhere and are not served, in plain form, with the reason.
const REFUSED: [(&str, &str); 9] = [
    (
        "dpmpp_2s_a",
        "diffusers has no ancestral DPM++ 2S; dpmpp_2s or dpm2_a are the nearest",
    ),
    (
        "dpmpp_2s_ancestral",
        "diffusers has no ancestral DPM++ 2S; dpmpp_2s or dpm2_a are the nearest",
    ),
    (
        "dpmpp_2m_sde_heun",
        "a request cannot choose the correction; the model's solver_type does",
    ),
    (
        "dpm_fast",
        "it is not a fixed grid of steps; dpmpp_2m is the nearest",
    ),
    (
        "dpm_adaptive",
        "its number of steps depends on the picture; dpmpp_2m is the nearest",
    ),
    ("restart", "it goes back up in noise; heun is the nearest"),
    (
        "ddim_cfgpp",
        "CFG++ changes the guidance and not the scheduler; ddim is the nearest",
    ),
    ("ddpm_parallel", "one picture is denoised in order; use ddpm"),
    ("sa_solver", "it is not served; unipc is the nearest"),
];

impl Choice {
    /// Reads the two names of a request; an empty one is absent.
    ///
    /// # Errors
    /// [`Error::UnknownScheduler`] and [`Error::UnknownSchedule`] with the accepted names, [`Error::RefusedScheduler`] with the
    /// reason, [`Error::Schedule`] for a schedule that the solver does not have or that the scheduler's name contradicts.
    pub fn parse(scheduler: &str, sigma_schedule: &str) -> Result<Self, Error> {
        let mut choice = Self::of_scheduler(scheduler)?;
        if !is_default(&plain(sigma_schedule)) {
            let schedule: Schedule = sigma_schedule.parse()?;
            if let Some(named) = choice.schedule.filter(|named| *named != schedule) {
                return Err(Error::Schedule {
                    schedule: schedule.to_string(),
                    kind: choice.to_string(),
                    accepted: named.to_string(),
                });
            }
            choice.schedule = Some(schedule);
        }
        choice.check()?;
        Ok(choice)
    }

    fn of_scheduler(name: &str) -> Result<Self, Error> {
        let plain = plain(name);
        if is_default(&plain) {
            return Ok(Self::default());
        }
        if let Some(kind) = find(&plain) {
            return Ok(Self {
                kind: Some(kind),
                schedule: None,
            });
        }
        let both = Schedule::ALL.into_iter().find_map(|schedule| {
            let kind = plain.strip_suffix(schedule.name())?.strip_suffix('_')?;
            Some(Self {
                kind: Some(find(kind)?),
                schedule: Some(schedule),
            })
        });
        if let Some(choice) = both {
            return Ok(choice);
        }
        // What a stranger sent is echoed, but not at any length.
        let name = name.chars().take(64).collect();
        let base = plain.strip_prefix("k_").unwrap_or(&plain);
        let refused = REFUSED
            .into_iter()
            .find(|(refused, _)| base.strip_suffix("_karras").unwrap_or(base) == *refused);
        Err(match refused {
            Some((_, reason)) => Error::RefusedScheduler { name, reason },
            None => Error::UnknownScheduler {
                name,
                accepted: format!(
                    "{}, each alone or with one of _{}",
                    Kind::ALL.map(Kind::name).join(", "),
                    Schedule::ALL.map(Schedule::name).join(", _")
                ),
            },
        })
    }

    /// Refuses a schedule that the kind does not have.
    pub(super) fn check(self) -> Result<(), Error> {
        let (Some(kind), Some(schedule)) = (self.kind, self.schedule) else {
            return Ok(());
        };
        let known = kind.class().schedules();
        if known.contains(&schedule) {
            return Ok(());
        }
        let names: Vec<_> = known.iter().map(|known| known.name()).collect();
        Err(Error::Schedule {
            schedule: schedule.to_string(),
            kind: kind.to_string(),
            accepted: if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            },
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.map_or("default", Kind::name);
        match self.schedule {
            None => f.write_str(kind),
            Some(schedule) => write!(f, "{kind}_{schedule}"),
        }
    }
}

/// A name in lower case, with one underscore for each run of other separators and "pp" for "++".
pub(super) fn plain(name: &str) -> String {
    // No name is longer; what a stranger sent is not copied at any length.
    const LONGEST: usize = 96;
    let mut out = String::with_capacity(name.len().min(LONGEST));
    for c in name.trim().chars().take(LONGEST) {
        match c {
            '+' => out.push('p'),
            ' ' | '-' | '_' | '\t' => {
                if !out.ends_with('_') {
                    out.push('_');
                }
            }
            c => out.extend(c.to_lowercase()),
        }
    }
    out
}

/// Whether a plain name leaves the choice to the model.
fn is_default(plain: &str) -> bool {
    matches!(plain, "" | "default" | "automatic")
}

/// The kind of a plain name.
fn find(plain: &str) -> Option<Kind> {
    let known = |plain: &str| Kind::ALL.into_iter().find(|kind| kind.name() == plain);
    if let Some(kind) = known(plain) {
        return Some(kind);
    }
    let class = plain.strip_suffix("scheduler").unwrap_or(plain);
    let class = Class::ALL.into_iter().find(|known| {
        let name = known.name().to_lowercase();
        name.strip_suffix("scheduler") == Some(class)
    });
    if let Some(class) = class {
        return Kind::ALL.into_iter().find(|kind| kind.class() == class);
    }
    let base = plain
        .strip_prefix("k_")
        .or_else(|| plain.strip_prefix("sample_"))
        .unwrap_or(plain);
    match base {
        "euler_ancestral" => Some(Kind::EulerAncestral),
        "dpm_2" => Some(Kind::Kdpm2),
        "dpm_2_a" | "dpm_2_ancestral" | "dpm2_ancestral" => Some(Kind::Kdpm2Ancestral),
        "uni_pc" | "uni_pc_bh2" => Some(Kind::UniPc),
        "plms" => Some(Kind::Pndm),
        "dpmsolver" => Some(Kind::DpmTwoM),
        "dpmsolverpp" | "dpmpp" => Some(Kind::DpmppTwoM),
        _ => known(base),
    }
}

#[cfg(test)]
mod tests;
