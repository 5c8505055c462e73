//! Processes that are not our children: are they alive, are they who they were.
//!
//! A process id alone names nobody: it is used again. With the time of its start it does.

use std::fs;

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// When a process started, in the kernel's ticks; none if there is no such process or it is dead and not yet reaped.
pub(super) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; the fields after the last bracket are plain. `state` is the third field,
    // `starttime` the twenty-second.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(start)
}

/// True if a process was given this argument.
pub(super) fn has_argument(pid: u32, argument: &str) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments
        .split(|byte| *byte == 0)
        .any(|given| given == argument.as_bytes())
}

/// Sends a signal; a process that is gone already is no error.
pub(super) fn signal(pid: u32, signal: Signal) -> Result<(), Errno> {
    let Ok(pid) = i32::try_from(pid) else {
        return Err(Errno::ESRCH);
    };
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_one_that_cannot_be_is_not() {
        assert!(start_ticks(std::process::id()).is_some());
        assert_eq!(start_ticks(u32::MAX), None);
        assert!(signal(u32::MAX, Signal::SIGTERM).is_err());
    }

    #[test]
    fn arguments_are_compared_whole() {
        let own = std::env::args().next().unwrap();
        assert!(has_argument(std::process::id(), &own));
        assert!(!has_argument(std::process::id(), &own[..own.len() - 1]));
    }
}
