//! Amounts of resources as whole numbers, so that adding and taking them never drifts.

use std::{collections::BTreeMap, fmt};

/// One CPU, GPU or unit of a custom resource; Ray counts in the same fractions.
pub const UNIT: u64 = 10_000;

/// What a worker has or a replica needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// CPU cores in 1/10000.
    pub cpus: u64,
    /// GPUs in 1/10000.
    pub gpus: u64,
    /// Main memory in bytes.
    pub memory: u64,
    /// Memory of GPUs in bytes. What a worker has is that of all its GPUs, each with an equal part; what a replica needs
    /// is spread evenly over the GPUs it takes, and lies on one GPU where it takes a share or none.
    pub vram: u64,
    /// Resources by other names in 1/10000.
    pub custom: BTreeMap<String, u64>,
}

/// The whole-number form of an amount given as a fraction: rounded to 1/10000, negative or not a number is 0.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn units(amount: f64) -> u64 {
    // `as` saturates, and takes NaN and negative numbers to 0.
    (amount * UNIT as f64).round() as u64
}

/// The fraction that [`units`] was made from.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn fraction(units: u64) -> f64 {
    units as f64 / UNIT as f64
}

impl Amounts {
    /// True if `free` has at least this much of everything.
    #[must_use]
    pub fn fits(&self, free: &Self) -> bool {
        self.cpus <= free.cpus
            && self.gpus <= free.gpus
            && self.memory <= free.memory
            && self.vram <= free.vram
            && self
                .custom
                .iter()
                .all(|(name, need)| *need <= free.custom.get(name).copied().unwrap_or(0))
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.cpus = self.cpus.saturating_add(other.cpus);
        self.gpus = self.gpus.saturating_add(other.gpus);
        self.memory = self.memory.saturating_add(other.memory);
        self.vram = self.vram.saturating_add(other.vram);
        for (name, amount) in &other.custom {
            let mine = self.custom.entry(name.clone()).or_default();
            *mine = mine.saturating_add(*amount);
        }
    }

    /// Takes `other` away; nothing falls below zero.
    pub fn take(&mut self, other: &Self) {
        self.cpus = self.cpus.saturating_sub(other.cpus);
        self.gpus = self.gpus.saturating_sub(other.gpus);
        self.memory = self.memory.saturating_sub(other.memory);
        self.vram = self.vram.saturating_sub(other.vram);
        for (name, amount) in &other.custom {
            if let Some(mine) = self.custom.get_mut(name) {
                *mine = mine.saturating_sub(*amount);
            }
        }
    }

    /// Becomes at least `other`, resource by resource.
    pub fn raise_to(&mut self, other: &Self) {
        self.cpus = self.cpus.max(other.cpus);
        self.gpus = self.gpus.max(other.gpus);
        self.memory = self.memory.max(other.memory);
        self.vram = self.vram.max(other.vram);
        for (name, amount) in &other.custom {
            let mine = self.custom.entry(name.clone()).or_default();
            *mine = (*mine).max(*amount);
        }
    }

    /// How much of one resource.
    #[must_use]
    pub fn of(&self, resource: &Resource) -> u64 {
        match resource {
            Resource::Cpu => self.cpus,
            Resource::Gpu => self.gpus,
            Resource::Memory => self.memory,
            Resource::Vram => self.vram,
            Resource::Custom(name) => self.custom.get(name).copied().unwrap_or(0),
        }
    }

    /// The resources of which this is more than nothing.
    pub fn resources(&self) -> impl Iterator<Item = Resource> + '_ {
        [Resource::Cpu, Resource::Gpu, Resource::Memory, Resource::Vram]
            .into_iter()
            .chain(self.custom.keys().cloned().map(Resource::Custom))
            .filter(|resource| self.of(resource) > 0)
    }
}

/// One resource by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// CPU cores.
    Cpu,
    /// GPUs.
    Gpu,
    /// Main memory.
    Memory,
    /// Memory of GPUs.
    Vram,
    /// Another, by its name.
    Custom(String),
}

impl Resource {
    /// The field of `ray_actor_options` that asks for it.
    #[must_use]
    pub fn option(&self) -> String {
        match self {
            Self::Cpu => "num_cpus".into(),
            Self::Gpu => "num_gpus".into(),
            Self::Memory => "memory".into(),
            Self::Vram => "vram_bytes".into(),
            Self::Custom(name) => format!("resources.{name}"),
        }
    }

    /// An amount of it without its name, such as `1.5` or `512 MiB`.
    #[must_use]
    pub fn amount(&self, amount: u64) -> String {
        match self {
            Self::Cpu | Self::Gpu | Self::Custom(_) => fraction(amount).to_string(),
            Self::Memory | Self::Vram => format!("{} MiB", amount.div_ceil(1 << 20)),
        }
    }

    /// An amount of it in words, with an adjective where grammar wants it: `2 free CPUs`, `512 MiB of free memory`.
    #[must_use]
    pub fn words(&self, amount: u64, adjective: &str) -> String {
        let number = self.amount(amount);
        let gap = if adjective.is_empty() { "" } else { " " };
        let plural = if amount == UNIT { "" } else { "s" };
        match self {
            Self::Cpu => format!("{number}{gap}{adjective} CPU{plural}"),
            Self::Gpu => format!("{number}{gap}{adjective} GPU{plural}"),
            Self::Memory => format!("{number} of{gap}{adjective} memory"),
            Self::Vram => format!("{number} of{gap}{adjective} GPU memory"),
            Self::Custom(name) => format!("{number}{gap}{adjective} {name}"),
        }
    }
}

impl fmt::Display for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.resources().map(|r| r.words(self.of(&r), "")).collect();
        if words.is_empty() {
            f.write_str("nothing")
        } else {
            f.write_str(&words.join(", "))
        }
    }
}
