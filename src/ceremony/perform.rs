//! Makes what a checked ceremony says, step by step.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose};

use super::{
    certificate::{Certificate, CertificateError, Validity, distinguished_name, parameters},
    error::{Error, Leftovers, Made, StepError},
    file::{Action, Authority, CeremonyFile, FileRef, IssuerKey, IssuerRef, KeyRef, Step},
    import::{self, Imported},
    keys::{self, CaKey, IssuerError, self_sign},
    plan::Plan,
    prove,
    record::{self, CertificateRecord, KeyRecord, Output, Program, Record, StepRecord, TokenRecord},
    signature::{self, RecordSigner},
};
use crate::{
    ca::CaChain,
    durable::{self, Access},
    hash::sha256,
    hsm::{self, Key, RcgenKey},
    name::Attribute,
    pem,
    signer::KeyKind,
};

impl Plan {
    /// Makes everything, step by step, and writes the record. `progress` is called after each step, and `stop` before each:
    /// the name of a signal that is to end the ceremony, if there was one.
    ///
    /// # Errors
    /// The step that failed, or the signal, with what exists now.
    pub fn perform(
        self,
        stop: &dyn Fn() -> Option<&'static str>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Record, Error> {
        let began = record::rfc3339(SystemTime::now());
        // What cannot be read now is known before anything is made.
        let (program, tokens) = self.surroundings().map_err(Box::new)?;
        let mut performer = Performer { plan: &self, made: Vec::new(), certificates: HashMap::new() };
        let mut steps = Vec::new();
        for (index, step) in self.file.steps.iter().enumerate() {
            if let Some(signal) = stop() {
                let (done, all) = (index, self.file.steps.len());
                return Err(Error::Stopped { signal, done, all, leftovers: performer.leftovers() });
            }
            match performer.step(step) {
                Ok(done) => steps.push(done),
                Err(reason) => {
                    return Err(Error::Unfinished {
                        number: index + 1,
                        name: step.name,
                        key: step.key.get_ref().clone(),
                        reason: Box::new(reason),
                        leftovers: performer.leftovers(),
                    });
                }
            }
            progress(&format!("{}/{} {} \"{}\"", index + 1, self.file.steps.len(), step.name, step.key.get_ref()));
        }
        self.write_record(began, program, tokens, steps)
    }

    fn surroundings(&self) -> Result<(Program, Vec<TokenRecord>), StepError> {
        let unread = |source| StepError::Read { path: "/proc/self/exe".into(), source };
        let program = Program::own().map_err(unread)?;
        let tokens = self.tokens.iter().map(|(name, token)| TokenRecord::new(name, token));
        Ok((program, tokens.collect::<Result<_, _>>()?))
    }

    fn write_record(
        &self,
        began: String,
        program: Program,
        tokens: Vec<TokenRecord>,
        steps: Vec<StepRecord>,
    ) -> Result<Record, Error> {
        let CeremonyFile { source, people, record: place, record_key, .. } = &self.file;
        let signer = record_key.as_ref().map(|key| Ok::<_, StepError>(RecordSigner::new(self.tokens.key(key)?, place)));
        // The key may have gone since the check: the record is written all the same.
        let (signer, unsigned) = match signer.transpose() {
            Ok(signer) => (signer, None),
            Err(error) => (None, Some(error)),
        };
        let record = Record {
            began,
            time: record::rfc3339(SystemTime::now()),
            script: people.script.clone(),
            operator: people.operator.clone(),
            witnesses: people.witnesses.clone(),
            program,
            host: record::host(),
            user: record::user(),
            ceremony: Output::new(source.path().to_owned(), source.text().as_bytes()),
            tokens,
            steps,
            signature: signer.as_ref().map(RecordSigner::announce),
        };
        let mut json = serde_json::to_string_pretty(&record).unwrap_or_default();
        json.push('\n');
        let path = &place.path;
        write_file(path, json.as_bytes()).map_err(|source| Error::Unrecorded {
            path: path.clone(),
            source,
            record: json.clone(),
        })?;
        let signed = signer.map_or(Ok(()), |signer| {
            let signature = signer.sign(json.as_bytes())?;
            let place = signature::place(place).path;
            write_file(&place, &signature).map_err(|source| StepError::Write { path: place.clone(), source })
        });
        match unsigned.map_or(signed, Err) {
            Ok(()) => Ok(record),
            Err(reason) => Err(Error::Unsigned {
                path: path.clone(),
                sha256: hex::encode(sha256(json.as_bytes())),
                reason: Box::new(reason),
            }),
        }
    }
}

/// Makes what the steps say and remembers it for the steps after it.
struct Performer<'a> {
    plan: &'a Plan,
    made: Vec<Made>,
    certificates: HashMap<PathBuf, Certificate>,
}

impl Performer<'_> {
    fn step(&mut self, step: &Step) -> Result<StepRecord, StepError> {
        let began = record::rfc3339(SystemTime::now());
        let done = self.perform(step)?;
        Ok(StepRecord { began, finished: record::rfc3339(SystemTime::now()), ..done })
    }

    fn perform(&mut self, step: &Step) -> Result<StepRecord, StepError> {
        let now = self.plan.now;
        match &step.action {
            Action::SelfSigned { authority } => {
                let key = self.generate(step, authority.kind)?;
                let parameters =
                    ca_parameters(authority, &key, Validity::until(now, authority.not_after.get_ref().moment(now)))?;
                let certificate = self_sign(&key, &parameters)?;
                self.write_certificate(&authority.certificate, &certificate)?;
                self.done(step, &key, Some((certificate, &authority.certificate)), None)
            }
            Action::Intermediate { authority, issuer } => {
                let key = self.generate(step, authority.kind)?;
                let (ca, ca_key) = self.issuer(issuer)?;
                let validity = Validity::until(now, authority.not_after.get_ref().moment(now)).within(&ca);
                let mut parameters = ca_parameters(authority, &key, validity)?;
                parameters.use_authority_key_identifier_extension = true;
                let certificate = ca_key.issue(&ca, &parameters, &RcgenKey::new(&key)?)?;
                // What the start would refuse is refused here.
                CaChain::from_certificates(vec![certificate.parsed().clone(), ca.parsed().clone()])?;
                self.write_certificate(&authority.certificate, &certificate)?;
                self.done(step, &key, Some((certificate, &authority.certificate)), None)
            }
            Action::Request { kind, subject, request } => {
                let key = self.generate(step, *kind)?;
                let csr = certificate_request(subject, &key)?;
                self.write(request, csr.as_bytes())?;
                self.done(step, &key, None, Some(Output::new(request.path.clone(), csr.as_bytes())))
            }
            Action::AuditKey { kind, public_key } => {
                let key = self.generate(step, *kind)?;
                let pem = pem::encode("PUBLIC KEY", &key.public_key().spki);
                self.write(public_key, pem.as_bytes())?;
                let mut done = self.done(step, &key, None, None)?;
                done.public_key = Some(Output::new(public_key.path.clone(), pem.as_bytes()));
                Ok(done)
            }
            Action::Prove { code, issuer, certificate: place } => {
                let (ca, ca_key) = self.issuer(issuer)?;
                let certificate = prove::prove(&ca, &ca_key, code, now)?;
                self.write_certificate(place, &certificate)?;
                let key = self.own_key(step)?;
                self.done(step, &key, Some((certificate, place)), None)
            }
            Action::Import(import) => {
                let key = self.own_key(step)?;
                // Read and checked again: the files may have changed since the plan was shown.
                let imported = import::check(&key, import, now)?;
                if self.plan.imported.get(&import.certificate.path) != Some(&imported) {
                    return Err(StepError::Changed(import.signed.written.clone()));
                }
                let Imported { certificate, root, differences } = imported;
                self.write_certificate(&import.certificate, &certificate)?;
                if let Some(place) = &import.root_certificate {
                    self.write_certificate(place, &root)?;
                }
                let mut done = self.done(step, &key, Some((certificate, &import.certificate)), None)?;
                done.root_certificate =
                    import.root_certificate.as_ref().map(|place| CertificateRecord::new(&root, place));
                done.differences = differences;
                Ok(done)
            }
        }
    }

    /// The step's key, which there is.
    fn own_key(&self, step: &Step) -> Result<Key, hsm::Error> {
        self.plan.tokens.key(&KeyRef { token: step.token.clone(), label: step.key.clone() })
    }

    fn generate(&mut self, step: &Step, kind: KeyKind) -> Result<Key, StepError> {
        let label = step.key.get_ref();
        let token = self.plan.tokens.token(&step.token)?;
        let key = hsm::generate(token, label, kind);
        let exists = match &key {
            Ok(_) => true,
            // Generating is followed by reading the key back; only the token knows how far it came.
            Err(_) => token.has_object(label).unwrap_or(true),
        };
        if exists {
            let module = self.plan.file.tokens.get(&step.token).map(|uri| uri.module.clone()).unwrap_or_default();
            let (label, token) = (label.clone(), token.identity().label.clone());
            self.made.push(Made::Key { label, token, module });
        }
        let key = key?;
        key.test()?;
        Ok(key)
    }

    /// The CA of an earlier step, or one that exists.
    fn issuer(&self, issuer: &IssuerRef) -> Result<(Certificate, CaKey), IssuerError> {
        match (self.certificates.get(&issuer.certificate.path), &issuer.key) {
            (Some(certificate), IssuerKey::Token(key)) => {
                Ok((certificate.clone(), CaKey::Hsm(self.plan.tokens.key(key)?)))
            }
            _ => keys::open_issuer(&self.plan.tokens, issuer, self.plan.now),
        }
    }

    fn write_certificate(&mut self, place: &FileRef, certificate: &Certificate) -> Result<(), StepError> {
        self.write(place, certificate.pem().as_bytes())
    }

    fn write(&mut self, place: &FileRef, content: &[u8]) -> Result<(), StepError> {
        write_file(&place.path, content).map_err(|source| StepError::Write { path: place.path.clone(), source })?;
        self.made.push(Made::File(place.path.clone()));
        Ok(())
    }

    fn done(
        &mut self,
        step: &Step,
        key: &Key,
        certificate: Option<(Certificate, &FileRef)>,
        request: Option<Output>,
    ) -> Result<StepRecord, StepError> {
        let record = StepRecord {
            r#do: step.name,
            began: String::new(),
            finished: String::new(),
            token: step.token.clone(),
            key: KeyRecord::new(key)?,
            certificate: certificate.as_ref().map(|(certificate, place)| CertificateRecord::new(certificate, place)),
            request,
            public_key: None,
            root_certificate: None,
            differences: Vec::new(),
        };
        if let Some((certificate, place)) = certificate {
            self.certificates.insert(place.path.clone(), certificate);
        }
        Ok(record)
    }

    fn leftovers(self) -> Leftovers {
        Leftovers { made: self.made }
    }
}

/// A CA certificate's parameters: CA:TRUE and keyCertSign, cRLSign, both critical.
fn ca_parameters(authority: &Authority, key: &Key, validity: Validity) -> Result<CertificateParams, CertificateError> {
    let mut parameters = parameters(&authority.subject, key.public_key(), validity)?;
    parameters.is_ca =
        IsCa::Ca(authority.path_length.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(parameters)
}

/// A PKCS#10 request in PEM. What the certificate may do is for the offline root to say, so it asks for nothing.
fn certificate_request(subject: &[Attribute], key: &Key) -> Result<String, CertificateError> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = distinguished_name(subject)?;
    let rcgen_key = RcgenKey::new(key)?;
    let request = parameters.serialize_request(&rcgen_key).map_err(|error| rcgen_key.explain(error))?;
    Ok(pem::encode("CERTIFICATE REQUEST", request.der()))
}

fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    durable::write_new(path, content, Access::Public)
}
