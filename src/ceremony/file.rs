//! The ceremony file: strict TOML; its errors name the key and the line.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Deserialize;
use toml::Spanned;

use super::certificate::{NotAfter, distinguished_name};
use crate::{
    config::{ConfigError, KeyType, Source},
    hsm::TokenUri,
    name::Attribute,
    possession::PossessionCode,
    signer::KeyKind,
    x509_time::Time,
};

/// A ceremony file that was read and understood; nothing outside of it was looked at.
#[derive(Debug)]
pub(crate) struct CeremonyFile {
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) token: TokenUri,
    pub(crate) record: FileRef,
    pub(crate) steps: Vec<Step>,
    pub(crate) source: Source,
}

/// One step.
#[derive(Debug)]
pub(crate) struct Step {
    /// As the file writes it: `root`, `station-ca`, `intermediate`, `request`, `import`, `audit-key` or `prove`.
    pub(crate) name: &'static str,
    /// The label of the key that the step makes or, for `import` and `prove`, uses.
    pub(crate) key: Spanned<String>,
    pub(crate) action: Action,
}

/// What a step does.
#[derive(Debug)]
pub(crate) enum Action {
    /// A new key and its self-signed CA certificate: `root` and `station-ca`.
    SelfSigned { authority: Authority },
    /// A new key and its CA certificate by another CA.
    Intermediate { authority: Authority, issuer: IssuerRef },
    /// A new key and a PKCS#10 request.
    Request { kind: KeyKind, subject: Vec<Attribute>, request: FileRef },
    /// A certificate that an offline root made of a request.
    Import(Box<Import>),
    /// A new key that signs checkpoints of the ledger, and its public half in a file.
    AuditKey { kind: KeyKind, public_key: FileRef },
    /// A certificate by a CA of this token that proves to a platform possession of its key.
    Prove { code: PossessionCode, issuer: IssuerRef, certificate: FileRef },
}

/// What an offline root made, and where it goes.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) signed: FileRef,
    pub(crate) root: FileRef,
    pub(crate) certificate: FileRef,
    /// Where the root's certificate is written.
    pub(crate) root_certificate: Option<FileRef>,
    /// What was requested, as far as the ceremony file says.
    pub(crate) request: Option<FileRef>,
    pub(crate) path_length: u8,
    pub(crate) not_after: Option<NotAfter>,
}

/// A CA that a step makes.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) kind: KeyKind,
    pub(crate) subject: Vec<Attribute>,
    pub(crate) not_after: Spanned<NotAfter>,
    /// How many CAs may stand below it in a chain; no limit if `None`.
    pub(crate) path_length: Option<u8>,
    pub(crate) certificate: FileRef,
}

impl NotAfter {
    /// The key of the file that says so.
    pub(crate) fn key(self) -> &'static str {
        match self {
            NotAfter::Days(_) => "step.days",
            NotAfter::At(_) => "step.not_after",
        }
    }
}

/// The CA that issues an intermediate.
#[derive(Debug)]
pub(crate) struct IssuerRef {
    pub(crate) certificate: FileRef,
    pub(crate) key: IssuerKey,
}

/// Where the issuer's private key is.
#[derive(Debug)]
pub(crate) enum IssuerKey {
    /// In the ceremony's token, under this label.
    Label(Spanned<String>),
    /// In a file: unencrypted PKCS#8 PEM.
    File(FileRef),
}

/// A file that the ceremony reads or writes.
#[derive(Clone, Debug)]
pub(crate) struct FileRef {
    /// As the ceremony file writes it.
    pub(crate) written: PathBuf,
    /// The same, absolute.
    pub(crate) path: PathBuf,
    pub(crate) span: Range<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    environment: BTreeMap<String, String>,
    token: RawToken,
    ceremony: RawCeremony,
    #[serde(default)]
    step: Vec<Spanned<RawStep>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawToken {
    uri: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCeremony {
    record: Spanned<PathBuf>,
}

/// All that any step may have; which of it a step needs depends on what it does.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    r#do: Spanned<String>,
    key: Spanned<String>,
    key_type: Option<Spanned<KeyType>>,
    subject: Option<Spanned<Vec<Spanned<String>>>>,
    days: Option<Spanned<u32>>,
    not_after: Option<Spanned<String>>,
    path_length: Option<Spanned<u8>>,
    issuer: Option<Spanned<RawIssuer>>,
    certificate: Option<Spanned<PathBuf>>,
    request: Option<Spanned<PathBuf>>,
    signed: Option<Spanned<PathBuf>>,
    root: Option<Spanned<PathBuf>>,
    root_certificate: Option<Spanned<PathBuf>>,
    public_key: Option<Spanned<PathBuf>>,
    code: Option<Spanned<String>>,
    ca: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIssuer {
    certificate: Spanned<PathBuf>,
    key: Option<Spanned<String>>,
    key_file: Option<Spanned<PathBuf>>,
}

impl CeremonyFile {
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let (raw, source) = Source::read::<RawFile>(path, "ceremony file")?;
        let token = TokenUri::parse(raw.token.uri.get_ref())
            .map_err(|error| source.error_at(raw.token.uri.span(), "token.uri", error))?;
        if raw.step.is_empty() {
            return Err(source.error_at(0..0, "step", "there must be at least one [[step]]"));
        }
        let steps = raw
            .step
            .iter()
            .map(|step| StepReader { source: &source, span: step.span(), raw: step.get_ref() }.step())
            .collect::<Result<_, _>>()?;
        let record = file_ref(&source, &raw.ceremony.record);
        Ok(CeremonyFile { environment: raw.environment, token, record, steps, source })
    }
}

fn file_ref(source: &Source, written: &Spanned<PathBuf>) -> FileRef {
    let path = source.folder().join(written.get_ref());
    FileRef { written: written.get_ref().clone(), path, span: written.span() }
}

/// Reads one step: which keys it needs and may have depends on what it does.
struct StepReader<'a> {
    source: &'a Source,
    span: Range<usize>,
    raw: &'a RawStep,
}

impl StepReader<'_> {
    fn step(&self) -> Result<Step, ConfigError> {
        let (name, action) = match self.raw.r#do.get_ref().as_str() {
            "root" => {
                self.allow(&["key_type", "subject", "days", "not_after", "path_length", "certificate"])?;
                ("root", Action::SelfSigned { authority: self.authority(None)? })
            }
            "station-ca" => {
                self.allow(&["key_type", "subject", "days", "certificate"])?;
                ("station-ca", Action::SelfSigned { authority: self.authority(Some(0))? })
            }
            "intermediate" => {
                self.allow(&["key_type", "subject", "days", "not_after", "path_length", "issuer", "certificate"])?;
                let (authority, issuer) = (self.authority(Some(0))?, self.issuer()?);
                ("intermediate", Action::Intermediate { authority, issuer })
            }
            "request" => {
                self.allow(&["key_type", "subject", "request"])?;
                let request = self.file_ref("request", &self.raw.request)?;
                ("request", Action::Request { kind: self.kind()?, subject: self.subject()?, request })
            }
            "import" => {
                self.allow(&[
                    "signed",
                    "root",
                    "certificate",
                    "root_certificate",
                    "request",
                    "path_length",
                    "days",
                    "not_after",
                ])?;
                ("import", Action::Import(Box::new(self.import()?)))
            }
            "audit-key" => {
                self.allow(&["key_type", "public_key"])?;
                let public_key = self.file_ref("public_key", &self.raw.public_key)?;
                ("audit-key", Action::AuditKey { kind: self.kind()?, public_key })
            }
            "prove" => {
                self.allow(&["code", "ca", "certificate"])?;
                ("prove", self.prove()?)
            }
            other => {
                let message = format!(
                    "\"{other}\" is not a step; the steps are root, intermediate, request, import, station-ca, \
                     audit-key and prove"
                );
                return Err(self.source.error_at(self.raw.r#do.span(), "step.do", message));
            }
        };
        if self.raw.key.get_ref().is_empty() || self.raw.key.get_ref().chars().any(char::is_control) {
            return Err(self.source.error_at(self.raw.key.span(), "step.key", "must be a label for the key"));
        }
        Ok(Step { name, key: self.raw.key.clone(), action })
    }

    /// Refuses the keys of the file that this step would silently ignore.
    fn allow(&self, allowed: &[&str]) -> Result<(), ConfigError> {
        let raw = self.raw;
        let present = [
            ("key_type", raw.key_type.as_ref().map(Spanned::span)),
            ("subject", raw.subject.as_ref().map(Spanned::span)),
            ("days", raw.days.as_ref().map(Spanned::span)),
            ("not_after", raw.not_after.as_ref().map(Spanned::span)),
            ("path_length", raw.path_length.as_ref().map(Spanned::span)),
            ("issuer", raw.issuer.as_ref().map(Spanned::span)),
            ("certificate", raw.certificate.as_ref().map(Spanned::span)),
            ("request", raw.request.as_ref().map(Spanned::span)),
            ("signed", raw.signed.as_ref().map(Spanned::span)),
            ("root", raw.root.as_ref().map(Spanned::span)),
            ("root_certificate", raw.root_certificate.as_ref().map(Spanned::span)),
            ("public_key", raw.public_key.as_ref().map(Spanned::span)),
            ("code", raw.code.as_ref().map(Spanned::span)),
            ("ca", raw.ca.as_ref().map(Spanned::span)),
        ];
        for (name, span) in present {
            if let Some(span) = span
                && !allowed.contains(&name)
            {
                let message = format!("has no meaning in a step with do = \"{}\"", raw.r#do.get_ref());
                return Err(self.source.error_at(span, &format!("step.{name}"), message));
            }
        }
        Ok(())
    }

    fn required<'v, T>(&self, name: &str, value: &'v Option<T>) -> Result<&'v T, ConfigError> {
        value.as_ref().ok_or_else(|| {
            let message = format!("is missing; a step with do = \"{}\" needs it", self.raw.r#do.get_ref());
            self.source.error_at(self.span.clone(), &format!("step.{name}"), message)
        })
    }

    fn file_ref(&self, name: &str, value: &Option<Spanned<PathBuf>>) -> Result<FileRef, ConfigError> {
        self.required(name, value).map(|value| file_ref(self.source, value))
    }

    fn authority(&self, default_path_length: Option<u8>) -> Result<Authority, ConfigError> {
        Ok(Authority {
            kind: self.kind()?,
            subject: self.subject()?,
            not_after: self.not_after()?,
            path_length: self.raw.path_length.as_ref().map(|length| *length.get_ref()).or(default_path_length),
            certificate: self.file_ref("certificate", &self.raw.certificate)?,
        })
    }

    fn import(&self) -> Result<Import, ConfigError> {
        let given = self.raw.days.is_some() || self.raw.not_after.is_some();
        Ok(Import {
            signed: self.file_ref("signed", &self.raw.signed)?,
            root: self.file_ref("root", &self.raw.root)?,
            certificate: self.file_ref("certificate", &self.raw.certificate)?,
            root_certificate: self.raw.root_certificate.as_ref().map(|written| file_ref(self.source, written)),
            request: self.raw.request.as_ref().map(|written| file_ref(self.source, written)),
            path_length: self.raw.path_length.as_ref().map_or(0, |length| *length.get_ref()),
            not_after: given.then(|| self.not_after()).transpose()?.map(Spanned::into_inner),
        })
    }

    fn prove(&self) -> Result<Action, ConfigError> {
        let code = self.required("code", &self.raw.code)?;
        let read = code.get_ref().parse::<PossessionCode>();
        Ok(Action::Prove {
            code: read.map_err(|error| self.source.error_at(code.span(), "step.code", error))?,
            issuer: IssuerRef {
                certificate: self.file_ref("ca", &self.raw.ca)?,
                key: IssuerKey::Label(self.raw.key.clone()),
            },
            certificate: self.file_ref("certificate", &self.raw.certificate)?,
        })
    }

    fn not_after(&self) -> Result<Spanned<NotAfter>, ConfigError> {
        let Some(moment) = &self.raw.not_after else {
            let days = self.required("days", &self.raw.days)?;
            if !(1..=36_525).contains(days.get_ref()) {
                let message = "must be 1 to 36525 (100 years); a CA of IDevIDs has not_after = \"99991231235959Z\"";
                return Err(self.source.error_at(days.span(), "step.days", message));
            }
            return Ok(Spanned::new(days.span(), NotAfter::Days(*days.get_ref())));
        };
        let wrong = |message: String| self.source.error_at(moment.span(), "step.not_after", message);
        if self.raw.days.is_some() {
            return Err(wrong("there are days as well; say one of them".into()));
        }
        let text = moment.get_ref();
        let never = (text == "99991231235959Z").then_some(Time::NEVER);
        let end = never.or_else(|| text.parse::<Timestamp>().ok().map(Time::from)).ok_or_else(|| {
            wrong(format!(
                "\"{text}\" is neither \"99991231235959Z\" (never) nor a moment such as \"2061-12-31T23:59:59Z\""
            ))
        })?;
        if end <= Time::from(Timestamp::now()) {
            return Err(wrong(format!("{text} has passed; name a moment to come")));
        }
        Ok(Spanned::new(moment.span(), NotAfter::At(end)))
    }

    fn kind(&self) -> Result<KeyKind, ConfigError> {
        let key_type = self.required("key_type", &self.raw.key_type)?;
        match key_type.get_ref() {
            KeyType::P256 => Ok(KeyKind::P256),
            KeyType::P384 => Ok(KeyKind::P384),
            KeyType::P521 => Ok(KeyKind::P521),
            KeyType::Rsa2048 => Ok(KeyKind::Rsa { bits: 2048 }),
            KeyType::Rsa3072 => Ok(KeyKind::Rsa { bits: 3072 }),
            KeyType::Rsa4096 => Ok(KeyKind::Rsa { bits: 4096 }),
            KeyType::Ed25519 => {
                let message = "a CA key cannot be ed25519; use p256, p384, p521, rsa2048, rsa3072 or rsa4096";
                Err(self.source.error_at(key_type.span(), "step.key_type", message))
            }
        }
    }

    fn subject(&self) -> Result<Vec<Attribute>, ConfigError> {
        let subject = self.required("subject", &self.raw.subject)?;
        let attributes = subject
            .get_ref()
            .iter()
            .map(|text| {
                Attribute::parse(text.get_ref())
                    .map_err(|message| self.source.error_at(text.span(), "step.subject", message))
            })
            .collect::<Result<Vec<_>, _>>()?;
        distinguished_name(&attributes)
            .map_err(|message| self.source.error_at(subject.span(), "step.subject", message))?;
        Ok(attributes)
    }

    fn issuer(&self) -> Result<IssuerRef, ConfigError> {
        let issuer = self.required("issuer", &self.raw.issuer)?;
        let RawIssuer { certificate, key, key_file } = issuer.get_ref();
        let key = match (key, key_file) {
            (Some(label), None) => IssuerKey::Label(label.clone()),
            (None, Some(file)) => IssuerKey::File(file_ref(self.source, file)),
            _ => {
                let message = "must have either key (a label in this token) or key_file (PKCS#8 PEM)";
                return Err(self.source.error_at(issuer.span(), "step.issuer", message));
            }
        };
        Ok(IssuerRef { certificate: file_ref(self.source, certificate), key })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]

    use super::*;

    const HEAD: &str = "[token]\nuri = \"pkcs11:token=t?module-path=/m.so\"\n[ceremony]\nrecord = \"r.json\"\n";

    fn load(steps: &str) -> Result<CeremonyFile, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ceremony.toml");
        std::fs::write(&path, format!("{HEAD}{steps}")).unwrap();
        CeremonyFile::load(&path).map_err(|error| error.to_string())
    }

    const ROOT: &str = "[[step]]\ndo = \"root\"\nkey = \"k\"\nkey_type = \"p384\"\nsubject = [\"CN=R\"]\ndays = 10\ncertificate = \"c.pem\"\n";

    #[test]
    fn path_length_unset_depends_on_the_step() {
        let file = load(&format!("{ROOT}{}", ROOT.replace("\"root\"", "\"station-ca\""))).unwrap();
        let lengths: Vec<_> = file
            .steps
            .iter()
            .map(|step| match &step.action {
                Action::SelfSigned { authority } => authority.path_length,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, [None, Some(0)]);
    }

    #[test]
    fn error_in_a_file_names_line_and_key() {
        for (from, to, says) in [
            ("days = 10\n", "", ":5: step.days: is missing"),
            ("days = 10", "days = 0", ":10: step.days: must be 1 to"),
            ("days = 10", "days = 10\nnot_after = \"99991231235959Z\"", ":11: step.not_after: there are days as well"),
            ("days = 10", "not_after = \"2061\"", ":10: step.not_after: \"2061\" is neither"),
            (
                "days = 10",
                "not_after = \"2020-01-01T00:00:00Z\"",
                ":10: step.not_after: 2020-01-01T00:00:00Z has passed",
            ),
            ("days = 10", "days = 10\nrequest = \"x\"", ":11: step.request: has no meaning"),
            ("p384", "ed25519", ":8: step.key_type: a CA key cannot be ed25519"),
            ("CN=R", "XX=R", ":9: step.subject: \"XX\" is not a known"),
            ("\"CN=R\"", "\"CN=R\", \"CN=S\"", ":9: step.subject: the attribute CN is there twice"),
            ("\"root\"", "\"rot\"", ":6: step.do: \"rot\" is not a step"),
            ("days = 10", "dayz = 10", "unknown field `dayz`"),
        ] {
            let message = load(&ROOT.replace(from, to)).map(|file| panic!("{file:?}")).unwrap_or_else(|error| error);
            assert!(message.contains(says), "{from} -> {to}: {message}");
        }
        assert!(load("").is_err_and(|message| message.contains("at least one [[step]]")));
    }
}
