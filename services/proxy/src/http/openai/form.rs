//! A form with files (RFC 7578, multipart/form-data): where its parts begin and end, and what they are called. Pure.
//!
//! The body is looked through as it arrives, so that no call takes long however large it is; parts are slices of it.
//! Invariant: no input panics, and there are at most [`PARTS_MAX`] parts.

use bytes::Bytes;

/// OpenAI takes sixteen files, and there are about thirty fields.
const PARTS_MAX: usize = 64;
/// Bytes that the head of a part may have.
const HEAD_MAX: usize = 8 << 10;
/// Characters of a boundary (RFC 2046, 5.1.1).
const BOUNDARY_MAX: usize = 70;

/// Looks for the lines between the parts.
#[derive(Debug)]
pub(super) struct Splitter {
    /// The line break before a boundary, and the boundary.
    delimiter: Vec<u8>,
    /// Where delimiters begin.
    found: Vec<usize>,
    /// Bytes that were looked through.
    seen: usize,
}

impl Splitter {
    /// For a body of this content type.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(content_type: &str) -> Result<Self, String> {
        let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return Err(format!(
                "the body is {:?} and must be a form with files, multipart/form-data",
                kind.trim().chars().take(64).collect::<String>()
            ));
        }
        let boundary = parameter(parameters, "boundary").unwrap_or_default();
        if boundary.is_empty() || boundary.len() > BOUNDARY_MAX {
            return Err(format!(
                "multipart/form-data needs a boundary of 1 to {BOUNDARY_MAX} characters"
            ));
        }
        Ok(Self {
            delimiter: [b"\r\n--", boundary.as_bytes()].concat(),
            found: Vec::new(),
            seen: 0,
        })
    }

    /// Looks through what came since the last call; `body` is all that came.
    pub(super) fn look(&mut self, body: &[u8]) {
        // The first may stand at the very beginning, without a line break.
        let first = &self.delimiter[2..];
        if self.seen < first.len() && body.starts_with(first) {
            self.found.push(0);
            self.seen = first.len();
        }
        let finder = memchr::memmem::Finder::new(&self.delimiter);
        // One may have begun in what was looked through.
        let mut from = self.seen.saturating_sub(self.delimiter.len() - 1);
        while self.found.len() <= PARTS_MAX + 1
            && let Some(at) = body.get(from..).and_then(|rest| finder.find(rest))
        {
            let at = from + at;
            if self.found.last() != Some(&at) {
                self.found.push(at);
            }
            from = at + self.delimiter.len();
        }
        self.seen = self.seen.max(body.len());
    }

    /// The names and contents of the parts of a whole body that was looked through.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parts(self, body: &Bytes) -> Result<Vec<(String, Bytes)>, String> {
        let mut parts = Vec::new();
        // Where the part before begins.
        let mut begun = None;
        for at in self.found {
            let line = at + self.delimiter.len() - if at == 0 && body.starts_with(b"--") { 2 } else { 0 };
            let rest = &body[line..];
            let ends = rest.starts_with(b"--");
            let blank = rest
                .iter()
                .take_while(|byte| matches!(byte, b' ' | b'\t'))
                .count();
            if !ends && !rest[blank..].starts_with(b"\r\n") {
                // A longer line, of a part's contents.
                continue;
            }
            if let Some(begun) = begun {
                if parts.len() == PARTS_MAX {
                    return Err(format!("the form has more than {PARTS_MAX} parts"));
                }
                parts.push(part(&body.slice(begun..at))?);
            }
            if ends {
                return Ok(parts);
            }
            // The line break stays: it ends an empty head.
            begun = Some(line + blank);
        }
        Err("the form has no end, or more parts than it may".to_owned())
    }
}

/// A part from the line break before its head.
fn part(part: &Bytes) -> Result<(String, Bytes), String> {
    const END: &[u8] = b"\r\n\r\n";
    let reach = part.len().min(HEAD_MAX);
    let Some(end) = memchr::memmem::find(&part[..reach], END) else {
        return Err("a part of the form has no head, or one that is too long".to_owned());
    };
    let head = String::from_utf8_lossy(&part[..end]);
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("content-disposition")
            .then_some(value)
    });
    let name = disposition
        .and_then(|value| value.split_once(';'))
        .and_then(|(_, parameters)| parameter(parameters, "name"));
    match name {
        Some(name) => Ok((name, part.slice(end + END.len()..))),
        None => Err("a part of the form has no name".to_owned()),
    }
}

/// A parameter of a header, by its name.
fn parameter(mut text: &str, wanted: &str) -> Option<String> {
    loop {
        let (name, rest) = text.split_once('=')?;
        let (value, rest) = value(rest.trim_start());
        if name.trim_matches([' ', '\t', ';']).eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        text = rest;
    }
}

/// A value, quoted or not, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_once(';').unwrap_or((text, ""));
        return (value.trim_end().to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &quoted[at + 1..]),
            // Only what must be escaped: browsers of old sent Windows paths as they are.
            '\\' if quoted[at + 1..].starts_with(['"', '\\']) => {
                value.extend(chars.next().map(|(_, char)| char));
            }
            _ => value.push(char),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(content_type: &str, body: &[u8], step: usize) -> Result<Vec<(String, Bytes)>, String> {
        let mut splitter = Splitter::new(content_type)?;
        for end in (0..body.len()).step_by(step).chain([body.len()]) {
            splitter.look(&body[..end]);
        }
        splitter.parts(&Bytes::copy_from_slice(body))
    }

    #[test]
    fn a_form_is_split_into_its_parts_however_it_arrives() {
        let body = b"ignored\r\n--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na red circle\r\n--b \r\n\
            content-type: image/png\r\ncontent-disposition: form-data; filename=\"a;b=\\\"c.png\"; name=image\r\n\r\n\
            \x89PNG\r\n--bc\r\n\r\n--b\r\nContent-Disposition: form-data; name=\"e\"\r\n\r\n\r\n--b--\r\nignored";
        for step in [1, 2, 3, 7, 1000] {
            let parts = split("multipart/form-data; charset=utf-8; boundary=\"b\"", body, step).unwrap();
            let parts: Vec<_> = parts
                .iter()
                .map(|(name, data)| (name.as_str(), &data[..]))
                .collect();
            let expected: [(&str, &[u8]); 3] = [
                ("prompt", b"a red circle"),
                ("image", b"\x89PNG\r\n--bc\r\n"),
                ("e", b""),
            ];
            assert_eq!(parts, expected, "{step}");
        }
        let body = b"--b\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--";
        for step in [1, 5, 1000] {
            let parts = split("multipart/form-data;boundary=b", body, step).unwrap();
            assert_eq!(parts, [("a".to_owned(), Bytes::from_static(b"1"))], "{step}");
        }
    }

    #[test]
    fn what_is_no_form_is_refused_with_the_reason() {
        for (content_type, body, why) in [
            ("application/json", "", "must be a form"),
            ("multipart/form-data", "", "needs a boundary"),
            ("multipart/form-data; boundary=b", "", "has no end"),
            ("multipart/form-data; boundary=b", "--b\r\n\r\n", "has no end"),
            (
                "multipart/form-data; boundary=b",
                "--b\r\nx: y\r\n\r\n\r\n--b--",
                "has no name",
            ),
            (
                "multipart/form-data; boundary=b",
                "--b\r\nx\r\n--b--",
                "has no head",
            ),
        ] {
            let error = split(content_type, body.as_bytes(), 1000).unwrap_err();
            assert!(error.contains(why), "{content_type} {body}: {error}");
        }
        let long = format!("multipart/form-data; boundary={}", "b".repeat(71));
        assert!(Splitter::new(&long).is_err());
        let part = "--b\r\ncontent-disposition: form-data; name=a\r\n\r\n\r\n";
        for (parts, is_taken) in [(PARTS_MAX, true), (PARTS_MAX + 1, false), (1000, false)] {
            let body = format!("{}--b--", part.repeat(parts));
            let split = split("multipart/form-data; boundary=b", body.as_bytes(), 1 << 20);
            assert_eq!(split.is_ok(), is_taken, "{parts}");
        }
    }

    proptest! {
        #[test]
        fn contents_come_back_whatever_they_are(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 1..4), step in 1usize..40,
        ) {
            let mut body = Vec::new();
            for content in &contents {
                body.extend(b"--%%limit%%\r\ncontent-disposition: form-data; name=\"x\"\r\n\r\n");
                body.extend(content);
                body.extend(b"\r\n");
            }
            body.extend(b"--%%limit%%--\r\n");
            let parts = split("multipart/form-data; boundary=%%limit%%", &body, step).unwrap();
            let parts: Vec<_> = parts.into_iter().map(|(_, data)| data.to_vec()).collect();
            prop_assert_eq!(parts, contents);
        }

        #[test]
        fn no_body_panics(
            parts in prop::collection::vec(prop::sample::select(vec![
                "\r\n", "--b", "--", "\r\n--b", "\r\n\r\n", "content-disposition: form-data; name=\"", "\"", "\\", ";", "x", " ",
            ]), 0..30),
            step in 1usize..9,
        ) {
            let _ = split("multipart/form-data; boundary=b", parts.concat().as_bytes(), step);
        }
    }
}
