//! Why a replica has no place, in words that say what to do about it.

use std::fmt;

use super::{Amounts, Kind, Resource, Selector, UNIT, fraction};

/// Why the replicas of a group that were not placed were not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no worker of the kind.
    NoWorker {
        /// What kind it takes.
        kind: Kind,
    },
    /// No worker of the kind has the labels.
    Labels {
        /// What kind it takes.
        kind: Kind,
        /// What is asked for.
        selector: Selector,
        /// What workers have instead, in words, the most frequent first.
        found: Vec<String>,
    },
    /// The last replicas are too few for a gang.
    Rest {
        /// How many belong to a gang.
        gang: usize,
        /// How many there are.
        rest: usize,
    },
    /// More than one GPU is asked for, and not a whole number.
    PartGpus {
        /// In 1/10000.
        gpus: u64,
    },
    /// Every worker holds as many replicas as it may.
    NoRoom {
        /// What kind it takes.
        kind: Kind,
        /// How many there are.
        workers: usize,
    },
    /// No worker has enough of one resource; of GPU memory, no GPU.
    Short {
        /// What kind it takes.
        kind: Kind,
        /// Of what there is too little.
        resource: Resource,
        /// What is needed.
        need: u64,
        /// What the worker with most of it has free.
        free: u64,
        /// What that worker has in all.
        of: u64,
    },
    /// A worker has enough GPU time, but in pieces.
    Pieces {
        /// What kind it takes.
        kind: Kind,
        /// What is needed, in 1/10000.
        need: u64,
        /// What a worker has free on all its GPUs.
        free: u64,
        /// The most that is free on one GPU, where a share is needed.
        largest: u64,
        /// The most GPUs of one worker that are wholly free.
        whole: u64,
    },
    /// Each resource is free somewhere, but no worker has all of them.
    Apart {
        /// What kind it takes.
        kind: Kind,
        /// What is needed together.
        need: Amounts,
    },
    /// The nodes with room hold as many of the group as they may.
    PerNode {
        /// How many.
        cap: usize,
        /// The nodes that hold so many.
        nodes: usize,
    },
    /// What must be on one node has no node with room for all of it.
    OneNode {
        /// How many have to go there.
        need: usize,
        /// How many the node with most room takes.
        fit: usize,
        /// The nodes to choose from.
        nodes: usize,
        /// Others of them run, and they have to join those.
        joins: bool,
        /// What `max_replicas_per_node` allows, if that is too little.
        cap: Option<usize>,
    },
    /// What must be on different nodes has too few nodes.
    Nodes {
        /// How many nodes are needed in all.
        need: usize,
        /// How many are there with one of them or with room for one.
        have: usize,
    },
    /// A gang does not fit as a whole.
    Gang {
        /// How many belong to it.
        gang: usize,
        /// How many of it have no place.
        missing: usize,
        /// How many of these would fit.
        fit: usize,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorker { kind } => write!(f, "no {kind} worker is attached"),
            Self::Labels {
                kind,
                selector,
                found,
            } => write!(
                f,
                "no {kind} worker has labels that match {selector}; they have {}; start a worker with such labels or \
                 change label_selector",
                found.join(", ")
            ),
            Self::Rest { gang, rest } => write!(
                f,
                "the last {rest} make no gang of {gang}; make num_replicas a multiple of gang_size"
            ),
            Self::PartGpus { gpus } => write!(
                f,
                "{} GPUs cannot be given: over 1 num_gpus must be whole",
                fraction(*gpus)
            ),
            Self::NoRoom { kind, workers: 1 } => write!(
                f,
                "the one {kind} worker holds as many replicas as it may; add a worker"
            ),
            Self::NoRoom { kind, workers } => write!(
                f,
                "all {workers} {kind} workers hold as many replicas as they may; add a worker"
            ),
            Self::Short {
                kind,
                resource,
                need,
                free,
                of,
            } => short(f, *kind, resource, [*need, *free, *of]),
            Self::Pieces {
                kind,
                need,
                free,
                largest,
                whole,
            } => pieces(f, *kind, *need, [*free, *largest, *whole]),
            Self::Apart { kind, need } => write!(
                f,
                "no {kind} worker has {need} free together; add a worker or lower the replica's need"
            ),
            Self::PerNode { cap, nodes } => write!(
                f,
                "{}, as many as max_replicas_per_node allows; add a node or raise max_replicas_per_node",
                match nodes {
                    1 => format!("the one node with room holds {cap}"),
                    nodes => format!("the {nodes} nodes with room hold {cap} each"),
                }
            ),
            Self::OneNode {
                need,
                fit,
                nodes,
                joins,
                cap,
            } => {
                match (nodes, joins) {
                    (_, true) => write!(
                        f,
                        "{need} more must join the others on their node (STRICT_PACK), which has"
                    )?,
                    (1, _) => write!(
                        f,
                        "{need} must be on one node (STRICT_PACK), and the only node has"
                    )?,
                    (n, _) => write!(
                        f,
                        "{need} must be on one node (STRICT_PACK), and the best of {n} nodes has"
                    )?,
                }
                write!(f, " room for {fit}; ")?;
                match cap {
                    Some(cap) => write!(f, "max_replicas_per_node is {cap}: raise it or choose PACK"),
                    None => f.write_str("free or add a larger node, or choose PACK"),
                }
            }
            Self::Nodes { need, have } => write!(
                f,
                "{need} nodes are needed (STRICT_SPREAD), and {have} {} one of them or room for one; add {} or choose \
                 SPREAD",
                if *have == 1 { "has" } else { "have" },
                match need.saturating_sub(*have) {
                    0 | 1 => "a node".to_owned(),
                    n => format!("{n} nodes"),
                }
            ),
            Self::Gang { gang, missing, fit } => {
                if missing == gang {
                    write!(
                        f,
                        "a gang of {gang} is placed whole, and {fit} of {gang} would fit"
                    )?;
                } else {
                    write!(
                        f,
                        "a gang of {gang} lacks {missing}, and {fit} of {missing} would fit"
                    )?;
                }
                write!(f, "; add workers for {} more", missing.saturating_sub(*fit))
            }
        }
    }
}

/// Too little of one resource: `[need, free, of]`.
fn short(f: &mut fmt::Formatter<'_>, kind: Kind, resource: &Resource, amounts: [u64; 3]) -> fmt::Result {
    let [need, free, of] = amounts;
    let option = resource.option();
    let (who, larger) = match resource {
        Resource::Vram => (format!("no GPU of the {kind} workers"), "worker with larger GPUs"),
        Resource::Cpu | Resource::Gpu | Resource::Memory | Resource::Custom(_) => {
            (format!("no {kind} worker"), "larger worker")
        }
    };
    let (free, all) = (resource.amount(free), resource.amount(of));
    if need > of {
        write!(
            f,
            "{who} has {}: the largest has {all} (free: {free}); start a {larger} or lower {option}",
            resource.words(need, "")
        )
    } else {
        write!(
            f,
            "{who} has {}: the largest has {free} free of {all}; add a worker or lower {option}",
            resource.words(need, "free")
        )
    }
}

/// GPU time in pieces: `[free, largest, whole]`.
fn pieces(f: &mut fmt::Formatter<'_>, kind: Kind, need: u64, amounts: [u64; 3]) -> fmt::Result {
    let [free, largest, whole] = amounts;
    let need_words = fraction(need);
    if need < UNIT {
        write!(
            f,
            "no GPU of the {kind} workers has {need_words} free: {} are free on one worker, but at most {} on one GPU; \
             add a worker or lower num_gpus",
            fraction(free),
            fraction(largest)
        )
    } else {
        write!(
            f,
            "no {kind} worker has {} wholly free: the best has {whole}, and {} of GPUs in use; add a worker or let \
             replicas that share GPUs end",
            Resource::Gpu.words(need, ""),
            fraction(free.saturating_sub(whole * UNIT))
        )
    }
}
