//! What a device gets: which issuer, subject, validity and extensions, for which keys. Pure; no I/O.
//!
//! A [`Profile`] is its section of the configuration, parsed, with all that its certificates have in common encoded
//! once. [`Profile::approve`] decides about one request and encodes what varies: validity, subject, key.

mod alt_name;
mod crl_shard;
mod device_id;
mod error;
mod extensions;
mod issuer_schedule;
mod preset;
mod reader;
mod subject;
mod template;
mod uri;
mod validity;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use const_oid::db::rfc5280::ID_CE_SUBJECT_KEY_IDENTIFIER;
use jiff::{SignedDuration, Timestamp};

pub(crate) use self::alt_name::HARDWARE_MODULE_NAME;
use self::{
    alt_name::AltName,
    crl_shard::ShardPlaces,
    device_id::DeviceIds,
    extensions::Extensions,
    issuer_schedule::{IssuerSchedule, ScheduledIssuer},
    preset::Defaults,
    reader::Reader,
    subject::Subject,
    template::Template,
    validity::{End, Validity},
};
pub use self::{
    error::{OrderTermsError, ProfileError, SubjectError, ValidityError},
    template::{MissingAttribute, Values},
};
use crate::{
    asn1::{BIT_STRING, OCTET_STRING, SEQUENCE, encoded_length, explicit, extension, primitive, tlv},
    ca::IssuingCa,
    config::{self, Config, ConfigError, CsrSubject, KeyType, OrderRequirement, Preset},
    csr::VerifiedCsr,
    id::{DeviceId, OrderId},
    ledger::Holder,
    metrics::ProfileCertificates,
    pattern::{self, Pattern},
    possession::CodeShape,
    quote::shortened,
    serial::SerialNumber,
    signer::{KeyKind, PublicKey},
    x509::Certificate,
};

/// How far certificates are backdated, for devices and servers whose clock is slow.
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);

/// All profiles, by name.
pub type Profiles = std::collections::BTreeMap<String, Profile>;

/// A profile, ready for use.
#[derive(Debug)]
pub struct Profile {
    name: String,
    preset: Preset,
    issuers: IssuerSchedule,
    keys: Vec<KeyType>,
    subject: Subject,
    alt_names: Vec<AltName>,
    csr_subject: CsrSubject,
    device_ids: Option<DeviceIds>,
    allow_code_like_ids: bool,
    renewal: bool,
    order: OrderRequirement,
    validity: Validity,
    subject_key_identifier: bool,
    longest: Option<usize>,
    stations: Vec<Pattern>,
    /// The order's attributes that the certificates show.
    order_attributes: BTreeSet<String>,
    certificates: ProfileCertificates,
}

/// A request that its profile allows. Only [`Profile::approve`] makes one.
#[derive(Debug)]
pub struct Approved {
    holder: Holder,
    issuer: Arc<IssuingCa>,
    /// DER: what follows the serial number in the TBSCertificate.
    body: Vec<u8>,
    /// The form of a platform's code that its name has, where the profile does not allow that.
    code_shape: Option<CodeShape>,
    /// Where the shard of the revocation list stands, in the part of the body that begins there.
    shard_places: (usize, ShardPlaces),
}

/// All that a profile looks at besides the CSR.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    /// The device, the order, its attributes, and the station.
    pub values: Values<'a>,
    /// The daemon's clock.
    pub now: Timestamp,
}

impl Profile {
    /// Makes a profile of its configuration.
    ///
    /// # Errors
    /// What is contradictory or unknown. What could only give invalid certificates is for [`crate::lint`] to find.
    pub fn new(
        config: &Config,
        name: &str,
        settings: &config::Profile,
        issuers: &BTreeMap<String, Arc<IssuingCa>>,
    ) -> Result<Profile, ConfigError> {
        let reader = Reader { config, name, settings };
        let defaults = Defaults::for_preset(settings.preset);
        let keys = read_keys(&reader, &defaults)?;
        let (subject, alt_names) = (read_subject(&reader, &defaults)?, read_alt_names(&reader)?);
        check_templates(&reader, &subject, &alt_names)?;
        let device_ids = read_device_ids(&reader, &defaults)?;
        let extensions = Extensions::read(&reader, &defaults, &keys)?;
        let templates = subject.templates().chain(alt_names.iter().map(AltName::template));
        Ok(Profile {
            name: name.to_owned(),
            preset: settings.preset,
            issuers: IssuerSchedule::read(&reader, issuers, &extensions)?,
            order_attributes: templates.flat_map(Template::order_attributes).map(str::to_owned).collect(),
            keys,
            subject,
            alt_names,
            csr_subject: settings.csr_subject,
            allow_code_like_ids: settings.allow_code_like_ids,
            renewal: settings.renewal,
            device_ids,
            order: settings.order_requirement,
            validity: read_validity(&reader, &defaults)?,
            subject_key_identifier: settings.subject_key_identifier.unwrap_or(defaults.subject_key_identifier),
            longest: defaults.longest,
            stations: settings.stations.clone(),
            certificates: ProfileCertificates::new(name),
        })
    }

    /// All that [`Profile::new`] finds wrong, not only the first of it.
    pub(crate) fn faults(
        config: &Config,
        name: &str,
        settings: &config::Profile,
        issuers: &BTreeMap<String, Arc<IssuingCa>>,
    ) -> Vec<ConfigError> {
        let reader = Reader { config, name, settings };
        let defaults = Defaults::for_preset(settings.preset);
        let mut faults = Vec::new();
        let keys = note(&mut faults, read_keys(&reader, &defaults));
        let subject = note(&mut faults, read_subject(&reader, &defaults));
        let alt_names = note(&mut faults, read_alt_names(&reader));
        if let (Some(subject), Some(alt_names)) = (subject, alt_names) {
            note(&mut faults, check_templates(&reader, &subject, &alt_names));
        }
        note(&mut faults, read_device_ids(&reader, &defaults));
        note(&mut faults, read_validity(&reader, &defaults));
        let extensions = keys.and_then(|keys| note(&mut faults, Extensions::read(&reader, &defaults, &keys)));
        if let Some(extensions) = extensions {
            note(&mut faults, IssuerSchedule::read(&reader, issuers, &extensions));
        }
        faults
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What counts its certificates.
    pub(crate) fn certificates(&self) -> &ProfileCertificates {
        &self.certificates
    }

    /// What its certificates are for.
    pub fn preset(&self) -> Preset {
        self.preset
    }

    /// The issuer of its certificates at this moment.
    pub fn issuer_at(&self, now: Timestamp) -> &Arc<IssuingCa> {
        &self.issuers.at(now).issuer
    }

    /// Its issuers, and from when on each issues (the first has no such moment).
    pub fn issuers(&self) -> impl Iterator<Item = (Option<Timestamp>, &Arc<IssuingCa>)> {
        self.issuers.all().map(|scheduled| (scheduled.from, &scheduled.issuer))
    }

    /// The key types that it takes.
    pub fn keys(&self) -> &[KeyType] {
        &self.keys
    }

    /// What it demands of the CSR's subject.
    pub fn csr_subject(&self) -> CsrSubject {
        self.csr_subject
    }

    /// Whether a request must be charged to an order.
    pub fn order_requirement(&self) -> OrderRequirement {
        self.order
    }

    /// The attributes that its orders must have.
    pub fn order_attributes(&self) -> &BTreeSet<String> {
        &self.order_attributes
    }

    /// Whether the station `<line>/<station>` may use it.
    pub fn allows_station(&self, station: &str) -> bool {
        pattern::allows(&self.stations, station)
    }

    /// Whether it can issue at this moment: its issuer is valid, and so would be a certificate made now.
    ///
    /// # Errors
    /// Why every request would be refused.
    pub fn check_issuer(&self, now: Timestamp) -> Result<(), ValidityError> {
        self.validity.at(now, self.issuer_at(now)).map(drop)
    }

    /// Checks that certificates can be made under an order: that it has the attributes that they show and no others,
    /// that those fit, and that its stations may use the profile.
    ///
    /// # Errors
    /// The first that is missing, that nothing uses, or that is not what its place in the certificate allows.
    pub fn check_order(
        &self,
        order: &OrderId,
        attributes: &BTreeMap<String, String>,
        stations: &[Pattern],
    ) -> Result<(), OrderTermsError> {
        let profile = || self.name.clone();
        if let Some(unused) = attributes.keys().find(|name| !self.order_attributes.contains(*name)) {
            let (unused, used) = (shortened(unused), self.order_attributes.iter().cloned().collect());
            return Err(OrderTermsError::UnusedAttribute { profile: profile(), unused, used });
        }
        let anywhere = [Pattern::new("*")];
        let allowed = if self.stations.is_empty() { &anywhere } else { self.stations.as_slice() };
        if let Some(idle) = stations.iter().find(|idle| !allowed.iter().any(|allowed| allowed.shares_a_station(idle))) {
            let allowed = allowed.iter().map(|pattern| pattern.as_str().to_owned()).collect();
            let pattern = shortened(idle.as_str());
            return Err(OrderTermsError::NoStation { profile: profile(), allowed, pattern });
        }
        let (device, station, _) = self.sample();
        let values = Values { device: &device, order: Some(order), station: &station, attributes };
        let mut discarded = Vec::new();
        self.subject.encode(&values, &mut discarded)?;
        Ok(self.encode_alt_names(&values, &mut discarded)?)
    }

    fn encode_alt_names(&self, values: &Values<'_>, out: &mut Vec<u8>) -> Result<(), SubjectError> {
        Ok(alt_name::encode(&self.alt_names, values, out)?)
    }

    /// Device id, station and order's attributes that a sample certificate may have; the id is as short as the profile
    /// allows.
    pub fn sample(&self) -> (DeviceId, String, BTreeMap<String, String>) {
        let device = self.device_ids.as_ref().map_or_else(DeviceId::shortest, |ids| ids.sample().clone());
        let station =
            self.stations.first().map_or("line1/tester1".into(), |pattern| pattern.as_str().replace('*', "1"));
        let attributes = self.order_attributes.iter();
        let attributes = attributes.map(|name| (name.clone(), self.subject.sample_of(name).to_owned())).collect();
        (device, station, attributes)
    }

    /// Decides what the device gets: of the CSR only the public key is used, and the subject where the profile compares
    /// it (invariant 8).
    ///
    /// # Errors
    /// The first rule of the profile that the request breaks.
    pub fn approve(&self, csr: VerifiedCsr, context: &RequestContext<'_>) -> Result<Approved, ProfileError> {
        let RequestContext { values, now } = context;
        if !self.allows_station(values.station) {
            return Err(ProfileError::StationRefused { station: values.station.into(), profile: self.name.clone() });
        }
        if values.order.is_none() && self.order == OrderRequirement::Required {
            return Err(ProfileError::OrderRequired(self.name.clone()));
        }
        let public_key = csr.public_key();
        if !self.keys.iter().any(|key| takes(*key, public_key.kind)) {
            let taken = self.keys.iter().map(|key| key.as_str()).collect();
            return Err(ProfileError::KeyUnsupported { profile: self.name.clone(), found: public_key.kind, taken });
        }
        if let Some(device_ids) = &self.device_ids {
            device_ids.check(values.device)?;
        }
        self.check_csr_subject(&csr, values.device)?;
        let scheduled = self.issuers.at(*now);
        let (body, constant) = self.body(scheduled, public_key, context)?;
        let holder = Holder {
            device: values.device.to_string(),
            key_hash: public_key.hash(),
            order: values.order.map_or_else(String::new, OrderId::to_string),
            profile: self.name.clone(),
            issuer: scheduled.issuer.name().to_owned(),
            issuer_id: scheduled.issuer.recorded().map_or(0, |recorded| recorded.id),
        };
        let code_shape = self.code_shape(values);
        let shard_places = (constant, scheduled.shard_places.clone());
        Ok(Approved { holder, issuer: Arc::clone(&scheduled.issuer), body, code_shape, shard_places })
    }

    /// The form of a platform's code that the device's certificate would have as its name, unless that is allowed.
    fn code_shape(&self, values: &Values<'_>) -> Option<CodeShape> {
        if self.allow_code_like_ids {
            return None;
        }
        let shape = CodeShape::of(values.device.as_str()).or_else(|| self.subject.code_shape(values));
        shape.filter(|shape| shape.is_refused_as_device_id())
    }

    /// The forms of codes that a device's certificate could have as its name.
    pub(crate) fn possible_code_shapes(&self) -> Vec<CodeShape> {
        let (_, station, attributes) = self.sample();
        let order = OrderId::sample();
        let fits = |device: &DeviceId| {
            let taken = self.device_ids.as_ref().is_none_or(|ids| ids.check(device).is_ok());
            let values = Values { device, order: Some(&order), station: &station, attributes: &attributes };
            taken.then(|| self.subject.code_shape(&values)).flatten()
        };
        CodeShape::samples().filter_map(|sample| sample.parse().ok()).filter_map(|device| fits(&device)).collect()
    }

    /// Whether a device may have a new certificate, for a new key, in place of its live one.
    pub(crate) fn allows_renewal(&self) -> bool {
        self.renewal
    }

    /// Whether every device id that it takes can be the name of an AWS IoT thing.
    pub(crate) fn takes_thing_names_only(&self) -> bool {
        self.device_ids.as_ref().is_some_and(DeviceIds::are_thing_names)
    }

    /// Whether it takes device ids that look like the code of a platform's proof of possession.
    pub(crate) fn allows_code_like_ids(&self) -> bool {
        self.allow_code_like_ids
    }

    fn check_csr_subject(&self, csr: &VerifiedCsr, device: &DeviceId) -> Result<(), SubjectError> {
        let (attribute, found) = match self.csr_subject {
            CsrSubject::Ignore => return Ok(()),
            CsrSubject::CnIsDeviceId => ("CN", csr.common_name()),
            CsrSubject::SerialNumberIsDeviceId => ("serialNumber", csr.serial_number()),
        };
        let device = match found {
            Ok(found) if found == device.as_str() => return Ok(()),
            _ => device.clone(),
        };
        Err(match found {
            Ok(found) => SubjectError::CsrNamesAnother { attribute, device, found: shortened(&found) },
            Err(cause) => SubjectError::CsrNamesNone { attribute, device, cause },
        })
    }

    /// Encodes what follows the serial number (RFC 5280 section 4.1.2): algorithm, issuer, validity, subject,
    /// key, extensions. Tells where in it the constant extensions begin.
    fn body(
        &self,
        scheduled: &ScheduledIssuer,
        key: &PublicKey,
        context: &RequestContext<'_>,
    ) -> Result<(Vec<u8>, usize), ProfileError> {
        let RequestContext { values, now } = context;
        let validity = self.validity.at(*now, &scheduled.issuer)?;
        let constant = &scheduled.extensions;
        let (mut alt_names, mut from_end) = (Ok(()), 0);
        let mut body = Vec::with_capacity(scheduled.head.len() + key.spki.len() + constant.len() + 512);
        body.extend_from_slice(&scheduled.head);
        tlv(&mut body, SEQUENCE, |out| validity.iter().for_each(|time| time.encode(out)));
        self.subject.encode(values, &mut body)?;
        body.extend_from_slice(&key.spki);
        tlv(&mut body, explicit(3), |out| {
            tlv(out, SEQUENCE, |out| {
                let begin = out.len();
                out.extend_from_slice(constant);
                if self.subject_key_identifier {
                    extension(out, ID_CE_SUBJECT_KEY_IDENTIFIER, false, |out| {
                        primitive(out, OCTET_STRING, &key.identifier());
                    });
                }
                alt_names = self.encode_alt_names(values, out);
                from_end = out.len() - begin;
            });
        });
        alt_names?;
        self.check_length(body.len(), &scheduled.issuer)?;
        check_names(&body, &scheduled.issuer)?;
        let constant = body.len() - from_end;
        Ok((body, constant))
    }

    /// Refuses a certificate that could be too long, with the longest signature of its issuer.
    fn check_length(&self, body: usize, issuer: &IssuingCa) -> Result<(), SubjectError> {
        let Some(longest) = self.longest else { return Ok(()) };
        let algorithm = issuer.algorithm();
        // [0] version 3, and the serial number.
        let to_be_signed = encoded_length(5 + encoded_length(SerialNumber::LENGTH) + body);
        let signature = encoded_length(1 + algorithm.longest_signature(issuer.public_key().kind));
        let length = encoded_length(to_be_signed + algorithm.identifier().len() + signature);
        if length <= longest {
            return Ok(());
        }
        Err(SubjectError::TooLong { length, longest })
    }
}

impl Approved {
    /// The future holder of the certificate.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Checks that the certificate may be given to a device that has none: nobody could use it as a proof of possession
    /// of the CA's key.
    ///
    /// # Errors
    /// That its name looks like a platform's code.
    pub fn check_new(&self, device: &DeviceId) -> Result<(), ProfileError> {
        let Some(shape) = self.code_shape else { return Ok(()) };
        Err(ProfileError::DeviceIdLikeCode { device: device.clone(), shape, profile: self.holder.profile.clone() })
    }

    /// Its issuer.
    pub fn issuer(&self) -> &Arc<IssuingCa> {
        &self.issuer
    }

    /// DER: what follows the serial number in the TBSCertificate.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Fills in what follows from the serial number: the shard of its revocation list, in a copy of the body.
    pub(crate) fn complete(&self, body: &mut [u8], serial_number: &SerialNumber) {
        let (begin, places) = &self.shard_places;
        if let Some(extensions) = body.get_mut(*begin..) {
            places.fill(extensions, serial_number);
        }
    }
}

/// Refuses a certificate whose names the issuer's chain does not allow (RFC 5280 section 4.2.1.10): device ids and
/// orders' attributes decide about it. Most chains constrain none.
pub(crate) fn check_names(body: &[u8], issuer: &IssuingCa) -> Result<(), SubjectError> {
    if !issuer.certificates().constrains_names() {
        return Ok(());
    }
    let mut unsigned = Vec::with_capacity(body.len() + 128);
    tlv(&mut unsigned, SEQUENCE, |out| {
        tlv(out, SEQUENCE, |out| {
            out.extend_from_slice(&[0xa0, 3, 2, 1, 2, 2, 1, 1]); // version 3, and any serial number
            out.extend_from_slice(body);
        });
        out.extend_from_slice(issuer.algorithm().identifier());
        primitive(out, BIT_STRING, &[0]);
    });
    let certificate = Certificate::from_der(&unsigned).map_err(SubjectError::Malformed)?;
    let checked = issuer.certificates().check_end_entity(&certificate);
    checked.map_err(SubjectError::InvalidBelowIssuer)
}

fn note<T>(faults: &mut Vec<ConfigError>, result: Result<T, ConfigError>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn read_keys(reader: &Reader<'_>, defaults: &Defaults) -> Result<Vec<KeyType>, ConfigError> {
    let keys = reader.settings.key_types.as_ref().map_or(defaults.keys.to_vec(), |keys| keys.get_ref().clone());
    match keys.is_empty() {
        true => Err(reader.error("key_types", "must name at least one key type, such as \"p256\"")),
        false => Ok(keys),
    }
}

fn read_device_ids(reader: &Reader<'_>, defaults: &Defaults) -> Result<Option<DeviceIds>, ConfigError> {
    let rule = match (&reader.settings.device_id, defaults.device_id) {
        (Some(rule), _) => Some(DeviceIds::parse(rule.get_ref())),
        (None, rule) => rule.map(DeviceIds::parse),
    };
    rule.transpose().map_err(|message| reader.error("device_id", message))
}

fn read_alt_names(reader: &Reader<'_>) -> Result<Vec<AltName>, ConfigError> {
    reader.each("subject_alt_names", &reader.settings.subject_alt_names, AltName::parse)
}

/// What subject and subjectAltName must have in common, and what they may take from a request.
fn check_templates(reader: &Reader<'_>, subject: &Subject, alt_names: &[AltName]) -> Result<(), ConfigError> {
    if subject.email_addresses().any(|address| !alt_names.iter().any(|name| name.is_email(address))) {
        let message = "has an emailAddress, which must be in subject_alt_names too, as \"email:…\" with the same text (RFC \
                       5280 section 4.1.2.6)";
        return Err(reader.error("subject", message));
    }
    let templates = || subject.templates().chain(alt_names.iter().map(AltName::template));
    if !templates().any(Template::has_device_id) {
        return Err(reader.error("subject", "must contain {device_id}, such as \"CN={device_id}\""));
    }
    if reader.settings.order_requirement == OrderRequirement::Optional && templates().any(Template::needs_order) {
        let message = "has {order} or {order.NAME}, which a request without an order could not fill in; say \
                       order_requirement = \"required\" or take it out";
        return Err(reader.error("subject", message));
    }
    Ok(())
}

fn read_subject(reader: &Reader<'_>, defaults: &Defaults) -> Result<Subject, ConfigError> {
    let mut subject = Subject::new();
    match (&reader.settings.subject, defaults.subject) {
        (Some(attributes), _) => {
            for text in attributes {
                subject.add(text.get_ref()).map_err(|message| reader.error_at(text.span(), "subject", message))?;
            }
        }
        (None, Some(usual)) => subject.add(usual).map_err(|message| reader.error("subject", message))?,
        (None, None) => {
            let message = "is missing: only you know the product's VID and PID; such as \
                           [\"CN={device_id}\", \"VID=FFF1\", \"PID=8000\"]";
            return Err(reader.error("subject", message));
        }
    }
    if subject.is_empty() {
        return Err(reader.error("subject", "must not be empty"));
    }
    Ok(subject)
}

fn read_validity(reader: &Reader<'_>, defaults: &Defaults) -> Result<Validity, ConfigError> {
    let settings = reader.settings;
    let end = match (&settings.validity_days, &settings.not_after) {
        (None, None) => defaults.end,
        (Some(days), None) if (1..=36_525).contains(days.get_ref()) => {
            End::After(SignedDuration::from_hours(24 * i64::from(*days.get_ref())))
        }
        (Some(_), None) => return Err(reader.error("validity_days", "must be 1 to 36525 (100 years)")),
        (None, Some(text)) => End::parse(text.get_ref()).map_err(|message| reader.error("not_after", message))?,
        (Some(_), Some(_)) => {
            return Err(reader.error("not_after", "stands beside validity_days; say one of the two"));
        }
    };
    let backdate = match &settings.backdate_minutes {
        None => BACKDATE,
        Some(minutes) if *minutes.get_ref() <= 60 * 24 * 31 => SignedDuration::from_mins(i64::from(*minutes.get_ref())),
        Some(minutes) => {
            return Err(reader.error_at(minutes.span(), "backdate_minutes", "must be 0 to 44640 (31 days)"));
        }
    };
    // What an idevid's 99991231235959Z is allowed, another end is not.
    let beyond = if end == defaults.end { defaults.when_outliving_issuer } else { config::WhenOutlivingIssuer::Refuse };
    Ok(Validity { backdate, end, when_outliving_issuer: settings.when_outliving_issuer.unwrap_or(beyond) })
}

fn takes(listed: KeyType, found: KeyKind) -> bool {
    match (listed, found) {
        (KeyType::P256, KeyKind::P256)
        | (KeyType::P384, KeyKind::P384)
        | (KeyType::P521, KeyKind::P521)
        | (KeyType::Ed25519, KeyKind::Ed25519) => true,
        (KeyType::Rsa2048, KeyKind::Rsa { bits }) => bits == 2048,
        (KeyType::Rsa3072, KeyKind::Rsa { bits }) => bits == 3072,
        (KeyType::Rsa4096, KeyKind::Rsa { bits }) => bits == 4096,
        _ => false,
    }
}
