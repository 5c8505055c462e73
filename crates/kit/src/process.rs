//! What this process takes of its machine, read from /proc. Elsewhere than on Linux it reads as nothing.

use std::fs;

/// Ticks per second in /proc/*/stat: USER_HZ, which Linux fixes at 100 for everything that programs see.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Memory resident, bytes.
    pub resident_bytes: u64,
    /// Processor time spent, user and system, seconds.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// When it started, seconds since 1970.
    pub start_time_seconds: f64,
}

impl Usage {
    /// Reads this process's use as it is now.
    pub fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let stat = Stat::parse(&read("/proc/self/stat")).unwrap_or_default();
        Self {
            resident_bytes: kib(&read("/proc/self/status"), "VmRSS:").unwrap_or(0) * 1024,
            cpu_seconds: stat.cpu_ticks as f64 / TICKS_PER_SECOND,
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            start_time_seconds: boot_time(&read("/proc/stat")).unwrap_or(0) as f64
                + stat.start_ticks as f64 / TICKS_PER_SECOND,
        }
    }
}

/// What /proc/<pid>/stat says that we need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    /// One letter; Z and X are dead.
    pub(crate) state: char,
    cpu_ticks: u64,
    /// Tells one process from another that got the same id later.
    pub(crate) start_ticks: u64,
}

impl Stat {
    /// Reads the file's one line. The second field is the program's name in brackets and may contain anything, so
    /// fields are counted from the last bracket.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?.chars().next()?;
        // `state` was field 3: 14 and 15 are user and system time, 22 is the start.
        let rest: Vec<u64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
        Some(Self {
            state,
            cpu_ticks: rest.get(10)? + rest.get(11)?,
            start_ticks: *rest.get(18)?,
        })
    }

    /// Reads another process; none when there is no such process, or it is dead and waits for its parent.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        (!matches!(stat.state, 'Z' | 'X')).then_some(stat)
    }
}

/// Reads `name   123 kB`.
pub(crate) fn kib(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

fn boot_time(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        let line = "42 (a ) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 7 5 0 0 20 0 9 0 123456 1000 200";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(
            stat,
            Stat {
                state: 'S',
                cpu_ticks: 12,
                start_ticks: 123_456
            }
        );
        assert_eq!(Stat::parse("42 (cut short) S 1"), None);
    }

    #[test]
    fn this_process_uses_memory_and_descriptors() {
        let usage = Usage::now();
        assert!(usage.resident_bytes > 100_000 && usage.open_fds > 2, "{usage:?}");
        assert!(usage.start_time_seconds > 1.0e9, "{usage:?}");
        assert!(Stat::of(std::process::id()).is_some());
    }
}
