//! What a caller may still begin, in the headers that OpenAI's answers have. Pure.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use mobula_serving::quota::Left;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

const SECONDS: u64 = 60;

/// Writes it into an answer.
pub(super) fn tell(headers: &mut HeaderMap, left: Left) {
    headers.insert(LIMIT, HeaderValue::from(left.limit));
    headers.insert(REMAINING, HeaderValue::from(left.remaining));
    if let Ok(reset) = HeaderValue::try_from(written(left.reset)) {
        headers.insert(RESET, reset);
    }
}

/// A time as OpenAI writes it: `120ms`, `7.66s`, `6m0s`.
fn written(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / SECONDS, seconds % SECONDS) {
        (0, 0) => format!("{}ms", time.as_millis()),
        (0, _) => format!("{}s", (time.as_secs_f64() * 1000.0).round() / 1000.0),
        (minutes, rest) => format!("{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_openai_writes_them() {
        for (millis, text) in [
            (0, "0ms"),
            (120, "120ms"),
            (7_660, "7.66s"),
            (59_000, "59s"),
            (360_400, "6m0s"),
        ] {
            assert_eq!(written(Duration::from_millis(millis)), text);
        }
    }
}
