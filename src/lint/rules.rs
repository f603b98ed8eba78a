//! The rules that certificates are checked against: RFC 5280's for all, and those of the preset.

use const_oid::{
    ObjectIdentifier,
    db::{
        rfc4519,
        rfc5280::{
            ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE, ID_CE_SUBJECT_ALT_NAME,
            ID_CE_SUBJECT_KEY_IDENTIFIER, ID_KP_CLIENT_AUTH, ID_KP_CODE_SIGNING, ID_KP_EMAIL_PROTECTION,
            ID_KP_SERVER_AUTH,
        },
    },
};

use super::{
    finding::{Finding, Severity, key_of},
    sample::Sample,
};
use crate::{
    asn1::{IA5_STRING, Oid, PRINTABLE_STRING, UTF8_STRING},
    config::{self, Preset},
    name::{MATTER_PRODUCT_ID, MATTER_VENDOR_ID, type_name},
    possession::CodeShape,
    profile::{HARDWARE_MODULE_NAME, Profile},
    quote::shortened,
    signer::{KeyKind, PublicKey, SignatureAlgorithm},
    x509::{
        AuthorityKeyIdentifier, CONTENT_COMMITMENT, CRL_SIGN, Certificate, DIGITAL_SIGNATURE, GeneralName,
        KEY_AGREEMENT, KEY_ENCIPHERMENT, Name,
    },
    x509_time::Time,
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

/// Checks a sample against all rules.
pub(super) fn check(profile: &Profile, settings: &config::Profile, sample: &Sample) -> Vec<Finding> {
    let certificate = match Certificate::from_der(&sample.certificate) {
        Ok(certificate) => certificate,
        Err(error) => {
            let (severity, rule) = (Severity::Error, "RFC 5280 section 4.1");
            return vec![Finding { severity, key: "extensions", rule, message: format!("it is not DER: {error}") }];
        }
    };
    let issuer = sample.issuer.certificates().issuing().clone();
    let mut rules = Rules { findings: Vec::new(), settings, sample, certificate, issuer };
    rules.rfc5280();
    rules.jitp(profile);
    rules.possession(profile);
    match profile.preset() {
        Preset::Device | Preset::TlsClient => {}
        Preset::Idevid => rules.idevid(),
        Preset::MatterDac => rules.matter_dac(),
        Preset::AzureDps => rules.azure_dps(),
    }
    rules.findings
}

/// The uses of the key that are consistent with a purpose (RFC 5280 section 4.2.1.12).
const PURPOSES: [(ObjectIdentifier, &str, u16); 4] = [
    (ID_KP_SERVER_AUTH, "server-auth", DIGITAL_SIGNATURE | KEY_ENCIPHERMENT | KEY_AGREEMENT),
    (ID_KP_CLIENT_AUTH, "client-auth", DIGITAL_SIGNATURE | KEY_AGREEMENT),
    (ID_KP_CODE_SIGNING, "code-signing", DIGITAL_SIGNATURE),
    (
        ID_KP_EMAIL_PROTECTION,
        "email-protection",
        DIGITAL_SIGNATURE | CONTENT_COMMITMENT | KEY_ENCIPHERMENT | KEY_AGREEMENT,
    ),
];

struct Rules<'a> {
    findings: Vec<Finding>,
    settings: &'a config::Profile,
    sample: &'a Sample,
    certificate: Certificate,
    issuer: Certificate,
}

impl Rules<'_> {
    /// MUST of RFC 2119: what breaks it is an error.
    fn must(&mut self, holds: bool, key: &'static str, rule: &'static str, message: impl Into<String>) {
        self.note(Severity::Error, holds, key, rule, message);
    }

    /// SHOULD of RFC 2119: what breaks it is a warning.
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

    fn is_critical(&self, oid: ObjectIdentifier) -> bool {
        self.certificate.extension(oid).is_some_and(|extension| extension.critical)
    }

    /// The bits of keyUsage; none without the extension.
    fn key_usage(&self) -> u16 {
        self.certificate.key_usage().ok().flatten().unwrap_or_default()
    }

    fn authority_key_identifier(&self) -> Option<AuthorityKeyIdentifier> {
        self.certificate.authority_key_identifier().ok().flatten()
    }

    fn subject(&self) -> &Name {
        &self.certificate.subject
    }

    /// When the certificate and its issuer expire.
    fn not_after(&self) -> [Time; 2] {
        [self.certificate.not_after, self.issuer.not_after]
    }

    fn rfc5280(&mut self) {
        let serial_number = self.certificate.serial_number.as_slice();
        let positive =
            serial_number.len() <= 20 && serial_number.first().is_some_and(|octet| (1..0x80).contains(octet));
        self.must(
            positive,
            "issuer",
            "RFC 5280 section 4.1.2.2",
            "the serial number is not positive and up to 20 octets",
        );
        if let Err(error) = self.sample.issuer.certificates().check_end_entity(&self.certificate) {
            let message = format!("it is not valid below its issuer: {error}");
            self.must(false, key_of(&error), "RFC 5280 section 6", message);
        }

        let [not_after, issuers] = self.not_after();
        let within =
            not_after <= issuers || self.settings.when_outliving_issuer == Some(config::WhenOutlivingIssuer::Allow);
        let message = format!(
            "it expires at {not_after}, after its issuer, which expires at {issuers}: verifiers refuse it from then on; say \
             when_outliving_issuer = \"allow\" if that is meant"
        );
        self.should(within, self.settings.validity_key(), "RFC 5280 section 6.1", message);

        let constraints = self.certificate.basic_constraints().ok().flatten();
        let no_ca = constraints.is_some_and(|value| !value.ca && value.path_length.is_none());
        self.must(
            no_ca && self.is_critical(ID_CE_BASIC_CONSTRAINTS),
            "extensions",
            "RFC 5280 section 4.2.1.9",
            "basicConstraints do not say, critically, that it is no CA",
        );
        match self.authority_key_identifier() {
            None => self.should(
                false,
                "authority_key_identifier",
                "RFC 5280 section 4.2.1.1",
                "there is no authorityKeyIdentifier, which every certificate of a CA must have",
            ),
            Some(value) => {
                let issuers = self.issuer.subject_key_identifier().ok().flatten();
                let same =
                    !self.is_critical(ID_CE_AUTHORITY_KEY_IDENTIFIER) && value.key_identifier.as_deref() == issuers;
                let message = "the authorityKeyIdentifier is not the issuer's subjectKeyIdentifier";
                self.must(same, "authority_key_identifier", "RFC 5280 section 4.2.1.1", message);
            }
        }
        self.purposes();
        self.names();
        let critical = self.settings.extensions.iter().filter(|extension| extension.get_ref().critical);
        let critical: Vec<_> = critical.map(|extension| extension.get_ref().oid.get_ref().clone()).collect();
        let message =
            format!("{} is critical: verifiers that do not know it refuse the certificate", critical.join(", "));
        self.should(critical.is_empty(), "extensions", "RFC 5280 section 4.2", message);
    }

    /// The lengths and string types of the subject were checked when it was encoded; here by another parser.
    fn names(&mut self) {
        let subject = self.subject();
        let odd: Vec<_> = subject
            .attributes()
            .filter(|attribute| {
                let ascii = matches!(type_name(&attribute.oid).as_str(), "DC" | "emailAddress");
                let usual = if ascii { &[IA5_STRING][..] } else { &[UTF8_STRING, PRINTABLE_STRING] };
                !usual.contains(&attribute.tag)
            })
            .map(|attribute| type_name(&attribute.oid))
            .collect();
        let several = subject.values(rfc4519::CN).len() > 1;
        let message = format!("{} is neither UTF8String nor PrintableString", odd.join(", "));
        self.must(odd.is_empty(), "subject", "RFC 5280 section 4.1.2.4", message);
        self.should(!several, "subject", "RFC 6125 section 2.3.1", "the subject has several CNs; clouds look at one");
    }

    /// A key is used only for what both extensions allow (RFC 5280 section 4.2.1.12).
    fn purposes(&mut self) {
        const RULE: &str = "RFC 5280 section 4.2.1.12";
        let (purposes, usage) = (self.certificate.extended_key_usage().ok().flatten(), self.key_usage());
        let Some(purposes) = purposes.filter(|_| usage != 0) else { return };
        let allowed = |purpose: &Oid| PURPOSES.iter().find(|(known, ..)| purpose == known).map(|(.., usage)| *usage);
        for (_, name, allowed) in PURPOSES.iter().filter(|(known, ..)| purposes.iter().any(|purpose| purpose == known))
        {
            let message = format!("{name} has no use with this keyUsage, which allows nothing that it needs");
            self.must(usage & allowed != 0, "key_usage", RULE, message);
        }
        // What a private purpose needs is unknown.
        if let Some(allowed) = purposes.iter().map(allowed).collect::<Option<Vec<_>>>() {
            let allowed = allowed.into_iter().fold(0, |all, usage| all | usage);
            let message = "keyUsage has more than the purposes of extendedKeyUsage can use, such as key-encipherment \
                           beside client-auth alone; leave it out";
            self.should(usage & !allowed == 0, "key_usage", RULE, message);
        }
    }

    fn jitp(&mut self, profile: &Profile) {
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
                    format!(
                        "\"{}\" is not a parameter; the parameters are {}, Id",
                        shortened(parameter),
                        known.join(", ")
                    )
                }
                Some((_, oid)) if !self.subject().values(*oid).is_empty() => continue,
                Some((_, oid)) => {
                    format!(
                        "{parameter} is taken from {name}, which the subject lacks; add \"{name}=…\"",
                        name = type_name(&Oid::from(*oid))
                    )
                }
            };
            self.must(false, "jitp", rule, message);
        }
        if !self.settings.jitp.is_empty() {
            let message = "the device becomes a thing of its name, and device ids may have characters that no thing name has, \
                           such as a dot: AWS IoT would refuse those devices at their first connection; add device_id = \
                           \"aws-thing-name\"";
            self.must(profile.takes_thing_names_only(), "jitp", rule, message);
        }
    }

    /// A certificate whose name is the code of a platform proves to it that its holder has the CA's key.
    fn possession(&mut self, profile: &Profile) {
        let possible = profile.possible_code_shapes();
        let told_apart = |shape: &CodeShape| shape.is_refused_as_device_id() && !profile.allows_code_like_ids();
        let Some(shape) = possible.into_iter().find(|shape| !told_apart(shape)) else { return };
        let message = format!(
            "a device id may look like {shape}: whoever chooses ids could register the CA in an account of their own; let \
             device_id require a form that is none, such as \"SN[0-9]{{8}}\", or use an issuer that no such platform trusts"
        );
        self.should(false, "device_id", "proof of possession of a CA", message);
    }

    /// Only digitalSignature, and critical.
    fn only_digital_signature(&mut self, rule: &'static str) {
        let only = self.is_critical(ID_CE_KEY_USAGE) && self.key_usage() == DIGITAL_SIGNATURE;
        self.must(only, "key_usage", rule, "keyUsage must be critical and digital-signature alone");
    }

    fn idevid(&mut self) {
        let serial_numbers = self.subject().values(rfc4519::SERIAL_NUMBER).len();
        let message = "an IDevID's subject must have one serialNumber, such as \"serialNumber={device_id}\"";
        self.must(serial_numbers == 1, "subject", "IEEE 802.1AR-2018 section 8.6", message);
        let message = "an IDevID must have an authorityKeyIdentifier";
        let found = self.authority_key_identifier().is_some();
        self.must(found, "authority_key_identifier", "IEEE 802.1AR-2018 section 8.10.1", message);
        let found = self.certificate.extension(ID_CE_SUBJECT_KEY_IDENTIFIER).is_some();
        let message = "a subjectKeyIdentifier is not recommended in an IDevID";
        self.should(!found, "subject_key_identifier", "IEEE 802.1AR-2018 section 8.10.2", message);
        self.must(
            self.key_usage() & DIGITAL_SIGNATURE != 0,
            "key_usage",
            "IEEE 802.1AR-2018 section 8.10.3",
            "an IDevID's keyUsage must have digital-signature",
        );
        if self.certificate.extension(ID_CE_SUBJECT_ALT_NAME).is_some() {
            let names = self.certificate.subject_alt_names().unwrap_or_default();
            let found =
                names.iter().any(|name| matches!(name, GeneralName::Other(oid) if *oid == HARDWARE_MODULE_NAME));
            let message = "an IDevID's subjectAltName must have a hardwareModuleName, such as \
                           \"hardware-module:1.3.6.1.4.1.99999.1:{device_id}\"";
            self.must(found, "subject_alt_names", "IEEE 802.1AR-2018 section 8.10.4", message);
        }
        let [not_after, _] = self.not_after();
        let message = format!(
            "it expires at {not_after}; an IDevID is for the device's whole life: not_after = \"99991231235959Z\""
        );
        self.should(not_after == Time::NEVER, self.settings.validity_key(), "IEEE 802.1AR-2018 section 8.7", message);
    }

    fn matter_dac(&mut self) {
        const RULE: &str = "Matter Core Specification section 6.2.2.3";
        const PAI: &str = "Matter Core Specification section 6.2.2.4";
        let algorithm = self.sample.issuer.algorithm();
        let message =
            format!("a DAC is signed with ecdsa-sha256 by a P-256 key, not with {algorithm}: use another issuer");
        self.must(algorithm == SignatureAlgorithm::EcdsaP256Sha256, "issuer", RULE, message);
        let p256 = PublicKey::of(&self.certificate).is_ok_and(|key| key.kind == KeyKind::P256);
        let only = self.settings.key_types.as_ref().is_none_or(|keys| keys.get_ref() == &[config::KeyType::P256]);
        self.must(p256 && only, "key_types", RULE, "a DAC has a P-256 key; say key_types = [\"p256\"] or leave it out");
        self.only_digital_signature(RULE);

        let identifier = self.certificate.subject_key_identifier().ok().flatten();
        let good = identifier.is_some_and(|id| id.len() == 20) && !self.is_critical(ID_CE_SUBJECT_KEY_IDENTIFIER);
        self.must(good, "subject_key_identifier", RULE, "a DAC must have a subjectKeyIdentifier of 20 octets");
        let identifier = self.authority_key_identifier().and_then(|value| value.key_identifier);
        let message = "a DAC must have an authorityKeyIdentifier of 20 octets, which is the PAI's subjectKeyIdentifier";
        let good = identifier.is_some_and(|id| id.len() == 20);
        self.must(good, "authority_key_identifier", RULE, message);

        let values = |name: &Name| [MATTER_VENDOR_ID, MATTER_PRODUCT_ID].map(|oid| name.values(oid));
        let ([vid, pid], [pai_vid, pai_pid]) = (values(self.subject()), values(&self.issuer.subject));
        let message = "a DAC's subject has exactly one VID and one PID, such as \"VID=FFF1\", \"PID=8000\"";
        self.must(vid.len() == 1 && pid.len() == 1, "subject", RULE, message);
        let message =
            format!("the PAI's VID is {}, the DAC's {}; they must be one and the same", list(&pai_vid), list(&vid));
        // An order cannot give the VID, nor the PID under a PAI that has one: no verifier would compare them.
        self.must(pai_vid.len() == 1 && pai_vid == vid, "subject", RULE, message);
        let message = format!(
            "the PAI's PID is {}, the DAC's {}; they must be the same, and no order can give it",
            list(&pai_pid),
            list(&pid)
        );
        self.must(pai_pid.is_empty() || pai_pid == pid, "subject", RULE, message);

        let constraints = self.issuer.basic_constraints().ok().flatten();
        let path_length = constraints.and_then(|value| value.path_length);
        let found = path_length.map_or("no path length".to_owned(), |length| format!("the path length {length}"));
        let message = format!("the PAI has {found}; it must have the path length 0");
        self.must(path_length == Some(0), "issuer", PAI, message);
        let usage = self.issuer.key_usage().ok().flatten().unwrap_or_default();
        let critical = self.issuer.extension(ID_CE_KEY_USAGE).is_some_and(|extension| extension.critical);
        let signs_crls = critical && usage & CRL_SIGN != 0;
        self.must(signs_crls, "issuer", PAI, "the PAI's keyUsage must be critical and have cRLSign as well");
        let length = self.sample.certificate.len();
        let message =
            format!("the DAC can have {length} octets; at most 600 are allowed: shorten its subject or extensions");
        self.must(length <= 600, "subject", RULE, message);
    }

    fn azure_dps(&mut self) {
        const RULE: &str = "Azure DPS, X.509 attestation";
        let names = self.subject().values(rfc4519::CN);
        let expected = self.sample.device.as_str();
        let message = format!("the CN is {}; it must be the registration id, which is the device id", list(&names));
        self.must(names == [expected], "subject", RULE, message);
        let lower = !expected.bytes().any(|byte| byte.is_ascii_uppercase());
        self.should(lower, "device_id", RULE, "registration ids are kept in lower case; let device_id require that");
    }
}

fn list(values: &[String]) -> String {
    if values.is_empty() { "absent".to_owned() } else { format!("\"{}\"", shortened(&values.join("\", \""))) }
}
