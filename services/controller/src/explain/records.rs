//! Requests that ended, as proxies told of them: the newest of each application, to explain one by its id and to compare
//! it with the others.
//!
//! Invariant: at most [`KEPT`] are kept, and no text of one is longer than proxies write them; an id that came twice is the
//! later one.

use std::collections::{HashMap, VecDeque};

use mobula_proto::control::v1::FinishedRequest;

/// Requests that are kept: at 100 requests/s the last minute and a half, at about 400 bytes each 4 MB.
const KEPT: usize = 10_000;
/// Bytes of one text: what a proxy keeps of an error's.
const TEXT_MAX: usize = 1024;
/// Replicas of one request: what a proxy keeps of them.
const REPLICAS_MAX: usize = 16;
/// Requests that one is compared with.
const COMPARED: usize = 200;

/// The ended requests.
#[derive(Debug, Default)]
pub(crate) struct Records {
    newest_last: VecDeque<FinishedRequest>,
    /// Positions by id, counted from the first record ever.
    by_id: HashMap<String, u64>,
    /// How many were let go.
    gone: u64,
}

impl Records {
    /// Takes in what a proxy told.
    pub(crate) fn add(&mut self, finished: Vec<FinishedRequest>) {
        for mut request in finished {
            shorten(&mut request);
            if self.newest_last.len() == KEPT
                && let Some(oldest) = self.newest_last.pop_front()
            {
                if self.by_id.get(&oldest.request_id) == Some(&self.gone) {
                    self.by_id.remove(&oldest.request_id);
                }
                self.gone += 1;
            }
            let position = self.gone + self.newest_last.len() as u64;
            self.by_id.insert(request.request_id.clone(), position);
            self.newest_last.push_back(request);
        }
    }

    /// The request of an id.
    pub(super) fn get(&self, id: &str) -> Option<&FinishedRequest> {
        let position = self.by_id.get(id)?.checked_sub(self.gone)?;
        self.newest_last.get(usize::try_from(position).ok()?)
    }

    /// Requests like this one that ended well: of the same application, size, steps and pictures, the newest first.
    pub(super) fn like<'a>(
        &'a self,
        request: &'a FinishedRequest,
    ) -> impl Iterator<Item = &'a FinishedRequest> {
        let shape = |r: &FinishedRequest| (r.width, r.height, r.steps, r.pictures);
        self.newest_last
            .iter()
            .rev()
            .filter(move |other| {
                other.code == 0
                    && other.application == request.application
                    && other.request_id != request.request_id
                    && shape(other) == shape(request)
            })
            .take(COMPARED)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.newest_last
            .iter()
            .rev()
            .map(|request| request.request_id.as_str())
    }
}

/// Bounds what whoever reports may have written.
fn shorten(request: &mut FinishedRequest) {
    let FinishedRequest {
        request_id,
        application,
        message,
        replica_ids,
        model_id,
        ..
    } = request;
    replica_ids.truncate(REPLICAS_MAX);
    replica_ids.shrink_to_fit();
    for text in [request_id, application, message, model_id]
        .into_iter()
        .chain(replica_ids)
    {
        if text.len() > TEXT_MAX {
            text.truncate(text.floor_char_boundary(TEXT_MAX));
            text.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: usize) -> FinishedRequest {
        FinishedRequest {
            request_id: format!("r{id}"),
            application: "a".into(),
            steps: 20,
            ..Default::default()
        }
    }

    #[test]
    fn the_newest_are_kept_and_found_by_id() {
        let mut records = Records::default();
        for id in 0..KEPT + 5 {
            records.add(vec![request(id)]);
        }
        assert!(records.get("r4").is_none());
        assert_eq!(records.get("r5").unwrap().request_id, "r5");
        assert_eq!(records.by_id.len(), KEPT);
        let last = format!("r{}", KEPT + 4);
        assert_eq!(records.get(&last).unwrap().request_id, last);
        assert_eq!(records.ids().next(), Some(last.as_str()));
    }

    #[test]
    fn an_id_that_came_twice_is_the_later_one_even_when_the_earlier_is_let_go() {
        let mut records = Records::default();
        records.add(vec![request(1)]);
        let again = FinishedRequest {
            total_ms: 7,
            ..request(1)
        };
        records.add(vec![again]);
        assert_eq!(records.get("r1").unwrap().total_ms, 7);
        for id in 2..=KEPT {
            records.add(vec![request(id)]);
        }
        assert_eq!(records.get("r1").unwrap().total_ms, 7);
        records.add(vec![request(KEPT + 1)]);
        assert!(records.get("r1").is_none());
    }

    #[test]
    fn a_request_that_is_told_of_at_length_is_kept_in_short() {
        let mut records = Records::default();
        let long = "é".repeat(100_000);
        records.add(vec![FinishedRequest {
            request_id: format!("r{long}"),
            message: long.clone(),
            replica_ids: vec![long; 1000],
            ..request(1)
        }]);
        let kept = &records.newest_last[0];
        assert!(prost::Message::encoded_len(kept) < 20 * TEXT_MAX);
        assert!(records.get(&kept.request_id).is_some());
    }

    #[test]
    fn a_request_is_compared_with_those_of_its_shape() {
        let mut records = Records::default();
        records.add((0..5).map(request).collect());
        records.add(vec![FinishedRequest {
            steps: 50,
            ..request(9)
        }]);
        let this = records.get("r2").unwrap();
        assert_eq!(records.like(this).count(), 4);
    }
}
