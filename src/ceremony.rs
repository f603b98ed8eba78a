//! CA keys in the HSM and their certificates, as one reviewed file says.
//!
//! [`Ceremony::load`] reads the file, [`Ceremony::check`] looks at the token and at every file that it would read or
//! write and refuses whatever is in the way, and [`Plan::perform`] then makes everything and writes the record. A
//! ceremony never replaces a key or a file: a second run of the same file is refused.
//!
//! `hsm-config/ceremony.toml` is the example with every step commented.

mod certificate;
mod file;
mod import;
mod plan;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose, PublicKeyData};

pub(crate) use self::certificate::{CaKey, Certificate, Validity, date, parameters};
pub use self::record::{CertificateRecord, KeyRecord, Output, Record, StepRecord};
use self::{
    certificate::{distinguished_name, self_sign},
    file::{Action, Authority, CeremonyFile, IssuerKey, IssuerRef, Place, Step},
    import::Imported,
};
use crate::{
    ca::CaChain,
    config::ConfigError,
    durable::{self, Access},
    hsm::{self, Key, KeyQuery, RcgenKey, Token, read_secret},
    name::Attribute,
    signer::{KeyKind, PublicKey},
};

/// A ceremony file that was read; the token was not looked at yet.
#[derive(Debug)]
pub struct Ceremony {
    file: CeremonyFile,
}

/// Why a ceremony is refused or did not end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is wrong, or what it would make exists.
    #[error(transparent)]
    Refused(#[from] ConfigError),
    /// The token cannot be used.
    #[error(transparent)]
    Hsm(#[from] hsm::Error),
    /// A step failed; what the steps before it made exists.
    #[error("step {number} ({name}, key \"{key}\") failed: {reason}\n{leftovers}")]
    Unfinished {
        /// Counted from 1.
        number: usize,
        /// What the step does.
        name: &'static str,
        /// The step's key.
        key: String,
        /// Why it failed.
        reason: String,
        /// What exists now and how to remove it.
        leftovers: Leftovers,
    },
    /// Everything was made, but the record of it could not be written.
    #[error("everything was made, but the record {} cannot be written ({reason}); keep this in its place:\n{record}", path.display())]
    Unrecorded {
        /// The record's path.
        path: PathBuf,
        /// Why it could not be written.
        reason: String,
        /// The record's JSON.
        record: String,
    },
}

impl Ceremony {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with it, with line and key.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Ok(Ceremony { file: CeremonyFile::load(path)? })
    }

    /// The environment variables for the PKCS#11 module.
    pub fn module_environment(&self) -> BTreeMap<String, String> {
        self.file.source.fill_in(&self.file.environment)
    }

    /// Logs in to the token and checks all that can be known before anything is made.
    ///
    /// # Errors
    /// The first thing that is in the way.
    pub fn check(self) -> Result<Plan, Error> {
        let token = Token::open(&self.file.token, self.file.source.folder())?;
        let now = SystemTime::now();
        let mut checker = Checker {
            file: &self.file,
            token: &token,
            now,
            outputs: BTreeSet::new(),
            labels: BTreeSet::new(),
            planned: HashMap::new(),
            imported: HashMap::new(),
        };
        checker.must_be_new("ceremony.record", &self.file.record)?;
        for step in &self.file.steps {
            checker.step(step)?;
        }
        let imported = checker.imported;
        Ok(Plan { file: self.file, token, now, imported })
    }
}

/// Checks step after step what the ceremony would find and make.
struct Checker<'a> {
    file: &'a CeremonyFile,
    token: &'a Arc<Token>,
    now: SystemTime,
    /// The files that the steps so far would write.
    outputs: BTreeSet<PathBuf>,
    /// The labels of the keys that they would make.
    labels: BTreeSet<String>,
    /// The CA certificates that they would write, by path.
    planned: HashMap<PathBuf, PlannedCa>,
    /// What would be imported, by the path where it goes.
    imported: HashMap<PathBuf, Imported>,
}

/// A CA certificate that an earlier step would make.
struct PlannedCa {
    key: String,
    not_after: SystemTime,
    path_length: Option<u64>,
}

impl Checker<'_> {
    fn step(&mut self, step: &Step) -> Result<(), Error> {
        match &step.action {
            Action::SelfSigned { authority } => {
                self.label_must_be_new(step)?;
                self.plan(step, authority)?;
            }
            Action::Intermediate { authority, issuer } => {
                self.label_must_be_new(step)?;
                self.issuer(authority, issuer)?;
                self.plan(step, authority)?;
            }
            Action::Request { request, .. } => {
                self.label_must_be_new(step)?;
                self.must_be_new("step.request", request)?;
            }
            Action::AuditKey { public_key, .. } => {
                self.label_must_be_new(step)?;
                self.must_be_new("step.public_key", public_key)?;
            }
            Action::Import(import) => {
                if self.labels.contains(step.key.get_ref()) {
                    let message = "is made by a step of this file; an offline root signs between two ceremonies, so use two files";
                    return Err(self.refuse(step.key.span(), "step.key", message));
                }
                let key = open(self.token, step.key.get_ref())?;
                let imported = import::check(&key, import, self.now)
                    .map_err(|error| self.refuse(error.place.span.clone(), "step", &error.reason))?;
                self.must_be_new("step.certificate", &import.certificate)?;
                if let Some(root_certificate) = &import.root_certificate {
                    self.must_be_new("step.root_certificate", root_certificate)?;
                }
                self.imported.insert(import.certificate.path.clone(), imported);
            }
        }
        Ok(())
    }

    fn plan(&mut self, step: &Step, authority: &Authority) -> Result<(), Error> {
        self.must_be_new("step.certificate", &authority.certificate)?;
        let ca = PlannedCa {
            key: step.key.get_ref().clone(),
            not_after: authority.end.get_ref().after(self.now),
            path_length: authority.path_length.map(u64::from),
        };
        self.planned.insert(authority.certificate.path.clone(), ca);
        Ok(())
    }

    fn label_must_be_new(&mut self, step: &Step) -> Result<(), Error> {
        let label = step.key.get_ref();
        if !self.labels.insert(label.clone()) {
            return Err(self.refuse(step.key.span(), "step.key", format!("two steps make a key \"{label}\"")));
        }
        if self.token.has_object(label)? {
            let message = format!(
                "token \"{}\" already has an object with the label \"{label}\"; choose another label",
                self.token.identity().label
            );
            return Err(self.refuse(step.key.span(), "step.key", message));
        }
        Ok(())
    }

    fn must_be_new(&mut self, key: &str, place: &Place) -> Result<(), Error> {
        if !self.outputs.insert(place.path.clone()) {
            let message = format!("{} is written twice", place.written.display());
            return Err(self.refuse(place.span.clone(), key, message));
        }
        // Also a dangling link is in the way.
        if place.path.symlink_metadata().is_ok() {
            let message = format!("{} exists; a ceremony replaces nothing", place.path.display());
            return Err(self.refuse(place.span.clone(), key, message));
        }
        let folder = place.path.parent().into_iter().flat_map(Path::ancestors).find(|folder| folder.exists());
        let writable = folder
            .is_some_and(|folder| folder.is_dir() && rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok());
        if !writable {
            let message = format!("the folder of {} cannot be written to", place.path.display());
            return Err(self.refuse(place.span.clone(), key, message));
        }
        Ok(())
    }

    /// Checks the CA that would issue `authority`, which an earlier step makes or which exists.
    fn issuer(&self, authority: &Authority, issuer: &IssuerRef) -> Result<(), Error> {
        let span = issuer.certificate.span.clone();
        let (not_after, path_length) = match self.planned.get(&issuer.certificate.path) {
            Some(planned) => {
                match &issuer.key {
                    IssuerKey::Label(label) if *label.get_ref() == planned.key => {}
                    _ => {
                        let message =
                            format!("the key of {} is \"{}\"", issuer.certificate.written.display(), planned.key);
                        return Err(self.refuse(span, "step.issuer", message));
                    }
                }
                (planned.not_after, planned.path_length)
            }
            None => {
                let ca = open_issuer(self.token, issuer, self.now);
                let (certificate, _) = ca.map_err(|reason| self.refuse(span.clone(), "step.issuer", reason))?;
                (certificate.not_after, certificate.path_length())
            }
        };
        let ends = authority.end.get_ref().after(self.now);
        if ends > not_after {
            let message = format!(
                "the certificate would end on {}, after its issuer, which ends on {}",
                date(ends),
                date(not_after)
            );
            return Err(self.refuse(authority.end.span(), authority.end.get_ref().key(), message));
        }
        let room = match (path_length, authority.path_length) {
            (None, _) => true,
            (Some(issuer), Some(own)) => u64::from(own) < issuer,
            (Some(_), None) => false,
        };
        if !room {
            let message = format!(
                "the issuer's path length is {}, which leaves no room for a CA with this path length below it",
                path_length.unwrap_or_default()
            );
            return Err(self.refuse(span, "step.issuer", message));
        }
        Ok(())
    }

    fn refuse(&self, span: Range<usize>, key: &str, message: impl fmt::Display) -> Error {
        Error::Refused(self.file.source.error_at(span, key, message))
    }
}

fn open(token: &Arc<Token>, label: &str) -> Result<Key, hsm::Error> {
    Key::open(token, &KeyQuery { label: Some(label.to_owned()), id: None, algorithm: None })
}

/// Reads an issuer's certificate and opens its key.
fn open_issuer(token: &Arc<Token>, issuer: &IssuerRef, now: SystemTime) -> Result<(Certificate, CaKey), String> {
    let certificate = Certificate::read(&issuer.certificate.path)?;
    let of_issuer = |reason| format!("{} cannot be the issuer: {reason}", issuer.certificate.written.display());
    certificate.must_be_ca(now).map_err(of_issuer)?;
    certificate.must_survive_as_issuer().map_err(of_issuer)?;
    let key = match &issuer.key {
        IssuerKey::Label(label) => {
            let key = open(token, label.get_ref()).map_err(|error| error.to_string())?;
            key.check_matches(&certificate.key).map_err(|error| error.to_string())?;
            CaKey::Hsm(key)
        }
        IssuerKey::File(file) => CaKey::File(Box::new(read_key_file(&file.path, &certificate.key)?)),
    };
    Ok((certificate, key))
}

/// Reads an offline CA's private key.
fn read_key_file(path: &Path, expected: &PublicKey) -> Result<rcgen::KeyPair, String> {
    let text = read_secret(path).map_err(|error| error.to_string())?;
    let key = rcgen::KeyPair::from_pem(&text).map_err(|_| {
        format!(
            "{} is not an unencrypted PKCS#8 private key in PEM; convert it with openssl pkcs8 -topk8 -nocrypt",
            path.display()
        )
    })?;
    if key.subject_public_key_info() != expected.spki {
        return Err(format!("the key in {} does not belong to the issuer's certificate", path.display()));
    }
    Ok(key)
}

/// A checked ceremony. Its `Display` is what the people at the ceremony read before they say yes.
#[derive(Debug)]
pub struct Plan {
    file: CeremonyFile,
    token: Arc<Token>,
    now: SystemTime,
    imported: HashMap<PathBuf, Imported>,
}

impl Plan {
    /// Makes everything, step by step, and writes the record. `progress` is told of each step that is done.
    ///
    /// # Errors
    /// The step that failed, with what exists now.
    pub fn perform(self, progress: &mut dyn FnMut(&str)) -> Result<Record, Error> {
        let mut performer = Performer { plan: &self, made: Vec::new(), certificates: HashMap::new() };
        let mut steps = Vec::new();
        for (index, step) in self.file.steps.iter().enumerate() {
            match performer.step(step) {
                Ok(done) => steps.push(done),
                Err(reason) => {
                    return Err(Error::Unfinished {
                        number: index + 1,
                        name: step.name,
                        key: step.key.get_ref().clone(),
                        reason,
                        leftovers: performer.leftovers(),
                    });
                }
            }
            progress(&format!("{}/{} {} \"{}\"", index + 1, self.file.steps.len(), step.name, step.key.get_ref()));
        }
        self.write_record(steps)
    }

    fn write_record(&self, steps: Vec<StepRecord>) -> Result<Record, Error> {
        let source = &self.file.source;
        let record = Record {
            time: record::rfc3339(SystemTime::now()),
            birthmark: env!("CARGO_PKG_VERSION"),
            host: record::host(),
            user: record::user(),
            ceremony: Output::of(source.path().to_owned(), source.text().as_bytes()),
            token: self.token.identity().clone(),
            module: self.token.module_info()?,
            steps,
        };
        let mut json = serde_json::to_string_pretty(&record).unwrap_or_default();
        json.push('\n');
        let path = &self.file.record.path;
        write_file(path, json.as_bytes()).map_err(|error| Error::Unrecorded {
            path: path.clone(),
            reason: error.to_string(),
            record: json,
        })?;
        Ok(record)
    }
}

/// Makes what the steps say and remembers it for the steps behind.
struct Performer<'a> {
    plan: &'a Plan,
    made: Vec<Made>,
    certificates: HashMap<PathBuf, Certificate>,
}

impl Performer<'_> {
    fn step(&mut self, step: &Step) -> Result<StepRecord, String> {
        let now = self.plan.now;
        match &step.action {
            Action::SelfSigned { authority } => {
                let key = self.generate(step, authority.kind)?;
                let parameters =
                    ca_parameters(authority, &key, Validity::until(now, authority.end.get_ref().after(now)))?;
                let certificate = self_sign(&key, &parameters)?;
                self.write_certificate(&authority.certificate, &certificate)?;
                Ok(self.done(step, &key, Some((certificate, &authority.certificate)), None))
            }
            Action::Intermediate { authority, issuer } => {
                let key = self.generate(step, authority.kind)?;
                let (ca, ca_key) = self.issuer(issuer)?;
                let validity = Validity::until(now, authority.end.get_ref().after(now)).within(&ca);
                let mut parameters = ca_parameters(authority, &key, validity)?;
                parameters.use_authority_key_identifier_extension = true;
                let rcgen_key = RcgenKey::new(&key).map_err(|error| error.to_string())?;
                let certificate = ca_key.issue(&ca, &parameters, &rcgen_key)?;
                // What the start would refuse is refused here.
                CaChain::from_certificates(vec![certificate.parsed().clone(), ca.parsed().clone()])
                    .map_err(|error| error.to_string())?;
                self.write_certificate(&authority.certificate, &certificate)?;
                Ok(self.done(step, &key, Some((certificate, &authority.certificate)), None))
            }
            Action::Request { kind, subject, request } => {
                let key = self.generate(step, *kind)?;
                let csr = certificate_request(subject, &key)?;
                self.write(request, csr.as_bytes())?;
                Ok(self.done(step, &key, None, Some(Output::of(request.path.clone(), csr.as_bytes()))))
            }
            Action::AuditKey { kind, public_key } => {
                let key = self.generate(step, *kind)?;
                let spki = ::pem::Pem::new("PUBLIC KEY", key.public_key().spki.as_slice());
                let pem =
                    ::pem::encode_config(&spki, ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF));
                self.write(public_key, pem.as_bytes())?;
                let mut done = self.done(step, &key, None, None);
                done.public_key = Some(Output::of(public_key.path.clone(), pem.as_bytes()));
                Ok(done)
            }
            Action::Import(import) => {
                let key = open(&self.plan.token, step.key.get_ref()).map_err(|error| error.to_string())?;
                // Read and checked again: the files may have changed since the plan was shown.
                let imported = import::check(&key, import, now).map_err(|error| error.reason)?;
                if self.plan.imported.get(&import.certificate.path) != Some(&imported) {
                    return Err(format!(
                        "{} or what belongs to it was changed since the plan was shown",
                        import.signed.written.display()
                    ));
                }
                let Imported { certificate, root, differences } = imported;
                self.write_certificate(&import.certificate, &certificate)?;
                if let Some(place) = &import.root_certificate {
                    self.write_certificate(place, &root)?;
                }
                let mut done = self.done(step, &key, Some((certificate, &import.certificate)), None);
                done.root_certificate =
                    import.root_certificate.as_ref().map(|place| CertificateRecord::of(&root, place));
                done.differences = differences;
                Ok(done)
            }
        }
    }

    fn generate(&mut self, step: &Step, kind: KeyKind) -> Result<Key, String> {
        let label = step.key.get_ref();
        let key = hsm::generate(&self.plan.token, label, kind);
        let exists = match &key {
            Ok(_) => true,
            // Generating is followed by reading the key back; only the token knows how far it came.
            Err(_) => self.plan.token.has_object(label).unwrap_or(true),
        };
        if exists {
            self.made.push(Made::Key(label.clone()));
        }
        let key = key.map_err(|error| error.to_string())?;
        key.test().map_err(|error| error.to_string())?;
        Ok(key)
    }

    /// The CA of an earlier step, or one that exists.
    fn issuer(&self, issuer: &IssuerRef) -> Result<(Certificate, CaKey), String> {
        match (self.certificates.get(&issuer.certificate.path), &issuer.key) {
            (Some(certificate), IssuerKey::Label(label)) => {
                let key = open(&self.plan.token, label.get_ref()).map_err(|error| error.to_string())?;
                Ok((certificate.clone(), CaKey::Hsm(key)))
            }
            _ => open_issuer(&self.plan.token, issuer, self.plan.now),
        }
    }

    fn write_certificate(&mut self, place: &Place, certificate: &Certificate) -> Result<(), String> {
        self.write(place, certificate.pem().as_bytes())
    }

    fn write(&mut self, place: &Place, content: &[u8]) -> Result<(), String> {
        write_file(&place.path, content).map_err(|error| format!("cannot write {}: {error}", place.path.display()))?;
        self.made.push(Made::File(place.path.clone()));
        Ok(())
    }

    fn done(
        &mut self,
        step: &Step,
        key: &Key,
        certificate: Option<(Certificate, &Place)>,
        request: Option<Output>,
    ) -> StepRecord {
        let record = StepRecord {
            r#do: step.name,
            key: KeyRecord::of(key),
            certificate: certificate.as_ref().map(|(certificate, place)| CertificateRecord::of(certificate, place)),
            request,
            public_key: None,
            root_certificate: None,
            differences: Vec::new(),
        };
        if let Some((certificate, place)) = certificate {
            self.certificates.insert(place.path.clone(), certificate);
        }
        record
    }

    fn leftovers(self) -> Leftovers {
        Leftovers {
            token: self.plan.token.identity().label.clone(),
            module: self.plan.file.token.module.clone(),
            made: self.made,
        }
    }
}

/// A CA certificate's parameters: CA:TRUE and keyCertSign, cRLSign, both critical.
fn ca_parameters(authority: &Authority, key: &Key, validity: Validity) -> Result<CertificateParams, String> {
    let mut parameters = parameters(&authority.subject, key.public_key(), validity)?;
    parameters.is_ca =
        IsCa::Ca(authority.path_length.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(parameters)
}

/// A PKCS#10 request in PEM. What the certificate may do is for the offline root to say, so it asks for nothing.
fn certificate_request(subject: &[Attribute], key: &Key) -> Result<String, String> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = distinguished_name(subject)?;
    let rcgen_key = RcgenKey::new(key).map_err(|error| error.to_string())?;
    let request = parameters.serialize_request(&rcgen_key).map_err(|error| rcgen_key.explain(error).to_string())?;
    request.pem().map(|pem| pem.replace("\r\n", "\n")).map_err(|error| error.to_string())
}

fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    durable::write_new(path, content, Access::Public)
}

/// Something that the ceremony made.
#[derive(Debug)]
enum Made {
    Key(String),
    File(PathBuf),
}

/// What an unfinished ceremony left behind; its `Display` says how to remove it.
#[derive(Debug)]
pub struct Leftovers {
    token: String,
    module: PathBuf,
    made: Vec<Made>,
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.made.is_empty() {
            return f.write_str("Nothing was made; no record was written.");
        }
        f.write_str("No record was written. What exists now must be removed before the ceremony can be run again:")?;
        for made in &self.made {
            match made {
                Made::File(path) => write!(f, "\n  rm {}", path.display())?,
                Made::Key(label) => {
                    for kind in ["privkey", "pubkey"] {
                        write!(
                            f,
                            "\n  pkcs11-tool --module {} --token-label \"{}\" --login --delete-object --type {kind} --label \"{label}\"",
                            self.module.display(),
                            self.token
                        )?;
                    }
                }
            }
        }
        Ok(())
    }
}
