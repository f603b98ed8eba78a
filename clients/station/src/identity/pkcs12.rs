//! An identity as one PKCS#12 file (RFC 7292), for Windows, browsers and Java: key and certificates encrypted with
//! PBES2 (PBKDF2 with HMAC-SHA-256, AES-256-CBC; RFC 8018), the whole with an HMAC-SHA-256.

use std::num::NonZeroU32;

use aws_lc_rs::{
    cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey},
    hmac,
    iv::FixedLength,
    pbkdf2, rand,
};
use birthmark_base::{
    asn1::{
        BMP_STRING, INTEGER, NULL, OCTET_STRING, SEQUENCE, SET, explicit, implicit, object_identifier, primitive, tlv,
    },
    hash::sha256,
    pem::{self, PemError},
};
use const_oid::ObjectIdentifier;
use zeroize::Zeroizing;

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ENCRYPTED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.6");
const SHROUDED_KEY_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.2");
const CERTIFICATE_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.3");
const X509_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.22.1");
const FRIENDLY_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.20");
const LOCAL_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.21");
const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");
const PBKDF2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.12");
const HMAC_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.9");
const AES256_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");

const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(99_999);
const SALT: usize = 16;

/// Why there is no PKCS#12 file.
#[derive(Debug, thiserror::Error)]
pub enum Pkcs12Error {
    /// The key or a certificate is no PEM.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// There is no unencrypted PKCS#8 key.
    #[error("the key is not an unencrypted PKCS#8 private key in PEM; convert it with openssl pkcs8 -topk8 -nocrypt")]
    Key,
    /// There is no certificate.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// A password protects nothing if it is empty.
    #[error("the password is empty")]
    NoPassword,
    /// The system gives no random numbers, or the cipher fails.
    #[error("the file cannot be encrypted")]
    Crypto,
}

impl From<aws_lc_rs::error::Unspecified> for Pkcs12Error {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Pkcs12Error::Crypto
    }
}

/// The file's octets: the key of `key_pem`, its certificate (the first of `certificates`, all PEM) and those of its CAs.
///
/// # Errors
/// If something is missing.
pub fn pkcs12(name: &str, key_pem: &[u8], certificates: &[&[u8]], password: &str) -> Result<Vec<u8>, Pkcs12Error> {
    if password.is_empty() {
        return Err(Pkcs12Error::NoPassword);
    }
    let keys = pem::blocks(key_pem)?;
    let key = keys.iter().find(|block| block.label == "PRIVATE KEY").ok_or(Pkcs12Error::Key)?;
    let mut all = Vec::new();
    for text in certificates {
        all.extend(pem::blocks(text)?.into_iter().filter(|block| block.is_certificate()).map(|block| block.der));
    }
    let first = all.first().ok_or(Pkcs12Error::NoCertificate)?;
    let id = sha256(first);

    let mut certificate_bags = Vec::new();
    tlv(&mut certificate_bags, SEQUENCE, |out| {
        for (index, der) in all.iter().enumerate() {
            let attributes = (index == 0).then_some((name, &id[..]));
            certificate_bag(out, der, attributes);
        }
    });
    let certificates = Encrypted::new(password, &certificate_bags)?;
    let shrouded = Encrypted::new(password, &key.der)?;
    let mut key_bags = Vec::new();
    tlv(&mut key_bags, SEQUENCE, |out| key_bag(out, &shrouded, (name, &id)));
    let mut safe = Vec::new();
    tlv(&mut safe, SEQUENCE, |out| {
        tlv(out, SEQUENCE, |out| {
            object_identifier(out, ENCRYPTED_DATA);
            tlv(out, explicit(0), |out| {
                tlv(out, SEQUENCE, |out| {
                    primitive(out, INTEGER, &[0]);
                    tlv(out, SEQUENCE, |out| {
                        object_identifier(out, DATA);
                        certificates.algorithm(out);
                        primitive(out, implicit(0), &certificates.octets);
                    });
                });
            });
        });
        data(out, &key_bags);
    });
    authenticated(&safe, password)
}

/// ContentInfo of the type data.
fn data(out: &mut Vec<u8>, content: &[u8]) {
    tlv(out, SEQUENCE, |out| {
        object_identifier(out, DATA);
        tlv(out, explicit(0), |out| primitive(out, OCTET_STRING, content));
    });
}

fn authenticated(safe: &[u8], password: &str) -> Result<Vec<u8>, Pkcs12Error> {
    let mut salt = [0; SALT];
    rand::fill(&mut salt)?;
    let key = mac_key(password, &salt);
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key[..]), safe);
    let mut file = Vec::new();
    tlv(&mut file, SEQUENCE, |out| {
        primitive(out, INTEGER, &[3]);
        data(out, safe);
        tlv(out, SEQUENCE, |out| {
            tlv(out, SEQUENCE, |out| {
                tlv(out, SEQUENCE, |out| {
                    object_identifier(out, SHA256);
                    primitive(out, NULL, &[]);
                });
                primitive(out, OCTET_STRING, mac.as_ref());
            });
            primitive(out, OCTET_STRING, &salt);
            iterations(out);
        });
    });
    Ok(file)
}

fn iterations(out: &mut Vec<u8>) {
    let octets = ITERATIONS.get().to_be_bytes();
    let first = octets.iter().position(|octet| *octet != 0).unwrap_or(0);
    let mut content = octets.get(first..).unwrap_or_default().to_vec();
    if content.first().is_some_and(|octet| *octet >= 0x80) {
        content.insert(0, 0);
    }
    primitive(out, INTEGER, &content);
}

fn certificate_bag(out: &mut Vec<u8>, der: &[u8], names: Option<(&str, &[u8])>) {
    tlv(out, SEQUENCE, |out| {
        object_identifier(out, CERTIFICATE_BAG);
        tlv(out, explicit(0), |out| {
            tlv(out, SEQUENCE, |out| {
                object_identifier(out, X509_CERTIFICATE);
                tlv(out, explicit(0), |out| primitive(out, OCTET_STRING, der));
            });
        });
        if let Some(names) = names {
            attributes(out, names);
        }
    });
}

fn key_bag(out: &mut Vec<u8>, key: &Encrypted, names: (&str, &[u8])) {
    tlv(out, SEQUENCE, |out| {
        object_identifier(out, SHROUDED_KEY_BAG);
        tlv(out, explicit(0), |out| {
            tlv(out, SEQUENCE, |out| {
                key.algorithm(out);
                primitive(out, OCTET_STRING, &key.octets);
            });
        });
        attributes(out, names);
    });
}

/// What shows that key and certificate belong together, and their name.
fn attributes(out: &mut Vec<u8>, (name, id): (&str, &[u8])) {
    tlv(out, SET, |out| {
        tlv(out, SEQUENCE, |out| {
            object_identifier(out, FRIENDLY_NAME);
            tlv(out, SET, |out| primitive(out, BMP_STRING, &utf16(name)));
        });
        tlv(out, SEQUENCE, |out| {
            object_identifier(out, LOCAL_KEY_ID);
            tlv(out, SET, |out| primitive(out, OCTET_STRING, id));
        });
    });
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// What PBES2 has made of something.
struct Encrypted {
    salt: [u8; SALT],
    iv: [u8; 16],
    octets: Vec<u8>,
}

impl Encrypted {
    fn new(password: &str, plain: &[u8]) -> Result<Encrypted, Pkcs12Error> {
        let (mut salt, mut iv) = ([0; SALT], [0; 16]);
        rand::fill(&mut salt)?;
        rand::fill(&mut iv)?;
        let mut key = Zeroizing::new([0; 32]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password.as_bytes(), &mut key[..]);
        let key = PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, &key[..])?)?;
        let mut octets = plain.to_vec();
        key.less_safe_encrypt(&mut octets, EncryptionContext::Iv128(FixedLength::from(&iv)))?;
        Ok(Encrypted { salt, iv, octets })
    }

    fn algorithm(&self, out: &mut Vec<u8>) {
        tlv(out, SEQUENCE, |out| {
            object_identifier(out, PBES2);
            tlv(out, SEQUENCE, |out| {
                tlv(out, SEQUENCE, |out| {
                    object_identifier(out, PBKDF2);
                    tlv(out, SEQUENCE, |out| {
                        primitive(out, OCTET_STRING, &self.salt);
                        iterations(out);
                        tlv(out, SEQUENCE, |out| {
                            object_identifier(out, HMAC_SHA256);
                            primitive(out, NULL, &[]);
                        });
                    });
                });
                tlv(out, SEQUENCE, |out| {
                    object_identifier(out, AES256_CBC);
                    primitive(out, OCTET_STRING, &self.iv);
                });
            });
        });
    }
}

/// The key of the HMAC: RFC 7292 appendix B.2 with SHA-256, ID 3 and 32 octets, which is one round.
fn mac_key(password: &str, salt: &[u8]) -> Zeroizing<[u8; 32]> {
    const BLOCK: usize = 64;
    // A BMPString with its terminating zero.
    let password = Zeroizing::new([utf16(password), vec![0, 0]].concat());
    let fill = |text: &[u8]| text.iter().copied().cycle().take(text.len().next_multiple_of(BLOCK)).collect::<Vec<_>>();
    let input = Zeroizing::new([vec![3; BLOCK], fill(salt), fill(&password)].concat());
    let mut hash = Zeroizing::new(sha256(&input));
    for _ in 1..ITERATIONS.get() {
        *hash = sha256(&*hash);
    }
    hash
}
