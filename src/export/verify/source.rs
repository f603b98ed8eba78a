//! The files of a bundle, in a folder or in a tar.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    super::sink::tar::BLOCK,
    error::{Fault, VerifyError},
};
use crate::text_file;

/// Where the files are.
#[derive(Debug)]
pub(crate) enum Source {
    /// Each file's length.
    Folder(PathBuf, BTreeMap<String, u64>),
    /// Where each file begins, and its length.
    Tar(File, BTreeMap<String, (u64, u64)>),
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Source, VerifyError> {
        let shown = path.display().to_string();
        let metadata = fs::metadata(path).map_err(|error| VerifyError::new(&shown, error))?;
        if metadata.is_dir() {
            let mut files = BTreeMap::new();
            list(path, "", &mut files)?;
            return Ok(Source::Folder(path.to_owned(), files));
        }
        let file = File::open(path).map_err(|error| VerifyError::new(&shown, error))?;
        let files = list_tar(&file, metadata.len()).map_err(|fault| VerifyError::new(&shown, fault))?;
        Ok(Source::Tar(file, files))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let (folder, tar) = match self {
            Source::Folder(_, files) => (Some(files), None),
            Source::Tar(_, files) => (None, Some(files)),
        };
        let folder = folder.into_iter().flatten().map(|(name, _)| name.as_str());
        folder.chain(tar.into_iter().flatten().map(|(name, _)| name.as_str()))
    }

    pub(super) fn length(&self, name: &str) -> Option<u64> {
        match self {
            Source::Folder(_, files) => files.get(name).copied(),
            Source::Tar(_, files) => files.get(name).map(|(_, length)| *length),
        }
    }

    /// The content of a file, of at most `longest` octets and one more.
    pub(crate) fn read(&self, name: &str, longest: u64) -> Result<Vec<u8>, VerifyError> {
        let length = self.length(name).ok_or_else(|| VerifyError::new(name, Fault::Missing))?;
        let length = usize::try_from(length.min(longest.saturating_add(1))).unwrap_or(usize::MAX);
        let read = match self {
            Source::Folder(root, _) => {
                // What it is may have changed since it was listed.
                let file = text_file::open_regular(&root.join(name));
                let file = file.map_err(|error| VerifyError::new(name, Fault::Malformed(error.to_string())))?;
                let mut octets = Vec::with_capacity(length);
                file.take(longest.saturating_add(1)).read_to_end(&mut octets).map(|_| octets)
            }
            Source::Tar(file, files) => {
                let at = files.get(name).map(|(at, _)| *at).unwrap_or_default();
                let mut octets = vec![0; length];
                file.read_exact_at(&mut octets, at).map(|()| octets)
            }
        };
        read.map_err(|error| VerifyError::new(name, error))
    }
}

fn list(folder: &Path, prefix: &str, files: &mut BTreeMap<String, u64>) -> Result<(), VerifyError> {
    let shown = if prefix.is_empty() { folder.display().to_string() } else { prefix.to_owned() };
    let failed = |error: io::Error| VerifyError::new(&shown, error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = entry.metadata().map_err(|error| VerifyError::new(&name, error))?;
        if metadata.is_dir() {
            list(&entry.path(), &format!("{name}/"), files)?;
        } else if metadata.is_file() {
            files.insert(name, metadata.len());
        } else {
            let reason = "it is a link or a device; a bundle has files alone".to_owned();
            return Err(VerifyError::new(name, Fault::Malformed(reason)));
        }
    }
    Ok(())
}

/// Reads the headers of a plain tar (POSIX.1-2001 `ustar`).
fn list_tar(file: &File, length: u64) -> Result<BTreeMap<String, (u64, u64)>, Fault> {
    let mut files = BTreeMap::new();
    let mut at = 0;
    let mut folder: Option<String> = None;
    loop {
        let mut block = [0; BLOCK];
        file.read_exact_at(&mut block, at).map_err(|_| malformed("it is no tar, or it was cut off"))?;
        if block == [0; BLOCK] {
            break;
        }
        let header = Header::read(&block)?;
        at += BLOCK as u64;
        let padded = header.size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64);
        let end = at.checked_add(padded).filter(|end| *end <= length).ok_or_else(|| malformed("it was cut off"))?;
        check_zeros(file, at + header.size, end)?;
        match (header.kind, header.path.split_once('/')) {
            // Other programs that pack it name folders too.
            (b'5', _) => {}
            (b'0' | 0, Some((first, name))) => {
                if folder.get_or_insert_with(|| first.to_owned()) != first {
                    return Err(malformed("its files are in several folders"));
                }
                if files.insert(name.to_owned(), (at, header.size)).is_some() {
                    return Err(malformed(&format!("it has {name} twice")));
                }
            }
            _ => {
                let path = crate::quote::quoted(&header.path);
                return Err(malformed(&format!(
                    "{path} is not a file in a folder; pack the bundle's folder with tar --format=ustar"
                )));
            }
        }
        at = end;
    }
    if !length.is_multiple_of(BLOCK as u64) || length < at + 2 * BLOCK as u64 {
        return Err(malformed("it was cut off"));
    }
    check_zeros(file, at, length)?;
    Ok(files)
}

fn malformed(reason: &str) -> Fault {
    Fault::Malformed(reason.to_owned())
}

/// What is not content must be nothing.
fn check_zeros(file: &File, mut from: u64, end: u64) -> Result<(), Fault> {
    while from < end {
        let mut piece = [0; 16 * BLOCK];
        let length = (end - from).min(piece.len() as u64) as usize;
        let piece = piece.get_mut(..length).unwrap_or_default();
        file.read_exact_at(piece, from)?;
        if piece.iter().any(|octet| *octet != 0) {
            return Err(malformed(&format!("it has something between its files, at octet {from} or after it")));
        }
        from += length as u64;
    }
    Ok(())
}

struct Header {
    path: String,
    size: u64,
    kind: u8,
}

impl Header {
    fn read(block: &[u8; BLOCK]) -> Result<Header, Fault> {
        let field = |at: usize, length: usize| block.get(at..at + length).unwrap_or_default();
        let text = |at: usize, length: usize| {
            let field = field(at, length).split(|octet| *octet == 0).next().unwrap_or_default();
            std::str::from_utf8(field).map_err(|_| malformed("a name in it is not UTF-8"))
        };
        let octal = |at: usize, length: usize| {
            u64::from_str_radix(text(at, length)?.trim_matches(' '), 8)
                .map_err(|_| malformed("it has a header that is none"))
        };
        let sum: u64 = block.iter().map(|octet| u64::from(*octet)).sum();
        let own: u64 = field(148, 8).iter().map(|octet| u64::from(*octet)).sum();
        if field(257, 5) != b"ustar"
            || field(148, 8) != format!("{:06o}\0 ", sum - own + 8 * u64::from(b' ')).as_bytes()
        {
            return Err(malformed("it is no plain tar, or a header in it was changed"));
        }
        let (prefix, name) = (text(345, 155)?, text(0, 100)?);
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        let kind = field(156, 1).first().copied().unwrap_or_default();
        Ok(Header { path, size: octal(124, 12)?, kind })
    }
}
