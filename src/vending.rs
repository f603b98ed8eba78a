//! Vending codes as people and devices have them: 128 random bits in Crockford's base32 with a check symbol, of which only a
//! slow hash is kept.
//!
//! <https://www.crockford.com/base32.html>: no I, L, O and U; the check symbol is the number modulo 37.

use std::{io, path::Path};

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use crate::{
    durable::{self, Access},
    ledger::{Cost, HashedCode},
};

/// What a new code's hash costs: some milliseconds. The code itself has 128 bits, so that this only has to slow down who
/// guesses, and not to protect a bad password.
pub const COST: Cost = Cost { memory_kib: 8192, passes: 1 };

/// The most that a hash may cost: it comes from operators, and is computed for strangers.
pub const MOST: Cost = Cost { memory_kib: 65_536, passes: 8 };

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The check symbols beyond the digits.
const CHECK: &[u8; 5] = b"*~$=U";

/// 128 bits, five to a symbol.
const SYMBOLS: usize = 26;

/// A code.
pub struct Code(Zeroizing<[u8; 16]>);

/// Text that is no code. It does not repeat what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCode {
    /// Other symbols, or too many or few.
    #[error("a code has 27 letters and digits, with or without hyphens")]
    Form,
    /// The last symbol does not fit the others.
    #[error("the code has a typing error: its check symbol does not fit")]
    Check,
}

/// There is no hash.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a code cannot be hashed: {0}")]
pub struct HashError(String);

impl Code {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random octets.
    pub fn generate() -> Result<Code, HashError> {
        Ok(Code(random()?.into()))
    }

    /// As people read it: in groups of five.
    pub fn to_text(&self) -> String {
        let number = u128::from_be_bytes(*self.0);
        let mut text = String::with_capacity(SYMBOLS + SYMBOLS / 5 + 1);
        for place in (0..SYMBOLS).rev() {
            let digit = (number >> (5 * place)) as usize & 31;
            text.push(char::from(DIGITS.get(digit).copied().unwrap_or_default()));
            if place % 5 == 1 {
                text.push('-');
            }
        }
        let check = (number % 37) as usize;
        text.push(char::from(DIGITS.iter().chain(CHECK).nth(check).copied().unwrap_or_default()));
        text
    }

    /// Reads what [`Code::to_text`] writes: of either case, with hyphens anywhere or nowhere, O for 0, I and L for 1.
    ///
    /// # Errors
    /// [`InvalidCode`].
    pub fn parse(text: &str) -> Result<Code, InvalidCode> {
        let symbols = text.trim().bytes().filter(|byte| *byte != b'-').map(|byte| match byte.to_ascii_uppercase() {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            other => other,
        });
        let (mut number, mut check, mut count) = (0_u128, None, 0);
        for symbol in symbols {
            let value = DIGITS.iter().chain(CHECK).position(|known| *known == symbol).ok_or(InvalidCode::Form)?;
            match count {
                ..SYMBOLS if value < 32 && (count > 0 || value < 8) => number = number << 5 | value as u128,
                SYMBOLS => check = Some(value as u128),
                _ => return Err(InvalidCode::Form),
            }
            count += 1;
        }
        match check {
            Some(check) if check == number % 37 => Ok(Code(number.to_be_bytes().into())),
            Some(_) => Err(InvalidCode::Check),
            None => Err(InvalidCode::Form),
        }
    }

    /// What is kept of it for a device.
    ///
    /// # Errors
    /// The system has no random octets, or the cost is impossible.
    pub fn hashed(&self, device: &str, cost: Cost) -> Result<HashedCode, HashError> {
        let salt = random()?;
        Ok(HashedCode { device: device.to_owned(), salt, hash: self.hash(&salt, cost)? })
    }

    /// Whether it is the one that was hashed.
    ///
    /// # Errors
    /// The cost is impossible.
    pub fn fits(&self, hashed: &HashedCode, cost: Cost) -> Result<bool, HashError> {
        let hash = self.hash(&hashed.salt, cost)?;
        Ok(aws_lc_rs::constant_time::verify_slices_are_equal(&hash, &hashed.hash).is_ok())
    }

    fn hash(&self, salt: &[u8; 16], cost: Cost) -> Result<[u8; 32], HashError> {
        let failed = |error: argon2::Error| HashError(error.to_string());
        let params = Params::new(cost.memory_kib, cost.passes, 1, Some(32)).map_err(failed)?;
        let mut hash = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&*self.0, salt, &mut hash)
            .map_err(failed)?;
        Ok(hash)
    }
}

/// Writes a new file of codes for its owner alone; it is on stable storage then.
///
/// # Errors
/// Any I/O error, and [`io::ErrorKind::AlreadyExists`] if there is a file of this name: it may hold codes that are in use.
pub fn write_codes(path: &Path, text: &str) -> io::Result<()> {
    durable::write_new(path, text.as_bytes(), Access::Owner)
}

fn random() -> Result<[u8; 16], HashError> {
    let mut octets = [0; 16];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| HashError("the system has no random octets".into()))?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_read_as_people_type_it() {
        let code = Code([0xff; 16].into());
        let text = code.to_text();
        assert_eq!(text, "7ZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-Z".to_owned() + &text[text.len() - 1..]);
        for _ in 0..100 {
            let code = Code::generate().unwrap();
            let text = code.to_text();
            let typed = [text.clone(), text.to_lowercase(), text.replace('-', ""), format!(" {text}\n")];
            let confused = text.replace('0', "O").replace('1', "l");
            for typed in typed.iter().chain([&confused]) {
                assert!(Code::parse(typed).is_ok_and(|read| read.0 == code.0), "{typed}");
            }
        }
    }

    /// Any one wrong symbol, and any two neighbours that are swapped.
    #[test]
    fn code_with_a_typing_error_is_refused() {
        let text = Code((*b"0123456789abcdef").into()).to_text().replace('-', "");
        for place in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[place] = if wrong[place] == b'7' { b'3' } else { b'7' };
            assert!(Code::parse(std::str::from_utf8(&wrong).unwrap()).is_err(), "{place}");
            let mut swapped = text.clone().into_bytes();
            if place > 0 && swapped[place - 1] != swapped[place] {
                swapped.swap(place - 1, place);
                assert!(Code::parse(std::str::from_utf8(&swapped).unwrap()).is_err(), "{place}");
            }
        }
        for text in ["", "-", "7", &"7".repeat(28), &"Z".repeat(27), "é", &text[1..]] {
            assert!(Code::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn code_fits_its_own_hash_alone() {
        let cost = Cost { memory_kib: 64, passes: 1 };
        let (code, other) = (Code::generate().unwrap(), Code::generate().unwrap());
        let hashed = code.hashed("d1", cost).unwrap();
        assert!(code.fits(&hashed, cost).unwrap() && !other.fits(&hashed, cost).unwrap());
        assert!(!format!("{hashed:?}").contains(&hex::encode(hashed.hash)));
        assert!(code.fits(&hashed, Cost { memory_kib: 0, passes: 0 }).is_err());
    }
}
