//! CSRs of programs that are not ours, good and bad, against the parser.

use std::fs;

use birthmark::csr::{self, CsrError, RefusedKeys, VerifiedCsr};
use serde::Deserialize;

use crate::support::fixtures::{Good, fixture, good};

#[derive(Deserialize)]
struct Bad {
    file: String,
    reason: String,
}

fn verify(csr: &[u8]) -> Result<VerifiedCsr, CsrError> {
    csr::verify(csr, &RefusedKeys::default())
}

/// CSRs of foreign programs are taken with the key that OpenSSL sees.
#[test]
fn csr_of_foreign_program_has_the_key_that_openssl_sees() {
    let good = good();
    assert!(good.len() >= 40);
    for Good { file, key, cn, spki_sha256, .. } in good {
        let request = verify(&fs::read(fixture("csr").join(&file)).unwrap());
        let request = request.unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(hex::encode(request.public_key().hash()), spki_sha256, "{file}");
        let kind = request.public_key().kind.to_string().to_lowercase().replace('-', "");
        assert_eq!(kind, key, "{file}");
        assert_eq!(request.common_name().ok().as_deref(), cn.as_deref(), "{file}");
    }
}

/// A bad CSR is refused for the reason that is listed for it.
#[test]
fn csr_that_is_bad_is_refused_for_the_right_reason() {
    let bad: Vec<Bad> = serde_json::from_slice(&fs::read(fixture("bad/index.json")).unwrap()).unwrap();
    assert!(bad.len() >= 60);
    let mut wrong = Vec::new();
    for Bad { file, reason } in bad {
        let refused = verify(&fs::read(fixture("bad").join(&file)).unwrap());
        let found = match &refused {
            Ok(_) => "taken",
            Err(CsrError::Malformed(_)) => "CSR_MALFORMED",
            Err(CsrError::ProofOfPossession | CsrError::SignatureEncoding(_)) => "POP_INVALID",
            Err(CsrError::SignatureUnsupported(_)) => "CSR_SIGNATURE_UNSUPPORTED",
            Err(CsrError::KeyWeak(_)) => "KEY_WEAK",
            Err(CsrError::KeyUnsupported(_)) => "KEY_UNSUPPORTED",
        };
        if found != reason {
            wrong.push(format!("{file}: {found} instead of {reason}: {:?}", refused.err()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// No prefix and no flipped byte of a CSR is taken.
#[test]
fn csr_cut_short_or_with_a_flipped_byte_is_refused() {
    let good = fs::read(fixture("csr/openssl-p384.der")).unwrap();
    assert!(verify(&good).is_ok());
    for length in 0..good.len() {
        assert!(verify(&good[..length]).is_err(), "the first {length} bytes");
    }
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << bit;
            assert!(verify(&flipped).is_err(), "bit {bit} of byte {at}");
        }
    }
}
