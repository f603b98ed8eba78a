use super::*;

/// The examples of RFC 7638 section 3.1.
#[test]
fn thumbprint_is_that_of_rfc_7638() {
    let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    let modulus = decode(
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs\
         tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbIS\
         D08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    );
    let spki = crate::signer::rsa_spki(&modulus, &[1, 0, 1]).unwrap();
    let key = PublicKey::from_spki(&spki).unwrap();
    assert_eq!(thumbprint(&key).unwrap(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

/// Only the very text that was signed is one: neither another header nor another encoding of the same content.
#[test]
fn jws_in_any_other_form_is_refused() {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
    };
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let spki = crate::signer::ec_spki(const_oid::db::rfc5912::SECP_256_R_1, pair.public_key().as_ref()).unwrap();
    let key = PublicKey::from_spki(&spki).unwrap();
    let keys = std::slice::from_ref(&key);
    let sign = |input: String| {
        let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        compact(&key, input, signature.as_ref()).unwrap()
    };
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let jws = sign(signing_input(&key, b"{}").unwrap());
    assert_eq!(verify(jws.as_bytes(), keys).unwrap(), b"{}");
    for at in 0..jws.len() {
        let mut changed = jws.clone().into_bytes();
        changed[at] ^= 1;
        assert!(verify(&changed, keys).is_err(), "octet {at}");
    }
    let kid = thumbprint(&key).unwrap();
    for (header, says) in [
        (format!(r#"{{"alg":"none","kid":"{kid}","typ":"{TYPE}"}}"#), "algorithm"),
        (format!(r#"{{"alg":"RS256","kid":"{kid}","typ":"{TYPE}"}}"#), "algorithm"),
        (format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"JWT"}}"#), "something else"),
        (format!(r#"{{"alg":"ES256","kid":"other","typ":"{TYPE}"}}"#), "not trusted (kid other)"),
        (format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"{TYPE}","crit":["x"]}}"#), "protected header"),
        (format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#), "protected header"),
    ] {
        let forged = sign(format!("{}.{}", encode(&header), encode("{}")));
        let error = verify(forged.as_bytes(), keys).unwrap_err().to_string();
        assert!(error.contains(says), "{header}: {error}");
    }
    for other in
        [format!("{jws}\n"), format!("{jws}="), jws.replacen('.', "", 1), String::new(), jws.replace('.', "..")]
    {
        assert!(verify(other.as_bytes(), keys).is_err(), "{other:?}");
    }
}
