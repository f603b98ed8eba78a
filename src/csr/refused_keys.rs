//! Public keys that no device may have, however good they look: the site's block list, and the site's own CAs' keys.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use super::CsrError;
use crate::{quote::shortened, signer::PublicKey, text_file};

/// Keys known by the SHA-256 of their DER SubjectPublicKeyInfo.
#[derive(Debug, Default)]
pub struct RefusedKeys {
    blocked: HashSet<[u8; 32]>,
    /// The keys of CAs, and whose they are.
    authorities: HashMap<[u8; 32], String>,
}

impl RefusedKeys {
    /// Adds a block list: a file with a SHA-256 in hex a line; empty lines, and what follows a `#`, are nothing.
    ///
    /// # Errors
    /// A sentence that names the line.
    pub fn read(&mut self, path: &Path) -> Result<(), String> {
        let text = text_file::read(path, text_file::LONGEST);
        let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        for (index, line) in text_file::lines(&text).enumerate() {
            let hash = line.split('#').next().unwrap_or_default().trim();
            if hash.is_empty() {
                continue;
            }
            let mut octets = [0; 32];
            hex::decode_to_slice(hash, &mut octets).map_err(|_| {
                format!("{}:{}: \"{}\" is not a SHA-256 in 64 hex digits", path.display(), index + 1, shortened(hash))
            })?;
            self.blocked.insert(octets);
        }
        Ok(())
    }

    /// Adds the key of a CA, which the message calls `whose`.
    pub fn add_authority(&mut self, key: &PublicKey, whose: &str) {
        self.authorities.insert(key.hash(), whose.to_owned());
    }

    /// How many keys are on the block list.
    pub fn blocked(&self) -> usize {
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
    #![allow(clippy::disallowed_methods)]

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
