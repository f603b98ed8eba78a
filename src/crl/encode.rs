//! Writes a list. The encoder is not x509-cert's, because the issuer's name must be the octets of the CA's certificate, which
//! an encoder that sorts the sets of a name again may change.

use const_oid::db::rfc5280::{
    ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_CRL_NUMBER, ID_CE_CRL_REASONS, ID_CE_ISSUING_DISTRIBUTION_POINT,
};
use jiff::Timestamp;

use crate::{
    asn1::{ENUMERATED, INTEGER, SEQUENCE, explicit, extension, implicit, primitive, tlv},
    ledger::RevocationReason,
    serial::SerialNumber,
    x509_time::Time,
};

/// An upper bound on the encoded length of one entry, in octets: serial number 22, time 17, reason 14, header 2.
const ENTRY_LENGTH: usize = 56;

/// A certificate on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number.
    pub serial_number: SerialNumber,
    /// From when on it is not to be trusted.
    pub at: Timestamp,
    /// Why; [`RevocationReason::Unspecified`] is left out (section 5.3.1).
    pub reason: RevocationReason,
}

/// What a list says beside its entries.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The DER AlgorithmIdentifier of the signature.
    pub algorithm: &'a [u8],
    /// The DER Name of the issuer, as its certificate has it.
    pub issuer: &'a [u8],
    /// The DER value of the authorityKeyIdentifier extension.
    pub authority_key_identifier: &'a [u8],
    /// CRLNumber: greater than that of each list of this scope before.
    pub number: u64,
    /// When it is made.
    pub this_update: Time,
    /// Until when a newer one is published at the latest.
    pub next_update: Time,
    /// The URLs in the certificates of this shard; none: the list covers the whole issuer.
    pub distribution_points: &'a [String],
}

/// The DER TBSCertList (section 5.1.2).
pub fn to_be_signed(terms: &Terms<'_>, revoked: impl ExactSizeIterator<Item = Revoked>) -> Vec<u8> {
    let mut entries = Vec::with_capacity(revoked.len() * ENTRY_LENGTH);
    for certificate in revoked {
        entry(&mut entries, &certificate);
    }
    let mut der = Vec::with_capacity(entries.len() + 512);
    tlv(&mut der, SEQUENCE, |out| {
        primitive(out, INTEGER, &[1]); // version 2
        out.extend_from_slice(terms.algorithm);
        out.extend_from_slice(terms.issuer);
        terms.this_update.encode(out);
        terms.next_update.encode(out);
        // Section 5.1.2.6: absent when there are none.
        if !entries.is_empty() {
            primitive(out, SEQUENCE, &entries);
        }
        tlv(out, explicit(0), |out| tlv(out, SEQUENCE, |out| extensions(out, terms)));
    });
    der
}

fn entry(out: &mut Vec<u8>, certificate: &Revoked) {
    tlv(out, SEQUENCE, |out| {
        primitive(out, INTEGER, certificate.serial_number.as_bytes());
        Time::from(certificate.at).encode(out);
        if certificate.reason != RevocationReason::Unspecified {
            tlv(out, SEQUENCE, |out| {
                extension(out, ID_CE_CRL_REASONS, false, |out| {
                    // CRLReason's numbers are all below 128: one octet.
                    primitive(out, ENUMERATED, &[certificate.reason.code() as u8]);
                });
            });
        }
    });
}

fn extensions(out: &mut Vec<u8>, terms: &Terms<'_>) {
    extension(out, ID_CE_AUTHORITY_KEY_IDENTIFIER, false, |out| {
        out.extend_from_slice(terms.authority_key_identifier);
    });
    extension(out, ID_CE_CRL_NUMBER, false, |out| positive(out, terms.number));
    extension(out, ID_CE_ISSUING_DISTRIBUTION_POINT, true, |out| {
        tlv(out, SEQUENCE, |out| {
            if !terms.distribution_points.is_empty() {
                // distributionPoint [0] { fullName [0] { uniformResourceIdentifier [6] } }
                tlv(out, explicit(0), |out| {
                    tlv(out, explicit(0), |out| {
                        for url in terms.distribution_points {
                            primitive(out, implicit(6), url.as_bytes());
                        }
                    });
                });
            }
            primitive(out, implicit(1), &[0xff]); // onlyContainsUserCerts
        });
    });
}

/// Appends an INTEGER that is not negative, in as few octets as it can (X.690 section 8.3.2).
fn positive(out: &mut Vec<u8>, number: u64) {
    let octets = number.to_be_bytes();
    let zeros = (number.leading_zeros() as usize / 8).min(octets.len() - 1);
    let significant = &octets[zeros..];
    tlv(out, INTEGER, |out| {
        if significant[0] >= 0x80 {
            out.push(0);
        }
        out.extend_from_slice(significant);
    });
}

#[cfg(test)]
mod tests {
    use der::Decode;
    use x509_cert::crl::TbsCertList;

    use super::*;
    use crate::asn1::OCTET_STRING;

    fn serial_number(n: u8) -> SerialNumber {
        SerialNumber::try_from([n; 20].as_slice()).unwrap()
    }

    fn terms<'a>(number: u64, algorithm: &'a [u8], issuer: &'a [u8], urls: &'a [String]) -> Terms<'a> {
        let now = Time::from(Timestamp::from_second(1_800_000_000).unwrap());
        Terms {
            algorithm,
            issuer,
            authority_key_identifier: &[0x30, 0x03, 0x80, 0x01, 0x07],
            number,
            this_update: now,
            next_update: now.plus(jiff::SignedDuration::from_hours(24)),
            distribution_points: urls,
        }
    }

    fn algorithm() -> Vec<u8> {
        crate::signer::SignatureAlgorithm::EcdsaP256Sha256.identifier().to_vec()
    }

    /// Another implementation reads what is written.
    #[test]
    fn crl_is_read_by_x509_cert_as_it_was_written() {
        let (algorithm, issuer) = (algorithm(), vec![0x30, 0]);
        let revoked = [
            Revoked {
                serial_number: serial_number(3),
                at: Timestamp::UNIX_EPOCH,
                reason: RevocationReason::KeyCompromise,
            },
            Revoked {
                serial_number: serial_number(4),
                at: Timestamp::UNIX_EPOCH,
                reason: RevocationReason::Unspecified,
            },
        ];
        let der = to_be_signed(&terms(200, &algorithm, &issuer, &["http://x/1.crl".to_owned()]), revoked.into_iter());
        let list: TbsCertList = TbsCertList::from_der(&der).unwrap();
        let entries = list.revoked_certificates.unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].serial_number.as_bytes(), &[3; 20]);
        assert_eq!(entries[0].crl_entry_extensions.as_ref().unwrap()[0].extn_value.as_bytes(), [ENUMERATED, 1, 1]);
        assert!(entries[1].crl_entry_extensions.is_none());
        let extensions = list.crl_extensions.unwrap();
        assert_eq!(extensions[1].extn_value.as_bytes(), [INTEGER, 2, 0, 200]);
        assert!(extensions[2].critical);
        let scope =
            x509_cert::ext::pkix::crl::dp::IssuingDistributionPoint::from_der(extensions[2].extn_value.as_bytes());
        let scope = scope.unwrap();
        assert!(scope.only_contains_user_certs && scope.distribution_point.is_some());
        assert_eq!(list.next_update.unwrap().to_unix_duration().as_secs(), 1_800_000_000 + 24 * 3600);
    }

    /// RFC 5280 section 5.1.2.6: an empty list has no revokedCertificates.
    #[test]
    fn crl_without_entries_leaves_the_list_out() {
        let (algorithm, issuer) = (algorithm(), vec![0x30, 0]);
        let der = to_be_signed(&terms(1, &algorithm, &issuer, &[]), [].into_iter());
        let list: TbsCertList = TbsCertList::from_der(&der).unwrap();
        assert!(list.revoked_certificates.is_none());
        let mut number = Vec::new();
        positive(&mut number, 0);
        assert_eq!(number, [INTEGER, 1, 0]);
        let scope = list.crl_extensions.unwrap()[2].extn_value.as_bytes().to_vec();
        assert_eq!(scope, [SEQUENCE, 3, implicit(1), 1, 0xff]);
        assert_ne!(scope[0], OCTET_STRING);
    }
}
