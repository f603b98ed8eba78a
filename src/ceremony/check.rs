//! What can be known before anything is made: that nothing is in the way, and that every issuer can issue.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    certificate::date,
    error::Error,
    file::{Action, Authority, CeremonyFile, FileRef, IssuerKey, IssuerRef, KeyRef, Step},
    import::{self, Imported},
    keys::{self, Tokens},
    signature,
};
use crate::hsm::{self, TokenIdentity};

/// Checks a ceremony. Gives what would be imported, by the path where it goes.
pub(super) fn check(
    file: &CeremonyFile,
    tokens: &Tokens,
    now: SystemTime,
) -> Result<HashMap<PathBuf, Imported>, Error> {
    let mut checker = Checker {
        file,
        tokens,
        now,
        outputs: BTreeSet::new(),
        labels: HashSet::new(),
        planned: HashMap::new(),
        imported: HashMap::new(),
    };
    checker.check_new_file("ceremony.record", &file.record)?;
    for step in &file.steps {
        checker.step(step)?;
    }
    if let Some(key) = &file.record_key {
        checker.check_new_file("ceremony.record", &signature::place(&file.record))?;
        checker.record_key(key)?;
    }
    Ok(checker.imported)
}

/// Checks step after step what the ceremony would find and make.
struct Checker<'a> {
    file: &'a CeremonyFile,
    tokens: &'a Tokens,
    now: SystemTime,
    /// The files that the steps so far would write.
    outputs: BTreeSet<PathBuf>,
    /// The tokens and labels of the keys that they would make.
    labels: HashSet<(TokenIdentity, String)>,
    /// The CA certificates that they would write, by path.
    planned: HashMap<PathBuf, PlannedCa>,
    /// What would be imported, by the path where it goes.
    imported: HashMap<PathBuf, Imported>,
}

/// A CA certificate that an earlier step would make.
struct PlannedCa {
    key: KeyRef,
    not_after: SystemTime,
    path_length: Option<u64>,
}

impl Checker<'_> {
    fn step(&mut self, step: &Step) -> Result<(), Error> {
        match &step.action {
            Action::SelfSigned { authority } => {
                self.check_new_label(step)?;
                self.plan(step, authority)?;
            }
            Action::Intermediate { authority, issuer } => {
                self.check_new_label(step)?;
                self.issuer(authority, issuer)?;
                self.plan(step, authority)?;
            }
            Action::Request { request, .. } => {
                self.check_new_label(step)?;
                self.check_new_file("step.request", request)?;
            }
            Action::AuditKey { public_key, .. } => {
                self.check_new_label(step)?;
                self.check_new_file("step.public_key", public_key)?;
            }
            Action::Prove { issuer, certificate, .. } => {
                self.ca(issuer)?;
                self.check_new_file("step.certificate", certificate)?;
            }
            Action::Import(import) => {
                let own = KeyRef { token: step.token.clone(), label: step.key.clone() };
                if self.makes(&own)? {
                    let message = "is made by a step of this file; an offline root signs between two ceremonies, so use two files";
                    return Err(self.refuse(step.key.span(), "step.key", message));
                }
                let key = self.tokens.key(&own)?;
                let imported = import::check(&key, import, self.now)
                    .map_err(|error| self.refuse(error.file(import).span.clone(), "step", error))?;
                self.check_new_file("step.certificate", &import.certificate)?;
                if let Some(root_certificate) = &import.root_certificate {
                    self.check_new_file("step.root_certificate", root_certificate)?;
                }
                self.imported.insert(import.certificate.path.clone(), imported);
            }
        }
        Ok(())
    }

    /// Whether a step makes this key.
    fn makes(&self, key: &KeyRef) -> Result<bool, Error> {
        let token = self.tokens.token(&key.token)?.identity().clone();
        Ok(self.labels.contains(&(token, key.label.get_ref().clone())))
    }

    /// What signs the record must be there, or be made.
    fn record_key(&self, key: &KeyRef) -> Result<(), Error> {
        if !self.makes(key)? {
            let opened = self.tokens.key(key).and_then(|key| key.test());
            opened.map_err(|error| self.refuse(key.label.span(), "ceremony.sign_with", error))?;
        }
        Ok(())
    }

    fn plan(&mut self, step: &Step, authority: &Authority) -> Result<(), Error> {
        self.check_new_file("step.certificate", &authority.certificate)?;
        let ca = PlannedCa {
            key: KeyRef { token: step.token.clone(), label: step.key.clone() },
            not_after: authority.not_after.get_ref().moment(self.now),
            path_length: authority.path_length.map(u64::from),
        };
        self.planned.insert(authority.certificate.path.clone(), ca);
        Ok(())
    }

    fn check_new_label(&mut self, step: &Step) -> Result<(), Error> {
        let label = step.key.get_ref();
        let token = self.tokens.token(&step.token)?;
        if !self.labels.insert((token.identity().clone(), label.clone())) {
            return Err(self.refuse(step.key.span(), "step.key", format!("two steps make a key \"{label}\"")));
        }
        if token.has_object(label)? {
            let taken = hsm::Error::LabelTaken { label: label.clone(), token: token.identity().label.clone() };
            return Err(self.refuse(step.key.span(), "step.key", taken));
        }
        Ok(())
    }

    fn check_new_file(&mut self, key: &str, place: &FileRef) -> Result<(), Error> {
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
        let (not_after, path_length) = self.ca(issuer)?;
        let expiry = authority.not_after.get_ref().moment(self.now);
        if expiry > not_after {
            let message = format!(
                "the certificate would expire on {}, after its issuer, which expires on {}",
                date(expiry),
                date(not_after)
            );
            return Err(self.refuse(authority.not_after.span(), authority.not_after.get_ref().key(), message));
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
            return Err(self.refuse(issuer.certificate.span.clone(), "step.issuer", message));
        }
        Ok(())
    }

    /// When the CA expires that an earlier step makes or that exists, and its path length.
    fn ca(&self, issuer: &IssuerRef) -> Result<(SystemTime, Option<u64>), Error> {
        let span = issuer.certificate.span.clone();
        match self.planned.get(&issuer.certificate.path) {
            Some(planned) => {
                match &issuer.key {
                    IssuerKey::Token(key)
                        if key.label.get_ref() == planned.key.label.get_ref() && key.token == planned.key.token => {}
                    _ => {
                        let message = format!(
                            "the key of {} is \"{}\" in the token \"{}\"",
                            issuer.certificate.written.display(),
                            planned.key.label.get_ref(),
                            self.tokens.token(&planned.key.token)?.identity().label
                        );
                        return Err(self.refuse(span, "step.issuer", message));
                    }
                }
                Ok((planned.not_after, planned.path_length))
            }
            None => {
                let ca = keys::open_issuer(self.tokens, issuer, self.now);
                let (certificate, _) = ca.map_err(|reason| self.refuse(span.clone(), "step.issuer", reason))?;
                Ok((certificate.not_after, certificate.path_length()))
            }
        }
    }

    fn refuse(&self, span: Range<usize>, key: &str, message: impl fmt::Display) -> Error {
        Error::Refused(self.file.source.error_at(span, key, message))
    }
}
