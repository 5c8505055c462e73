//! Finding added tokens in a text before anything else is done to it: transformers' `Trie.split` and the white space rules
//! of `PreTrainedTokenizer.tokenize`.
//!
//! Ported as it is, with what is odd in it, because ids depend on it. Refuses nothing. Invariant: without a strip rule the
//! parts put together are the text.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use super::{
    settings::{Added, Settings},
    unicode::is_python_space,
    vocabulary::Vocabulary,
};

/// The added tokens of one tokenizer, special ones among them.
#[derive(Debug)]
pub(super) struct AddedTokens {
    /// By id; of two tokens that got one id the later one stays (transformers' `_added_tokens_decoder`).
    by_id: BTreeMap<u32, Added>,
    /// Ids by text, of both (`_added_tokens_encoder`).
    ids: HashMap<String, u32>,
    /// Trie over the characters of those in `by_id`; node 0 is the root.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<char, usize>,
    is_end: bool,
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// An added token's id.
    Token(u32),
    /// Text between added tokens.
    Text(Cow<'a, str>),
}

impl AddedTokens {
    /// Gives every added token its id: those that come with one, then special ones that the vocabulary knows, then new ones
    /// behind them.
    pub(super) fn new(settings: &Settings, vocabulary: &Vocabulary) -> Self {
        let mut by_id: BTreeMap<u32, Added> = settings.added.iter().cloned().collect();
        let mut ids: HashMap<String, u32> = settings
            .added
            .iter()
            .map(|(id, token)| (token.content.clone(), *id))
            .collect();
        // Ids are counted, not measured: a vocabulary with holes gives one that is taken.
        let beside = ids
            .keys()
            .filter(|content| vocabulary.id(content).is_none())
            .count();
        let mut new = (vocabulary.len() + beside) as u32..;
        for special in &settings.specials {
            let content = &special.token.content;
            let known = ids.get(content).copied();
            if special.plain && known.is_some() {
                continue;
            }
            let id = known.or_else(|| vocabulary.id(content)).or_else(|| new.next());
            let id = id.expect("a vocabulary has fewer tokens than there are numbers");
            by_id.insert(id, special.token.clone());
            ids.insert(content.clone(), id);
        }
        Self::of(by_id, ids)
    }

    fn of(by_id: BTreeMap<u32, Added>, ids: HashMap<String, u32>) -> Self {
        let mut nodes = vec![Node::default()];
        for token in by_id.values().filter(|token| !token.content.is_empty()) {
            let mut node = 0;
            for char in token.content.chars() {
                let new = nodes.len();
                node = *nodes[node].children.entry(char).or_insert(new);
                if node == new {
                    nodes.push(Node::default());
                }
            }
            nodes[node].is_end = true;
        }
        Self { by_id, ids, nodes }
    }

    /// The token's id.
    pub(super) fn id(&self, content: &str) -> Option<u32> {
        self.ids.get(content).copied()
    }

    /// Texts and ids, in the order of ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.by_id.iter().map(|(id, token)| (token.content.as_str(), *id))
    }

    /// Cuts a text at the added tokens in it.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        // Most texts hold none.
        if !self.ids.keys().any(|token| text.contains(token)) {
            return vec![Part::Text(text.into())];
        }
        let mut parts: Vec<Cow<'a, str>> = self.cut(text).into_iter().map(Cow::Borrowed).collect();
        for at in 0..parts.len() {
            let Some(token) = self.id(&parts[at]).and_then(|id| self.by_id.get(&id)) else {
                continue;
            };
            // The neighbours are judged as they were before the strip.
            let left_touches = at > 0 && parts[at - 1].chars().next_back().is_some_and(|char| char != ' ');
            let right_touches = parts
                .get(at + 1)
                .is_some_and(|part| !part.is_empty() && !part.starts_with(' '));
            if token.rstrip && at + 1 < parts.len() {
                parts[at + 1] = parts[at + 1]
                    .trim_start_matches(is_python_space)
                    .to_owned()
                    .into();
            }
            if token.lstrip && at > 0 {
                parts[at - 1] = parts[at - 1].trim_end_matches(is_python_space).to_owned().into();
            }
            // One that must be a word of its own and is not becomes part of its neighbour.
            if token.single_word && left_touches {
                let token = std::mem::take(&mut parts[at]);
                parts[at - 1].to_mut().push_str(&token);
            } else if token.single_word && right_touches {
                let token = std::mem::take(&mut parts[at]);
                parts[at + 1].to_mut().insert_str(0, &token);
            }
        }
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        parts
            .map(|part| self.id(&part).map_or(Part::Text(part), Part::Token))
            .collect()
    }

    /// `Trie.split`: the parts of the text, tokens among them.
    fn cut<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let chars: Vec<char> = text.chars().collect();
        let mut cuts = self.cuts(&chars);
        cuts.push(chars.len());
        let starts: Vec<usize> = text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .collect();
        let mut parts = Vec::new();
        let mut start = 0;
        for end in cuts {
            if start < end {
                parts.push(&text[starts[start]..starts[end]]);
                start = end;
            }
        }
        parts
    }

    /// Where to cut, in characters.
    fn cuts(&self, text: &[char]) -> Vec<usize> {
        let mut cuts = Vec::new();
        // Partial matches: start and node, earliest first.
        let mut partial: Vec<(usize, usize)> = Vec::new();
        let mut skip = 0;
        for (current, char) in text.iter().enumerate() {
            if current < skip {
                continue;
            }
            let mut failed = Vec::new();
            let mut found = None;
            for at in 0..partial.len() {
                let (start, node) = partial[at];
                if self.nodes[node].is_end {
                    found = Some(self.longest(text, current, start, &partial));
                    break;
                }
                match self.nodes[node].children.get(char) {
                    Some(child) => partial[at].1 = *child,
                    None => failed.push(start),
                }
            }
            match found {
                Some((start, end, skip_to)) => {
                    cuts.extend([start, end]);
                    skip = skip_to.max(skip);
                    partial.clear();
                }
                None => partial.retain(|(start, _)| !failed.contains(start)),
            }
            if current >= skip
                && let Some(child) = self.nodes[0].children.get(char)
            {
                partial.push((current, *child));
            }
        }
        if let Some((start, _)) = partial.iter().find(|(_, node)| self.nodes[*node].is_end) {
            cuts.extend([*start, text.len()]);
        }
        cuts
    }

    /// A match that began at `found` is complete before `current`: the longest that it or an earlier partial match can
    /// grow to, as start, end, and where to go on.
    fn longest(
        &self,
        text: &[char],
        current: usize,
        found: usize,
        partial: &[(usize, usize)],
    ) -> (usize, usize, usize) {
        let (mut start, mut end, mut skip) = (found, current, 0);
        for &(begin, mut node) in partial {
            if begin > start {
                break;
            }
            // An earlier match has taken the current character already.
            let mut ahead = if begin < start { current + 1 } else { current };
            end = ahead;
            if self.nodes[node].is_end {
                (start, end, skip) = (begin, ahead, ahead);
            }
            while let Some(child) = text
                .get(ahead)
                .and_then(|char| self.nodes[node].children.get(char))
            {
                node = *child;
                ahead += 1;
                if self.nodes[node].is_end {
                    (start, end, skip) = (begin, ahead, ahead);
                }
            }
        }
        (start, end, skip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(contents: &[&str], change: impl Fn(&mut Added)) -> AddedTokens {
        let mut by_id = BTreeMap::new();
        for (content, id) in contents.iter().zip(0..) {
            let mut token = Added {
                content: (*content).into(),
                ..Added::default()
            };
            change(&mut token);
            by_id.insert(id, token);
        }
        let ids = by_id
            .iter()
            .map(|(id, token)| (token.content.clone(), *id))
            .collect();
        AddedTokens::of(by_id, ids)
    }

    fn text(part: &str) -> Part<'_> {
        Part::Text(part.into())
    }

    #[test]
    fn the_longest_token_wins_and_the_text_around_stays() {
        let tokens = tokens(&["<a>", "<a>b", "!"], |_| {});
        assert_eq!(
            tokens.split("x <a>by!<a>"),
            [
                text("x "),
                Part::Token(1),
                text("y"),
                Part::Token(2),
                Part::Token(0)
            ]
        );
        assert_eq!(tokens.split("<<a>"), [text("<"), Part::Token(0)]);
        assert_eq!(tokens.split("plain"), [text("plain")]);
    }

    #[test]
    fn a_token_that_strips_eats_the_space_around() {
        let tokens = tokens(&["<a>"], |token| (token.lstrip, token.rstrip) = (true, true));
        assert_eq!(
            tokens.split("x \t<a>\u{a0} y"),
            [text("x"), Part::Token(0), text("y")]
        );
    }

    #[test]
    fn a_single_word_token_inside_a_word_is_text() {
        let tokens = tokens(&["cat"], |token| token.single_word = true);
        assert_eq!(
            tokens.split("a cat sat"),
            [text("a "), Part::Token(0), text(" sat")]
        );
        assert_eq!(
            tokens.split("concat cats"),
            [text("concat"), text(" "), text("cats")]
        );
    }
}
