//! Heads of HTTP/1.1 that are too much, or none.

/// A head, and the statuses of which it is answered one.
#[derive(Clone, Debug)]
pub struct Head {
    /// What is wrong with it, if anything is.
    pub what: &'static str,
    /// Its bytes.
    pub bytes: String,
    /// Any of them is an answer.
    pub statuses: &'static [u16],
}

/// Heads of a request for a path that is answered 200 when it is asked for decently.
#[must_use]
pub fn odd(path: &str) -> Vec<Head> {
    let head =
        |lines: &str| format!("GET {path} HTTP/1.1\r\nhost: mobula\r\nconnection: close\r\n{lines}\r\n");
    let value = |length: usize| head(&format!("x-large: {}\r\n", "x".repeat(length)));
    let many = |count: usize| head(&"x-a: b\r\n".repeat(count));
    let cases = vec![
        ("a value of 64 KiB", value(64 << 10), &[200, 431][..]),
        ("a value of 4 MiB", value(4 << 20), &[431, 400]),
        ("ninety headers", many(90), &[200]),
        ("ten thousand headers", many(10_000), &[431, 400]),
        (
            "an address of 1 MiB",
            format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(1 << 20)),
            &[414, 431],
        ),
        ("no address", "GET\r\n\r\n".to_owned(), &[400]),
        (
            "a version of none",
            "GET / HTTP/9.9\r\n\r\n".to_owned(),
            &[400, 505],
        ),
        (
            "two lengths",
            head("content-length: 1\r\ncontent-length: 2\r\n"),
            &[400],
        ),
        ("a length below nothing", head("content-length: -1\r\n"), &[400]),
        (
            "a length beyond all",
            head("content-length: 99999999999999999999999\r\n"),
            &[400],
        ),
        ("a folded line", head("x-a: b\r\n c\r\n"), &[400, 200]),
        ("a blank in a name", head("x a: b\r\n"), &[400]),
        ("a zero in a value", head("x-a: \0\r\n"), &[400]),
    ];
    let head = |(what, bytes, statuses)| Head {
        what,
        bytes,
        statuses,
    };
    cases.into_iter().map(head).collect()
}

/// What callers say who then say no more: nothing, and beginnings of heads.
#[must_use]
pub fn halves() -> [&'static [u8]; 5] {
    [
        b"",
        b"P",
        b"PRI * HTTP/2.0\r\n\r\nSM",
        b"GET /-/healthz HT",
        b"GET /-/healthz HTTP/1.1\r\nhost: a\r\nx-a: ",
    ]
}
