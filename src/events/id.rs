//! Ids that follow from what they are of: a message that is published twice has the same.

use crate::hash::sha256;

/// A UUID of version 8 (RFC 9562 section 5.8) over these parts.
pub(super) fn uuid(parts: &[&[u8]]) -> String {
    let mut input = b"birthmark event\0".to_vec();
    for part in parts {
        input.extend_from_slice(&(part.len() as u64).to_be_bytes());
        input.extend_from_slice(part);
    }
    let hash = sha256(&input);
    let mut octets = [0; 16];
    octets.copy_from_slice(&hash[..16]);
    octets[6] = octets[6] & 0x0f | 0x80;
    octets[8] = octets[8] & 0x3f | 0x80;
    let hex = hex::encode(octets);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
