//! The rules that a certificate is held against: RFC 5280's for all, and those of its preset.

use const_oid::{
    AssociatedOid, ObjectIdentifier,
    db::{rfc4519, rfc5912},
};
use der::{Decode, Encode, Tag, Tagged, referenced::OwnedToRef};
use x509_cert::{
    Certificate,
    ext::pkix::{
        AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectAltName, SubjectKeyIdentifier,
        name::GeneralName,
    },
    name::Name,
};

use super::{Finding, Sample, Severity};
use crate::{
    cert::Time,
    config::{self, Preset},
    name::{MATTER_PRODUCT_ID, MATTER_VENDOR_ID, type_name},
    profile::{HARDWARE_MODULE_NAME, Profile},
    signer::SignatureAlgorithm,
};

/// The parameters of AWS IoT's just-in-time provisioning and the attributes from which they are taken.
const JITP: [(&str, ObjectIdentifier); 7] = [
    ("Country", rfc4519::C),
    ("Organization", rfc4519::O),
    ("OrganizationalUnit", rfc4519::OU),
    ("DistinguishedNameQualifier", rfc4519::DN_QUALIFIER),
    ("StateName", rfc4519::ST),
    ("CommonName", rfc4519::CN),
    ("SerialNumber", rfc4519::SERIAL_NUMBER),
];

/// Holds a sample against all rules.
pub(super) fn check(profile: &Profile, settings: &config::Profile, sample: &Sample) -> Vec<Finding> {
    let parse = |der: &[u8]| Certificate::from_der(der).map_err(|error| error.to_string());
    let issuer = sample.issuer.chain().first().map_or(Err("it has no chain".into()), |der| parse(der));
    let (certificate, issuer) = match (parse(&sample.certificate), issuer) {
        (Ok(certificate), Ok(issuer)) => (certificate, issuer),
        (Err(error), _) | (_, Err(error)) => {
            let (severity, rule) = (Severity::Error, "RFC 5280 section 4.1");
            return vec![Finding { severity, key: "extensions", rule, message: format!("it is not DER: {error}") }];
        }
    };
    let mut rules = Rules { findings: Vec::new(), settings, sample, certificate, issuer };
    rules.rfc5280();
    rules.jitp();
    match profile.preset() {
        Preset::Device | Preset::TlsClient => {}
        Preset::Idevid => rules.idevid(),
        Preset::MatterDac => rules.matter_dac(),
        Preset::AzureDps => rules.azure_dps(),
    }
    rules.findings
}

struct Rules<'a> {
    findings: Vec<Finding>,
    settings: &'a config::Profile,
    sample: &'a Sample,
    certificate: Certificate,
    issuer: Certificate,
}

impl Rules<'_> {
    fn must(&mut self, holds: bool, key: &'static str, rule: &'static str, message: impl Into<String>) {
        self.note(Severity::Error, holds, key, rule, message);
    }

    fn should(&mut self, holds: bool, key: &'static str, rule: &'static str, message: impl Into<String>) {
        self.note(Severity::Warning, holds, key, rule, message);
    }

    fn note(
        &mut self,
        severity: Severity,
        holds: bool,
        key: &'static str,
        rule: &'static str,
        message: impl Into<String>,
    ) {
        if !holds {
            self.findings.push(Finding { severity, key, rule, message: message.into() });
        }
    }

    /// An extension: whether it is critical, and its value.
    fn extension<T: AssociatedOid + for<'d> Decode<'d>>(&self) -> Option<(bool, T)> {
        let found = self.certificate.tbs_certificate().extensions()?.iter().find(|found| found.extn_id == T::OID)?;
        T::from_der(found.extn_value.as_bytes()).ok().map(|value| (found.critical, value))
    }

    fn subject(&self) -> &Name {
        self.certificate.tbs_certificate().subject()
    }

    /// The ends of the certificate and of its issuer.
    fn ends(&self) -> [Time; 2] {
        [&self.certificate, &self.issuer]
            .map(|certificate| Time::of(certificate.tbs_certificate().validity().not_after))
    }

    fn rfc5280(&mut self) {
        let tbs = self.certificate.tbs_certificate();
        let serial_number = tbs.serial_number().as_bytes();
        let positive =
            serial_number.len() <= 20 && serial_number.first().is_some_and(|octet| (1..0x80).contains(octet));
        self.must(
            positive,
            "issuer",
            "RFC 5280 section 4.1.2.2",
            "the serial number is not positive and up to 20 octets",
        );

        let tbs = self.certificate.tbs_certificate();
        let same = tbs.issuer().to_der().ok() == self.issuer.tbs_certificate().subject().to_der().ok();
        self.must(same, "issuer", "RFC 5280 section 4.1.2.4", "the issuer name is not the CA's subject octet by octet");

        let usage = self.issuer.tbs_certificate().get_extension::<KeyUsage>().ok().flatten();
        let signs = usage.is_some_and(|(_, KeyUsage(usage))| usage.contains(KeyUsages::KeyCertSign));
        self.must(signs, "issuer", "RFC 5280 section 4.2.1.3", "the issuer's keyUsage does not have keyCertSign");

        let [end, issuers_end] = self.ends();
        let within = end <= issuers_end || self.settings.beyond_issuer == Some(config::BeyondIssuer::Allow);
        let message = format!(
            "it ends at {end}, after its issuer, which ends at {issuers_end}: verifiers refuse it from then on; say \
             beyond_issuer = \"allow\" if that is meant"
        );
        self.should(within, self.settings.validity_key(), "RFC 5280 section 6.1", message);

        let constraints = self.extension::<BasicConstraints>();
        let no_ca =
            constraints.is_some_and(|(critical, value)| critical && !value.ca && value.path_len_constraint.is_none());
        self.must(
            no_ca,
            "extensions",
            "RFC 5280 section 4.2.1.9",
            "basicConstraints do not say, critically, that it is no CA",
        );

        let key_identifier = self
            .issuer
            .tbs_certificate()
            .get_extension::<SubjectKeyIdentifier>()
            .ok()
            .flatten()
            .map(|(_, SubjectKeyIdentifier(identifier))| identifier);
        match self.extension::<AuthorityKeyIdentifier>() {
            None => self.should(
                false,
                "authority_key_identifier",
                "RFC 5280 section 4.2.1.1",
                "there is no authorityKeyIdentifier, which every certificate of a CA must have",
            ),
            Some((critical, value)) => {
                let same = !critical && value.key_identifier == key_identifier;
                let message = "the authorityKeyIdentifier is not the issuer's subjectKeyIdentifier";
                self.must(same, "authority_key_identifier", "RFC 5280 section 4.2.1.1", message);
            }
        }
        self.names();
        let critical = self.settings.extensions.iter().filter(|extension| extension.get_ref().critical);
        let critical: Vec<_> = critical.map(|extension| extension.get_ref().oid.get_ref().clone()).collect();
        let message = format!("{} is critical: who does not know it refuses the certificate", critical.join(", "));
        self.should(critical.is_empty(), "extensions", "RFC 5280 section 4.2", message);
    }

    /// The lengths and string types of the subject were checked when it was encoded; here by another parser.
    fn names(&mut self) {
        let subject = self.subject();
        let odd: Vec<_> = subject
            .iter()
            .filter(|attribute| {
                let tag = attribute.value.tag();
                let ascii = matches!(type_name(&attribute.oid).as_str(), "DC" | "emailAddress");
                let usual =
                    if ascii { tag == Tag::Ia5String } else { matches!(tag, Tag::Utf8String | Tag::PrintableString) };
                !usual
            })
            .map(|attribute| type_name(&attribute.oid))
            .collect();
        let several = subject.iter().filter(|attribute| attribute.oid == rfc4519::CN).count() > 1;
        let message = format!("{} is neither UTF8String nor PrintableString", odd.join(", "));
        self.must(odd.is_empty(), "subject", "RFC 5280 section 4.1.2.4", message);
        self.should(!several, "subject", "RFC 6125 section 2.3.1", "the subject has several CNs; clouds look at one");
    }

    fn jitp(&mut self) {
        let rule = "AWS IoT Core, just-in-time provisioning";
        for parameter in &self.settings.jitp {
            let parameter = parameter.get_ref().trim_start_matches("AWS::IoT::Certificate::");
            // Id is the certificate's own.
            if parameter == "Id" {
                continue;
            }
            let message = match JITP.iter().find(|(name, _)| *name == parameter) {
                None => {
                    let known: Vec<_> = JITP.iter().map(|(name, _)| *name).collect();
                    format!("\"{parameter}\" is not a parameter; there are {}, Id", known.join(", "))
                }
                Some((_, oid)) if self.subject().iter().any(|attribute| attribute.oid == *oid) => continue,
                Some((_, oid)) => {
                    format!(
                        "{parameter} is taken from {name}, which the subject lacks; add \"{name}=…\"",
                        name = type_name(oid)
                    )
                }
            };
            self.must(false, "jitp", rule, message);
        }
    }

    /// Only digitalSignature, and critical.
    fn only_digital_signature(&mut self, rule: &'static str) {
        let usage = self.extension::<KeyUsage>();
        let only = usage.is_some_and(|(critical, KeyUsage(usage))| critical && usage == KeyUsages::DigitalSignature);
        self.must(only, "key_usage", rule, "keyUsage must be critical and digital-signature alone");
    }

    fn idevid(&mut self) {
        let serial_numbers = self.subject().iter().filter(|attribute| attribute.oid == rfc4519::SERIAL_NUMBER).count();
        let message = "an IDevID's subject must have one serialNumber, such as \"serialNumber={device_id}\"";
        self.must(serial_numbers == 1, "subject", "IEEE 802.1AR-2018 section 8.6", message);
        let message = "an IDevID must have an authorityKeyIdentifier";
        let found = self.extension::<AuthorityKeyIdentifier>().is_some();
        self.must(found, "authority_key_identifier", "IEEE 802.1AR-2018 section 8.10.1", message);
        let found = self.extension::<SubjectKeyIdentifier>().is_some();
        let message = "a subjectKeyIdentifier is not recommended in an IDevID";
        self.should(!found, "subject_key_identifier", "IEEE 802.1AR-2018 section 8.10.2", message);
        let usage = self.extension::<KeyUsage>();
        let signs = usage.is_some_and(|(_, KeyUsage(usage))| usage.contains(KeyUsages::DigitalSignature));
        self.must(
            signs,
            "key_usage",
            "IEEE 802.1AR-2018 section 8.10.3",
            "an IDevID's keyUsage must have digital-signature",
        );
        if let Some((_, SubjectAltName(names))) = self.extension::<SubjectAltName>() {
            let found = names
                .iter()
                .any(|name| matches!(name, GeneralName::OtherName(other) if other.type_id == HARDWARE_MODULE_NAME));
            let message = "an IDevID's subjectAltName must have a hardwareModuleName, such as \
                           \"hardware-module:1.3.6.1.4.1.99999.1:{device_id}\"";
            self.must(found, "subject_alt_names", "IEEE 802.1AR-2018 section 8.10.4", message);
        }
        let [end, _] = self.ends();
        let message =
            format!("it ends at {end}; an IDevID is for the device's whole life: not_after = \"99991231235959Z\"");
        self.should(end == Time::NEVER, self.settings.validity_key(), "IEEE 802.1AR-2018 section 8.7", message);
    }

    fn matter_dac(&mut self) {
        const RULE: &str = "Matter Core Specification section 6.2.2.3";
        const PAI: &str = "Matter Core Specification section 6.2.2.4";
        let algorithm = self.sample.issuer.algorithm();
        let message =
            format!("a DAC is signed with ecdsa-sha256 by a P-256 key, not with {algorithm}: use another issuer");
        self.must(algorithm == SignatureAlgorithm::EcdsaP256Sha256, "issuer", RULE, message);
        let key = self.certificate.tbs_certificate().subject_public_key_info();
        let p256 = key.algorithm.owned_to_ref().parameters_oid().ok() == Some(rfc5912::SECP_256_R_1);
        let only = self.settings.keys.as_ref().is_none_or(|keys| keys.get_ref() == &[config::KeyType::P256]);
        self.must(p256 && only, "keys", RULE, "a DAC has a P-256 key; say keys = [\"p256\"] or leave it out");
        self.only_digital_signature(RULE);

        let identifier = self.extension::<SubjectKeyIdentifier>();
        let good =
            identifier.is_some_and(|(critical, SubjectKeyIdentifier(id))| !critical && id.as_bytes().len() == 20);
        self.must(good, "subject_key_identifier", RULE, "a DAC must have a subjectKeyIdentifier of 20 octets");
        let identifier = self.extension::<AuthorityKeyIdentifier>().and_then(|(_, value)| value.key_identifier);
        let message = "a DAC must have an authorityKeyIdentifier of 20 octets, which is the PAI's subjectKeyIdentifier";
        let good = identifier.is_some_and(|id| id.as_bytes().len() == 20);
        self.must(good, "authority_key_identifier", RULE, message);

        let of = |name: &Name, oid| values(name, oid);
        let (subject, pai) = (self.subject().clone(), self.issuer.tbs_certificate().subject().clone());
        let (vid, pid) = (of(&subject, MATTER_VENDOR_ID), of(&subject, MATTER_PRODUCT_ID));
        let message = "a DAC's subject has exactly one VID and one PID, such as \"VID=FFF1\", \"PID=8000\"";
        self.must(vid.len() == 1 && pid.len() == 1, "subject", RULE, message);
        let (pai_vid, pai_pid) = (of(&pai, MATTER_VENDOR_ID), of(&pai, MATTER_PRODUCT_ID));
        let message =
            format!("the PAI's VID is {}, the DAC's {}; they must be one and the same", shown(&pai_vid), shown(&vid));
        // An order cannot give the VID, nor the PID under a PAI that has one: nobody would compare them.
        self.must(pai_vid.len() == 1 && pai_vid == vid, "subject", RULE, message);
        let message = format!(
            "the PAI's PID is {}, the DAC's {}; they must be the same, and no order can give it",
            shown(&pai_pid),
            shown(&pid)
        );
        self.must(pai_pid.is_empty() || pai_pid == pid, "subject", RULE, message);

        let constraints = self.issuer.tbs_certificate().get_extension::<BasicConstraints>().ok().flatten();
        let path_length = constraints.and_then(|(_, value)| value.path_len_constraint);
        let found = path_length.map_or("no path length".to_owned(), |length| format!("the path length {length}"));
        let message = format!("the PAI has {found}; it must have the path length 0");
        self.must(path_length == Some(0), "issuer", PAI, message);
        let usage = self.issuer.tbs_certificate().get_extension::<KeyUsage>().ok().flatten();
        let signs_crls =
            usage.is_some_and(|(critical, KeyUsage(usage))| critical && usage.contains(KeyUsages::CRLSign));
        self.must(signs_crls, "issuer", PAI, "the PAI's keyUsage must be critical and have cRLSign as well");
        let length = self.sample.certificate.len();
        let message =
            format!("the DAC can have {length} octets; at most 600 are allowed: shorten its subject or extensions");
        self.must(length <= 600, "subject", RULE, message);
    }

    fn azure_dps(&mut self) {
        const RULE: &str = "Azure DPS, X.509 attestation";
        let names = values(self.subject(), rfc4519::CN);
        let expected = self.sample.device.as_str();
        let message = format!("the CN is {}; it must be the registration id, which is the device id", shown(&names));
        self.must(names == [expected], "subject", RULE, message);
        let lower = !expected.bytes().any(|byte| byte.is_ascii_uppercase());
        self.should(lower, "device_id", RULE, "registration ids are kept in lower case; let device_id demand that");
    }
}

/// The values of an attribute.
fn values(name: &Name, oid: ObjectIdentifier) -> Vec<String> {
    name.iter()
        .filter(|attribute| attribute.oid == oid)
        .map(|attribute| String::from_utf8_lossy(attribute.value.value()).into_owned())
        .collect()
}

fn shown(values: &[String]) -> String {
    if values.is_empty() { "absent".to_owned() } else { format!("\"{}\"", values.join("\", \"")) }
}
