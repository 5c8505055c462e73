//! The GPUs of a worker, one by one: a share of a GPU lies on one GPU, and what takes whole GPUs takes them alone.
//!
//! Refuses to split a share over two GPUs and to take more than one GPU in part.
//! Invariant: no GPU gives more than it has, neither of its time nor of its memory.

use super::amounts::{Amounts, UNIT};

/// A worker that says it has more GPUs is taken to have these; no machine has so many.
const MOST: usize = 1024;

/// How many tries an arrangement of replicas on the GPUs of one worker may take. The first descent is "largest first, where
/// it is tightest", which succeeds but for contrived mixes; the bound keeps those from costing more than milliseconds.
const TRIES: u32 = 20_000;

/// A part of one GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Piece {
    /// Of its time, in 1/10000.
    pub(super) share: u64,
    /// Of its memory, in bytes.
    pub(super) vram: u64,
}

impl Piece {
    fn fits(self, free: Self) -> bool {
        self.share <= free.share && self.vram <= free.vram
    }

    /// How many of it are in `free`; it is not empty.
    fn times(self, free: Self) -> usize {
        let times = |need: u64, free: u64| free.checked_div(need).unwrap_or(u64::MAX);
        let times = times(self.share, free.share).min(times(self.vram, free.vram));
        usize::try_from(times).unwrap_or(usize::MAX)
    }

    fn add(&mut self, other: Self) {
        self.share = self.share.saturating_add(other.share);
        self.vram = self.vram.saturating_add(other.vram);
    }

    fn take(&mut self, other: Self) {
        self.share = self.share.saturating_sub(other.share);
        self.vram = self.vram.saturating_sub(other.vram);
    }
}

/// What a replica takes of the GPUs of its worker: pieces that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    /// How many; more than one only of whole GPUs.
    pub(super) count: usize,
    /// Each.
    pub(super) each: Piece,
    /// It asks for more than one GPU and not for whole ones, which no worker can give.
    pub(super) broken: bool,
}

impl Demand {
    pub(super) fn of(need: &Amounts) -> Self {
        let (share, count) = match need.gpus {
            0 => (0, u64::from(need.vram > 0)),
            part if part < UNIT => (part, 1),
            whole => (UNIT, whole / UNIT),
        };
        Self {
            count: usize::try_from(count).unwrap_or(usize::MAX),
            each: Piece {
                share,
                vram: need.vram.div_ceil(count.max(1)),
            },
            broken: need.gpus > UNIT && !need.gpus.is_multiple_of(UNIT),
        }
    }

    /// What it takes of all GPUs together.
    pub(super) fn vram(&self) -> u64 {
        self.each.vram.saturating_mul(self.count as u64)
    }
}

/// What is free on each GPU of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gpus(Vec<Piece>);

impl Gpus {
    /// The GPUs of a worker that has so much: each whole one, and the rest as one more.
    pub(super) fn of(capacity: &Amounts) -> Self {
        if capacity.gpus == 0 {
            let alone = Piece {
                share: 0,
                vram: capacity.vram,
            };
            return Self((capacity.vram > 0).then_some(alone).into_iter().collect());
        }
        let gpus = capacity.gpus.min(MOST as u64 * UNIT);
        let whole = (0..gpus / UNIT).map(|_| UNIT);
        let rest = Some(gpus % UNIT).filter(|rest| *rest > 0);
        let vram = |share: u64| u128::from(capacity.vram) * u128::from(share) / u128::from(gpus);
        let piece = |share| Piece {
            share,
            vram: u64::try_from(vram(share)).unwrap_or(u64::MAX),
        };
        Self(whole.chain(rest).map(piece).collect())
    }

    pub(super) fn free(&self) -> &[Piece] {
        &self.0
    }

    /// How many more replicas of the demand fit. Placing one takes exactly one off, wherever it goes.
    pub(super) fn count(&self, demand: &Demand) -> usize {
        if demand.broken {
            return 0;
        }
        if demand.count == 0 {
            return usize::MAX;
        }
        let pieces = self
            .0
            .iter()
            .fold(0_usize, |sum, free| sum.saturating_add(demand.each.times(*free)));
        pieces / demand.count
    }

    /// Takes the demand where it is tightest, so that a share goes to a GPU in use before one that is free.
    pub(super) fn put(&mut self, demand: &Demand) -> Option<Vec<usize>> {
        if self.count(demand) == 0 {
            return None;
        }
        let mut taken = Vec::with_capacity(demand.count);
        for _ in 0..demand.count {
            let best = (0..self.0.len())
                .filter(|gpu| demand.each.fits(self.0[*gpu]))
                .min_by_key(|gpu| tightness(demand.each, self.0[*gpu]))?;
            self.0[best].take(demand.each);
            taken.push(best);
        }
        Some(taken)
    }

    /// Takes the demand on these GPUs, if that is a way to meet it.
    pub(super) fn put_on(&mut self, demand: &Demand, gpus: &[usize]) -> bool {
        let distinct = gpus.iter().enumerate().all(|(i, gpu)| !gpus[..i].contains(gpu));
        let fits = |gpu: &usize| self.0.get(*gpu).is_some_and(|free| demand.each.fits(*free));
        let meets = !demand.broken && gpus.len() == demand.count && distinct && gpus.iter().all(fits);
        if meets {
            for gpu in gpus {
                self.0[*gpu].take(demand.each);
            }
        }
        meets
    }

    /// Takes what is known as a sum only: whole GPUs that are free, then the rest from those with least left. What is
    /// known to lie on a GPU has been taken before.
    pub(super) fn pour(&mut self, reserved: &Amounts) {
        if reserved.gpus == 0 && reserved.vram == 0 {
            return;
        }
        let mut rest = reserved.gpus;
        let mut order = Vec::new();
        for gpu in 0..self.0.len() {
            if rest >= UNIT && self.0[gpu].share == UNIT {
                self.0[gpu].share = 0;
                rest -= UNIT;
                order.push(gpu);
            }
        }
        let mut others: Vec<usize> = (0..self.0.len()).filter(|gpu| !order.contains(gpu)).collect();
        // The tightest GPU that takes all of the rest, or else one after the other.
        others.sort_by_key(|gpu| (self.0[*gpu].share < rest, self.0[*gpu], *gpu));
        for gpu in &others {
            let part = rest.min(self.0[*gpu].share);
            self.0[*gpu].share -= part;
            rest -= part;
        }
        order.extend(others);
        let mut rest = reserved.vram;
        for gpu in order {
            let part = rest.min(self.0[gpu].vram);
            self.0[gpu].vram -= part;
            rest -= part;
        }
    }
}

/// The smaller, the less is left over; of memory where only memory is asked for.
fn tightness(need: Piece, free: Piece) -> (u64, u64) {
    if need.share > 0 {
        (free.share, free.vram)
    } else {
        (free.vram, free.share)
    }
}

/// A replica that stays on a worker.
#[derive(Clone, Debug)]
pub(super) struct Tenant {
    pub(super) demand: Demand,
    /// Its GPUs are known, and it stays on them.
    pub(super) pinned: bool,
    pub(super) gpus: Vec<usize>,
}

/// Finds GPUs for all tenants, around those that are pinned; none if there is no way, or none is found in [`TRIES`].
pub(super) fn arrange(whole: &Gpus, tenants: &mut [Tenant]) -> Option<Gpus> {
    let mut free = whole.clone();
    for tenant in tenants.iter().filter(|tenant| tenant.pinned) {
        if !free.put_on(&tenant.demand, &tenant.gpus) {
            return None;
        }
    }
    let mut pieces: Vec<(Piece, usize)> = tenants
        .iter()
        .enumerate()
        .filter(|(_, tenant)| !tenant.pinned)
        .flat_map(|(i, tenant)| (0..tenant.demand.count).map(move |_| (tenant.demand.each, i)))
        .collect();
    pieces.sort_by(|(a, i), (b, j)| b.cmp(a).then(i.cmp(j)));
    let mut seats = Vec::with_capacity(pieces.len());
    if !seat(&pieces, &mut free.0, &mut seats, &mut { TRIES }) {
        return None;
    }
    for tenant in tenants.iter_mut().filter(|tenant| !tenant.pinned) {
        tenant.gpus.clear();
    }
    for ((_, tenant), gpu) in pieces.iter().zip(seats) {
        tenants[*tenant].gpus.push(gpu);
    }
    Some(free)
}

/// Seats the pieces that have no seat yet.
fn seat(pieces: &[(Piece, usize)], free: &mut [Piece], seats: &mut Vec<usize>, tries: &mut u32) -> bool {
    let Some((piece, _)) = pieces.get(seats.len()) else {
        return true;
    };
    let mut gpus: Vec<usize> = (0..free.len()).filter(|gpu| piece.fits(free[*gpu])).collect();
    gpus.sort_by_key(|gpu| (tightness(*piece, free[*gpu]), *gpu));
    // GPUs with as much left are one choice.
    gpus.dedup_by_key(|gpu| free[*gpu]);
    for gpu in gpus {
        if *tries == 0 {
            return false;
        }
        *tries -= 1;
        free[gpu].take(*piece);
        seats.push(gpu);
        if seat(pieces, free, seats, tries) {
            return true;
        }
        seats.pop();
        free[gpu].add(*piece);
    }
    false
}
