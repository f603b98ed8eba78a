//! The armour of certificate signing requests (RFC 2986), as people and other programs send them. What a CSR says is the
//! daemon's to judge.

use crate::{
    asn1::{SEQUENCE, Value},
    pem,
    quote::shortened,
};

/// The largest CSR, in bytes, DER or PEM.
pub const MAX_LENGTH: usize = 16 * 1024;

/// Why octets are no CSR; the text goes on from "the CSR is malformed".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the CSR is malformed: {0}")]
pub struct MalformedCsr(pub String);

/// The DER of the CSR in what is not DER as a whole: a PEM block, or the reason why it is neither.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn from_pem(octets: &[u8]) -> Result<Vec<u8>, MalformedCsr> {
    let malformed = |what: String| Err(MalformedCsr(what));
    if octets.is_empty() {
        return malformed("it is empty".into());
    }
    let blocks = match pem::blocks(octets) {
        Ok(blocks) => blocks,
        Err(error) => return malformed(format!("it is neither DER nor whole PEM: {error}")),
    };
    // openssl ecparam -genkey, and many scripts after it, write the curve beside what they were asked for.
    let blocks: Vec<_> = blocks.into_iter().filter(|block| !block.label.ends_with(" PARAMETERS")).collect();
    match blocks.as_slice() {
        [] => malformed(neither(octets)),
        [block] if is_request(block) => Ok(block.der.clone()),
        [block] if block.label.ends_with("PRIVATE KEY") => malformed(
            "it is a private key, which must stay where it is; send a CSR that is made with it, or better with a new key".into(),
        ),
        [block] => {
            malformed(format!("it is a PEM block of \"{}\", not of \"CERTIFICATE REQUEST\"", shortened(&block.label)))
        }
        several if several.iter().any(|block| block.label.ends_with("PRIVATE KEY")) => malformed(
            "it holds a private key, which must stay where it is; send the CSR alone, and make a new key".into(),
        ),
        several => malformed(format!("it holds {} PEM blocks; send one CSR a request", several.len())),
    }
}

fn is_request(block: &pem::Block) -> bool {
    matches!(block.label.as_str(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST")
}

/// What octets without a PEM block are.
fn neither(octets: &[u8]) -> String {
    let text = octets.iter().all(|octet| !octet.is_ascii_control() || octet.is_ascii_whitespace());
    match Value::only(octets) {
        _ if text && octets.trim_ascii_start().first().is_some_and(|octet| b"{[".contains(octet)) => {
            "it is JSON, not a CSR; a file of JSON lines has a name that ends in .jsonl".into()
        }
        _ if text => "it is neither DER nor PEM: it is text without -----BEGIN CERTIFICATE REQUEST-----".into(),
        Ok(value) => format!(
            "it is DER of something else than a PKCS#10 CSR: its first byte is 0x{:02x}, a CSR's is 0x30",
            value.tag
        ),
        Err(error) if octets.first() == Some(&SEQUENCE) => format!("it is not whole DER: {error}"),
        Err(_) => "it is neither DER (which begins with the byte 0x30) nor PEM".into(),
    }
}
