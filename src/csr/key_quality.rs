//! The one place that says which public keys are good enough for a device.

use der::Decode;
use num_bigint::BigUint;

use super::error::CsrError;
use crate::signer::{self, KeyKind, PublicKey, RsaPublicKey};

/// The primes under 752; a good modulus has none of them as a factor.
const SMALL_PRIMES: [u16; 133] = small_primes();

/// How many steps of Fermat's factorisation must fail.
const FERMAT_ROUNDS: u32 = 100;

/// Checks a key by itself. That an EC point is on its curve is seen when the key is prepared for verification.
///
/// # Errors
/// The rule that it breaks, the value, and what would be right.
pub(super) fn check(key: &PublicKey) -> Result<(), CsrError> {
    check_encoding(key)?;
    match key.kind {
        KeyKind::Rsa { bits } => check_rsa(key, bits),
        KeyKind::Ed25519 => check_ed25519(&key.bits),
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => Ok(()),
    }
}

/// For a point of small order everybody can make signatures, and y beyond the field is another name of a key
/// (RFC 8032 section 5.1.3).
fn check_ed25519(point: &[u8]) -> Result<(), CsrError> {
    let weak = |what: &str| Err(CsrError::KeyWeak(format!("the Ed25519 point {what}; make a new key")));
    // Little-endian; the highest bit is the sign of x.
    let mut octets: Vec<u8> = point.iter().rev().copied().collect();
    let Some(first) = octets.first_mut().filter(|_| point.len() == 32) else {
        return weak("does not have 32 octets");
    };
    *first &= 0x7f;
    let y = BigUint::from_bytes_be(&octets);
    let prime = (BigUint::from(1_u8) << 255_u32) - 19_u8;
    if y >= prime {
        return weak("has a coordinate beyond the field");
    }
    // The orders 4; 1 and 2; 8 (draft-irtf-cfrg-curves: the torsion points of the curve).
    let small = y == BigUint::ZERO
        || y == BigUint::from(1_u8)
        || y == &prime - 1_u8
        || ORDER_8.iter().any(|order_8| hex::encode(&octets) == *order_8);
    if small { weak("is of small order") } else { Ok(()) }
}

/// The y of the points of order 8, big-endian.
const ORDER_8: [&str; 2] = [
    "05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826",
    "7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd83d3d706a17c7",
];

/// One key must have one name, or one device could have two certificates for it.
fn check_encoding(key: &PublicKey) -> Result<(), CsrError> {
    use const_oid::db::rfc5912::{SECP_256_R_1, SECP_384_R_1, SECP_521_R_1};
    let usual = match key.kind {
        KeyKind::P256 => signer::ec_spki(SECP_256_R_1, &key.bits),
        KeyKind::P384 => signer::ec_spki(SECP_384_R_1, &key.bits),
        KeyKind::P521 => signer::ec_spki(SECP_521_R_1, &key.bits),
        KeyKind::Rsa { .. } => RsaPublicKey::from_der(&key.bits)
            .and_then(|rsa| signer::rsa_spki(rsa.modulus.as_bytes(), rsa.public_exponent.as_bytes())),
        KeyKind::Ed25519 => Ok(signer::ed25519_spki(&key.bits)),
    };
    let unsupported = |what: String| Err(CsrError::KeyUnsupported(what));
    if usual.as_ref() != Ok(&key.spki) {
        return unsupported(format!("the {} key is not encoded as RFC 3279, 5480 or 8410 says", key.kind));
    }
    let ec = matches!(key.kind, KeyKind::P256 | KeyKind::P384 | KeyKind::P521);
    // SEC 1 section 2.3: 0 is the point at infinity, 2 and 3 are compressed, 4 is uncompressed, 6 and 7 are hybrid.
    match key.bits.first() {
        Some(0) if ec => Err(CsrError::KeyWeak("the EC point is the point at infinity".into())),
        Some(4) => Ok(()),
        _ if ec => unsupported("the EC point is compressed or hybrid; send it uncompressed".into()),
        _ => Ok(()),
    }
}

fn check_rsa(key: &PublicKey, bits: u32) -> Result<(), CsrError> {
    let weak = |what: String| Err(CsrError::KeyWeak(what));
    if bits < 2048 {
        return weak(format!("RSA with {bits} bits is too short; use 2048 to 4096"));
    }
    if bits > 4096 || !bits.is_multiple_of(8) {
        return Err(CsrError::KeyUnsupported(format!("RSA with {bits} bits; use 2048 to 4096, a multiple of 8")));
    }
    let rsa = RsaPublicKey::from_der(&key.bits).map_err(|error| CsrError::Malformed(error.to_string()))?;
    if rsa.public_exponent.as_bytes() != [1, 0, 1] {
        let exponent = hex::encode(rsa.public_exponent.as_bytes());
        return weak(format!("the RSA public exponent is 0x{exponent}; use 65537 (0x010001)"));
    }
    let modulus = BigUint::from_bytes_be(rsa.modulus.as_bytes());
    let residues = residues(&modulus);
    if let Some((prime, _)) = residues.iter().find(|(_, residue)| *residue == 0) {
        return weak(format!("the RSA modulus is divisible by {prime}"));
    }
    if is_roca(&residues) {
        return weak("the RSA key was made by a chip with the ROCA flaw (CVE-2017-15361); make it elsewhere".into());
    }
    if has_close_primes(&modulus) {
        return weak("the primes of the RSA key are so close that Fermat's method finds them".into());
    }
    Ok(())
}

/// What the modulus leaves modulo each of the small primes: one long division for three of them.
fn residues(modulus: &BigUint) -> Vec<(u16, u16)> {
    let mut residues = Vec::with_capacity(SMALL_PRIMES.len());
    for primes in SMALL_PRIMES.chunks(3) {
        let product: u32 = primes.iter().map(|prime| u32::from(*prime)).product();
        let left = (modulus % product).iter_u32_digits().next().unwrap_or(0);
        residues.extend(primes.iter().map(|prime| (*prime, (left % u32::from(*prime)) as u16)));
    }
    residues
}

/// A ROCA modulus is a power of 65537 modulo each of the first primes. Another modulus passes for one with a probability
/// of about 2^-27 (Nemec et al., The Return of Coppersmith's Attack, section 3.1).
fn is_roca(residues: &[(u16, u16)]) -> bool {
    residues.iter().filter(|(prime, _)| (3..=167).contains(prime)).all(|(prime, residue)| {
        let prime = u32::from(*prime);
        let mut power = 1 % prime;
        for _ in 0..prime {
            if power == u32::from(*residue) {
                return true;
            }
            power = power * (65537 % prime) % prime;
        }
        false
    })
}

/// Fermat: n = a² - b² with a just above the square root.
fn has_close_primes(modulus: &BigUint) -> bool {
    let a = modulus.sqrt() + 1u32;
    let mut square = &a * &a - modulus;
    let mut step = (a << 1_u32) + 1u32;
    for _ in 0..FERMAT_ROUNDS {
        if may_be_square(&square) {
            let root = square.sqrt();
            if &root * &root == square {
                return true;
            }
        }
        // (a + 1)² - n = (a² - n) + 2a + 1
        square += &step;
        step += 2u32;
    }
    false
}

/// What is no square modulo a small number is none at all; of 120 numbers about one is left, and a root is dear.
fn may_be_square(number: &BigUint) -> bool {
    let low = number.iter_u32_digits().next().unwrap_or(0);
    if SQUARES_64 >> (low % 64) & 1 == 0 {
        return false;
    }
    // 63 · 65 · 11, in one division.
    let residue = number % 45_045_u32;
    let residue = residue.iter_u32_digits().next().unwrap_or(0);
    [63, 65, 11].iter().all(|modulus| (0..*modulus).any(|root| root * root % modulus == residue % modulus))
}

/// Bit i is set if i is a square modulo 64.
const SQUARES_64: u64 = squares_64();

const fn squares_64() -> u64 {
    let (mut squares, mut root) = (0, 0);
    while root < 64 {
        squares |= 1 << (root * root % 64);
        root += 1;
    }
    squares
}

const fn small_primes() -> [u16; 133] {
    let mut primes = [0; 133];
    let (mut found, mut candidate) = (0, 2);
    while candidate < 752 {
        let (mut divisor, mut prime) = (2, true);
        while divisor * divisor <= candidate {
            prime = prime && candidate % divisor != 0;
            divisor += 1;
        }
        if prime {
            primes[found] = candidate;
            found += 1;
        }
        candidate += 1;
    }
    primes
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::csr::{self, RefusedKeys};

    fn fixture(name: &str) -> Vec<u8> {
        fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
    }

    /// A CSR of a real key that breaks one rule must be refused by that rule.
    fn refused_by(file: &str, rule: &str) {
        let refused = csr::verify(&fixture(&format!("bad/{file}.der")), &RefusedKeys::default()).unwrap_err();
        assert!(refused.to_string().contains(rule), "{file}: {refused}");
    }

    /// An RSA key of less than 2048 bits is weak.
    #[test]
    fn rsa_under_2048_bits_is_refused() {
        refused_by("rsa1024", "RSA with 1024 bits is too short; use 2048 to 4096");
        refused_by("rsa2040", "RSA with 2040 bits is too short");
    }

    /// An RSA key is of 4096 bits at most, and of whole octets.
    #[test]
    fn rsa_over_4096_bits_or_no_multiple_of_8_is_refused() {
        refused_by("rsa5120", "RSA with 5120 bits; use 2048 to 4096");
        refused_by("rsa2050", "a multiple of 8");
    }

    /// An RSA key's exponent is 65537.
    #[test]
    fn rsa_exponent_other_than_65537_is_refused() {
        refused_by("rsa2048-e3", "exponent is 0x03; use 65537");
    }

    /// An RSA key with a small factor is weak.
    #[test]
    fn rsa_with_a_small_factor_is_refused() {
        refused_by("rsa2048-even", "divisible by 2");
        refused_by("rsa2048-factor-3", "divisible by 3");
        refused_by("rsa2048-factor-751", "divisible by 751");
    }

    /// An RSA key made by a chip with the ROCA flaw is weak.
    #[test]
    fn rsa_with_the_roca_flaw_is_refused() {
        refused_by("rsa2048-roca", "CVE-2017-15361");
    }

    /// An RSA key with close primes is weak: Fermat's method factors it.
    #[test]
    fn rsa_with_close_primes_is_refused() {
        refused_by("rsa2048-close-primes", "Fermat");
    }

    /// A key of Debian's broken generator is refused by the block list.
    #[test]
    fn rsa_on_the_list_of_debian_weak_keys_is_refused() {
        let weak = fixture("listed/debian-cve-2008-0166-rsa2048.der");
        assert!(csr::verify(&weak, &RefusedKeys::default()).is_ok(), "nothing but the list knows it");
        let mut refused = RefusedKeys::default();
        let list = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/listed/block-list.txt");
        refused.read(&list).unwrap();
        assert_eq!(refused.blocked(), 1);
        let error = csr::verify(&weak, &refused).unwrap_err();
        assert!(error.to_string().contains("on the site's block list"), "{error}");
    }

    /// A device never gets a certificate for the key of a CA.
    #[test]
    fn key_of_a_ca_is_refused() {
        let csr = fixture("csr/openssl-p384.der");
        let key = csr::verify(&csr, &RefusedKeys::default()).unwrap().into_public_key();
        let mut refused = RefusedKeys::default();
        refused.add_authority(&key, "the issuing CA \"main\" itself");
        let error = csr::verify(&csr, &refused).unwrap_err();
        assert!(error.to_string().contains("it is the key of the issuing CA \"main\" itself"), "{error}");
    }

    /// A point off its curve is no key.
    #[test]
    fn ec_point_off_the_curve_is_refused() {
        for curve in ["p256", "p384", "p521"] {
            refused_by(&format!("{curve}-off-curve"), "it is not a valid P-");
        }
    }

    /// The point at infinity is no key.
    #[test]
    fn ec_point_at_infinity_is_refused() {
        for curve in ["p256", "p384", "p521"] {
            refused_by(&format!("{curve}-infinity"), "the point at infinity");
        }
    }

    /// A key in compressed or hybrid form, or on a curve without a name, is refused.
    #[test]
    fn ec_point_in_another_form_is_refused() {
        for curve in ["p256", "p384", "p521"] {
            refused_by(&format!("{curve}-compressed"), "compressed or hybrid");
        }
        refused_by("p256-hybrid", "compressed or hybrid");
        refused_by("p256-explicit", "without a name");
    }

    #[test]
    fn ec_key_on_an_unlisted_curve_is_refused() {
        for curve in ["p224", "secp256k1", "brainpoolp256r1"] {
            refused_by(curve, "use P-256, P-384 or P-521");
        }
    }

    /// A point of small order, or with a coordinate beyond the field, is no key.
    #[test]
    fn ed25519_point_of_small_order_or_off_field_is_refused() {
        for order in ["identity", "order-2", "order-8"] {
            refused_by(&format!("ed25519-{order}"), "is of small order");
        }
        refused_by("ed25519-beyond-the-field", "beyond the field");
    }

    /// A square is never sieved out.
    #[test]
    fn sieve_passes_every_square() {
        for root in (0..2000_u32).chain([u32::MAX]) {
            let root = BigUint::from(root) * 0x1234_5678_9abc_def1_u64;
            assert!(may_be_square(&(&root * &root)));
        }
        let left = (0..100_000_u32).filter(|number| may_be_square(&BigUint::from(*number))).count();
        assert!(left < 1500, "{left}");
    }
}
