//! Prompts that were tokenized already: what one more picture of a known prompt costs no call.
//!
//! Tokens are a pure function of what was asked and of the replica that answered: its tokenizer and its embeddings are read
//! once, when it starts. So an answer holds as long as that replica is in the route table, and goes with it: after an update
//! nothing stands that an old tokenizer said. Bounded in bytes; popular prompts outlive a flood of others (S3-FIFO).

use std::sync::{Arc, Weak};

use quick_cache::{Equivalent, Weighter, sync::Cache};

use super::Tokens;
use crate::replica::Replica;

/// What a small entry takes: two texts of one window each, with their prompts. Only to size the cache's tables.
const TYPICAL_BYTES: u64 = 2048;
/// What an entry takes beside its texts and tokens.
const OVERHEAD_BYTES: usize = 256;

/// Everything that tokens depend on, but for the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Asked<'a> {
    /// Deployment that is asked.
    pub(super) pool: &'a str,
    /// Which of its models.
    pub(super) model_id: &'a str,
    pub(super) syntax: i32,
    pub(super) steps: u32,
    pub(super) prompt: &'a str,
    /// Where the model sees one.
    pub(super) negative: Option<&'a str>,
}

/// The same, kept. Its fields are those of [`Asked`], in the same order: both have the same hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    pool: Box<str>,
    model_id: Box<str>,
    syntax: i32,
    steps: u32,
    prompt: Box<str>,
    negative: Option<Box<str>>,
}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.asked()
    }
}

impl Key {
    fn asked(&self) -> Asked<'_> {
        Asked {
            pool: &self.pool,
            model_id: &self.model_id,
            syntax: self.syntax,
            steps: self.steps,
            prompt: &self.prompt,
            negative: self.negative.as_deref(),
        }
    }
}

impl From<Asked<'_>> for Key {
    fn from(asked: Asked<'_>) -> Self {
        Self {
            pool: asked.pool.into(),
            model_id: asked.model_id.into(),
            syntax: asked.syntax,
            steps: asked.steps,
            prompt: asked.prompt.into(),
            negative: asked.negative.map(Into::into),
        }
    }
}

#[derive(Debug)]
struct Answer<R> {
    tokens: Arc<Tokens>,
    /// Who gave it; gone when the replica left the table and its last call has ended.
    by: Weak<R>,
    bytes: usize,
}

impl<R> Clone for Answer<R> {
    fn clone(&self) -> Self {
        Self {
            tokens: Arc::clone(&self.tokens),
            by: Weak::clone(&self.by),
            bytes: self.bytes,
        }
    }
}

#[derive(Debug, Clone)]
struct Bytes;

impl<R> Weighter<Key, Answer<R>> for Bytes {
    fn weight(&self, key: &Key, answer: &Answer<R>) -> u64 {
        let texts = [&key.pool, &key.model_id, &key.prompt].map(|text| text.len());
        let negative = key.negative.as_ref().map_or(0, |text| text.len());
        (texts.iter().sum::<usize>() + negative + answer.bytes + OVERHEAD_BYTES) as u64
    }
}

/// The answers that this proxy keeps, of replicas `R`.
#[derive(Debug)]
pub(crate) struct Kept<R = Replica>(Option<Cache<Key, Answer<R>, Bytes>>);

impl<R> Kept<R> {
    /// Keeps so many bytes of answers; none with 0.
    pub(crate) fn new(bytes: u64) -> Self {
        let entries = usize::try_from(bytes / TYPICAL_BYTES).unwrap_or(usize::MAX);
        Self((bytes > 0).then(|| Cache::with_weighter(entries.max(1), bytes, Bytes)))
    }

    /// What a replica said that is still in the table.
    pub(super) fn get(&self, asked: Asked<'_>) -> Option<Arc<Tokens>> {
        let answer = self.0.as_ref()?.get(&asked)?;
        (answer.by.strong_count() > 0).then_some(answer.tokens)
    }

    /// Keeps what a replica said, in place of what another said before it.
    pub(super) fn keep(&self, asked: Asked<'_>, tokens: &Arc<Tokens>, by: &Arc<R>) {
        if let Some(cache) = &self.0 {
            let answer = Answer {
                tokens: Arc::clone(tokens),
                by: Arc::downgrade(by),
                bytes: tokens.bytes(),
            };
            cache.insert(asked.into(), answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use mobula_proto::preprocess::v1::TokenizedText;

    use super::*;

    fn asked(prompt: &str) -> Asked<'_> {
        Asked {
            pool: "demo#preprocess",
            model_id: "",
            syntax: 0,
            steps: 20,
            prompt,
            negative: Some(""),
        }
    }

    fn said(count: u32) -> Arc<Tokens> {
        let prompt = TokenizedText {
            token_count: count,
            ..TokenizedText::default()
        };
        Arc::new(Tokens {
            prompt,
            ..Tokens::default()
        })
    }

    #[test]
    fn an_answer_stands_for_what_was_asked_while_its_replica_is_there() {
        let (kept, replica) = (Kept::new(1 << 20), Arc::new(()));
        assert!(kept.get(asked("a")).is_none());
        kept.keep(asked("a"), &said(3), &replica);
        assert_eq!(kept.get(asked("a")).unwrap().prompt.token_count, 3);
        let others = [
            asked("b"),
            Asked {
                steps: 21,
                ..asked("a")
            },
            Asked {
                syntax: 1,
                ..asked("a")
            },
            Asked {
                model_id: "m",
                ..asked("a")
            },
            Asked {
                pool: "other#preprocess",
                ..asked("a")
            },
            Asked {
                negative: None,
                ..asked("a")
            },
            Asked {
                negative: Some("b"),
                ..asked("a")
            },
        ];
        assert!(others.iter().all(|other| kept.get(*other).is_none()));
        drop(replica);
        assert!(kept.get(asked("a")).is_none());
    }

    #[test]
    fn a_later_answer_takes_the_place_of_one_whose_replica_is_gone() {
        let (kept, gone) = (Kept::new(1 << 20), Arc::new(()));
        kept.keep(asked("a"), &said(3), &gone);
        drop(gone);
        let newer = Arc::new(());
        kept.keep(asked("a"), &said(4), &newer);
        assert_eq!(kept.get(asked("a")).unwrap().prompt.token_count, 4);
    }

    #[test]
    fn a_flood_of_prompts_stays_within_its_bytes_and_leaves_the_popular_one() {
        const BYTES: u64 = 64 << 10;
        let (kept, replica) = (Kept::new(BYTES), Arc::new(()));
        let popular = "p".repeat(500);
        kept.keep(asked(&popular), &said(1), &replica);
        for nth in 0..1000 {
            assert!(kept.get(asked(&popular)).is_some(), "after {nth} others");
            kept.keep(asked(&format!("{nth:01000}")), &said(nth), &replica);
        }
        let weight = kept.0.as_ref().unwrap().weight();
        assert!((BYTES / 2..=BYTES).contains(&weight), "{weight}");
    }
}
