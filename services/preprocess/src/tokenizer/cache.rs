//! Pieces and their token ids, so that a common word is merged once.
//!
//! Bounded by count and by the length of a piece; a full shard is emptied, which costs one merge per word and needs no
//! bookkeeping on the way. Refuses long pieces. Invariant: what is found is what was inserted for the very same piece.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{PoisonError, RwLock},
};

/// Locks, so that threads rarely meet at one.
const SHARDS: usize = 16;
/// Pieces in a shard: 16,384 in all, about what the prompts of a day use, and less than 3 MB.
const SHARD_PIECES: usize = 1024;
/// Longer pieces, in bytes, are no words and come once.
const PIECE_BYTES: usize = 48;

type Shard = RwLock<HashMap<Box<str>, Box<[u32]>>>;

#[derive(Debug)]
pub(super) struct Cache {
    shards: [Shard; SHARDS],
    hasher: RandomState,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::new(),
        }
    }
}

impl Cache {
    /// Appends the piece's ids and says whether they were known.
    pub(super) fn append(&self, piece: &str, out: &mut Vec<u32>) -> bool {
        if piece.len() > PIECE_BYTES {
            return false;
        }
        let shard = self.shard(piece).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(piece).map(|ids| out.extend_from_slice(ids)).is_some()
    }

    /// Remembers the piece's ids.
    pub(super) fn insert(&self, piece: &str, ids: &[u32]) {
        if piece.len() > PIECE_BYTES {
            return;
        }
        let mut shard = self.shard(piece).write().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= SHARD_PIECES {
            shard.clear();
        }
        shard.insert(piece.into(), ids.into());
    }

    fn shard(&self, piece: &str) -> &Shard {
        // The maps hash with keys of their own, so this choice does not crowd their buckets.
        &self.shards[self.hasher.hash_one(piece) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_found_again_and_the_count_stays_bounded() {
        let cache = Cache::default();
        for number in 0..SHARDS * SHARD_PIECES * 2 {
            cache.insert(&number.to_string(), &[number as u32]);
        }
        let mut ids = Vec::new();
        let last = SHARDS * SHARD_PIECES * 2 - 1;
        assert!(cache.append(&last.to_string(), &mut ids));
        assert_eq!(ids, [last as u32]);
        let held: usize = cache.shards.iter().map(|shard| shard.read().unwrap().len()).sum();
        assert!(held <= SHARDS * SHARD_PIECES);
    }

    #[test]
    fn a_long_piece_is_not_kept() {
        let (cache, long) = (Cache::default(), "a".repeat(PIECE_BYTES + 1));
        cache.insert(&long, &[1]);
        assert!(!cache.append(&long, &mut Vec::new()));
    }
}
