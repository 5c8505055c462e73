//! What is said of a document: what is wrong with it, and what becomes of its fields.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    fmt,
};

/// More problems than anybody mends at a time.
const MAX_PROBLEMS: usize = 500;
/// Bytes of a path or a reason; the longest list of what is accepted has half of it.
const MAX_TEXT: usize = 1_500;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, such as `applications[0].deployments[1].num_replicas`.
    pub path: String,
    /// Its line in the document, from 1; none where the document has none.
    pub line: Option<u64>,
    /// What is wrong, and what is accepted.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}: {}", self.path, self.why),
            None => write!(f, "{}: {}", self.path, self.why),
        }
    }
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has the effect that it has in Ray.
    Honoured,
    /// It has the effect that comes nearest here.
    Translated,
    /// It has none.
    Ignored,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Honoured => "honoured",
            Self::Translated => "translated",
            Self::Ignored => "ignored",
        })
    }
}

/// What becomes of one field that is not at its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where, as in [`Problem`].
    pub path: String,
    /// Its line, as in [`Problem`].
    pub line: Option<u64>,
    /// What becomes of it.
    pub verdict: Verdict,
    /// The value that is honoured, or why not and what happens instead.
    pub why: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path, verdict, why, ..
        } = self;
        match self.line {
            Some(line) => write!(f, "line {line}: {path}: {verdict}: {why}"),
            None => write!(f, "{path}: {verdict}: {why}"),
        }
    }
}

/// Where problems and notes are put.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    problems: RefCell<Vec<Problem>>,
    /// Problems that are not listed.
    more: Cell<usize>,
    notes: RefCell<Vec<Note>>,
}

impl Sink {
    pub(crate) fn refuse(&self, path: &str, line: Option<u64>, why: impl Into<String>) {
        if self.is_full() {
            self.more.set(self.more.get() + 1);
            return;
        }
        self.problems.borrow_mut().push(Problem {
            path: named(path),
            line,
            why: cut(why.into()),
        });
    }

    /// True if nobody would read one problem more.
    pub(crate) fn is_full(&self) -> bool {
        self.problems.borrow().len() >= MAX_PROBLEMS
    }

    pub(crate) fn note(&self, path: &str, line: Option<u64>, verdict: Verdict, why: impl Into<String>) {
        self.notes.borrow_mut().push(Note {
            path: named(path),
            line,
            verdict,
            why: cut(why.into()),
        });
    }

    /// The notes in the order of the document, or the problems if there are any.
    pub(crate) fn end(self) -> Result<Vec<Note>, Vec<Problem>> {
        let (mut problems, mut notes) = (self.problems.into_inner(), self.notes.into_inner());
        problems.sort_by_key(|problem| problem.line);
        if self.more.get() > 0 {
            problems.push(Problem {
                path: named(""),
                line: None,
                why: format!("has {} problems more, which are not listed", self.more.get()),
            });
        }
        // What is translated is not honoured besides.
        let said: HashSet<String> = notes
            .iter()
            .filter(|note| note.verdict != Verdict::Honoured)
            .map(|note| note.path.clone())
            .collect();
        notes.retain(|note| note.verdict != Verdict::Honoured || !said.contains(&note.path));
        notes.sort_by_key(|note| note.line);
        if problems.is_empty() {
            Ok(notes)
        } else {
            Err(problems)
        }
    }
}

fn named(path: &str) -> String {
    if path.is_empty() {
        "(document)".into()
    } else {
        cut(path.to_owned())
    }
}

/// The text, or its beginning where it repeats what somebody has written at great length.
fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push_str("...");
    }
    text
}
