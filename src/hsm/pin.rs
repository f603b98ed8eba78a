//! PINs and other secrets in files: read so that none is tried that cannot be right, and no copy is left in memory.

use std::{io, os::unix::ffi::OsStringExt, path::Path};

use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use super::{
    error::{Error, PinFault},
    locked,
    uri::TokenUri,
};
use crate::{
    quote::is_invisible,
    secret_file::{self, SecretFileError},
    text_file::{self, TextError},
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
            let octets = secret_file::read(&path, LONGEST_SECRET).map_err(|fault| unusable(&path, fault))?;
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
/// If it cannot be read, is not text, is empty, or if anyone but its owner has access to it.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, Error> {
    let text = secret_file::read_text(path, LONGEST_SECRET).map_err(|fault| unusable(path, fault))?;
    if text.is_empty() { Err(Error::SecretFileEmpty { path: path.to_owned() }) } else { Ok(text) }
}

fn unusable(path: &Path, fault: SecretFileError) -> Error {
    let path = path.to_owned();
    match fault {
        SecretFileError::Exposed { mode } => Error::SecretFileExposed { path, mode },
        SecretFileError::File(TextError::Io(source)) => Error::SecretFile { path, source },
        SecretFileError::File(source) => Error::SecretFileText { path, source },
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]

    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::text_file::EncodingError;

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

    /// What is wrong with a secret's file is told, with the file's name.
    #[test]
    fn secret_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        let with = |content: &[u8], mode: u32| {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read_secret(&path)
        };
        assert_eq!(with(b"1234\r\n", 0o600).unwrap().as_str(), "1234");
        assert!(matches!(with(b"1234", 0o640), Err(Error::SecretFileExposed { mode: 0o640, .. })));
        assert!(matches!(with(b"\n", 0o600), Err(Error::SecretFileEmpty { .. })));
        assert!(matches!(with(&[b'1'; LONGEST_SECRET + 1], 0o600), Err(Error::SecretFileText { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(read_secret(&path), Err(Error::SecretFile { .. })));
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
