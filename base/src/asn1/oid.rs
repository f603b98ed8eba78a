//! Object identifiers with arcs of up to 128 bits: UUIDs are arcs below 2.25 (ITU-T X.667), and 2.999 or GS1's 2.51 have a
//! second arc above 39. const-oid's arcs have 32 bits.

use std::{fmt, str::FromStr};

use const_oid::ObjectIdentifier;

use super::error::DerError;

/// The most octets of an OID that is read from text.
const LONGEST: usize = 128;

/// An OBJECT IDENTIFIER: the octets of its content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(Box<[u8]>);

/// Why a text is not an OID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an OID is numbers between dots, the first 0, 1 or 2, none above 128 bits, such as 1.3.6.1.4.1.99999.1")]
pub struct ParseOidError;

impl Oid {
    /// Takes the content of an OBJECT IDENTIFIER.
    ///
    /// # Errors
    /// If it ends within an arc, or an arc has superfluous octets.
    pub fn from_content(content: &[u8]) -> Result<Oid, DerError> {
        let mut begins = true;
        for octet in content {
            if begins && *octet == 0x80 {
                return Err(DerError::Content("OBJECT IDENTIFIER"));
            }
            begins = octet & 0x80 == 0;
        }
        if content.is_empty() || !begins {
            return Err(DerError::Content("OBJECT IDENTIFIER"));
        }
        Ok(Oid(content.into()))
    }

    /// Its arcs; `None` if one has more than 128 bits.
    pub fn arcs(&self) -> Option<Vec<u128>> {
        let mut arcs = Vec::new();
        let mut arc = 0_u128;
        for octet in &self.0 {
            if arc >> 121 != 0 {
                return None;
            }
            arc = arc << 7 | u128::from(octet & 0x7f);
            if octet & 0x80 != 0 {
                continue;
            }
            if arcs.is_empty() {
                let first = (arc / 40).min(2);
                arcs.push(first);
                arc -= 40 * first;
            }
            arcs.push(arc);
            arc = 0;
        }
        Some(arcs)
    }
}

impl FromStr for Oid {
    type Err = ParseOidError;

    fn from_str(text: &str) -> Result<Oid, ParseOidError> {
        let arcs = text.split('.').map(|arc| {
            let canonical = arc.bytes().all(|byte| byte.is_ascii_digit()) && (arc == "0" || !arc.starts_with('0'));
            arc.parse::<u128>().ok().filter(|_| canonical).ok_or(ParseOidError)
        });
        let arcs = arcs.collect::<Result<Vec<_>, _>>()?;
        let [first, second, rest @ ..] = arcs.as_slice() else { return Err(ParseOidError) };
        if *first > 2 || (*first < 2 && *second > 39) {
            return Err(ParseOidError);
        }
        let mut content = Vec::new();
        push(&mut content, second.checked_add(40 * first).ok_or(ParseOidError)?);
        rest.iter().for_each(|arc| push(&mut content, *arc));
        if content.len() > LONGEST { Err(ParseOidError) } else { Ok(Oid(content.into())) }
    }
}

/// Appends a subidentifier, seven bits an octet (X.690 section 8.19).
fn push(content: &mut Vec<u8>, arc: u128) {
    let groups = (u128::BITS - arc.leading_zeros()).div_ceil(7).max(1);
    for group in (0..groups).rev() {
        let more = if group > 0 { 0x80 } else { 0 };
        content.push((arc >> (7 * group)) as u8 & 0x7f | more);
    }
}

impl From<ObjectIdentifier> for Oid {
    fn from(oid: ObjectIdentifier) -> Oid {
        Oid(oid.as_bytes().into())
    }
}

impl AsRef<[u8]> for Oid {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq<ObjectIdentifier> for Oid {
    fn eq(&self, other: &ObjectIdentifier) -> bool {
        *self.0 == *other.as_bytes()
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(arcs) = self.arcs() else { return write!(f, "#{}", hex::encode(&self.0)) };
        for (index, arc) in arcs.iter().enumerate() {
            write!(f, "{}{arc}", if index == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oid_with_arcs_of_128_bits_is_read_and_written() {
        for (text, content) in [
            ("2.5.4.3", "550403"),
            ("0.9", "09"),
            ("1.39.128", "4f8100"),
            ("2.999.1", "883701"),
            ("2.51.1.1", "81030101"),
            ("2.25.329800735698586629295641978511506172918", "6983f09da7ebcfdee0c7a1a7b2c0948cc8f9d776"),
            ("2.25.340282366920938463463374607431768211455", "6983ffffffffffffffffffffffffffffffffff7f"),
        ] {
            let oid: Oid = text.parse().unwrap();
            assert_eq!(oid.to_string(), text);
            assert_eq!(Oid::from_content(oid.as_ref()), Ok(oid.clone()));
            assert_eq!(hex::encode(&oid), content, "{text}");
        }
    }

    #[test]
    fn malformed_oid_is_refused() {
        for text in [
            "",
            "1",
            "3.1",
            "0.40",
            "1.2.",
            ".1",
            "1..2",
            "1.02",
            "1.+2",
            "1.2.x",
            "2.25.340282366920938463463374607431768211456",
        ] {
            assert_eq!(text.parse::<Oid>(), Err(ParseOidError), "{text}");
        }
        for content in [&[][..], &[0x80, 1], &[0x55, 0x80], &[0x55, 0x84]] {
            assert!(Oid::from_content(content).is_err(), "{content:02x?}");
        }
        // More than 128 bits are shown as octets, not refused: no rule here concerns them.
        let huge = Oid::from_content(&[&[0x69][..], &[0xff; 30], &[1]].concat()).unwrap();
        assert!(huge.to_string().starts_with("#69ff"));
    }
}
