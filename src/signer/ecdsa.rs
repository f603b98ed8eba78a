//! ECDSA signatures: the DER `Ecdsa-Sig-Value` of certificates (RFC 3279 section 2.2.3) and the r‖s of PKCS#11.

use der::{Decode, Encode, asn1::UintRef};

use crate::asn1::{DerError, INTEGER, Reader, SEQUENCE, Value};

/// `Ecdsa-Sig-Value` of RFC 3279 section 2.2.3.
#[derive(der::Sequence)]
pub(super) struct EcdsaSigValue<'a> {
    pub(super) r: UintRef<'a>,
    pub(super) s: UintRef<'a>,
}

impl<'a> EcdsaSigValue<'a> {
    pub(super) fn read(signature: &'a [u8]) -> der::Result<Self> {
        Self::from_der(signature)
    }
}

/// Turns the r‖s of PKCS#11, each `width` octets, into the DER `Ecdsa-Sig-Value`, whose INTEGERs are minimal. `None` if
/// the length is wrong or a number is zero.
pub(crate) fn from_fixed_width(fixed: &[u8], width: usize) -> Option<Vec<u8>> {
    if fixed.len() != 2 * width {
        return None;
    }
    let (r, s) = fixed.split_at(width);
    if [r, s].iter().any(|number| number.iter().all(|octet| *octet == 0)) {
        return None;
    }
    EcdsaSigValue { r: UintRef::new(r).ok()?, s: UintRef::new(s).ok()? }.to_der().ok()
}

/// Turns a DER `Ecdsa-Sig-Value` into r‖s, each `width` octets, as JWS has it (RFC 7518 section 3.4). `None` if it is none,
/// or a number is longer.
pub(crate) fn to_fixed_width(signature: &[u8], width: usize) -> Option<Vec<u8>> {
    let value = EcdsaSigValue::read(signature).ok()?;
    let mut fixed = Vec::with_capacity(2 * width);
    for number in [value.r.as_bytes(), value.s.as_bytes()] {
        fixed.resize(fixed.len() + width.checked_sub(number.len())?, 0);
        fixed.extend_from_slice(number);
    }
    Some(fixed)
}

/// What is wrong with the encoding of an `Ecdsa-Sig-Value`.
pub(super) fn encoding_fault(signature: &[u8]) -> Option<String> {
    let read = || -> Result<[&[u8]; 2], DerError> {
        let mut reader = Reader::new(Value::only(signature)?.of(SEQUENCE)?);
        let numbers = [reader.expect(INTEGER)?, reader.expect(INTEGER)?];
        reader.finish()?;
        Ok(numbers)
    };
    let numbers = match read() {
        Ok(numbers) => numbers,
        Err(error) => return Some(error.to_string()),
    };
    ["r", "s"].into_iter().zip(numbers).find_map(|(name, number)| match number {
        [] => Some(format!("{name} has no octets")),
        [0x80..=0xff, ..] => Some(format!("{name} is negative: a zero octet must stand before it")),
        [0, 0..=0x7f, ..] => Some(format!("{name} has a superfluous zero octet before it")),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(r: &[u8], s: &[u8]) -> Vec<u8> {
        [r, s].iter().flat_map(|n| [vec![0; 32 - n.len()], n.to_vec()].concat()).collect()
    }

    /// The integers of a signature are minimal.
    #[test]
    fn ecdsa_signature_integers_are_minimal() {
        for (r, s, der) in [
            (&[1][..], &[0x7f][..], vec![0x30, 6, 2, 1, 1, 2, 1, 0x7f]),
            // A leading one bit takes a zero octet, or the number would be negative.
            (&[0x80], &[0xff, 0], vec![0x30, 9, 2, 2, 0, 0x80, 2, 3, 0, 0xff, 0]),
            (&[0x7f, 0xff], &[0, 0, 1], vec![0x30, 7, 2, 2, 0x7f, 0xff, 2, 1, 1]),
        ] {
            assert_eq!(to_fixed_width(&der, 32), Some(fixed(r, s)));
            assert_eq!(from_fixed_width(&fixed(r, s), 32), Some(der));
        }
        let full = from_fixed_width(&[0xff; 96], 48).unwrap();
        assert_eq!(full.len(), 2 + 2 * (2 + 1 + 48));
        assert_eq!(full[..5], [0x30, 102, 2, 49, 0]);
    }

    /// A signature of a wrong length or with a zero is none.
    #[test]
    fn ecdsa_signature_of_wrong_length_or_zero_is_refused() {
        assert_eq!(from_fixed_width(&[1; 63], 32), None);
        assert_eq!(from_fixed_width(&[1; 64], 48), None);
        assert_eq!(from_fixed_width(&[], 32), None);
        assert_eq!(from_fixed_width(&fixed(&[], &[1]), 32), None);
        assert_eq!(from_fixed_width(&fixed(&[1], &[0]), 32), None);
    }

    #[test]
    fn ecdsa_encoding_fault_is_named() {
        for (signature, fault) in [
            ("30060201010201ff", Some("s is negative")),
            ("3007020200010201 01", Some("r has a superfluous zero octet")),
            ("30050200020101", Some("r has no octets")),
            ("3006020101020101", None),
            ("300702020080020101", None),
            ("300602010102010100", Some("1 octets follow")),
            ("0101", Some("too early")),
        ] {
            let found = encoding_fault(&hex::decode(signature.replace(' ', "")).unwrap());
            assert_eq!(found.is_some(), fault.is_some(), "{signature}: {found:?}");
            assert!(found.unwrap_or_default().contains(fault.unwrap_or_default()), "{signature}");
        }
    }
}
