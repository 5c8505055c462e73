//! What somebody may have meant: the nearest of the names that are known.

/// The known name that is at most a third of its letters away, if there is one.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A name of this length is no slip of a finger, and distances cost the product of the lengths.
    if written.len() > 64 {
        return None;
    }
    known
        .into_iter()
        .map(|name| (distance(&plain(written), &plain(name)), name))
        .filter(|(distance, name)| *distance <= (name.chars().count() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// `maxReplicas`, `max-replicas` and `max_replicas` are one name.
fn plain(name: &str) -> Vec<char> {
    name.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// Letters to change, add, leave out or swap with their neighbour (optimal string alignment).
fn distance(from: &[char], to: &[char]) -> usize {
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = usize::from(from[i - 1] != to[j - 1]);
                let near = (rows[i - 1][j] + 1)
                    .min(rows[i][j - 1] + 1)
                    .min(rows[i - 1][j - 1] + change);
                let swapped = i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1];
                if swapped {
                    near.min(rows[i - 2][j - 2] + 1)
                } else {
                    near
                }
            };
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_other_ways_of_writing_find_their_name() {
        let known = ["min_replicas", "max_replicas", "num_gpus"];
        for (written, meant) in [
            ("max_replica", Some("max_replicas")),
            ("maxReplicas", Some("max_replicas")),
            ("num-gpus", Some("num_gpus")),
            ("num_gpsu", Some("num_gpus")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known), meant, "{written}");
        }
    }

    #[test]
    fn a_very_long_name_is_not_compared() {
        assert_eq!(nearest(&"n".repeat(100_000), ["n"]), None);
    }
}
