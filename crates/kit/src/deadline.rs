//! A deadline is data: read once at the edge from `grpc-timeout`, carried along, checked before costly work and passed
//! on to the next hop as the time that is left.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

/// The header in which gRPC carries the time a caller gives a call.
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// When a request's caller stops waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// The deadline of a request: the one that the server noted on arrival, else by its `grpc-timeout` from now on.
    /// None when the caller set none.
    pub fn of<T>(request: &tonic::Request<T>) -> Option<Self> {
        if let Some(noted) = request.extensions().get::<Self>() {
            return Some(*noted);
        }
        let timeout = request.metadata().get(GRPC_TIMEOUT)?.to_str().ok()?;
        Some(Self::after(parse(timeout)?))
    }

    /// The deadline of a request that arrives now with these headers.
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let timeout = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
        Some(Self::after(parse(timeout)?))
    }

    /// The deadline that is `timeout` from now.
    pub fn after(timeout: Duration) -> Self {
        Self(Instant::now() + timeout)
    }

    /// The time that is left; zero once it has passed.
    pub fn remaining(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// True once nobody waits any more.
    pub fn is_past(&self) -> bool {
        Instant::now() >= self.0
    }

    /// Gives an outgoing call the time that is left.
    pub fn apply<T>(&self, request: &mut tonic::Request<T>) {
        request.set_timeout(self.remaining());
    }
}

/// Reads `grpc-timeout`: one to eight digits and a unit, as the gRPC protocol says; None for anything else, which then
/// counts as no deadline, as in other implementations.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_of_the_protocol_is_read() {
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse("2M"), Some(Duration::from_secs(120)));
        assert_eq!(parse("2S"), Some(Duration::from_secs(2)));
        assert_eq!(parse("2m"), Some(Duration::from_millis(2)));
        assert_eq!(parse("2u"), Some(Duration::from_micros(2)));
        assert_eq!(parse("99999999n"), Some(Duration::from_nanos(99_999_999)));
    }

    #[test]
    fn what_the_protocol_does_not_know_is_no_deadline() {
        for text in ["", "5", "S", "-1S", "123456789S", "1.5S", "1é", "5 S", "5s"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_hop_gets_what_is_left() {
        let deadline = Deadline::after(Duration::from_secs(3));
        tokio::time::advance(Duration::from_secs(1)).await;
        let mut request = tonic::Request::new(());
        deadline.apply(&mut request);
        assert_eq!(
            Deadline::of(&request).unwrap().remaining(),
            Duration::from_secs(2)
        );
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(deadline.is_past());
        assert_eq!(deadline.remaining(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_noted_on_arrival_is_not_read_again() {
        let noted = Deadline::after(Duration::from_secs(3));
        let mut request = tonic::Request::new(());
        request.set_timeout(Duration::from_secs(9));
        request.extensions_mut().insert(noted);
        assert_eq!(Deadline::of(&request), Some(noted));
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reader_panic(text in ".{0,12}") {
            let _ = parse(&text);
        }
    }
}
