//! The recorded issuer that a certificate of the ledger stands for.

use std::sync::Arc;

use crate::{
    ledger::RecordedIssuer,
    x509::{Certificate, Misfit, fits_der},
};

/// Why no chain can stand beside a recorded certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoIssuer {
    /// The record names an issuer that the ledger does not have.
    #[error("the certificate {certificate} stands for the issuer \"{name}\" with the id {id}, which is not recorded")]
    Unknown {
        /// The certificate.
        certificate: String,
        /// Its issuer's name.
        name: String,
        /// The id that is not there.
        id: u32,
    },
    /// The record's issuer cannot have issued it.
    #[error("the certificate {certificate} does not fit its issuer \"{name}\", generation {generation}: {cause}")]
    Misfit {
        /// The certificate.
        certificate: String,
        /// Its issuer's name.
        name: String,
        /// Which of that name.
        generation: u32,
        /// What does not fit.
        cause: Misfit,
    },
    /// The record is from before issuers were recorded, and none of its issuer's name can have issued it.
    #[error(
        "the certificate {certificate} is of the issuer \"{name}\", and none of the {generations} recorded generations \
         of that name fits it; have the daemon start once with the chain that it was issued by under that name"
    )]
    NoneFits {
        /// The certificate.
        certificate: String,
        /// Its issuer's name.
        name: String,
        /// How many there are.
        generations: usize,
    },
}

/// Gives the issuer that a recorded certificate stands for, never what the configuration says today: the one of its id,
/// or, for records from before issuers were recorded, the first of its name that can have issued it.
///
/// # Errors
/// None fits: then no chain may be shown beside it.
pub(crate) fn issuer_of<'a>(
    certificate: &[u8],
    (name, id): (&str, u32),
    issuers: &'a [Arc<RecordedIssuer>],
) -> Result<&'a Arc<RecordedIssuer>, NoIssuer> {
    let fits = |issuer: &RecordedIssuer| {
        let ca = issuer.chain.first().map_or(&[][..], |ca| ca.as_ref());
        fits_der(certificate, ca)
    };
    let name = name.to_owned();
    if id == 0 {
        let mut of_the_name = issuers.iter().filter(|issuer| issuer.name == name);
        let generations = of_the_name.clone().count();
        let found = of_the_name.find(|issuer| fits(issuer).is_ok());
        return found.ok_or_else(|| NoIssuer::NoneFits { certificate: describe(certificate), name, generations });
    }
    let Some(issuer) = issuers.iter().find(|issuer| issuer.id == id) else {
        return Err(NoIssuer::Unknown { certificate: describe(certificate), name, id });
    };
    let generation = issuer.generation;
    let misfit = |cause| NoIssuer::Misfit { certificate: describe(certificate), name, generation, cause };
    fits(issuer).map(|()| issuer).map_err(misfit)
}

/// Serial number and subject of a certificate.
fn describe(certificate: &[u8]) -> String {
    match Certificate::from_der(certificate) {
        Ok(certificate) => format!("{} of \"{}\"", hex::encode(&certificate.serial_number), certificate.subject),
        Err(error) => format!("that cannot be read ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use bytes::Bytes;
    use jiff::Timestamp;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair};

    use super::*;
    use crate::ledger::{
        Action, Actor, IssuerTerms, Ledger, Operation, Outcome, Records,
        embedded::{EmbeddedLedger, Settings},
    };

    /// A CA of this name with this key identifier, and a certificate of it.
    fn ca_and_leaf(name: &str, key_identifier: u8) -> (Bytes, Vec<u8>) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![key_identifier; 20]);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().der().to_vec();
        let mut leaf = CertificateParams::default();
        leaf.use_authority_key_identifier_extension = true;
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &Issuer::new(params, key)).unwrap();
        (ca.into(), leaf.der().to_vec())
    }

    /// A journal of version 0.1 has none; its records find the chain that issued them once it is recorded.
    #[test]
    fn records_of_version_0_1_find_their_issuer() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal-0.1");
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("journal")).unwrap();
        for file in fs::read_dir(fixture.join("data/journal")).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.path().join("journal").join(file.file_name())).unwrap();
        }
        let now = Timestamp::now();
        let settings = Settings { min_free: 0, ..Settings::default() };
        let (mut ledger, records) = EmbeddedLedger::open(folder.path(), now, &settings).unwrap();
        assert_eq!(records.issuers(), []);
        let chain = ["ca/issuer.pem", "ca/root.pem"];
        let chain = chain.iter().flat_map(|file| crate::pem::read_certificates(&fixture.join(file)).unwrap());
        let chain: Vec<Bytes> = chain.map(Bytes::from).collect();
        let (_, leaf) = ca_and_leaf("CA", 1);
        let mut add = |chain: &[Bytes]| {
            let terms = IssuerTerms { name: "device".into(), chain: chain.to_vec(), crl_shards: 0 };
            let operation = Operation { actor: Actor::daemon(), action: Action::AddIssuer(terms) };
            let outcome = ledger.commit(now, &[operation]).unwrap().remove(0);
            assert!(matches!(&outcome, Outcome::Issuer { retry: false, .. }), "{outcome:?}");
        };
        // The name had another CA first.
        add(&[Bytes::from(leaf)]);
        add(&chain);
        let issuers = records.issuers();
        let mut certificates = 0;
        for order in records.orders().unwrap() {
            for record in records.issued_under(&order.terms.id).unwrap() {
                let record = record.unwrap();
                let named = (&record.holder.issuer[..], record.holder.issuer_id);
                assert_eq!(named, ("device", 0));
                let issuer = issuer_of(&record.issued.unwrap().certificate, named, &issuers).unwrap();
                assert_eq!((issuer.id, issuer.generation, &issuer.chain), (2, 2, &chain));
                certificates += 1;
            }
        }
        assert_eq!(certificates, 14);
    }

    fn recorded(id: u32, generation: u32, ca: &Bytes) -> Arc<RecordedIssuer> {
        let (chain, added_at) = (vec![ca.clone()], Timestamp::UNIX_EPOCH);
        Arc::new(RecordedIssuer { id, name: "main".into(), generation, chain, crl_shards: 0, added_at })
    }

    /// A certificate stands for the CA of its id, and only if that can have issued it; without an id, for the first of
    /// the name that can.
    #[test]
    fn certificate_stands_for_no_ca_that_does_not_fit() {
        let (old, of_old) = ca_and_leaf("CA", 1);
        let (new, of_new) = ca_and_leaf("CA", 2);
        let (_, of_other) = ca_and_leaf("Another", 1);
        let issuers = [recorded(1, 1, &old), recorded(2, 2, &new), recorded(3, 3, &old)];
        let of = |leaf: &[u8], name, id| issuer_of(leaf, (name, id), &issuers).map(|issuer| issuer.id);
        assert_eq!((of(&of_old, "main", 1), of(&of_old, "main", 3), of(&of_new, "main", 2)), (Ok(1), Ok(3), Ok(2)));
        assert_eq!((of(&of_old, "main", 0), of(&of_new, "main", 0)), (Ok(1), Ok(2)));
        for (leaf, name, id, says) in [
            (&of_old[..], "main", 2, "generation 2: its authorityKeyIdentifier is 0101"),
            (&of_other, "main", 1, "generation 1: its issuer is \"CN=Another\", and the CA's subject is \"CN=CA\""),
            (&of_other, "main", 0, "none of the 3 recorded generations of that name fits it"),
            (&of_old, "other", 0, "none of the 0 recorded generations"),
            (&of_old, "main", 4, "with the id 4, which is not recorded"),
            (b"nonsense", "main", 1, "that cannot be read"),
        ] {
            let error = of(leaf, name, id).unwrap_err().to_string();
            assert!(error.contains(says), "{says:?} is not in {error:?}");
        }
    }
}
