//! A bundle as one file: a plain tar (POSIX.1-2001 `ustar`), so that every system reads it.

use std::{
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{
    super::manifest::is_file_name,
    interface::{Sink, SinkError},
};
use crate::durable::{self, Access, Unfinished};

/// The unit of a tar.
pub(in crate::export) const BLOCK: usize = 512;

/// Writes a bundle's files into a tar, which appears whole or not at all.
#[derive(Debug)]
pub struct TarSink {
    path: PathBuf,
    /// The folder that the files are in.
    folder: String,
    unfinished: Unfinished,
    file: BufWriter<std::fs::File>,
    /// The current file: where its header is, and what it is to say.
    current: Option<(u64, String, u64)>,
    /// How many octets there are.
    length: u64,
}

impl TarSink {
    /// For the file `path`, which must not exist; the files in it are below `folder/`.
    ///
    /// # Errors
    /// [`SinkError`].
    pub fn create(path: &Path, folder: &str) -> Result<Self, SinkError> {
        if path.symlink_metadata().is_ok() {
            return Err(SinkError::Exists(path.to_owned()));
        }
        let failed = |cause| SinkError::File { path: path.to_owned(), cause };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            durable::create_folder(parent).map_err(failed)?;
        }
        let unfinished = Unfinished::create(path, Access::Public).map_err(failed)?;
        let file = BufWriter::with_capacity(128 << 10, unfinished.file().try_clone().map_err(failed)?);
        let (path, folder) = (path.to_owned(), folder.to_owned());
        Ok(TarSink { path, folder, unfinished, file, current: None, length: 0 })
    }

    /// Ends the archive, makes it durable and gives it its name.
    ///
    /// # Errors
    /// [`SinkError`]; then there is no file.
    pub fn finish(mut self) -> Result<PathBuf, SinkError> {
        let path = self.path.clone();
        let failed = |cause| SinkError::File { path: path.clone(), cause };
        self.close().map_err(failed)?;
        self.append(&[0; 2 * BLOCK]).and_then(|()| self.file.flush()).map_err(failed)?;
        drop(self.file);
        self.unfinished.finish_new().map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => SinkError::Exists(path.clone()),
            _ => failed(cause),
        })?;
        Ok(path)
    }

    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        self.length += octets.len() as u64;
        self.file.write_all(octets)
    }

    fn begin(&mut self, path: String) -> io::Result<()> {
        self.close()?;
        self.current = Some((self.length, path, 0));
        self.append(&[0; BLOCK])
    }

    /// Pads the current file and writes its header, which knows its size.
    fn close(&mut self) -> io::Result<()> {
        let Some((at, name, size)) = self.current.take() else { return Ok(()) };
        let header = header(&name, size).ok_or(io::ErrorKind::InvalidInput)?;
        let over = self.length as usize % BLOCK;
        if over > 0 {
            self.append(&[0; BLOCK][over..])?;
        }
        self.file.seek(SeekFrom::Start(at))?;
        self.file.write_all(&header)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        Ok(())
    }
}

impl Sink for TarSink {
    fn start(&mut self, name: &str) -> Result<(), SinkError> {
        let path = format!("{}/{name}", self.folder);
        if !is_file_name(name) || split(&path).is_none() {
            return Err(SinkError::Name(name.to_owned()));
        }
        self.begin(path).map_err(|cause| SinkError::File { path: self.path.clone(), cause })
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), SinkError> {
        let written = match &mut self.current {
            Some((_, _, size)) => {
                *size += octets.len() as u64;
                self.append(octets)
            }
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        written.map_err(|cause| SinkError::File { path: self.path.clone(), cause })
    }
}

/// The fields `prefix` and `name` of a path; none if it has no slash where it must be cut.
fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= 100 {
        return Some(("", path));
    }
    let mut cuts = path.match_indices('/').map(|(at, _)| (path.get(..at), path.get(at + 1..)));
    cuts.find_map(|cut| match cut {
        (Some(prefix), Some(name)) if prefix.len() <= 155 && name.len() <= 100 => Some((prefix, name)),
        _ => None,
    })
}

/// The header of a file that everyone may read. Its times are 0, so that the same bundle is the same tar. None if it is
/// too large for the form (8 GiB).
fn header(path: &str, size: u64) -> Option<[u8; BLOCK]> {
    let (prefix, name) = split(path)?;
    let mut header = [0; BLOCK];
    let mut put = |at: usize, octets: &[u8]| -> Option<()> {
        header.get_mut(at..at + octets.len())?.copy_from_slice(octets);
        Some(())
    };
    put(0, name.as_bytes())?;
    put(100, b"0000644\0")?;
    put(108, b"0000000\0")?;
    put(116, b"0000000\0")?;
    let size = format!("{size:011o}\0");
    if size.len() > 12 {
        return None;
    }
    put(124, size.as_bytes())?;
    put(136, b"00000000000\0")?;
    put(148, b"        ")?;
    put(156, b"0")?;
    put(257, b"ustar\x0000")?;
    put(345, prefix.as_bytes())?;
    let sum: u32 = header.iter().map(|octet| u32::from(*octet)).sum();
    header.get_mut(148..156)?.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(header)
}
