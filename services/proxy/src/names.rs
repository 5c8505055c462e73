//! The names of schedulers: those of the mesh, of Stable Diffusion web UI (A1111) and of diffusers, and what the mesh calls
//! what they name. Pure.
//!
//! The replicas read the same names and have the last word. Here they are read too, so that a name that nobody knows is
//! refused before anything is spent on it, and because some schedulers call the model twice in a step.
//!
//! Invariant: a name that is read gives one base and at most one schedule, however it was written.

/// One scheduler.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scheduler {
    /// In the mesh.
    pub(crate) name: &'static str,
    /// In A1111; its own name where A1111 has none.
    pub(crate) label: &'static str,
    /// In diffusers, in lower case and without `Scheduler`.
    class: &'static str,
    /// Calls of the model in a step.
    pub(crate) calls: u32,
    /// Elsewhere, in plain form.
    aliases: &'static [&'static str],
}

const fn scheduler(
    name: &'static str,
    label: &'static str,
    class: &'static str,
    calls: u32,
    aliases: &'static [&'static str],
) -> Scheduler {
    Scheduler {
        name,
        label,
        class,
        calls,
        aliases,
    }
}

/// All schedulers. Where one class of diffusers is several schedulers by its settings, it stands with the one that the
/// class is without any.
const SCHEDULERS: &[Scheduler] = &[
    scheduler("ddim", "DDIM", "ddim", 1, &[]),
    scheduler("ddpm", "ddpm", "ddpm", 1, &[]),
    scheduler("pndm", "PLMS", "pndm", 1, &["plms"]),
    scheduler("lms", "LMS", "lmsdiscrete", 1, &[]),
    scheduler("euler", "Euler", "eulerdiscrete", 1, &[]),
    scheduler(
        "euler_a",
        "Euler a",
        "eulerancestraldiscrete",
        1,
        &["euler_ancestral"],
    ),
    scheduler("heun", "Heun", "heundiscrete", 2, &[]),
    scheduler("dpm2", "DPM2", "kdpm2discrete", 2, &["dpm_2"]),
    scheduler(
        "dpm2_a",
        "DPM2 a",
        "kdpm2ancestraldiscrete",
        2,
        &["dpm_2_a", "dpm_2_ancestral", "dpm2_ancestral"],
    ),
    scheduler(
        "dpmpp_2m",
        "DPM++ 2M",
        "dpmsolvermultistep",
        1,
        &["dpmpp", "dpmsolverpp"],
    ),
    scheduler("dpmpp_2m_sde", "DPM++ 2M SDE", "", 1, &[]),
    scheduler("dpmpp_3m", "DPM++ 3M", "", 1, &[]),
    scheduler("dpmpp_3m_sde", "DPM++ 3M SDE", "", 1, &[]),
    scheduler("dpm_2m", "dpm_2m", "", 1, &["dpmsolver"]),
    scheduler("dpm_2m_sde", "dpm_2m_sde", "", 1, &[]),
    scheduler("dpm_3m", "dpm_3m", "", 1, &[]),
    scheduler("dpmpp_2s", "dpmpp_2s", "dpmsolversinglestep", 1, &[]),
    scheduler("dpmpp_sde", "DPM++ SDE", "dpmsolversde", 2, &[]),
    scheduler("deis", "deis", "deismultistep", 1, &[]),
    scheduler("unipc", "UniPC", "unipcmultistep", 1, &["uni_pc", "uni_pc_bh2"]),
    scheduler("lcm", "LCM", "lcm", 1, &[]),
    scheduler("tcd", "TCD", "tcd", 1, &[]),
    scheduler("edm_euler", "edm_euler", "edmeuler", 1, &[]),
    scheduler("flow_euler", "flow_euler", "flowmatcheulerdiscrete", 1, &[]),
];

/// Schedules of noise levels: in the mesh, and A1111's "Schedule type". One that is another's end stands behind it.
const SCHEDULES: &[(&str, &str)] = &[
    ("karras", "Karras"),
    ("exponential", "Exponential"),
    ("beta", "Beta"),
    ("lu", "lu"),
    ("sgm_uniform", "SGM Uniform"),
    ("simple", "Simple"),
    ("normal", "Normal"),
    ("ddim_uniform", "DDIM"),
    ("ays", "Align Your Steps"),
    ("ays_xl", "Align Your Steps XL"),
    ("kl_optimal", "KL Optimal"),
];

/// Other names of schedules, in plain form.
const SCHEDULE_ALIASES: &[(&str, &str)] = &[
    ("uniform", "normal"),
    ("linspace", "normal"),
    ("trailing", "sgm_uniform"),
    ("leading", "ddim_uniform"),
    ("lu_lambdas", "lu"),
];

/// Samplers of others that the mesh does not have, in plain form, with why.
const LACKING: &[(&str, &str)] = &[
    (
        "dpmpp_2s_a",
        "diffusers has no ancestral DPM++ 2S; dpmpp_2s and dpm2_a are its kin",
    ),
    (
        "dpmpp_2m_sde_heun",
        "its correction is the model's to choose; dpmpp_2m_sde is its kin",
    ),
    ("dpm_fast", "it is no fixed grid of steps; dpmpp_2m is its kin"),
    ("dpm_adaptive", "it chooses its own steps; dpmpp_2m is its kin"),
    ("restart", "it goes back up in noise; heun is its kin"),
    (
        "ddim_cfgpp",
        "CFG++ changes the guidance and not the scheduler; ddim is its kin",
    ),
];

/// Characters of the longest name; what is longer is none.
const NAME_MAX: usize = 96;

/// Names that an error tells: every scheduler once, and few enough for one look.
const SHOWN_MAX: usize = 24;

/// A name in lower case, with one underscore where others separate words, and `p` for a plus sign.
fn plain(name: &str) -> String {
    let mut plain = String::new();
    for c in name.trim().chars().take(NAME_MAX) {
        match c {
            ' ' | '-' | '_' | '\t' if plain.ends_with('_') => {}
            ' ' | '-' | '_' | '\t' => plain.push('_'),
            '+' => plain.push('p'),
            other => plain.push(other.to_ascii_lowercase()),
        }
    }
    plain
}

/// A scheduler's name as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Named {
    /// What solves.
    pub(crate) base: &'static Scheduler,
    /// How noise levels are spread, where the name says it.
    pub(crate) schedule: Option<&'static str>,
}

impl Named {
    /// Reads a name of the mesh, of A1111 or of diffusers, whatever its case.
    pub(crate) fn read(name: &str) -> Option<Self> {
        let name = plain(name);
        if let Some(base) = base(&name) {
            return Some(Self { base, schedule: None });
        }
        SCHEDULES.iter().find_map(|&(schedule, label)| {
            let rest = name
                .strip_suffix(schedule)
                .or_else(|| name.strip_suffix(&plain(label)))?;
            let base = base(rest.strip_suffix('_')?)?;
            let schedule = Some(schedule);
            Some(Self { base, schedule })
        })
    }

    /// The name in the mesh.
    pub(crate) fn canonical(self) -> String {
        match self.schedule {
            Some(schedule) => format!("{}_{schedule}", self.base.name),
            None => self.base.name.to_owned(),
        }
    }
}

/// The scheduler of a plain name.
fn base(name: &str) -> Option<&'static Scheduler> {
    let class = name.strip_suffix("scheduler").unwrap_or(name);
    // k-diffusion's names, which clients of other servers send in capitals.
    let other = name.strip_prefix("k_").or_else(|| name.strip_prefix("sample_"));
    let other = other.unwrap_or(name);
    SCHEDULERS.iter().find(|known| {
        known.name == name
            || known.name == other
            || known.aliases.contains(&other)
            || (!class.is_empty() && known.class == class)
    })
}

/// Why the mesh does not have a sampler that others have.
pub(crate) fn lacking(name: &str) -> Option<&'static str> {
    let name = plain(name);
    let name = name.strip_prefix("k_").unwrap_or(&name);
    let name = name.strip_suffix("_karras").unwrap_or(name);
    let known = LACKING.iter().find(|(lacking, _)| *lacking == name);
    known.map(|(_, why)| *why)
}

/// How often a scheduler calls the model in a step, as requests are reckoned here; `None` for a name that is not known.
///
/// For tests that hold this service's names against those that replicas list.
#[must_use]
pub fn calls_per_step(scheduler: &str) -> Option<u32> {
    Named::read(scheduler).map(|named| named.base.calls)
}

/// The one of the names that somebody may have meant: at most a third of its characters are other ones, whichever way it is
/// written, as the mesh, A1111 or diffusers do. The first of those that are as near.
pub(crate) fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    if name.chars().count() > NAME_MAX {
        return None;
    }
    let name = plain(name);
    let near = |spelling: &str| {
        let distance = strsim::osa_distance(&name, spelling);
        (distance <= (spelling.chars().count() / 3).max(1)).then_some(distance)
    };
    let of_known = |known: &'a String| {
        let named = Named::read(known).filter(|named| named.schedule.is_none());
        let others = named.into_iter().flat_map(|named| {
            let label = plain(named.base.label);
            [
                label,
                named.base.class.to_owned(),
                format!("{}scheduler", named.base.class),
            ]
        });
        let spellings = std::iter::once(plain(known)).chain(others);
        let nearest = spellings
            .filter(|spelling| !spelling.is_empty())
            .filter_map(|spelling| near(&spelling));
        nearest.min().map(|distance| (distance, known.as_str()))
    };
    let all = known.iter().filter_map(of_known);
    all.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// Some of the names, for people, and how many are left out: schedulers without a schedule first, for each goes with several.
pub(crate) fn some(known: &[String]) -> (Vec<String>, usize) {
    let is_alone = |name: &&String| Named::read(name).is_none_or(|named| named.schedule.is_none());
    let alone = known.iter().filter(is_alone);
    let rest = known.iter().filter(|name| !is_alone(name));
    let some: Vec<String> = alone.chain(rest).take(SHOWN_MAX).cloned().collect();
    let more = known.len() - some.len();
    (some, more)
}

/// The names of all schedulers, without schedules.
pub(crate) fn schedulers() -> Vec<String> {
    SCHEDULERS.iter().map(|known| known.name.to_owned()).collect()
}

/// True for a name that leaves the choice to the model.
pub(crate) fn is_own(name: &str) -> bool {
    matches!(&*plain(name), "" | "default" | "automatic")
}

/// The names of all schedules, for those who give one that is none.
pub(crate) fn schedules() -> Vec<String> {
    SCHEDULES.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// Reads a schedule's name.
pub(crate) fn schedule(name: &str) -> Option<&'static str> {
    let name = plain(name);
    let alias = SCHEDULE_ALIASES.iter().find(|(alias, _)| *alias == name);
    let name = alias.map_or(&*name, |(_, schedule)| schedule);
    let found = SCHEDULES
        .iter()
        .find(|(schedule, label)| *schedule == name || plain(label) == name);
    found.map(|(schedule, _)| *schedule)
}

/// A1111's "Schedule type" of a schedule; those that it does not have keep their names.
pub(crate) fn schedule_label(schedule: &str) -> &str {
    SCHEDULES
        .iter()
        .find_map(|&(name, label)| (name == schedule).then_some(label))
        .unwrap_or(schedule)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(name: &str) -> String {
        Named::read(name).unwrap_or_else(|| panic!("{name}")).canonical()
    }

    #[test]
    fn one_scheduler_has_one_name_however_it_is_written() {
        for (written, name) in [
            ("euler_a", "euler_a"),
            ("Euler a", "euler_a"),
            ("EulerAncestralDiscreteScheduler", "euler_a"),
            ("DPM++ 2M Karras", "dpmpp_2m_karras"),
            ("dpm++ 2m sde exponential", "dpmpp_2m_sde_exponential"),
            ("DPM2 a Karras", "dpm2_a_karras"),
            ("DPM++ SDE", "dpmpp_sde"),
            ("plms", "pndm"),
            ("UniPC", "unipc"),
            ("unipcmultistepscheduler", "unipc"),
            ("dpmpp_3m_sde_karras", "dpmpp_3m_sde_karras"),
            ("Euler SGM Uniform", "euler_sgm_uniform"),
            ("K_EULER_ANCESTRAL", "euler_a"),
            ("k_dpm_2_a", "dpm2_a"),
            ("DPMSolverSDE", "dpmpp_sde"),
        ] {
            assert_eq!(canonical(written), name, "{written}");
        }
    }

    #[test]
    fn every_name_of_the_mesh_reads_as_itself_with_and_without_a_schedule() {
        for scheduler in SCHEDULERS {
            assert_eq!(canonical(scheduler.name), scheduler.name);
            assert_eq!(canonical(scheduler.label), scheduler.name);
            for (schedule, label) in SCHEDULES {
                let name = format!("{}_{schedule}", scheduler.name);
                assert_eq!(canonical(&name), name);
                assert_eq!(canonical(&format!("{} {label}", scheduler.label)), name);
            }
        }
    }

    #[test]
    fn what_is_no_scheduler_is_not_read() {
        for name in [
            "",
            " ",
            "turbo",
            "karras",
            "_karras",
            "eulerkarras",
            "Euler b",
            "€",
        ] {
            assert_eq!(Named::read(name), None, "{name}");
        }
        assert!(lacking("DPM++ 2S a Karras").is_some_and(|why| why.contains("dpmpp_2s")));
        assert_eq!(lacking("dpm faster"), None);
        assert!(is_own("Automatic") && is_own(" ") && !is_own("euler"));
        assert_eq!(schedule("Align Your Steps"), Some("ays"));
        assert_eq!(schedule("linspace"), Some("normal"));
        assert_eq!(schedule("steep"), None);
    }

    #[test]
    fn a_slip_of_the_finger_finds_the_name_that_was_meant_however_it_is_written() {
        let mut known = schedulers();
        known.extend(schedulers().iter().flat_map(|name| {
            let with = |(schedule, _): &(&str, &str)| format!("{name}_{schedule}");
            SCHEDULES.iter().map(with).collect::<Vec<_>>()
        }));
        for (written, meant) in [
            ("eulr_a", Some("euler_a")),
            ("Euler b", Some("euler_a")),
            ("DPM++ 2M Karas", Some("dpmpp_2m_karras")),
            ("EulerAncestralDiscretScheduler", Some("euler_a")),
            ("dpmpp_2m_sde_karas", Some("dpmpp_2m_sde_karras")),
            ("turbo", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, &known), meant, "{written}");
        }
        assert_eq!(nearest(&"euler".repeat(10_000), &known), None);
        let (told, more) = some(&known);
        assert_eq!(told, schedulers(), "each alone");
        assert_eq!(more, known.len() - told.len());
        assert_eq!(some(&known[..3]).1, 0);
    }

    proptest! {
        #[test]
        fn a_name_that_is_read_is_read_again_as_the_same(name in "[a-zA-Z+_0-9 ]{0,24}") {
            if let Some(named) = Named::read(&name) {
                prop_assert_eq!(Named::read(&named.canonical()), Some(named));
            }
        }
    }
}
