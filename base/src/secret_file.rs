//! Files that hold a secret: a private key, a PIN, a password. On Unix nobody but its owner may have any access to one.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use zeroize::Zeroizing;

use crate::text_file::{self, TextError};

/// Why a file with a secret is not used. The messages do not name the file.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read, or taken for text.
    #[error(transparent)]
    File(#[from] TextError),
    /// Others than its owner may read, write or execute it.
    #[error(
        "it is open to others (mode {mode:04o}); run chmod 600 on it, and replace the secret if somebody may have read it"
    )]
    Exposed {
        /// Its permission bits.
        mode: u32,
    },
}

impl From<io::Error> for SecretFileError {
    fn from(error: io::Error) -> Self {
        SecretFileError::File(error.into())
    }
}

/// Reads the octets of a secret, at most `longest` of them. It must be in a regular file: a pipe would block, and whoever
/// else opens it would take the secret away; a device has no end. What is checked is the file that is read.
///
/// # Errors
/// See [`SecretFileError`].
pub fn read(path: &Path, longest: usize) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let file = text_file::open_regular(path)?;
    check_private(&file)?;
    // Room for all of it from the start: a buffer that grows leaves copies of the secret in memory.
    let mut octets = Zeroizing::new(Vec::with_capacity(longest + 1));
    file.take(longest as u64 + 1).read_to_end(&mut octets)?;
    if octets.len() > longest { Err(TextError::TooLong(longest as u64).into()) } else { Ok(octets) }
}

/// Reads a secret that is text, without the line ends at its end, which an editor adds and nobody means.
///
/// # Errors
/// See [`SecretFileError`].
pub fn read_text(path: &Path, longest: usize) -> Result<Zeroizing<String>, SecretFileError> {
    let octets = read(path, longest)?;
    let mut text = Zeroizing::new(text_file::decode(&octets).map_err(TextError::from)?.into_owned());
    let length = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(length);
    Ok(text)
}

#[cfg(unix)]
fn check_private(file: &File) -> Result<(), SecretFileError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 { Err(SecretFileError::Exposed { mode }) } else { Ok(()) }
}

/// On Windows the access control list of the folder says who may read the file, and no program that its user starts can
/// tell whether that list is as it should be.
#[cfg(not(unix))]
fn check_private(_: &File) -> Result<(), SecretFileError> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]

    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn secret_that_others_have_any_access_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "12 34 \r\n\n").unwrap();
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o700, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
            (0o610, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match read_text(&path, 100) {
                Ok(text) => assert!(good && text.as_str() == "12 34 ", "{mode:o}"),
                Err(error) => {
                    let said = error.to_string();
                    assert!(!good && said.contains("chmod 600") && said.contains(&format!("{mode:04o}")), "{said}");
                }
            }
        }
    }

    #[test]
    fn secret_of_the_greatest_length_is_read_and_a_longer_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "12345").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&path, 5).unwrap().as_slice(), b"12345");
        assert!(matches!(read(&path, 4), Err(SecretFileError::File(TextError::TooLong(4)))));
        fs::write(&path, "").unwrap();
        assert_eq!(read_text(&path, 5).unwrap().as_str(), "");
        fs::write(&path, "12\u{ff}".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()).unwrap();
        assert!(matches!(read_text(&path, 100), Err(SecretFileError::File(TextError::Encoding(_)))));
        assert!(matches!(read(&folder.path().join("none"), 5), Err(SecretFileError::File(TextError::Io(_)))));
    }

    /// To open a pipe would wait for its writer, and a device may have no end.
    #[test]
    fn secret_in_a_pipe_or_device_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pin");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for (path, kind) in [(pipe.as_path(), "pipe"), (Path::new("/dev/zero"), "device"), (folder.path(), "folder")] {
            let read = read(path, 100);
            let refused = matches!(&read, Err(SecretFileError::File(TextError::NotAFile(found))) if *found == kind);
            assert!(refused, "{}", path.display());
        }
    }
}
