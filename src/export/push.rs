//! Hands the bundles of a folder, one after another, to a program of the site, which carries them on: rsync, sftp, `aws s3`.
//!
//! What was handed over is a line of a state file, written after the program has exited with 0: after a crash between the
//! two the program gets the bundle once more, never another one instead.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use super::{
    manifest::batch_id,
    verify::{VerifyError, verify},
};
use crate::{
    durable::{self, Access},
    file_lock::lock_file,
    quote::quoted,
    signer::PublicKey,
    text_file::{self, TextError},
};

/// The longest state, in bytes: a line.
const LONGEST_STATE: u64 = 4096;

/// What is pushed, and how.
#[derive(Clone, Debug)]
pub struct PushSettings {
    /// The destination, whose bundles are taken.
    pub destination: String,
    /// Where the daemon writes them.
    pub folder: PathBuf,
    /// What was handed over.
    pub state: PathBuf,
    /// What the shell runs for each bundle; its path is in the environment.
    pub command: String,
    /// Each bundle is verified with one of these keys before; not at all without one.
    pub keys: Vec<PublicKey>,
}

/// Why a bundle was not handed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// A file cannot be read or written.
    #[error("{}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// Another process does the same.
    #[error("another birthmark export push uses {}", .0.display())]
    Busy(PathBuf),
    /// The state is not of this destination, or is none.
    #[error("{}: {what} is not the id of a batch of {destination}; its line is the last batch that was handed over", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What it says.
        what: String,
        /// Whose it should be.
        destination: String,
    },
    /// A bundle between is missing: what a later one withdraws may have gone out in it.
    #[error(
        "{missing} is not in {}, and {present} is; put it there (birthmark export get {missing}), or if it has reached the \
         platform on another way, write {missing} into {}",
        folder.display(),
        state.display()
    )]
    Gap {
        /// The batch that would be next.
        missing: String,
        /// The one that is there.
        present: String,
        /// Where they should be.
        folder: PathBuf,
        /// What was handed over.
        state: PathBuf,
    },
    /// It is not whole.
    #[error("{batch} is not to be used: {cause}")]
    Invalid {
        /// The batch.
        batch: String,
        /// What is wrong.
        cause: VerifyError,
    },
    /// The program failed.
    #[error("the command for {batch} did not succeed: {status}")]
    Command {
        /// The batch.
        batch: String,
        /// How it ended.
        status: ExitStatus,
    },
}

/// One that hands bundles over; there is one for a state file at a time.
#[derive(Debug)]
pub struct Push {
    settings: PushSettings,
    _lock: File,
    /// The number of the last that was handed over; 0 before the first.
    done: u32,
}

impl Push {
    /// Reads what was handed over, and keeps others from doing the same.
    ///
    /// # Errors
    /// [`PushError`].
    pub fn open(settings: PushSettings) -> Result<Self, PushError> {
        let lock_path = settings.state.with_added_extension("lock");
        let failed = |cause| PushError::File { path: lock_path.clone(), cause };
        let lock = File::options().create(true).append(true).open(&lock_path).map_err(failed)?;
        if !lock_file(&lock).map_err(failed)? {
            return Err(PushError::Busy(settings.state));
        }
        let done = read_state(&settings)?;
        Ok(Push { settings, _lock: lock, done })
    }

    /// Hands the next bundle over. None if there is none.
    ///
    /// # Errors
    /// [`PushError`]; the same bundle is tried again next time.
    pub fn hand_over(&mut self) -> Result<Option<String>, PushError> {
        let PushSettings { destination, folder, state, command, keys } = &self.settings;
        let Some((number, path)) = next_bundle(destination, folder, self.done)? else { return Ok(None) };
        let batch = batch_id(destination, number);
        if self.done > 0 && number > self.done.saturating_add(1) {
            let missing = batch_id(destination, self.done.saturating_add(1));
            return Err(PushError::Gap { missing, present: batch, folder: folder.clone(), state: state.clone() });
        }
        if !keys.is_empty() {
            let verified = verify(&path, keys, &|_| {});
            let named = verified.and_then(|verified| verified.must_be(&batch));
            named.map_err(|cause| PushError::Invalid { batch: batch.clone(), cause })?;
        }
        let run = Command::new("/bin/sh")
            .args(["-c", command, "birthmark"])
            .arg(&path)
            .env("BIRTHMARK_BUNDLE", &path)
            .env("BIRTHMARK_BATCH", &batch)
            .stdin(Stdio::null())
            .status();
        match run {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(PushError::Command { batch, status }),
            Err(cause) => return Err(PushError::File { path: "/bin/sh".into(), cause }),
        }
        let written = durable::write(state, format!("{batch}\n").as_bytes(), Access::Public);
        written.map_err(|cause| PushError::File { path: state.clone(), cause })?;
        self.done = number;
        Ok(Some(batch))
    }
}

fn read_state(settings: &PushSettings) -> Result<u32, PushError> {
    let PushSettings { destination, state, .. } = settings;
    let text = match text_file::read(state, LONGEST_STATE) {
        Ok(text) => text,
        Err(TextError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(PushError::File { path: state.clone(), cause: io::Error::other(error) }),
    };
    let number = number_of(text.trim(), destination);
    let what = || quoted(text.trim());
    number.ok_or_else(|| PushError::State { path: state.clone(), what: what(), destination: destination.clone() })
}

/// The number of a batch of this destination, by its id.
fn number_of(id: &str, destination: &str) -> Option<u32> {
    let number = id.strip_prefix(destination)?.strip_prefix('.')?.parse().ok()?;
    (batch_id(destination, number) == id).then_some(number)
}

/// The first bundle after this number: a folder or a tar.
fn next_bundle(destination: &str, folder: &Path, done: u32) -> Result<Option<(u32, PathBuf)>, PushError> {
    let failed = |cause| PushError::File { path: folder.to_owned(), cause };
    let mut next: Option<(u32, PathBuf)> = None;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = number_of(name.strip_suffix(".tar").unwrap_or(name), destination);
        let Some(number) = number.filter(|number| *number > done) else { continue };
        // Of both forms the folder, whose name is the shorter one.
        if next.as_ref().is_none_or(|(first, other)| (number, &path) < (*first, other)) {
            next = Some((number, path));
        }
    }
    match next {
        Some((number, path)) => Ok(Some((number, std::path::absolute(&path).unwrap_or(path)))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
