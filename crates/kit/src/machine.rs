//! What this machine, or the container that it is, has to give: cores, memory, a name. Read once at start.

use std::{fs, thread};

use crate::process::kib;

/// Cores that this process may use: by affinity and by the quota of its control group.
pub(crate) fn cpus() -> f64 {
    thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

/// Memory that this process may use: the machine's, or less when its control group has a limit. Bytes.
pub(crate) fn memory_bytes() -> u64 {
    let read = |path: &str| fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo")
        .and_then(|text| kib(&text, "MemTotal:"))
        .unwrap_or(0)
        * 1024;
    let own = read("/proc/self/cgroup")
        .and_then(|text| own_group(&text))
        .unwrap_or_default();
    let limits = [
        format!("/sys/fs/cgroup{own}/memory.max"),
        "/sys/fs/cgroup/memory.max".to_owned(),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned(),
    ];
    limits
        .iter()
        .filter_map(|path| limit(&read(path)?))
        .fold(machine, u64::min)
}

/// The machine's name, or the container's.
pub fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "worker".to_owned()
    } else {
        name.to_owned()
    }
}

/// The path of a version 2 group in /proc/self/cgroup, which is the line `0::/path`.
fn own_group(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    (path != "/").then(|| path.to_owned())
}

/// A limit in bytes; none for `max` and for the huge number that version 1 has for it (which `min` takes care of).
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_both_versions_are_read() {
        assert_eq!(limit("1073741824\n"), Some(1 << 30));
        assert_eq!(limit("max\n"), None);
        assert_eq!(
            own_group("0::/system.slice/mobula\n").as_deref(),
            Some("/system.slice/mobula")
        );
        assert_eq!(own_group("0::/\n"), None);
        assert_eq!(own_group("5:memory:/docker/1\n"), None);
    }

    #[test]
    fn this_machine_has_something_to_give() {
        assert!(cpus() >= 1.0);
        assert!(memory_bytes() > 1 << 20);
        assert!(!host().is_empty());
    }
}
