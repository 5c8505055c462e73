//! What the loop has to say to the one who keeps the intent. It does not wait for the disk: what finds no room is kept here.
//!
//! Invariant: a rollback is never lost, and of decisions at most [`NOTES`] are kept, the newest.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::state::Note;

/// Notes that wait to be written down; what does not fit is told again later.
const NOTES: usize = 256;

/// Where notes are put.
pub(super) struct Notes {
    to: mpsc::Sender<Note>,
    /// Those that found no room, the oldest first.
    untold: VecDeque<Note>,
}

/// Makes the two ends.
pub(super) fn channel() -> (Notes, mpsc::Receiver<Note>) {
    let (to, out) = mpsc::channel(NOTES);
    let untold = VecDeque::new();
    (Notes { to, untold }, out)
}

impl Notes {
    /// Hands on what is to be written down; what finds no room is kept, and the oldest decision gives way.
    pub(super) fn put(&mut self, note: Note) {
        if self.untold.len() >= NOTES
            && let Some(oldest) = self.untold.iter().position(|n| matches!(n, Note::Decided(_)))
        {
            self.untold.remove(oldest);
        }
        self.untold.push_back(note);
        self.tell();
    }

    /// Hands on as many notes as there is room for.
    pub(super) fn tell(&mut self) {
        while let Some(note) = self.untold.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(note)) = self.to.try_send(note) {
                self.untold.push_front(note);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mobula_proto::control::v1 as pb;

    use super::*;

    fn rollback() -> Note {
        Note::RolledBack {
            application: "a".into(),
            resource_version: 1,
            deployment: "pipeline".into(),
            why: String::new(),
        }
    }

    #[test]
    fn what_found_no_room_is_told_when_there_is_some_and_no_rollback_is_lost() {
        let (mut notes, mut out) = channel();
        for _ in 0..NOTES {
            notes.put(Note::Decided(pb::Decision::default()));
        }
        notes.put(rollback());
        for _ in 0..3 * NOTES {
            notes.put(Note::Decided(pb::Decision::default()));
        }
        assert_eq!(notes.untold.len(), NOTES);
        while out.try_recv().is_ok() {}
        notes.tell();
        assert_eq!(out.try_recv(), Ok(rollback()));
    }
}
