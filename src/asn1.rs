//! DER (ITU-T X.690): appends it to octets, which is all that the writers of certificates and names need. `read` has
//! the other direction, `oid` object identifiers of any size.

mod oid;
mod read;

pub(crate) use self::{
    oid::Oid,
    read::{DerError, Reader, Value},
};

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const NUMERIC_STRING: u8 = 0x12;
pub(crate) const PRINTABLE_STRING: u8 = 0x13;
pub(crate) const TELETEX_STRING: u8 = 0x14;
pub(crate) const IA5_STRING: u8 = 0x16;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const VISIBLE_STRING: u8 = 0x1a;
pub(crate) const UNIVERSAL_STRING: u8 = 0x1c;
pub(crate) const BMP_STRING: u8 = 0x1e;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// The tag `[number]`, primitive.
pub(crate) const fn implicit(number: u8) -> u8 {
    0x80 | number
}

/// The tag `[number]`, constructed.
pub(crate) const fn explicit(number: u8) -> u8 {
    0xa0 | number
}

/// Appends a value: tag, length, and what `content` appends.
pub(crate) fn tlv(out: &mut Vec<u8>, tag: u8, content: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    // Nearly all lengths fit one octet; the others make room when they are known.
    out.push(0);
    content(out);
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return;
    }
    let octets = length.to_be_bytes();
    let octets = &octets[length.leading_zeros() as usize / 8..];
    out[at] = 0x80 | octets.len() as u8;
    out.splice(at + 1..at + 1, octets.iter().copied());
}

/// The encoded length of a value with `content` octets of content, tag and length included.
pub(crate) fn encoded_length(content: usize) -> usize {
    let length = if content < 0x80 { 1 } else { 1 + (usize::BITS - content.leading_zeros()).div_ceil(8) as usize };
    1 + length + content
}

/// Appends a value whose content is known.
pub(crate) fn primitive(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    tlv(out, tag, |out| out.extend_from_slice(content));
}

/// Appends an OBJECT IDENTIFIER; `oid` are the octets of its content.
pub(crate) fn object_identifier(out: &mut Vec<u8>, oid: impl AsRef<[u8]>) {
    primitive(out, OBJECT_IDENTIFIER, oid.as_ref());
}

/// Appends an Extension (RFC 5280 section 4.1): SEQUENCE { OID, critical if TRUE, OCTET STRING of the value }.
pub(crate) fn extension(out: &mut Vec<u8>, oid: impl AsRef<[u8]>, critical: bool, value: impl FnOnce(&mut Vec<u8>)) {
    tlv(out, SEQUENCE, |out| {
        object_identifier(out, oid);
        if critical {
            primitive(out, BOOLEAN, &[0xff]);
        }
        tlv(out, OCTET_STRING, value);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A length takes as few octets as it can.
    #[test]
    fn length_of_any_size_is_minimal() {
        for (length, header) in
            [(0, vec![4, 0]), (127, vec![4, 127]), (128, vec![4, 0x81, 128]), (256, vec![4, 0x82, 1, 0])]
        {
            let mut out = Vec::new();
            primitive(&mut out, OCTET_STRING, &vec![7; length]);
            assert_eq!(out, [header, vec![7; length]].concat());
            assert_eq!(out.len(), encoded_length(length));
        }
    }
}
