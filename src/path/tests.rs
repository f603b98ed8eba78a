mod policies;

use std::sync::LazyLock;

use const_oid::db::rfc4519;
use rcgen::{KeyPair, PublicKeyData, SigningKey};

use super::*;
use crate::asn1::{
    BIT_STRING, BOOLEAN, GENERALIZED_TIME, INTEGER, OCTET_STRING, PRINTABLE_STRING, SEQUENCE, SET, UTC_TIME,
    UTF8_STRING, explicit, implicit, object_identifier, primitive, tlv,
};

static KEYS: LazyLock<[KeyPair; 3]> = LazyLock::new(|| [(); 3].map(|()| KeyPair::generate().unwrap()));

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    primitive(&mut out, tag, content);
    out
}

fn attribute(oid: ObjectIdentifier, tag: u8, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    tlv(&mut out, SEQUENCE, |out| {
        object_identifier(out, oid);
        primitive(out, tag, text.as_bytes());
    });
    out
}

fn name(cn: &str) -> Vec<u8> {
    der(SEQUENCE, &der(SET, &attribute(rfc4519::CN, UTF8_STRING, cn)))
}

/// A certificate to be made, with everything that may be wrong in one.
#[derive(Clone)]
struct Spec {
    version: Vec<u8>,
    serial_number: Vec<u8>,
    algorithm: Vec<u8>,
    issuer: Vec<u8>,
    validity: Vec<u8>,
    subject: Vec<u8>,
    /// Of [`KEYS`].
    key: usize,
    extensions: Vec<Vec<u8>>,
    signed_by: usize,
    /// What is done to the DER of the TBSCertificate after it was signed.
    changed: fn(Vec<u8>) -> Vec<u8>,
}

fn extension(oid: ObjectIdentifier, critical: bool, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    crate::asn1::extension(&mut out, oid, critical, |out| out.extend_from_slice(value));
    out
}

fn key_identifier(key: usize) -> Vec<u8> {
    vec![key as u8 + 1; 20]
}

fn basic_constraints(path_length: Option<u8>) -> Vec<u8> {
    let length = path_length.map(|length| der(INTEGER, &[length])).unwrap_or_default();
    extension(ID_CE_BASIC_CONSTRAINTS, true, &der(SEQUENCE, &[&[BOOLEAN, 1, 0xff][..], &length].concat()))
}

fn authority(identifier: &[u8]) -> Vec<u8> {
    extension(ID_CE_AUTHORITY_KEY_IDENTIFIER, false, &der(SEQUENCE, &der(implicit(0), identifier)))
}

impl Spec {
    /// A CA with this key, issued by the one with the other.
    fn ca(key: usize, signed_by: usize) -> Spec {
        Spec {
            version: vec![0xa0, 3, 2, 1, 2],
            serial_number: vec![key as u8 + 1],
            algorithm: vec![0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
            issuer: name(&format!("CA {signed_by}")),
            validity: [der(UTC_TIME, b"250101000000Z"), der(UTC_TIME, b"450101000000Z")].concat(),
            subject: name(&format!("CA {key}")),
            key,
            extensions: vec![
                basic_constraints(None),
                extension(ID_CE_KEY_USAGE, true, &[3, 2, 1, 6]),
                extension(ID_CE_SUBJECT_KEY_IDENTIFIER, false, &der(OCTET_STRING, &key_identifier(key))),
                authority(&key_identifier(signed_by)),
            ],
            signed_by,
            changed: |tbs| tbs,
        }
    }

    fn set(mut self, oid: ObjectIdentifier, extension: Option<Vec<u8>>) -> Spec {
        let holds = der(0x06, oid.as_bytes());
        self.extensions.retain(|extension| !extension.windows(holds.len()).any(|window| window == holds));
        self.extensions.extend(extension);
        self
    }

    fn make(&self) -> Certificate {
        let tbs = der(
            SEQUENCE,
            &[
                self.version.as_slice(),
                &der(INTEGER, &self.serial_number),
                &self.algorithm,
                &self.issuer,
                &der(SEQUENCE, &self.validity),
                &self.subject,
                &KEYS[self.key].subject_public_key_info(),
                &der(explicit(3), &der(SEQUENCE, &self.extensions.concat())),
            ]
            .concat(),
        );
        let signature = KEYS[self.signed_by].sign(&tbs).unwrap();
        let algorithm = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
        let certificate = [&(self.changed)(tbs)[..], &algorithm, &der(BIT_STRING, &[&[0], &signature[..]].concat())];
        Certificate::from_der(&der(SEQUENCE, &certificate.concat())).unwrap()
    }
}

/// An issuing CA, one above it, and a root, each with a chance to be changed.
fn chain(change: impl Fn([Spec; 3]) -> [Spec; 3]) -> Vec<Certificate> {
    change([Spec::ca(0, 1), Spec::ca(1, 2), Spec::ca(2, 2)]).iter().map(Spec::make).collect()
}

fn faulty(what: &str, change: impl Fn([Spec; 3]) -> [Spec; 3]) {
    let error = check(&chain(change)).expect_err(what).to_string();
    assert!(error.contains(what), "{what}: {error}");
}

fn good(what: &str, change: impl Fn([Spec; 3]) -> [Spec; 3]) {
    assert_eq!(check(&chain(change)), Ok(()), "{what}");
}

#[test]
fn chain_is_good_however_it_is_encoded() {
    good("usual", |chain| chain);
    good("critical FALSE written out", |[a, b, c]| {
        let written = der(
            SEQUENCE,
            &[
                der(0x06, ID_CE_SUBJECT_KEY_IDENTIFIER.as_bytes()),
                vec![BOOLEAN, 1, 0],
                der(OCTET_STRING, &der(OCTET_STRING, &key_identifier(0))),
            ]
            .concat(),
        );
        [a.set(ID_CE_SUBJECT_KEY_IDENTIFIER, Some(written)), b, c]
    });
    good("GeneralizedTime before 2050", |[a, b, mut c]| {
        c.validity = [der(GENERALIZED_TIME, b"20250101000000Z"), der(GENERALIZED_TIME, b"20450101000000Z")].concat();
        [a, b, c]
    });
    good("an RDN that is not sorted", |[a, mut b, mut c]| {
        let unsorted = [attribute(rfc4519::OU, UTF8_STRING, "U"), attribute(rfc4519::CN, UTF8_STRING, "M")].concat();
        c.subject = der(SEQUENCE, &der(SET, &unsorted));
        (c.issuer, b.issuer) = (c.subject.clone(), c.subject.clone());
        [a, b, c]
    });
    good("a serial number of 36 octets", |[a, b, mut c]| {
        c.serial_number = vec![0x31; 36];
        [a, b, c]
    });
    good("a root without keyUsage and key identifiers", |[a, b, c]| {
        let c = c.set(ID_CE_KEY_USAGE, None).set(ID_CE_AUTHORITY_KEY_IDENTIFIER, None);
        [a, b, c.set(ID_CE_SUBJECT_KEY_IDENTIFIER, None)]
    });
    good("room enough for the path", |[a, b, c]| {
        [
            a.set(ID_CE_BASIC_CONSTRAINTS, Some(basic_constraints(Some(0)))),
            b,
            c.set(ID_CE_BASIC_CONSTRAINTS, Some(basic_constraints(Some(2)))),
        ]
    });
    // As far as it goes: the root need not be there.
    let mut partial = chain(|chain| chain);
    partial.truncate(1);
    assert_eq!(check(&partial), Ok(()));
}

#[test]
fn certificate_that_may_not_issue_is_refused() {
    faulty("certificate 1, the issuing CA \"CN=CA 0\": it is not a CA's", |[a, b, c]| {
        [a.set(ID_CE_BASIC_CONSTRAINTS, Some(extension(ID_CE_BASIC_CONSTRAINTS, true, &[0x30, 0]))), b, c]
    });
    faulty("certificate 3, \"CN=CA 2\": it is not a CA's", |[a, b, c]| [a, b, c.set(ID_CE_BASIC_CONSTRAINTS, None)]);
    faulty("basicConstraints are not critical", |[a, b, c]| {
        let loose = extension(ID_CE_BASIC_CONSTRAINTS, false, &[0x30, 3, 1, 1, 0xff]);
        [a, b.set(ID_CE_BASIC_CONSTRAINTS, Some(loose)), c]
    });
    faulty("does not have keyCertSign", |[a, b, c]| {
        [a, b.set(ID_CE_KEY_USAGE, Some(extension(ID_CE_KEY_USAGE, true, &[3, 2, 7, 0x80]))), c]
    });
    faulty("does not have keyCertSign", |[a, b, c]| [a, b.set(ID_CE_KEY_USAGE, None), c]);
    faulty("no subjectKeyIdentifier", |[a, b, c]| [a.set(ID_CE_SUBJECT_KEY_IDENTIFIER, None), b, c]);
    faulty("subjectKeyIdentifier is empty", |[a, b, c]| {
        [a.set(ID_CE_SUBJECT_KEY_IDENTIFIER, Some(extension(ID_CE_SUBJECT_KEY_IDENTIFIER, false, &[4, 0]))), b, c]
    });
    faulty("subject is empty", |[mut a, b, c]| {
        a.subject = vec![0x30, 0];
        [a, b, c]
    });
    faulty("it has version 1", |[a, b, mut c]| {
        c.version = Vec::new();
        [a, b, c]
    });
    faulty("has the extension 2.5.29.14 twice", |[mut a, b, c]| {
        a.extensions.push(extension(ID_CE_SUBJECT_KEY_IDENTIFIER, false, &[4, 1, 9]));
        [a, b, c]
    });
    faulty("critical extension 1.2.3", |[a, b, mut c]| {
        c.extensions.push(extension(ObjectIdentifier::new_unwrap("1.2.3"), true, &[5, 0]));
        [a, b, c]
    });
    faulty("extension keyUsage is malformed", |[a, b, c]| {
        [a.set(ID_CE_KEY_USAGE, Some(extension(ID_CE_KEY_USAGE, true, &[4, 1, 9]))), b, c]
    });
    faulty("signature algorithm within it", |[mut a, b, c]| {
        a.algorithm = vec![0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
        [a, b, c]
    });
}

#[test]
fn path_length_that_is_used_up_is_refused() {
    for (position, length, most) in [(1, 0, 1), (2, 0, 2), (2, 1, 2)] {
        let error = check(&chain(|specs| {
            let mut specs = specs.map(Some);
            let changed = specs[position]
                .take()
                .map(|spec| spec.set(ID_CE_BASIC_CONSTRAINTS, Some(basic_constraints(Some(length)))));
            specs[position] = changed;
            specs.map(Option::unwrap)
        }))
        .unwrap_err();
        assert_eq!(*error.fault(), Fault::PathLength { allowed: u64::from(length), found: most });
    }
    // What a CA issued to itself is not counted (section 6.1.4 (l)).
    let self_issued = [Spec::ca(0, 1), Spec { issuer: name("CA 1"), ..Spec::ca(1, 2) }, Spec::ca(2, 2)];
    let [a, b, c] = self_issued;
    let c = Spec { subject: name("CA 1"), issuer: name("CA 1"), ..c }
        .set(ID_CE_BASIC_CONSTRAINTS, Some(basic_constraints(Some(1))));
    assert_eq!(check(&[a.make(), b.make(), c.make()]), Ok(()));
}

#[test]
fn certificate_that_another_issued_is_refused() {
    faulty("but the next certificate is that of \"CN=CA 1\"", |[a, b, c]| [Spec { issuer: name("CA 9"), ..a }, b, c]);
    faulty("are the same text in another encoding", |[a, b, c]| {
        let printable = der(SEQUENCE, &der(SET, &attribute(rfc4519::CN, PRINTABLE_STRING, "CA 1")));
        [Spec { issuer: printable, ..a }, b, c]
    });
    faulty("not made by the key of the next certificate", |[a, b, c]| [Spec { signed_by: 2, ..a }, b, c]);
    faulty("not made by the key of the next certificate", |[a, b, c]| {
        // The same content in other octets: what OpenSSL would sign is not what stands there.
        let changed = |mut tbs: Vec<u8>| {
            let at = tbs.windows(2).position(|window| window == b"CA").unwrap();
            tbs[at] = b'K';
            tbs
        };
        [
            a,
            Spec { changed, issuer: name("CA 2"), subject: name("CA 1"), ..b },
            Spec { subject: name("KA 2"), issuer: name("KA 2"), ..c },
        ]
    });
    faulty("not made by its own key", |[a, b, c]| [a, b, Spec { signed_by: 0, ..c }]);
    faulty("not the subjectKeyIdentifier of its issuer", |[a, b, c]| {
        [a.set(ID_CE_AUTHORITY_KEY_IDENTIFIER, Some(authority(&[9; 20]))), b, c]
    });
    faulty("not the subjectKeyIdentifier of its issuer", |[a, b, c]| {
        [a, b, c.set(ID_CE_AUTHORITY_KEY_IDENTIFIER, Some(authority(&[9; 20])))]
    });
    faulty("not the serial number of its issuer", |[a, b, c]| {
        let value = der(SEQUENCE, &der(implicit(2), &[77]));
        [a.set(ID_CE_AUTHORITY_KEY_IDENTIFIER, Some(extension(ID_CE_AUTHORITY_KEY_IDENTIFIER, false, &value))), b, c]
    });
    faulty("not the issuer of its issuer", |[a, b, c]| {
        let value = der(SEQUENCE, &der(explicit(1), &der(0xa4, &name("CA 9"))));
        [a.set(ID_CE_AUTHORITY_KEY_IDENTIFIER, Some(extension(ID_CE_AUTHORITY_KEY_IDENTIFIER, false, &value))), b, c]
    });
}

#[test]
fn chain_is_valid_from_its_last_beginning_to_its_first_end() {
    let chain = chain(|[a, b, mut c]| {
        c.validity = [der(UTC_TIME, b"300101000000Z"), der(UTC_TIME, b"310101000000Z")].concat();
        [a, b, c]
    });
    let at = |moment: &str| {
        check_validity(&chain, moment.parse::<jiff::Timestamp>().unwrap().into()).map_err(|error| error.to_string())
    };
    assert!(
        at("2024-01-01T00:00:00Z")
            .unwrap_err()
            .contains("certificate 1, the issuing CA \"CN=CA 0\": it is not valid before 2025")
    );
    assert!(
        at("2029-01-01T00:00:00Z").unwrap_err().contains("certificate 3, \"CN=CA 2\": it is not valid before 2030")
    );
    assert_eq!(at("2030-06-01T00:00:00Z"), Ok(()));
    assert!(at("2031-01-01T00:00:01Z").unwrap_err().contains("it expired at 2031"));
}

fn purposes(list: &[ObjectIdentifier]) -> Vec<u8> {
    let list: Vec<u8> = list.iter().flat_map(|oid| der(0x06, oid.as_bytes())).collect();
    extension(ID_CE_EXT_KEY_USAGE, false, &der(SEQUENCE, &list))
}

/// An end entity must be allowed by every certificate of its chain.
#[test]
fn end_entity_not_allowed_by_its_whole_chain_is_refused() {
    use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
    let device = Spec { subject: name("device"), ..Spec::ca(0, 0) };
    let device = device.set(ID_CE_EXT_KEY_USAGE, Some(purposes(&[ID_KP_CLIENT_AUTH])));
    let judge = |device: &Spec, change: &dyn Fn([Spec; 3]) -> [Spec; 3]| {
        check_end_entity(&chain(change), &device.make()).map_err(|error| error.to_string())
    };
    let set = |position: usize, oid: ObjectIdentifier, value: Vec<u8>| {
        move |mut specs: [Spec; 3]| {
            specs[position] = specs[position].clone().set(oid, Some(value.clone()));
            specs
        }
    };
    assert_eq!(judge(&device, &|chain| chain), Ok(()));
    for position in 0..3 {
        let judge = |list: &[ObjectIdentifier]| judge(&device, &set(position, ID_CE_EXT_KEY_USAGE, purposes(list)));
        assert!(judge(&[ID_KP_SERVER_AUTH]).unwrap_err().contains("allows none of the purposes"));
        assert_eq!(judge(&[ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH]), Ok(()));
        assert_eq!(judge(&[ANY_EXTENDED_KEY_USAGE]), Ok(()));
    }
    let constraints = |number: u8, name: &[u8]| {
        let subtree = der(SEQUENCE, &der(0xa4, name));
        extension(ID_CE_NAME_CONSTRAINTS, true, &der(SEQUENCE, &der(explicit(number), &subtree)))
    };
    let excluded = judge(&device, &set(0, ID_CE_NAME_CONSTRAINTS, constraints(1, &name("Device"))));
    assert!(excluded.unwrap_err().contains("which is excluded"));
    assert_eq!(judge(&device, &set(2, ID_CE_NAME_CONSTRAINTS, constraints(0, &name("device")))), Ok(()));
    let another = judge(&device, &set(0, ID_CE_NAME_CONSTRAINTS, constraints(0, &name("other"))));
    assert!(another.unwrap_err().contains("which is not permitted"));
    // The CAs below are held to them as well.
    faulty("certificate 1 has the name \"CN=CA 0\", which is not permitted", |specs| {
        set(1, ID_CE_NAME_CONSTRAINTS, constraints(0, &name("other")))(specs)
    });
    let misnamed = Spec { issuer: name("CA 9"), ..device.clone() };
    assert!(judge(&misnamed, &|chain| chain).unwrap_err().contains("its issuer is \"CN=CA 9\""));
    let twice = Spec { extensions: [device.extensions.clone(), vec![purposes(&[])]].concat(), ..device };
    assert!(judge(&twice, &|chain| chain).unwrap_err().contains("2.5.29.37 twice"));
}

#[test]
fn long_text_in_a_certificate_is_not_echoed_whole() {
    let error = check(&chain(|[a, b, c]| [a, Spec { subject: name(&"x".repeat(60_000)), ..b }, c])).unwrap_err();
    assert!(error.to_string().len() < 1000, "{error}");
}
