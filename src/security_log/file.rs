//! The security log as a file of JSON lines.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{record::Record, sink::Sink};

/// How often it is looked whether the file was moved away, as logrotate does.
const LOOK: Duration = Duration::from_secs(1);

/// A file that records are appended to.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<LogFile> {
        Ok(LogFile { file: open(path)?, path: path.to_owned(), looked: Instant::now() })
    }

    /// Opens the file again if another one, or none, has its name now.
    fn follow(&mut self) -> io::Result<()> {
        if self.looked.elapsed() >= LOOK {
            let ours = self.file.metadata()?.ino();
            if fs::metadata(&self.path).map(|found| found.ino()).ok() != Some(ours) {
                self.file = open(&self.path)?;
            }
            self.looked = Instant::now();
        }
        Ok(())
    }
}

/// For its owner and group only: it names people.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

impl Sink for LogFile {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        self.follow()?;
        // One write a line: what another process reads is whole.
        self.file.write_all(record.to_json().as_bytes())
    }
}
