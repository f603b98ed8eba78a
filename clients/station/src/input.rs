//! What to sign: which kind of input a path is.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Every CSR that is in the folder now.
    Folder(PathBuf),
    /// One CSR.
    File(PathBuf),
    /// JSON lines from a file.
    Lines(PathBuf),
    /// JSON lines from standard input, while the producer still writes.
    StandardInput,
    /// Every CSR that is in the folder or comes later.
    Watch {
        /// The folder.
        folder: PathBuf,
        /// The polling interval.
        poll: Duration,
        /// How long a file that is not whole must be unchanged until it is final.
        settle: Duration,
        /// After how many days what was done or refused is removed; 0: never.
        keep_days: u16,
    },
}

/// An input, or a part of it, that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {name}: {source}")]
pub struct InputError {
    /// The path, or "standard input".
    pub name: String,
    /// Why not.
    pub source: io::Error,
}

impl Input {
    /// Finds out what kind of input a path is; `-` is standard input.
    ///
    /// # Errors
    /// If there is no such file or folder.
    pub fn at(path: &Path) -> Result<Self, InputError> {
        if path == Path::new("-") {
            return Ok(Input::StandardInput);
        }
        let metadata = fs::metadata(path).map_err(|source| InputError { name: path.display().to_string(), source })?;
        let path = path.to_owned();
        Ok(match extension(&path).as_deref() {
            _ if metadata.is_dir() => Input::Folder(path),
            Some("jsonl" | "ndjson") => Input::Lines(path),
            _ => Input::File(path),
        })
    }

    /// The path, or "standard input".
    pub fn name(&self) -> String {
        match self {
            Input::Folder(path) | Input::File(path) | Input::Lines(path) | Input::Watch { folder: path, .. } => {
                path.display().to_string()
            }
            Input::StandardInput => "standard input".to_owned(),
        }
    }
}

/// The ending of a file's name, in lower case.
pub(super) fn extension(path: &Path) -> Option<String> {
    path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_that_does_not_exist_is_named() {
        let error = Input::at(Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all"), "{error}");
        assert_eq!(Input::at(Path::new("-")).unwrap(), Input::StandardInput);
    }
}
