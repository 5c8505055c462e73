//! Whether this machine is short of memory, for what is kept only while there is room.

use std::fs;

/// Below this share of the machine's memory it is short.
const SHARE: u64 = 4;

/// Whether less than a quarter of the memory is available. Where the system does not say, it is not.
pub(super) fn is_short() -> bool {
    fs::read_to_string("/proc/meminfo").is_ok_and(|text| short(&text))
}

fn short(text: &str) -> bool {
    let amount = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    amount("MemAvailable:")
        .zip(amount("MemTotal:"))
        .is_some_and(|(available, total)| available < total / SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_below_a_quarter() {
        let text =
            |available: u64| format!("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  {available} kB\n");
        assert!(short(&text(249)) && !short(&text(250)) && !short("nothing"));
    }
}
