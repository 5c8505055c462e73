//! Merging byte pairs of one piece, lowest rank first, all occurrences of a pair before the next one.
//!
//! Any list of merges gives what CLIPTokenizer's `bpe` gives, also one in which a merged symbol joins earlier than its parts
//! did, in O(n log n) for a piece of n bytes. Refuses nothing once built: what the vocabulary does not know becomes the
//! unknown token. Invariant: symbols `0..256` are the bytes, `256..512` the bytes that end a piece.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, hash_map::Entry},
};

use super::{cache::Cache, pieces::LITERALS, vocabulary::BYTE_CHARS};

/// What CLIP writes behind a piece's last byte.
pub(super) const END_OF_WORD: &str = "</w>";
const BYTES: u32 = 256;
/// No pair, or a pair that is not merged.
const NEVER: u32 = u32::MAX;

/// Merges and the ids of what they make.
#[derive(Debug)]
pub(super) struct Bpe {
    merges: HashMap<(u32, u32), Merge>,
    /// Token id by symbol.
    ids: Vec<u32>,
    /// Ids of the pieces that are never merged, as [`LITERALS`].
    literals: [u32; LITERALS.len()],
    cache: Cache,
}

#[derive(Clone, Copy, Debug)]
struct Merge {
    rank: u32,
    symbol: u32,
}

impl Bpe {
    /// Builds the tables; `id` gives a token's id, or the unknown token's.
    pub(super) fn new<'a>(
        merges: impl Iterator<Item = (&'a str, &'a str)>,
        id: impl Fn(&str) -> u32,
    ) -> Self {
        let mut symbols: HashMap<String, u32> = HashMap::new();
        let mut ids = Vec::new();
        let mut intern = |text: String| match symbols.entry(text) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                ids.push(id(new.key()));
                *new.insert(ids.len() as u32 - 1)
            }
        };
        for end in ["", END_OF_WORD] {
            for char in BYTE_CHARS {
                intern(format!("{char}{end}"));
            }
        }
        let merges = merges
            .enumerate()
            .map(|(rank, (left, right))| {
                let symbol = intern([left, right].concat());
                // A pair named twice keeps its last rank, as in a Python dict.
                (
                    (intern(left.into()), intern(right.into())),
                    Merge {
                        rank: rank as u32,
                        symbol,
                    },
                )
            })
            .collect();
        Self {
            merges,
            ids,
            literals: LITERALS.map(&id),
            cache: Cache::default(),
        }
    }

    /// Appends the piece's token ids.
    pub(super) fn encode(&self, piece: &str, out: &mut Vec<u32>) {
        if self.cache.append(piece, out) {
            return;
        }
        let start = out.len();
        match LITERALS.iter().position(|literal| *literal == piece) {
            Some(literal) => out.push(self.literals[literal]),
            None => self.merge(piece.as_bytes(), out),
        }
        self.cache.insert(piece, &out[start..]);
    }

    fn merge(&self, bytes: &[u8], out: &mut Vec<u32>) {
        let mut word = Word::new(bytes);
        for at in 0..bytes.len() {
            word.rate(at, self);
        }
        while let Some(&Reverse((round, _))) = word.queue.peek() {
            // Every pair of this rank, from left to right. Pairs that arise wait for the round's end, even cheaper ones.
            while let Some(&Reverse((rank, at))) = word.queue.peek()
                && rank == round
            {
                word.queue.pop();
                word.join(at, round, self);
            }
            for at in std::mem::take(&mut word.touched) {
                word.rate(at, self);
            }
        }
        let mut at = 0;
        while at < bytes.len() {
            out.push(self.ids[word.symbols[at] as usize]);
            at = word.next[at];
        }
    }
}

/// A piece on its way: a linked list of symbols over the positions of its bytes.
struct Word {
    symbols: Vec<u32>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Rank of the pair that starts at a position, [`NEVER`] once its left symbol is gone.
    rank: Vec<u32>,
    /// Pairs by rank and position; those whose rank changed since are stale.
    queue: BinaryHeap<Reverse<(u32, usize)>>,
    /// Positions whose pair changed in this round.
    touched: Vec<usize>,
}

impl Word {
    fn new(bytes: &[u8]) -> Self {
        let count = bytes.len();
        let mut symbols: Vec<u32> = bytes.iter().map(|byte| u32::from(*byte)).collect();
        if let Some(last) = symbols.last_mut() {
            *last += BYTES;
        }
        Self {
            symbols,
            next: (1..=count).collect(),
            // The first has none before it: `count` stands for both ends.
            previous: (0..count).map(|at| at.checked_sub(1).unwrap_or(count)).collect(),
            rank: vec![NEVER; count],
            queue: BinaryHeap::new(),
            touched: Vec::new(),
        }
    }

    fn pair(&self, at: usize) -> Option<(u32, u32)> {
        Some((self.symbols[at], *self.symbols.get(self.next[at])?))
    }

    /// Queues the pair that starts at `at`, if it is one that is merged.
    fn rate(&mut self, at: usize, bpe: &Bpe) {
        if self.symbols[at] == NEVER {
            return;
        }
        self.rank[at] = self
            .pair(at)
            .and_then(|pair| bpe.merges.get(&pair))
            .map_or(NEVER, |merge| merge.rank);
        if self.rank[at] != NEVER {
            self.queue.push(Reverse((self.rank[at], at)));
        }
    }

    /// Joins the pair that starts at `at`, unless a neighbour took part of it.
    fn join(&mut self, at: usize, rank: u32, bpe: &Bpe) {
        if self.rank[at] != rank {
            return;
        }
        let Some(merge) = self.pair(at).and_then(|pair| bpe.merges.get(&pair)) else {
            return;
        };
        let (gone, end) = (self.next[at], self.symbols.len());
        self.symbols[at] = merge.symbol;
        self.symbols[gone] = NEVER;
        self.next[at] = self.next[gone];
        if self.next[at] < end {
            let after = self.next[at];
            self.previous[after] = at;
        }
        // Neither pair may be joined in this round any more: its symbols are no longer those of the round's pair.
        (self.rank[at], self.rank[gone]) = (NEVER, NEVER);
        self.touched.push(at);
        let before = self.previous[at];
        if before < end {
            self.rank[before] = NEVER;
            self.touched.push(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// CLIPTokenizer.bpe, line by line.
    fn slow(piece: &str, ranks: &HashMap<(String, String), usize>) -> Vec<String> {
        let mut word: Vec<String> = piece
            .bytes()
            .map(|byte| BYTE_CHARS[byte as usize].to_string())
            .collect();
        word.last_mut().unwrap().push_str(END_OF_WORD);
        loop {
            let best = word
                .windows(2)
                .filter_map(|pair| {
                    let pair = (pair[0].clone(), pair[1].clone());
                    ranks.get(&pair).map(|rank| (*rank, pair))
                })
                .min();
            let Some((_, (first, second))) = best else {
                return word;
            };
            let mut joined = Vec::new();
            let mut at = 0;
            while at < word.len() {
                if word[at] == first && word.get(at + 1) == Some(&second) {
                    joined.push(format!("{first}{second}"));
                    at += 2;
                } else {
                    joined.push(word[at].clone());
                    at += 1;
                }
            }
            word = joined;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn any_list_of_merges_gives_what_the_plain_loop_gives(
            merges in prop::collection::vec(("[ab]{1,3}", "[ab]{1,3}(</w>)?"), 0..40),
            piece in "[ab]{1,24}",
        ) {
            let mut ranks = HashMap::new();
            for (rank, pair) in merges.iter().enumerate() {
                ranks.insert(pair.clone(), rank);
            }
            // Ids that tell the symbols apart.
            let names = std::cell::RefCell::new(Vec::new());
            let bpe = Bpe::new(merges.iter().map(|(a, b)| (a.as_str(), b.as_str())), |token| {
                names.borrow_mut().push(token.to_owned());
                names.borrow().len() as u32 - 1
            });
            let mut ids = Vec::new();
            bpe.encode(&piece, &mut ids);
            let tokens: Vec<_> = ids.iter().map(|id| names.borrow()[*id as usize].clone()).collect();
            prop_assert_eq!(tokens, slow(&piece, &ranks));
        }
    }
}
