//! What an offline root signed: whether the daemon could issue with it, and how it differs from what was requested.

use std::{
    fmt,
    fs::File,
    time::{Duration, SystemTime},
};

use super::{
    certificate::{Certificate, cas_below, date},
    file::{End, Import, Place},
};
use crate::{
    ca::CaChain,
    csr,
    hash::sha256,
    hsm::Key,
    text_file,
    x509::{CRL_SIGN, KEY_CERT_SIGN, Name},
};

/// A certificate that may be imported, that of its root, and what people should know before they say yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Imported {
    pub(super) certificate: Certificate,
    pub(super) root: Certificate,
    /// One sentence each.
    pub(super) differences: Vec<String>,
}

/// Why it may not be.
#[derive(Debug)]
pub(super) struct Refused<'a> {
    /// The file that is in the way.
    pub(super) place: &'a Place,
    pub(super) reason: String,
}

/// Reads what was signed and checks it against the key in the token, by the rules of the daemon's start. That it differs
/// from what was requested is no reason to refuse it.
pub(super) fn check<'a>(key: &Key, import: &'a Import, now: SystemTime) -> Result<Imported, Refused<'a>> {
    let Import { signed, root, .. } = import;
    let read = |place: &'a Place| Certificate::read(&place.path).map_err(|reason| Refused { place, reason });
    let of_signed = |reason: String| Refused {
        place: signed,
        reason: format!("{} cannot be imported: {reason}", signed.written.display()),
    };
    let certificate = read(signed)?;
    key.check_matches(&certificate.key).map_err(|error| of_signed(error.to_string()))?;
    let root_certificate = read(root)?;
    let mut chain = vec![certificate.parsed().clone()];
    if certificate != root_certificate {
        chain.push(root_certificate.parsed().clone());
    }
    let chain = CaChain::from_certificates(chain).map_err(|error| of_signed(error.to_string()))?;
    chain.check_validity(now.into()).map_err(|error| of_signed(error.to_string()))?;
    if certificate.not_after > root_certificate.not_after {
        let ends = (date(certificate.not_after), date(root_certificate.not_after));
        return Err(of_signed(format!("it ends on {}, after its root, which ends on {}", ends.0, ends.1)));
    }
    let differences = differences(import, &certificate)?;
    Ok(Imported { certificate, root: root_certificate, differences })
}

fn differences<'a>(import: &'a Import, certificate: &Certificate) -> Result<Vec<String>, Refused<'a>> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, requested: String, signed: String| {
        if requested != signed {
            differences.push(format!("{what}: requested {requested}, signed {signed}"));
        }
    };
    if let Some(place) = &import.request {
        let (subject, spki) = read_request(place).map_err(|reason| {
            let reason = format!("{} is not the request: {reason}", place.written.display());
            Refused { place, reason }
        })?;
        let key = |spki: &[u8]| format!("the key with the SHA-256 {}", hex::encode(sha256(spki)));
        compare("key", key(&spki), key(&certificate.key.spki));
        let other = subject.as_der() != certificate.subject().as_der();
        // As other octets of the same text it is another name for some verifiers.
        let encoding = if other && subject.same_text(certificate.subject()) { " in another encoding" } else { "" };
        compare("subject", format!("\"{subject}\""), format!("\"{}\"{encoding}", certificate.subject()));
    }
    let length = |length: Option<u64>| length.map_or("no limit".to_owned(), |length| length.to_string());
    compare("path length", length(Some(import.path_length.into())), length(certificate.path_length()));
    let usage = certificate.parsed().key_usage().ok().flatten().unwrap_or_default();
    compare("key usage", usages(KEY_CERT_SIGN | CRL_SIGN), usages(usage));
    match import.end {
        None => {}
        Some(End::At(end)) => {
            compare("end", end.to_string(), crate::x509_time::Time::from(certificate.not_after).to_string())
        }
        Some(End::Days(days)) => {
            let lives = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
            // Leap seconds, and roots that begin an hour or a day earlier.
            let requested = Duration::from_secs(u64::from(days) * 86_400);
            if lives.abs_diff(requested) > Duration::from_secs(2 * 86_400) {
                compare("validity", format!("{days} days"), format!("{} days", lives.as_secs() / 86_400));
            }
        }
    }
    Ok(differences)
}

/// The subject and the DER public key of a request.
fn read_request(place: &Place) -> Result<(Name, Vec<u8>), String> {
    let file = File::open(&place.path).map_err(|error| error.to_string())?;
    let octets = text_file::read_octets(file, text_file::LONGEST).map_err(|error| error.to_string())?;
    let request = csr::verify(&octets, &csr::RefusedKeys::default()).map_err(|error| error.to_string())?;
    let subject = request.subject().map_err(|error| error.to_string())?;
    Ok((subject, request.into_public_key().spki))
}

/// The names that RFC 5280 has for the bits of keyUsage.
fn usages(usage: u16) -> String {
    const NAMES: [&str; 9] = [
        "digitalSignature",
        "contentCommitment",
        "keyEncipherment",
        "dataEncipherment",
        "keyAgreement",
        "keyCertSign",
        "cRLSign",
        "encipherOnly",
        "decipherOnly",
    ];
    let set = NAMES.iter().enumerate().filter(|(bit, _)| usage >> bit & 1 != 0).map(|(_, name)| *name);
    set.collect::<Vec<_>>().join(" and ")
}

/// The lines of the plan: what people hold against their minutes.
impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Imported { certificate, root, differences } = self;
        for (name, certificate) in [("", certificate), ("root ", root)] {
            let below = cas_below(certificate.path_length());
            writeln!(f, "    {:<12}\"{}\"", format!("{name}subject"), certificate.subject())?;
            let [begins, ends] = [certificate.not_before, certificate.not_after].map(date);
            writeln!(f, "                valid from {begins} until {ends}, {below}")?;
            writeln!(f, "                SHA-256 {}", hex::encode(sha256(certificate.der())))?;
        }
        for difference in differences {
            writeln!(f, "    DIFFERS     {difference}")?;
        }
        Ok(())
    }
}
