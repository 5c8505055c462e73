//! Frames of HTTP/2 that nobody sends who means well (RFC 9113).

/// How a client begins.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a body.
pub const DATA: u8 = 0;
/// A head.
pub const HEADERS: u8 = 1;
/// The end of a stream.
pub const RESET: u8 = 3;
/// What a side asks of the other.
pub const SETTINGS: u8 = 4;
/// A promise of an answer that nobody asked for.
pub const PUSH: u8 = 5;
/// Whether the other side is there.
pub const PING: u8 = 6;
/// The end of a connection.
pub const GOAWAY: u8 = 7;
/// Room for more.
pub const WINDOW: u8 = 8;
/// More of a head.
pub const CONTINUATION: u8 = 9;
/// Nothing follows on the stream.
pub const END_STREAM: u8 = 1;
/// Nothing follows of the head.
pub const END_HEADERS: u8 = 4;

/// A frame.
///
/// # Panics
/// When it is larger than a frame can be.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header as it is, not to be indexed (RFC 7541, 6.2.2).
#[must_use]
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // An integer with a prefix of seven bits.
        let mut length = text.len();
        if length < 127 {
            bytes.push(length as u8);
        } else {
            bytes.push(127);
            length -= 127;
            while length >= 128 {
                bytes.push((length % 128 + 128) as u8);
                length /= 128;
            }
            bytes.push(length as u8);
        }
        bytes.extend(text.bytes());
    }
    bytes
}

/// The head of a call of a path, with more headers.
#[must_use]
pub fn head(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "mobula"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    usual
        .iter()
        .chain(more)
        .flat_map(|(name, value)| literal(name, value))
        .collect()
}

/// A connection that has begun, with more behind it.
#[must_use]
pub fn begun(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frames.concat());
    bytes
}

/// The types of the frames that came back, and the code of the last GOAWAY.
///
/// # Panics
/// When that one has no code.
#[must_use]
pub fn told(mut answer: &[u8]) -> (Vec<u8>, Option<u32>) {
    let (mut kinds, mut code) = (Vec::new(), None);
    while let Some((head, rest)) = answer.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        kinds.push(head[3]);
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            break;
        };
        if head[3] == GOAWAY {
            code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        answer = rest;
    }
    (kinds, code)
}

/// What a connection may send after its beginning that ends it with an error; each with what it is.
#[must_use]
pub fn broken(path: &str) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let ping = frame(PING, 0, 0, &[0; 8]);
    let open = frame(HEADERS, END_HEADERS, 1, &head(path, &[]));
    vec![
        (
            "a frame larger than any may be",
            vec![frame(DATA, 0, 1, &[0; 16_385])],
        ),
        ("data on a stream that is not open", vec![frame(DATA, 0, 1, b"x")]),
        ("data on the connection", vec![frame(DATA, 0, 0, b"x")]),
        (
            "a head on an even stream",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 2, &head(path, &[]))],
        ),
        (
            "a head on the connection",
            vec![frame(HEADERS, END_HEADERS, 0, &head(path, &[]))],
        ),
        (
            "a stream below one that was",
            vec![
                frame(HEADERS, END_HEADERS | END_STREAM, 5, &head(path, &[])),
                frame(HEADERS, END_HEADERS | END_STREAM, 3, &head(path, &[])),
            ],
        ),
        (
            "another frame within a head",
            vec![frame(HEADERS, 0, 1, &head(path, &[])), ping],
        ),
        (
            "the rest of no head",
            vec![frame(CONTINUATION, END_HEADERS, 1, &head(path, &[]))],
        ),
        (
            "an index of no table",
            vec![frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0xff, 0x0f])],
        ),
        (
            "a head cut off",
            vec![frame(HEADERS, END_HEADERS, 1, &[0, 200, b'a'])],
        ),
        ("settings of half a field", vec![frame(SETTINGS, 0, 0, &[0; 5])]),
        ("settings on a stream", vec![frame(SETTINGS, 0, 1, &[])]),
        (
            "a window that no stream may have",
            vec![frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])],
        ),
        ("a ping of seven bytes", vec![frame(PING, 0, 0, &[0; 7])]),
        ("a ping on a stream", vec![frame(PING, 0, 1, &[0; 8])]),
        (
            "a reset of a stream that never was",
            vec![frame(RESET, 0, 1, &[0; 4])],
        ),
        (
            "a promise",
            vec![open, frame(PUSH, END_HEADERS, 1, &[0, 0, 0, 2])],
        ),
        (
            "a window that grows by nothing",
            vec![frame(WINDOW, 0, 0, &[0; 4])],
        ),
        (
            "a window that grows too far",
            vec![frame(WINDOW, 0, 0, &[0x7f, 0xff, 0xff, 0xff])],
        ),
    ]
}

/// What is no HTTP/2 at all; each with what it is.
#[must_use]
pub fn no_frames() -> [(&'static str, &'static [u8]); 4] {
    [
        ("no preface", b"\0\0\0\x04\0\0\0\0\0"),
        ("half a preface", &PREFACE[..20]),
        (
            "another protocol",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 hello",
        ),
        ("nothing but zeros", &[0; 100]),
    ]
}

/// A head without an end, on one stream. It is kept as one piece, lest the tests' own memory hides what a server holds.
#[derive(Clone, Debug)]
pub struct Endless {
    /// What it is.
    pub what: &'static str,
    /// The connection's beginning and the head's.
    pub first: Vec<u8>,
    /// A frame that goes on with the head.
    pub again: Vec<u8>,
    /// How many of them there are.
    pub times: usize,
}

/// Heads that have no end, or are too large. They end their connection.
#[must_use]
pub fn endless(path: &str) -> [Endless; 2] {
    let first = begun(&[frame(HEADERS, 0, 1, &head(path, &[]))]);
    [
        Endless {
            what: "a head of 64 MiB",
            first: first.clone(),
            again: frame(CONTINUATION, 0, 1, &[0x40; 16_384]),
            times: 4_096,
        },
        Endless {
            what: "pieces without a byte",
            first,
            again: frame(CONTINUATION, 0, 1, &[]),
            times: 100_000,
        },
    ]
}

/// Heads larger than a port takes, in the frames of one stream; each with what it is. Their stream is refused.
#[must_use]
pub fn large(path: &str) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let long = "x".repeat(12_000);
    let many: Vec<_> = (0..600).map(|_| ("x-a", "0123456789012345")).collect();
    // One entry of the table, named ten thousand times: a little that unpacks to much.
    let mut bomb = head(path, &[]);
    let mut entry = literal("x-a", &"y".repeat(3_900));
    entry[0] = 0x40;
    bomb.extend(entry);
    bomb.extend(std::iter::repeat_n(0x80 | 62, 9_000));
    let divided = |block: Vec<u8>| {
        let count = block.len().div_ceil(16_000);
        let part = |(at, part): (usize, &[u8])| {
            let kind = if at == 0 { HEADERS } else { CONTINUATION };
            let end = if at + 1 == count { END_HEADERS } else { 0 };
            frame(kind, end, 1, part)
        };
        block.chunks(16_000).enumerate().map(part).collect()
    };
    vec![
        (
            "long values",
            divided(head(path, &[("x-a", &long), ("x-b", &long)])),
        ),
        ("many headers", divided(head(path, &many))),
        ("a bomb", divided(bomb)),
    ]
}

/// Calls that are opened and reset at once, with their connection's beginning.
#[must_use]
pub fn resets(path: &str) -> Vec<u8> {
    let mut bytes = begun(&[]);
    for stream in (1..40_000).step_by(2) {
        bytes.extend(frame(HEADERS, END_HEADERS, stream, &head(path, &[])));
        bytes.extend(frame(RESET, 0, stream, &[0, 0, 0, 8]));
    }
    bytes
}

/// Frames that want an answer each, without end.
#[must_use]
pub fn questions() -> [Vec<u8>; 2] {
    [
        frame(PING, 0, 0, &[1; 8]),
        frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
    ]
    .map(|question| question.repeat(10_000))
}
