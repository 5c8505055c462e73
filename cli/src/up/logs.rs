//! The state folder and the services' log files: one file per kind of service, fresh with each `mobula up`, appended to when
//! a service is started again. Writes no log lines itself and never takes a folder that another mesh uses.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::Error;

/// Names the process that uses the folder.
const OWNER: &str = "up.pid";
/// How much of a dead service's log is shown.
const TAIL_LINES: usize = 12;
/// More than twelve lines of any sane length.
const TAIL_BYTES: u64 = 16 * 1024;

/// A state folder in use by this process.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Takes `named`, or the user's own state folder (XDG), and marks it as used.
    pub(crate) fn take(named: Option<&Path>) -> Result<Self, Error> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let path = named
            .map(Path::to_owned)
            .unwrap_or_else(|| default(variable("XDG_STATE_HOME"), variable("HOME")));
        let path = std::path::absolute(&path).unwrap_or(path);
        let failed = |source: io::Error| Error::StateDir {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(path.join("logs")).map_err(failed)?;
        let owner = path.join(OWNER);
        if let Some(pid) = fs::read_to_string(&owner)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            && is_mobula(pid)
        {
            return Err(Error::StateDirInUse { path, pid });
        }
        fs::write(&owner, std::process::id().to_string()).map_err(failed)?;
        let state = Self { path };
        state.set_old_logs_aside().map_err(|source| Error::StateDir {
            path: state.path.clone(),
            source,
        })?;
        Ok(state)
    }

    /// What the last mesh wrote is kept once, as `*.log.old`: somebody may look for why it ended.
    fn set_old_logs_aside(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.logs())? {
            let log = entry?.path();
            if log.extension().is_some_and(|extension| extension == "log") {
                fs::rename(&log, log.with_extension("log.old"))?;
            }
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // A mark that stays behind names a dead process and stops nobody.
        let _ = fs::remove_file(self.path.join(OWNER));
    }
}

fn default(state_home: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    match (state_home, home) {
        (Some(state), _) => state.join("mobula"),
        (None, Some(home)) => home.join(".local/state/mobula"),
        (None, None) => std::env::temp_dir().join("mobula"),
    }
}

/// Whether `pid` is a living process of this program; a number that another program got since is not.
fn is_mobula(pid: u32) -> bool {
    let alive = i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), None).is_ok());
    let other = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() != "mobula");
    alive && !other && pid != std::process::id()
}

/// Where one service's standard error goes.
#[derive(Clone, Debug)]
pub(crate) enum Log {
    /// The terminal.
    Inherit,
    /// A file.
    File(PathBuf),
}

impl Log {
    /// A fresh file for `service` in `folder`.
    pub(crate) fn fresh(folder: &Path, service: &str) -> Result<Self, Error> {
        let path = folder.join(format!("{service}.log"));
        File::create(&path).map_err(|source| Error::Write {
            path: path.clone(),
            source,
        })?;
        Ok(Self::File(path))
    }

    /// Opens it for a process that is about to start.
    pub(crate) fn stdio(&self) -> io::Result<Stdio> {
        match self {
            Self::Inherit => Ok(Stdio::inherit()),
            Self::File(path) => Ok(OpenOptions::new().append(true).create(true).open(path)?.into()),
        }
    }

    /// The last lines, led in for people; empty when they are on the terminal already or there are none.
    pub(crate) fn tail(&self) -> String {
        let Self::File(path) = self else {
            return String::new();
        };
        let lines = last_lines(path).unwrap_or_default();
        if lines.is_empty() {
            return format!("; its log {} is empty", path.display());
        }
        format!("; the end of {}:\n{lines}", path.display())
    }
}

fn last_lines(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let shown = lines.iter().skip(lines.len().saturating_sub(TAIL_LINES));
    Ok(shown
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_folder_follows_xdg() {
        assert_eq!(
            default(Some("/s".into()), Some("/h".into())),
            Path::new("/s/mobula")
        );
        assert_eq!(
            default(None, Some("/h".into())),
            Path::new("/h/.local/state/mobula")
        );
    }

    #[test]
    fn a_folder_whose_owner_is_gone_is_taken_over_and_freed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(OWNER), "4294967294").unwrap();
        let log = folder.path().join("logs/inference.log");
        fs::create_dir_all(folder.path().join("logs")).unwrap();
        fs::write(&log, "old words").unwrap();
        let state = StateDir::take(Some(folder.path())).unwrap();
        assert!(!log.exists());
        assert_eq!(
            fs::read_to_string(log.with_extension("log.old")).unwrap(),
            "old words"
        );
        drop(state);
        assert!(!folder.path().join(OWNER).exists());
    }

    #[test]
    fn the_tail_is_the_last_lines_and_nothing_blank() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::fresh(folder.path(), "proxy").unwrap();
        assert!(log.tail().ends_with("is empty"));
        let text: String = (0..100).map(|n| format!("line {n}\n\n")).collect();
        fs::write(folder.path().join("proxy.log"), text).unwrap();
        let tail = log.tail();
        assert!(
            tail.ends_with("\n  line 99") && tail.contains("line 88") && !tail.contains("line 87"),
            "{tail}"
        );
    }
}
