//! Checks of a mesh by clients that are not ours: Python scripts in `scripts/`, each with the packages that it needs.

use std::path::Path;

use anyhow::Context as _;

/// A check and where its packages are.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// The script, in `scripts/`.
    pub script: &'a str,
    /// The virtual environment, in `.tools/`.
    pub venv: &'a str,
    /// What `scripts/tools.sh` calls the packages.
    pub tools: &'a str,
}

impl Check<'_> {
    /// Runs it with these arguments to its end.
    ///
    /// # Errors
    /// Its packages are not there, or what it found wrong.
    pub async fn run<const N: usize>(self, args: [String; N]) -> anyhow::Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the checkout")?;
        let python = root.join(".tools").join(self.venv).join("bin/python");
        anyhow::ensure!(
            python.is_file(),
            "no {}: run scripts/tools.sh {}",
            python.display(),
            self.tools
        );
        let check = tokio::process::Command::new(python)
            .arg(root.join("scripts").join(self.script))
            .args(args)
            .kill_on_drop(true)
            .output()
            .await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        anyhow::ensure!(
            check.status.success(),
            "{}{}",
            text(&check.stdout),
            text(&check.stderr)
        );
        Ok(())
    }
}
