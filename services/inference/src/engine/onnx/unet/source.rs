//! What a UNet's sessions are made of: a file as it is, or with its timestep edited in memory, or rewritten to go faster.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::super::super::Error;
use super::super::dialect::Dtype;
use super::super::edit;
use super::super::session::{self, Context, Network};
use super::rewrite::Rewrite;
use super::{Form, PART};

/// A network's graph.
#[derive(Debug, Clone)]
pub(super) struct Source {
    file: PathBuf,
    edit: Option<Edit>,
    rewrite: Option<Rewrite>,
}

/// What is changed about the timestep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edit {
    /// From a scalar to one per row.
    pub(super) batched: bool,
    /// From a whole number to a real one.
    pub(super) real: bool,
}

impl Edit {
    /// What is worth trying, best first.
    pub(super) fn all(form: Form, dtype: Option<Dtype>) -> &'static [Self] {
        const fn edit(batched: bool, real: bool) -> Edit {
            Edit { batched, real }
        }
        let whole = matches!(dtype, Some(Dtype::I64 | Dtype::I32));
        match (form == Form::Scalar, whole) {
            (true, true) => const { &[edit(true, true), edit(true, false), edit(false, true)] },
            (true, false) => const { &[edit(true, false)] },
            (false, true) => const { &[edit(false, true)] },
            (false, false) => &[],
        }
    }

    /// The bytes of a network with its timestep edited.
    pub(super) fn apply(self, file: &Path) -> Result<Vec<u8>, Error> {
        let refused = |why: edit::Refused| session::refused(PART, &why);
        let mut bytes = session::read(PART, file)?;
        if self.batched {
            bytes = edit::batched(&bytes, "timestep", "sample").map_err(refused)?;
        }
        if self.real {
            bytes = edit::real(&bytes, "timestep").map_err(refused)?;
        }
        Ok(bytes)
    }
}

impl Source {
    pub(super) fn new(file: &Path, edit: Option<Edit>) -> Self {
        Self {
            file: file.to_owned(),
            edit,
            rewrite: None,
        }
    }

    /// The same, rewritten.
    pub(super) fn rewritten(&self, rewrite: Rewrite) -> Self {
        Self {
            rewrite: Some(rewrite),
            ..self.clone()
        }
    }

    /// The same context, for sessions of this network.
    pub(super) fn with_operators<'a>(&self, context: &Context<'a>) -> Context<'a> {
        Context {
            operators: self.rewrite.is_some_and(Rewrite::has_operators),
            ..context.clone()
        }
    }

    /// The bytes of the network with all edits; none where there is nothing to rewrite.
    fn edited(&self) -> Result<Option<Vec<u8>>, Error> {
        let bytes = match self.edit {
            Some(edit) => edit.apply(&self.file)?,
            None => session::read(PART, &self.file)?,
        };
        match self.rewrite {
            None => Ok(Some(bytes)),
            Some(rewrite) => rewrite.apply(&bytes),
        }
    }

    /// Whether there is something to rewrite.
    pub(super) fn is_found(&self) -> bool {
        matches!(self.edited(), Ok(Some(_)))
    }

    #[cfg(test)]
    pub(super) fn is_rewritten(&self) -> bool {
        self.rewrite.is_some()
    }

    /// Makes a session; without writing the network where that is asked for and fails. What is then in the file is emptied.
    pub(super) fn open(&self, context: &Context<'_>) -> Result<Network, Error> {
        let Some(written) = context.written else {
            return self.opened(context);
        };
        self.opened(context).or_else(|why| {
            let plain = Context {
                written: None,
                ..context.clone()
            };
            let network = self.opened(&plain)?;
            tracing::warn!(%why, "the network cannot be written: lanes have a copy of the weights each");
            File::create(written).map_err(|_| why)?;
            Ok(network)
        })
    }

    fn opened(&self, context: &Context<'_>) -> Result<Network, Error> {
        if self.edit.is_none() && self.rewrite.is_none() {
            return Network::from_file(PART, &self.file, context);
        }
        let bytes = self.edited()?.ok_or_else(|| Error::Model {
            part: PART,
            why: "there is nothing to rewrite".to_owned(),
        })?;
        let folder = self.file.parent().unwrap_or(&self.file);
        Network::from_memory(PART, &bytes, folder, &self.with_operators(context))
    }
}
