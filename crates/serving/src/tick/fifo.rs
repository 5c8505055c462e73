//! Whole-request batching, first come first served, as most servers do it: the baseline that the step policy is measured by.
//!
//! The request that came first, and those behind it that have its group and its timesteps, make a batch of at most the cap;
//! the batch runs to its end, then the next one is made. Classes and deadlines count for nothing.

use super::{Candidate, Slots};

/// The batch that runs.
#[derive(Debug, Default)]
pub(super) struct Fifo {
    /// Orders of its members, sorted.
    members: Vec<u64>,
    /// Order and place of candidates, reused.
    line: Vec<(u64, u32)>,
}

impl Fifo {
    /// Puts the members that are left in line, earliest first; makes the next batch when none is. Gives their group's slot.
    pub(super) fn line(&mut self, slots: &Slots, candidates: &[Candidate]) -> Option<(u32, &[(u64, u32)])> {
        self.gather(slots, candidates);
        if self.line.is_empty() {
            self.form(slots, candidates);
        }
        let first = self.line.first()?;
        Some((slots.of(first.1 as usize)?, &self.line))
    }

    fn gather(&mut self, slots: &Slots, candidates: &[Candidate]) {
        self.line.clear();
        self.line.reserve(candidates.len());
        self.members
            .reserve(candidates.len().saturating_sub(self.members.len()));
        for (index, candidate) in candidates.iter().enumerate() {
            if slots.of(index).is_some() && self.members.binary_search(&candidate.order).is_ok() {
                self.line.push((candidate.order, index as u32));
            }
        }
        self.line.sort_unstable();
    }

    fn form(&mut self, slots: &Slots, candidates: &[Candidate]) {
        self.members.clear();
        let listed = candidates
            .iter()
            .enumerate()
            .filter(|(index, _)| slots.of(*index).is_some());
        let Some((_, first)) = listed.clone().min_by_key(|(_, candidate)| candidate.order) else {
            return;
        };
        let alike = listed.filter(|(_, other)| other.group == first.group && other.grid == first.grid);
        self.line
            .extend(alike.map(|(index, candidate)| (candidate.order, index as u32)));
        self.line.sort_unstable();
        let cap = slots.cap(self.line[0].1 as usize);
        let (mut rows, mut taken) = (0, 0);
        // First come first served: who does not fit closes the batch.
        for (_, index) in &self.line {
            rows += candidates[*index as usize].rows;
            if rows > cap && taken > 0 {
                break;
            }
            taken += 1;
        }
        self.line.truncate(taken);
        self.members.extend(self.line.iter().map(|(order, _)| *order));
    }
}
