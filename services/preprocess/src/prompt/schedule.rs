//! AUTOMATIC1111's prompt editing: `[from:to:when]`, `[to:when]`, `[from::when]`, and `[one|other]` by turns.
//!
//! Does what its `get_learned_conditioning_prompt_schedules` does (stable-diffusion-webui, modules/prompt_parser.py,
//! version 1.10), whose grammar is: a text is plain pieces, round and square brackets around such, and these two. A bracket
//! without its partner, or around what has another form, is text as it stands, and so is every bracket around it. A `|`
//! outside of `[ ]` and a backslash at the end make the whole text plain. `when` with a dot is a part of the steps, without
//! one a step. Where a lone bracket or colon stands directly beside one of these, the web UI's parser sometimes takes all of it
//! as text; here the bracket that has its partner counts. A weight behind the whole text, which there belongs to `AND`, is
//! text. Refuses `AND`, nets in `<>`, and what is beyond the limits. Invariant: the last span ends at the last step.

use super::{Limits, Refused, attention::find_word};
use crate::tokenizer::is_python_space;

/// What some steps see.
#[derive(Debug)]
enum Node<'a> {
    Text(&'a str),
    /// Brackets that stay, with their colons.
    Kept(Vec<Node<'a>>),
    Scheduled {
        before: Vec<Node<'a>>,
        after: Vec<Node<'a>>,
        /// The last step of `before`.
        when: u32,
    },
    Alternate(Vec<Vec<Node<'a>>>),
}

/// What lies between an opening bracket and here.
#[derive(Debug)]
enum Item<'a> {
    Node(Node<'a>),
    Colon(&'a str),
    Pipe,
}

/// The steps at which something ends.
struct Ends {
    /// By step, from 1.
    seen: Vec<bool>,
    /// Each of them.
    every: bool,
}

impl Ends {
    fn new(steps: u32) -> Self {
        let mut seen = vec![false; steps as usize];
        seen.extend([true]);
        Self { seen, every: false }
    }

    fn all(&self) -> impl Iterator<Item = u32> {
        (1..)
            .zip(&self.seen[1..])
            .filter(|(_, seen)| **seen || self.every)
            .map(|(step, _)| step)
    }
}

#[derive(Debug)]
struct Open<'a> {
    bracket: &'a str,
    items: Vec<Item<'a>>,
}

/// The texts of a text, each with the last step that it holds for.
///
/// # Errors
///
/// [`Refused`] names what is not served and the limit that is broken.
pub fn read(text: &str, steps: u32, limits: &Limits) -> Result<Vec<(u32, String)>, Refused> {
    if steps > limits.steps {
        return Err(Refused(format!(
            "is for {steps} steps, more than {}",
            limits.steps
        )));
    }
    if find_word(text, "AND").is_some() {
        return Err(Refused(
            "has AND: prompts that are composed by guidance are not served, write it in small letters if it is text".into(),
        ));
    }
    if let Some(kind) = ["<lora:", "<lyco:", "<hypernet:"]
        .iter()
        .find(|kind| text.contains(**kind))
    {
        return Err(Refused(format!(
            "has {kind}...>: networks are not added by prompts, merge them into the model"
        )));
    }
    let Some(nodes) = parse(text, steps, limits)? else {
        return Ok(vec![(steps, text.into())]);
    };
    let mut ends = Ends::new(steps);
    collect(&nodes, &mut ends);
    let (mut spans, mut bytes) = (Vec::new(), 0);
    for step in ends.all() {
        let mut out = String::new();
        write(&nodes, step, &mut out);
        bytes += out.len();
        if bytes > limits.bytes {
            return Err(Refused(format!(
                "changes so often that its texts have at least {bytes} bytes in all, more than {}",
                limits.bytes
            )));
        }
        spans.push((step, out));
    }
    Ok(spans)
}

/// Takes a text apart; none if it has no such form.
fn parse<'a>(text: &'a str, steps: u32, limits: &Limits) -> Result<Option<Vec<Node<'a>>>, Refused> {
    let mut top = Vec::new();
    let mut open: Vec<Open<'a>> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let Some(length) = plain(&text[at..]) else {
            return Ok(None);
        };
        if length > 0 {
            push(
                &mut top,
                &mut open,
                Item::Node(Node::Text(&text[at..at + length])),
            );
            at += length;
            continue;
        }
        // What is not plain is one of six ASCII characters.
        let mark = &text[at..=at];
        at += 1;
        let kept = match mark {
            "(" | "[" if open.len() >= limits.depth => return Err(Refused::depth(limits)),
            "(" | "[" => {
                open.push(Open {
                    bracket: mark,
                    items: Vec::new(),
                });
                true
            }
            ":" => push(&mut top, &mut open, Item::Colon(mark)),
            "|" => push(&mut top, &mut open, Item::Pipe),
            _ => match open.pop() {
                Some(inner) => match close(inner, mark, steps) {
                    Ok(node) => push(&mut top, &mut open, Item::Node(node)),
                    Err(inner) => {
                        open.push(inner);
                        spill(&mut top, &mut open) && push(&mut top, &mut open, Item::Node(Node::Text(mark)))
                    }
                },
                None => push(&mut top, &mut open, Item::Node(Node::Text(mark))),
            },
        };
        if !kept {
            return Ok(None);
        }
    }
    Ok(spill(&mut top, &mut open).then_some(top))
}

/// Bytes of the plain piece that a text starts with; none if it has a backslash with nothing behind it.
fn plain(text: &str) -> Option<usize> {
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '[' | ']' | '(' | ')' | ':' | '|' => return Some(at),
            '\\' => drop(chars.next().filter(|(_, char)| *char != '\n')?),
            _ => {}
        }
    }
    Some(text.len())
}

/// Puts an item where it belongs; false for what only brackets may have.
fn push<'a>(top: &mut Vec<Node<'a>>, open: &mut [Open<'a>], item: Item<'a>) -> bool {
    match (open.last_mut(), item) {
        (Some(open), item) => open.items.push(item),
        (None, Item::Node(node)) => top.push(node),
        (None, Item::Colon(mark)) => top.push(Node::Text(mark)),
        (None, Item::Pipe) => return false,
    }
    true
}

/// Makes all open brackets text; false if a `|` among them cannot be.
fn spill<'a>(top: &mut Vec<Node<'a>>, open: &mut Vec<Open<'a>>) -> bool {
    for Open { bracket, items } in open.drain(..) {
        top.push(Node::Text(bracket));
        for item in items {
            if !push(top, &mut [], item) {
                return false;
            }
        }
    }
    true
}

/// Closes a bracket; it comes back as it was when it has no known form.
fn close<'a>(open: Open<'a>, mark: &'a str, steps: u32) -> Result<Node<'a>, Open<'a>> {
    let count = |wanted: fn(&Item<'_>) -> bool| open.items.iter().filter(|item| wanted(item)).count();
    let colons = count(|item| matches!(item, Item::Colon(_)));
    let pipes = count(|item| matches!(item, Item::Pipe));
    match (open.bracket, mark, colons, pipes) {
        ("(", ")", 0 | 1, 0) | ("[", "]", 0, 0) => {
            let inner = open.items.into_iter().filter_map(|item| match item {
                Item::Node(node) => Some(node),
                Item::Colon(colon) => Some(Node::Text(colon)),
                Item::Pipe => None,
            });
            let nodes = std::iter::once(Node::Text(open.bracket)).chain(inner);
            Ok(Node::Kept(nodes.chain([Node::Text(mark)]).collect()))
        }
        ("[", "]", 0, _) => Ok(Node::Alternate(segments(open.items))),
        ("[", "]", 1 | 2, 0) => {
            let number = match &open.items[..] {
                [.., Item::Colon(_), Item::Node(Node::Text(text))] => when(text, steps),
                _ => None,
            };
            let Some(when) = number else { return Err(open) };
            let mut segments = segments(open.items).into_iter();
            let first = segments.next().unwrap_or_default();
            let second = segments.next().unwrap_or_default();
            let (before, after) = if colons == 2 {
                (first, second)
            } else {
                (Vec::new(), first)
            };
            Ok(Node::Scheduled { before, after, when })
        }
        _ => Err(open),
    }
}

/// What is between colons or pipes.
fn segments(items: Vec<Item<'_>>) -> Vec<Vec<Node<'_>>> {
    let mut segments = vec![Vec::new()];
    for item in items {
        match (item, segments.last_mut()) {
            (Item::Node(node), Some(last)) => last.push(node),
            (Item::Node(_), None) => {}
            (Item::Colon(_) | Item::Pipe, _) => segments.push(Vec::new()),
        }
    }
    segments
}

/// The step that a number stands for; none if it is no number.
fn when(text: &str, steps: u32) -> Option<u32> {
    let number = text.trim_matches(is_python_space);
    let is_known = |char: char| char.is_ascii_digit() || matches!(char, '.' | '+' | '-' | 'e' | 'E');
    // Rust's numbers have this form too, and words that the first check leaves out.
    let value: f64 = Some(number)
        .filter(|number| number.chars().all(is_known))?
        .parse()
        .ok()?;
    let step = if number.contains('.') {
        value * f64::from(steps)
    } else {
        value
    };
    // Below 0 is never and becomes 0, as does what is no number at all (infinity times 0).
    Some((step as u32).min(steps))
}

/// Finds the last steps of all spans.
fn collect(nodes: &[Node<'_>], ends: &mut Ends) {
    for node in nodes {
        match node {
            Node::Text(_) => {}
            Node::Kept(nodes) => collect(nodes, ends),
            Node::Scheduled { before, after, when } => {
                // Step 0 is none, and nobody asks for it.
                ends.seen[*when as usize] = true;
                collect(before, ends);
                collect(after, ends);
            }
            Node::Alternate(choices) => {
                ends.every = true;
                choices.iter().for_each(|nodes| collect(nodes, ends));
            }
        }
    }
}

/// What a step sees.
fn write(nodes: &[Node<'_>], step: u32, out: &mut String) {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Kept(nodes) => write(nodes, step, out),
            Node::Scheduled { before, after, when } => {
                write(if step <= *when { before } else { after }, step, out);
            }
            Node::Alternate(choices) => write(&choices[(step as usize - 1) % choices.len()], step, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, steps: u32) -> String {
        read(text, steps, &Limits::default()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        assert!(refused("a cat AND a dog", 10).contains("AND"));
        assert!(read("HAND SAND", 10, &Limits::default()).is_ok());
        assert!(refused("a <lora:x:1> cat", 10).contains("<lora:"));
    }

    #[test]
    fn limits_are_named() {
        assert!(refused("a", 1001).contains("1001 steps, more than 1000"));
        assert!(refused(&"[".repeat(33), 10).contains("33 deep, more than 32"));
    }
}
