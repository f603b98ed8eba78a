//! Public keys that no device may have, however good they look: the site's block list, and the site's own CAs' keys.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use super::error::CsrError;
use crate::{
    quote::shortened,
    signer::PublicKey,
    text_file::{self, TextError},
};

/// Why a block list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BlockListError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: TextError,
    },
    /// A line is no hash.
    #[error("{}:{line}: \"{hash}\" is not a SHA-256 in 64 hex digits", path.display())]
    NotAHash {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What stands there, shortened.
        hash: String,
    },
}

/// Keys known by the SHA-256 of their DER SubjectPublicKeyInfo.
#[derive(Debug, Default)]
pub struct RefusedKeys {
    blocked: HashSet<[u8; 32]>,
    /// The keys of CAs, and whose they are.
    authorities: HashMap<[u8; 32], String>,
}

impl RefusedKeys {
    /// Adds a block list: a file with a SHA-256 in hex a line; empty lines, and what follows a `#`, are ignored.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn read(&mut self, path: &Path) -> Result<(), BlockListError> {
        let text = text_file::read(path, text_file::LONGEST);
        let text = text.map_err(|cause| BlockListError::Read { path: path.to_owned(), cause })?;
        for (index, line) in text_file::lines(&text).enumerate() {
            let hash = line.split('#').next().unwrap_or_default().trim();
            if hash.is_empty() {
                continue;
            }
            let mut octets = [0; 32];
            hex::decode_to_slice(hash, &mut octets).map_err(|_| {
                let (path, hash) = (path.to_owned(), shortened(hash));
                BlockListError::NotAHash { path, line: index + 1, hash }
            })?;
            self.blocked.insert(octets);
        }
        Ok(())
    }

    /// Adds the key of a CA, which the message calls `whose`.
    pub fn add_authority(&mut self, key: &PublicKey, whose: &str) {
        self.authorities.insert(key.hash(), whose.to_owned());
    }

    /// The number of keys on the block list.
    #[cfg(test)]
    pub(super) fn blocked(&self) -> usize {
        self.blocked.len()
    }

    pub(super) fn check(&self, key: &PublicKey) -> Result<(), CsrError> {
        let hash = key.hash();
        if let Some(whose) = self.authorities.get(&hash) {
            return Err(CsrError::KeyWeak(format!("it is the key of {whose}; a device needs a key of its own")));
        }
        if self.blocked.contains(&hash) {
            return Err(CsrError::KeyWeak(format!(
                "it is on the site's block list (SHA-256 of the SubjectPublicKeyInfo: {}); make a new one",
                hex::encode(hash)
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]

    use super::*;

    #[test]
    fn block_list_with_any_line_ends_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        for end in ["\n", "\r\n", "\r", "\u{2028}"] {
            std::fs::write(&path, format!("# leaked keys{end}{}{end}", "ab".repeat(32))).unwrap();
            let mut keys = RefusedKeys::default();
            keys.read(&path).unwrap();
            assert_eq!(keys.blocked(), 1, "{end:?}");
        }
    }
}
