//! PINs and other secrets in files: read so that none is tried that cannot be right, and no copy is left in memory.

use std::{
    io::{self, Read},
    os::unix::{ffi::OsStringExt, fs::PermissionsExt},
    path::Path,
};

use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use super::{
    error::{Error, PinFault},
    locked,
    uri::TokenUri,
};
use crate::{
    quote::is_invisible,
    text_file::{self, EncodingError, TextError},
};

/// The environment variable that holds the PIN where the URI has no pin-source.
const PIN_VARIABLE: &str = "BIRTHMARK_PIN";

/// The longest file that holds a secret, in bytes.
const LONGEST_SECRET: usize = 64 << 10;

/// Asks a person for the PIN of the token with this name.
pub type AskPin<'a> = &'a dyn Fn(&str) -> io::Result<Zeroizing<String>>;

/// A user PIN. It is kept out of swap space, erased when dropped, and shows itself nowhere.
///
/// What else holds it, and for how long: the file's octets and their text, until this is made, and cryptoki's `AuthPin` (a copy on
/// the heap), during a login; all of them are erased, but not locked. `BIRTHMARK_PIN` stays in the process' environment, and what
/// the PKCS#11 module does with its copy is the module's: neither can be erased here. None of it leaves in a core dump
/// ([`crate::secrecy`]).
#[derive(PartialEq, Eq)]
pub(super) struct Pin(Zeroizing<String>);

impl Pin {
    /// Takes a PIN as people and programs save it: in UTF-8 or UTF-16, with a byte order mark and a line end. Blanks at
    /// its ends are kept: PKCS#11 allows any UTF-8 in a PIN (v2.40 section 2.1), and there would be no other way to
    /// write such a one down. When the token refuses it, the error names them.
    fn from_octets(octets: &[u8]) -> Result<Pin, PinFault> {
        let text = Zeroizing::new(text_file::decode(octets)?.into_owned());
        let pin = text.trim_end_matches(['\r', '\n']);
        let wrong = |character: &char| character.is_control() || is_invisible(*character);
        match pin.chars().find(wrong) {
            None if pin.is_empty() => Err(PinFault::Empty),
            None => {
                let pin = Zeroizing::new(pin.to_owned());
                if let Err(error) = locked::lock(pin.as_bytes()) {
                    tracing::warn!(%error, "the memory of a PIN cannot be locked, and may be written to swap space; raise LimitMEMLOCK=");
                }
                Ok(Pin(pin))
            }
            Some('\r' | '\n') => Err(PinFault::Lines),
            Some(other) => Err(PinFault::Character(other.into())),
        }
    }

    /// Asks a person.
    pub(super) fn asked(token: &str, ask: AskPin<'_>) -> Result<Pin, Error> {
        let typed = ask(token).map_err(|source| Error::PinNotTyped { token: token.to_owned(), source })?;
        let place = || format!("what was typed for the token \"{token}\"");
        Pin::from_octets(typed.as_bytes()).map_err(|fault| Error::PinMalformed { place: place(), fault })
    }

    /// Whether it begins or ends with a blank, which a slip of the editor adds more often than a token's owner wants
    /// it.
    pub(super) fn has_outer_blank(&self) -> bool {
        self.0.trim().len() != self.0.len()
    }

    /// For one login.
    pub(super) fn for_login(&self) -> AuthPin {
        AuthPin::from(self.0.as_str().to_owned())
    }

    #[cfg(test)]
    pub(super) fn new(pin: &str) -> Pin {
        Pin(Zeroizing::new(pin.to_owned()))
    }
}

impl TokenUri {
    /// The PIN: from the file that pin-source names, otherwise from the environment.
    ///
    /// # Errors
    /// If there is none, its file cannot be read or is open to others, or it cannot be a PIN.
    pub(super) fn pin(&self, base_dir: &Path) -> Result<Pin, Error> {
        let malformed = |place: String| move |fault| Error::PinMalformed { place, fault };
        if let Some(path) = &self.pin_source {
            let path = base_dir.join(path);
            let octets = read_secret_octets(&path)?;
            return Pin::from_octets(&octets).map_err(|fault| match fault {
                PinFault::Empty => Error::SecretFileEmpty { path },
                fault => malformed(format!("the secret file {}", path.display()))(fault),
            });
        }
        match std::env::var_os(PIN_VARIABLE).map(|pin| Zeroizing::new(pin.into_vec())) {
            Some(octets) if !octets.is_empty() => {
                Pin::from_octets(&octets).map_err(malformed(format!("the environment variable {PIN_VARIABLE}")))
            }
            _ => Err(self.no_pin(false)),
        }
    }

    /// Whether the file that pin-source names, if it names one, can be read and holds what may be a PIN.
    ///
    /// # Errors
    /// If it cannot be read, is open to others, or cannot be a PIN.
    pub fn check_pin_file(&self, base_dir: &Path) -> Result<(), Error> {
        if self.pin_source.is_some() { self.pin(base_dir).map(drop) } else { Ok(()) }
    }

    /// That there is none; of several tokens the environment's is for none.
    pub(super) fn no_pin(&self, one_of_several: bool) -> Error {
        Error::PinMissing { token: self.label.clone().unwrap_or_else(|| self.to_string()), one_of_several }
    }
}

/// Reads a text file that holds a secret (a private key in PEM), without its trailing line end.
///
/// # Errors
/// If it cannot be read, is not text, is empty, or if anyone but its owner may read it.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, Error> {
    let octets = read_secret_octets(path)?;
    let failed = |error: EncodingError| Error::SecretFileText { path: path.to_owned(), source: error.into() };
    let mut text = Zeroizing::new(text_file::decode(&octets).map_err(failed)?.into_owned());
    let length = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(length);
    if text.is_empty() {
        return Err(Error::SecretFileEmpty { path: path.to_owned() });
    }
    Ok(text)
}

/// The octets of a regular file that is for its owner's eyes only. A pipe would block, and whoever else opens it would
/// take the secret away; a device has no end.
fn read_secret_octets(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let io = |source: io::Error| Error::SecretFile { path: path.to_owned(), source };
    let unusable = |source| Error::SecretFileText { path: path.to_owned(), source };
    let file = text_file::open_regular(path).map_err(|error| match error {
        TextError::Io(source) => io(source),
        other => unusable(other),
    })?;
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::SecretFileExposed { path: path.to_owned(), mode });
    }
    // Room for all of it from the start: a buffer that grows leaves copies of the secret in memory.
    let mut octets = Zeroizing::new(Vec::with_capacity(LONGEST_SECRET + 1));
    file.take(LONGEST_SECRET as u64 + 1).read_to_end(&mut octets).map_err(io)?;
    if octets.len() > LONGEST_SECRET {
        return Err(unusable(TextError::TooLong(LONGEST_SECRET as u64)));
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]

    use super::*;
    use std::fs;

    fn utf16(text: &str, octets: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(octets).collect()
    }

    #[test]
    fn pin_as_programs_save_it_is_read() {
        for saved in [
            b"1234".to_vec(),
            b"1234\n".to_vec(),
            b"1234\r\n".to_vec(),
            b"1234\n\n".to_vec(),
            b"\xef\xbb\xbf1234\r\n".to_vec(),
            utf16("\u{feff}1234\r\n", u16::to_le_bytes),
            utf16("\u{feff}1234", u16::to_be_bytes),
        ] {
            assert!(Pin::from_octets(&saved) == Ok(Pin::new("1234")), "{saved:?}");
        }
        assert!(Pin::from_octets("pass phrasé ".as_bytes()) == Ok(Pin::new("pass phrasé ")));
    }

    /// Octets that cannot be a PIN are refused.
    #[test]
    fn pin_file_with_other_octets_is_refused() {
        for (saved, fault) in [
            (b"\xef\xbb\xbf\r\n".to_vec(), PinFault::Empty),
            (b"12\x0034".to_vec(), PinFault::Character(0)),
            (b"1234\0".to_vec(), PinFault::Character(0)),
            (b"1234\n\0".to_vec(), PinFault::Lines),
            (b"12\t34".to_vec(), PinFault::Character(9)),
            (b"1234\n5678\n".to_vec(), PinFault::Lines),
            (b"1234\r5678".to_vec(), PinFault::Lines),
            (b"\n1234".to_vec(), PinFault::Lines),
            ("\u{feff}\u{feff}1234".into(), PinFault::Character(0xfeff)),
            (b"12\xff".to_vec(), PinFault::Encoding(EncodingError::Utf8Invalid { at: 2 })),
            (utf16("1234", u16::to_le_bytes), PinFault::Encoding(EncodingError::Utf16Unmarked)),
            (utf16("1234", u16::to_be_bytes), PinFault::Encoding(EncodingError::Utf16Unmarked)),
        ] {
            match Pin::from_octets(&saved) {
                Err(found) => assert!(found == fault && !found.to_string().contains("34"), "{saved:?}: {found}"),
                Ok(_) => panic!("{saved:?} was taken"),
            }
        }
    }

    /// A file with a PIN that others can read is refused.
    #[test]
    fn pin_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        fs::write(&path, "1234\r\n").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o610, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = read_secret(&path);
            assert_eq!(read.is_ok(), good, "{mode:o}");
            match read {
                Ok(secret) => assert_eq!(secret.as_str(), "1234"),
                Err(error) => assert!(error.to_string().contains("chmod 600"), "{error}"),
            }
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "\n").unwrap();
        assert!(matches!(read_secret(&path), Err(Error::SecretFileEmpty { .. })));
        fs::write(&path, vec![b'1'; LONGEST_SECRET + 1]).unwrap();
        assert!(matches!(read_secret(&path), Err(Error::SecretFileText { source: TextError::TooLong(_), .. })));
        assert!(matches!(read_secret(&folder.path().join("none")), Err(Error::SecretFile { .. })));
    }

    /// To open a pipe would wait for its writer, and a device may have no end.
    #[test]
    fn secret_in_a_pipe_or_device_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pin");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for (path, kind) in [(pipe.as_path(), "pipe"), (Path::new("/dev/zero"), "device"), (folder.path(), "folder")] {
            match read_secret(path) {
                Err(Error::SecretFileText { source: TextError::NotAFile(found), .. }) => assert_eq!(found, kind),
                other => panic!("{}: {other:?}", path.display()),
            }
        }
    }

    /// A blank at an end of a PIN counts, so a refusal can name it.
    #[test]
    fn blank_at_an_end_of_a_pin_is_noticed() {
        for (saved, blank) in [("1234\n", false), ("12 34\r\n", false), ("1234 \n", true), (" 1234", true)] {
            let pin = Pin::from_octets(saved.as_bytes()).unwrap_or_else(|fault| panic!("{fault}"));
            assert_eq!(pin.has_outer_blank(), blank, "{saved:?}");
        }
        for outer_blank in [false, true] {
            let said = Error::PinIncorrect { token: "t".into(), outer_blank }.to_string();
            assert_eq!(said.contains("blank"), outer_blank, "{said}");
        }
    }
}
