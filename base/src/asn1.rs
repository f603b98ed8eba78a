//! DER (ITU-T X.690): appends it to octets, which is all that the writers of certificates and names need. `read` has
//! the other direction, `oid` object identifiers of any size.

mod error;
mod oid;
mod read;
mod tag;

pub use self::{
    error::DerError,
    oid::Oid,
    read::{RawExtension, Reader, Value},
    tag::{
        BIT_STRING, BMP_STRING, BOOLEAN, ENUMERATED, GENERALIZED_TIME, IA5_STRING, INTEGER, NULL, NUMERIC_STRING,
        OBJECT_IDENTIFIER, OCTET_STRING, PRINTABLE_STRING, SEQUENCE, SET, TELETEX_STRING, UNIVERSAL_STRING, UTC_TIME,
        UTF8_STRING, VISIBLE_STRING,
    },
};

/// The tag `[number]`, primitive.
pub const fn implicit(number: u8) -> u8 {
    0x80 | number
}

/// The tag `[number]`, constructed.
pub const fn explicit(number: u8) -> u8 {
    0xa0 | number
}

/// Appends a value: tag, length, and what `content` appends.
pub fn tlv(out: &mut Vec<u8>, tag: u8, content: impl FnOnce(&mut Vec<u8>)) {
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
pub fn encoded_length(content: usize) -> usize {
    let length = if content < 0x80 { 1 } else { 1 + (usize::BITS - content.leading_zeros()).div_ceil(8) as usize };
    1 + length + content
}

/// Appends a value whose content is known.
pub fn primitive(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    tlv(out, tag, |out| out.extend_from_slice(content));
}

/// Appends an OBJECT IDENTIFIER; `oid` are the octets of its content.
pub fn object_identifier(out: &mut Vec<u8>, oid: impl AsRef<[u8]>) {
    primitive(out, OBJECT_IDENTIFIER, oid.as_ref());
}

/// Appends an Extension (RFC 5280 section 4.1): SEQUENCE { OID, critical if TRUE, OCTET STRING of the value }.
pub fn extension(out: &mut Vec<u8>, oid: impl AsRef<[u8]>, critical: bool, value: impl FnOnce(&mut Vec<u8>)) {
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
