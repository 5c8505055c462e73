//! Values of a query: form encoding undone, integers as pydantic reads them. Pure.

/// An integer of any size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Integer {
    /// As it is.
    Fits(u64),
    /// Below 0.
    Negative,
    /// Beyond 64 bits.
    Huge,
}

/// Reads an integer as pydantic does in its lax mode.
pub(super) fn integer(text: &str) -> Option<Integer> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = match digits.split_once('.') {
        Some((whole, rest)) if rest.bytes().all(|b| b == b'0') => whole,
        Some(_) => return None,
        None => digits,
    };
    // An underscore may stand between two digits.
    if digits.is_empty()
        || digits
            .split('_')
            .any(|group| group.is_empty() || !group.bytes().all(|b| b.is_ascii_digit()))
    {
        return None;
    }
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    Some(match digits.parse::<u64>() {
        Ok(0) => Integer::Fits(0),
        _ if negative => Integer::Negative,
        Ok(value) => Integer::Fits(value),
        Err(_) => Integer::Huge,
    })
}

/// Undoes form encoding; a percent sign without two hexadecimal digits stands for itself, as in Python.
pub(super) fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    if memchr::memchr2(b'%', b'+', bytes).is_none() {
        return bytes.to_vec();
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[i], hex(i + 1), hex(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                i += 2;
            }
            (b'+', _, _) => out.push(b' '),
            (byte, _, _) => out.push(byte),
        }
        i += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_pydantic_reads_them() {
        for text in ["512", " 512 ", "+512", "512.0", "512.", "5_12", "0512"] {
            assert_eq!(integer(text), Some(Integer::Fits(512)), "{text}");
        }
        for text in ["", " ", "-", "5.1", "5__1", "_5", "5_", "0x10", "1e3", "five"] {
            assert_eq!(integer(text), None, "{text}");
        }
        assert_eq!(integer("-0"), Some(Integer::Fits(0)));
        assert_eq!(integer("-8"), Some(Integer::Negative));
    }
}
