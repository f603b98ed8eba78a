//! CSRs in the odd encodings that devices and tools write.

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{KeyPair, PublicKeyData, SigningKey};

use super::*;
use crate::asn1::{
    BIT_STRING, BMP_STRING, IA5_STRING, OCTET_STRING, Oid, PRINTABLE_STRING, TELETEX_STRING, UNIVERSAL_STRING,
    UTF8_STRING, primitive,
};

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    primitive(&mut out, tag, content);
    out
}

/// An attribute of a name, in an RDN of its own.
fn rdn(oid: &str, tag: u8, value: &[u8]) -> Vec<u8> {
    let oid: Oid = oid.parse().unwrap();
    der(SET, &der(SEQUENCE, &[der(OBJECT_IDENTIFIER, oid.as_ref()), der(tag, value)].concat()))
}

const ECDSA_SHA256: [u8; 12] = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

/// A P-256 CSR; `subject` is the content of the Name, `attributes` of the `[0]`.
fn csr_of(subject: &[u8], attributes: &[u8], algorithm: &[u8], change: impl Fn(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let info = [&[2, 1, 0][..], &der(SEQUENCE, subject), &key.subject_public_key_info(), &der(0xa0, attributes)];
    let info = der(SEQUENCE, &info.concat());
    let signature = change(key.sign(&info).unwrap());
    der(SEQUENCE, &[&info[..], algorithm, &der(BIT_STRING, &[&[0], &signature[..]].concat())].concat())
}

fn csr(subject: &[u8]) -> Vec<u8> {
    csr_of(subject, &[], &ECDSA_SHA256, |signature| signature)
}

fn taken(csr: &[u8]) -> VerifiedCsr {
    verify(csr, &RefusedKeys::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(csr: &[u8]) -> CsrError {
    verify(csr, &RefusedKeys::default()).unwrap_err()
}

const CN: &str = "2.5.4.3";

#[test]
fn subject_in_any_string_type_is_compared_as_text() {
    let utf16: Vec<u8> = "dev-1".encode_utf16().flat_map(u16::to_be_bytes).collect();
    let utf32: Vec<u8> = "dev-1".chars().flat_map(|character| (character as u32).to_be_bytes()).collect();
    for (tag, value) in [
        (UTF8_STRING, &b"dev-1"[..]),
        (PRINTABLE_STRING, b"dev-1"),
        (IA5_STRING, b"dev-1"),
        (TELETEX_STRING, b"dev-1"),
        (BMP_STRING, &utf16),
        (UNIVERSAL_STRING, &utf32),
    ] {
        assert_eq!(taken(&csr(&rdn(CN, tag, value))).common_name().as_deref(), Ok("dev-1"), "{tag}");
    }
}

#[test]
fn subject_without_the_one_text_says_why() {
    let name = |csr: &[u8]| taken(csr).common_name().map(Cow::into_owned);
    assert_eq!(name(&csr(&[])), Err(NoText::Absent));
    assert_eq!(name(&csr(&[rdn(CN, UTF8_STRING, b"a"), rdn(CN, UTF8_STRING, b"a")].concat())), Err(NoText::Several));
    assert_eq!(name(&csr(&rdn(CN, BMP_STRING, b"odd"))), Err(NoText::NotText(BMP_STRING)));
    assert_eq!(name(&csr(&rdn(CN, OCTET_STRING, b"a"))), Err(NoText::NotText(OCTET_STRING)));
    assert!(matches!(name(&csr(&[0x31, 9, 0])), Err(NoText::Malformed(_))));
}

#[test]
fn malformed_subject_that_is_not_compared_is_taken() {
    for oid in ["2.51.1.1", "2.999.1", "2.25.329800735698586629295641978511506172918"] {
        let subject = [rdn(oid, UTF8_STRING, b"x"), rdn(CN, UTF8_STRING, b"d")].concat();
        assert_eq!(taken(&csr(&subject)).common_name().as_deref(), Ok("d"), "{oid}");
    }
    taken(&csr(&rdn(CN, 0x1e, b"odd")));
    taken(&csr(&rdn(CN, UTF8_STRING, &[b'x'; 9000])));
}

/// What stands in the place of the attributes must be attributes.
#[test]
fn csr_attributes_that_are_none_are_refused() {
    let with = |attributes: &[u8]| csr_of(&[], attributes, &ECDSA_SHA256, |signature| signature);
    let oid: Oid = "1.2.840.113549.1.9.7".parse().unwrap();
    let attribute = |values: &[u8]| der(SEQUENCE, &[der(OBJECT_IDENTIFIER, oid.as_ref()), der(SET, values)].concat());
    taken(&with(&attribute(&der(UTF8_STRING, b"x"))));
    taken(&with(&attribute(&[])));
    for garbage in [&[1, 2, 3, 4][..], &[0x30, 0], &attribute(&[0x0c, 9]), &der(OCTET_STRING, b"x")] {
        assert!(matches!(refused(&with(garbage)), CsrError::Malformed(_)), "{garbage:02x?}");
    }
}

#[test]
fn ecdsa_parameters_of_null_are_taken() {
    let algorithm = der(SEQUENCE, &[&ECDSA_SHA256[2..], &[5, 0]].concat());
    taken(&csr_of(&[], &[], &algorithm, |signature| signature));
}

#[test]
fn signature_in_a_wrong_encoding_is_refused_by_name() {
    let numbers = |signature: &[u8]| {
        let mut reader = Reader::new(Value::only(signature).unwrap().content);
        [(); 2].map(|()| reader.expect(INTEGER).unwrap().to_vec())
    };
    let padded = csr_of(&[], &[], &ECDSA_SHA256, |signature| {
        let [r, s] = numbers(&signature);
        // Either of two zero octets, or of one before what is positive without it, is too many.
        let r = [if r[0] == 0 || r[0] < 0x80 { &[0][..] } else { &[0, 0] }, &r].concat();
        der(SEQUENCE, &[der(INTEGER, &r), der(INTEGER, &s)].concat())
    });
    let raw = csr_of(&[], &[], &ECDSA_SHA256, |signature| {
        numbers(&signature)
            .iter()
            .flat_map(|number| {
                let number: Vec<u8> = number.iter().copied().skip_while(|octet| *octet == 0).collect();
                [vec![0; 32 - number.len()], number].concat()
            })
            .collect()
    });
    for (csr, says) in [(padded, "r has a superfluous zero octet"), (raw, "r and s one after the other")] {
        let error = refused(&csr);
        assert!(matches!(&error, CsrError::SignatureEncoding(_)), "{error}");
        assert!(error.to_string().contains("not DER") && error.to_string().contains(says), "{error}");
    }
}

#[test]
fn unknown_signature_is_not_an_unknown_key() {
    let algorithm = der(SEQUENCE, &der(OBJECT_IDENTIFIER, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1]));
    let error = refused(&csr_of(&[], &[], &algorithm, |signature| signature));
    assert!(matches!(&error, CsrError::SignatureUnsupported(what) if what.contains("SHA-256")), "{error}");
    let huge = der(
        SEQUENCE,
        &der(OBJECT_IDENTIFIER, "2.25.329800735698586629295641978511506172918".parse::<Oid>().unwrap().as_ref()),
    );
    let error = refused(&csr_of(&[], &[], &huge, |signature| signature));
    assert!(matches!(&error, CsrError::SignatureUnsupported(what) if what.contains("2.25.3298")), "{error}");
}

fn pem(csr: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(csr);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", lines.join("\n"))
}

#[test]
fn pem_is_taken_however_it_is_laid_out() {
    let csr = csr(&rdn(CN, UTF8_STRING, b"d"));
    let good = pem(&csr);
    let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let utf16: Vec<u8> = format!("\u{feff}{good}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    for text in [
        good.clone().into_bytes(),
        format!("0 is the line that a tool wrote before it\n{good}").into_bytes(),
        // Two octets that would be the header of a whole SEQUENCE of the right length, but for what follows.
        format!("0{good}").into_bytes(),
        good.replace('\n', "\n\n").into_bytes(),
        good.replace("\n-----END", "\n\n-----END").into_bytes(),
        good.replace('\n', "\r\n").into_bytes(),
        format!("{parameters}{good}").into_bytes(),
        format!("{good}{parameters}").into_bytes(),
        format!("\u{feff}{good}").into_bytes(),
        utf16,
        good.replace("BEGIN C", "BEGIN NEW C").replace("END C", "END NEW C").into_bytes(),
    ] {
        assert_eq!(taken(&text).common_name().as_deref(), Ok("d"), "{}", String::from_utf8_lossy(&text));
    }
}

/// Input that is no CSR is named for what it is.
#[test]
fn input_that_is_no_csr_is_refused_by_name() {
    let good = pem(&csr(&[]));
    let key = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
    for (text, says) in [
        (String::new(), "it is empty"),
        ("0 no PEM".into(), "text without -----BEGIN"),
        (good.repeat(2), "2 PEM blocks"),
        (format!("{key}{good}"), "private key"),
        (key.into(), "it is a private key, which must stay where it is"),
        (good.replace("-----END", "----END"), "ends before -----END"),
        (good.replace("CERTIFICATE REQUEST", &"X".repeat(5000)), "… (5000 characters)"),
    ] {
        let error = refused(text.as_bytes()).to_string();
        assert!(error.contains(says) && error.len() < 400, "{error}");
    }
    let whole = csr(&[]);
    for (octets, says) in [
        (&whole[..whole.len() - 1], "not whole DER: it ends too early"),
        (&[4, 1, 0], "its first byte is 0x04, a CSR's is 0x30"),
        (&[&whole[..], &[0]].concat(), "not whole DER: 1 octets follow its end"),
        (&[0xff, 0xfe, 0], "UTF-16"),
    ] {
        let error = refused(octets).to_string();
        assert!(error.contains(says), "{error}");
    }
}
