//! Which of two mirrored journals may be alone with the newest entries, so that a start that finds only one of them knows
//! whether the other one may have more.
//!
//! It is the file `mirrored` beside each journal's folder. The one that goes on without the other says so before anything is
//! answered from it alone; that one cannot be told, and keeps saying that both were written.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    durable::{self, Access},
    text_file,
};

const FILE: &str = "mirrored";
const TITLE: &str = "birthmark journal mirror 1";

/// What a journal says of itself and the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pairing {
    /// Both are written: if this one fails the other one goes on without it.
    Both,
    /// The other one failed: this one has all entries.
    Alone,
    /// The daemon ended, and both had the same.
    Stopped,
}

impl Pairing {
    fn word(self) -> &'static str {
        match self {
            Pairing::Both => "both",
            Pairing::Alone => "alone",
            Pairing::Stopped => "stopped",
        }
    }
}

fn file(journal: &Path) -> PathBuf {
    journal.parent().unwrap_or(journal).join(FILE)
}

/// Puts down what the journal in this folder is from now on, beside the other one.
pub(super) fn note(journal: &Path, pairing: Pairing, other: &Path) -> io::Result<()> {
    let other = other.parent().unwrap_or(other).display().to_string().replace('\n', " ");
    durable::write(&file(journal), format!("{TITLE}\n{} {other}\n", pairing.word()).as_bytes(), Access::Owner)
}

/// Of a journal whose mirror is not to be had: where the other one is that may have gone on without it, if it may have.
pub(crate) fn may_be_behind(journal: &Path) -> Option<String> {
    let path = file(journal);
    let text = match text_file::read(&path, 8192) {
        Ok(text) => text,
        Err(text_file::TextError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(format!("a folder that {} does not tell ({error})", path.display())),
    };
    let told = text.strip_prefix(TITLE).and_then(|rest| rest.trim().split_once(' '));
    match told {
        Some(("alone" | "stopped", _)) => None,
        Some(("both", other)) => Some(other.to_owned()),
        _ => Some(format!("a folder that {} does not tell", path.display())),
    }
}

/// Whether this journal goes on without the other one, and has all entries.
fn is_alone(journal: &Path) -> bool {
    says(journal, Pairing::Alone)
}

/// The journal that has all entries: that in this folder, unless the daemon goes on with its mirror alone.
pub fn complete(journal: &Path) -> PathBuf {
    let other = may_be_behind(journal).map(|other| Path::new(&other).join("journal"));
    other.filter(|other| is_alone(other)).unwrap_or_else(|| journal.to_owned())
}

fn says(journal: &Path, pairing: Pairing) -> bool {
    let Ok(text) = text_file::read(&file(journal), 8192) else { return false };
    text.strip_prefix(TITLE).and_then(|rest| rest.split_whitespace().next()) == Some(pairing.word())
}

/// Whether the daemon ended when this journal and the other one had the same.
pub(crate) fn ended_well(journal: &Path) -> bool {
    says(journal, Pairing::Stopped)
}

/// From now on the journal in this folder is taken for what it is, whatever the other one has.
pub(super) fn part(journal: &Path) -> io::Result<()> {
    match may_be_behind(journal) {
        Some(other) => note(journal, Pairing::Alone, &Path::new(&other).join("journal")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]

    use super::*;

    /// Whoever was not told that it is alone may be behind; a damaged file tells nothing.
    #[test]
    fn journal_that_was_written_with_another_may_be_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, other) = (folder.path().join("journal"), Path::new("/other/disk/journal"));
        assert_eq!(may_be_behind(&journal), None);
        for (pairing, behind) in [
            (Pairing::Both, Some("/other/disk".to_owned())),
            (Pairing::Alone, None),
            (Pairing::Both, Some("/other/disk".to_owned())),
            (Pairing::Stopped, None),
        ] {
            note(&journal, pairing, other).unwrap();
            assert_eq!(may_be_behind(&journal), behind);
        }
        assert!(ended_well(&journal));
        let beside = folder.path().join("other/journal");
        note(&journal, Pairing::Both, &beside).unwrap();
        assert_eq!(complete(&journal), journal);
        std::fs::create_dir(folder.path().join("other")).unwrap();
        note(&beside, Pairing::Alone, &journal).unwrap();
        assert_eq!((complete(&journal), complete(&beside)), (beside.clone(), beside));
        part(&journal).unwrap();
        assert_eq!(may_be_behind(&journal), None);
        std::fs::write(folder.path().join(FILE), "birthmark journal mirror 1\nal").unwrap();
        assert!(may_be_behind(&journal).is_some());
    }
}
