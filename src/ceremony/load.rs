//! Reads a ceremony file: strict TOML; errors name the setting and the line.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Deserialize;
use toml::Spanned;

use super::{
    certificate::{NotAfter, distinguished_name},
    file::{
        Action, Authority, CeremonyFile, FileRef, Import, IssuerKey, IssuerRef, KeyRef, People, Step, TOKEN, Witness,
    },
};
use crate::{
    config::{ConfigError, KeyType, Source},
    hsm::TokenUri,
    name::Attribute,
    possession::PossessionCode,
    signer::KeyKind,
    x509_time::Time,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    environment: BTreeMap<String, String>,
    token: RawToken,
    #[serde(default)]
    tokens: BTreeMap<String, Spanned<RawToken>>,
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
    script: Option<Spanned<String>>,
    operator: Option<Spanned<String>>,
    #[serde(default)]
    witnesses: Vec<Spanned<Witness>>,
    sign_with: Option<RawKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    token: Option<Spanned<String>>,
    key: Spanned<String>,
}

/// All that any step may have; which of it a step needs depends on what it does.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    r#do: Spanned<String>,
    token: Option<Spanned<String>>,
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
    token: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
    key_file: Option<Spanned<PathBuf>>,
}

impl CeremonyFile {
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let (raw, source) = Source::read::<RawFile>(path, "ceremony file")?;
        let tokens = read_tokens(&raw, &source)?;
        if raw.step.is_empty() {
            return Err(source.error_at(0..0, "step", "there must be at least one [[step]]"));
        }
        let reader =
            |step| StepReader { source: &source, tokens: &tokens, span: Spanned::span(step), raw: step.get_ref() };
        let mut steps: Vec<_> = raw.step.iter().map(|step| reader(step).step()).collect::<Result<_, _>>()?;
        find_issuers(&raw, &mut steps);
        let record = file_ref(&source, &raw.ceremony.record);
        let record_key = record_key(&raw, &source, &tokens, &steps)?;
        let people = people(&raw.ceremony, &source)?;
        Ok(CeremonyFile { environment: raw.environment, tokens, record, people, record_key, steps, source })
    }
}

fn read_tokens(raw: &RawFile, source: &Source) -> Result<BTreeMap<String, TokenUri>, ConfigError> {
    let read = |key: &str, token: &RawToken| {
        TokenUri::parse(token.uri.get_ref()).map_err(|error| source.error_at(token.uri.span(), key, error))
    };
    let mut tokens = BTreeMap::from([(TOKEN.to_owned(), read("token.uri", &raw.token)?)]);
    for (name, token) in &raw.tokens {
        let key = format!("tokens.{name}");
        if tokens.insert(name.clone(), read(&format!("{key}.uri"), token.get_ref())?).is_some() {
            return Err(source.error_at(token.span(), &key, "is the name of the token in [token]; choose another"));
        }
    }
    Ok(tokens)
}

/// The name of a token that there is.
fn token_named(
    source: &Source,
    tokens: &BTreeMap<String, TokenUri>,
    key: &str,
    name: Option<&Spanned<String>>,
) -> Result<String, ConfigError> {
    match name {
        None => Ok(TOKEN.to_owned()),
        Some(name) if tokens.contains_key(name.get_ref()) => Ok(name.get_ref().clone()),
        Some(name) => {
            let known: Vec<_> = tokens.keys().map(String::as_str).collect();
            let name_text = name.get_ref();
            let message = format!("there is no [tokens.{name_text}]; the tokens are {}", known.join(", "));
            Err(source.error_at(name.span(), key, message))
        }
    }
}

/// The key of an issuer that an earlier step makes is in that step's token, unless the file says otherwise.
fn find_issuers(raw: &RawFile, steps: &mut [Step]) {
    let mut made: BTreeMap<PathBuf, String> = BTreeMap::new();
    for (step, raw) in steps.iter_mut().zip(&raw.step) {
        if let Action::Intermediate { issuer, .. } = &mut step.action
            && let IssuerKey::Token(key) = &mut issuer.key
            && let Some(token) = made.get(&issuer.certificate.path)
            && raw.get_ref().issuer.as_ref().is_some_and(|issuer| issuer.get_ref().token.is_none())
        {
            key.token.clone_from(token);
        }
        if let Action::SelfSigned { authority } | Action::Intermediate { authority, .. } = &step.action {
            made.insert(authority.certificate.path.clone(), step.token.clone());
        }
    }
}

/// What the file names, or else the audit key that it makes.
fn record_key(
    raw: &RawFile,
    source: &Source,
    tokens: &BTreeMap<String, TokenUri>,
    steps: &[Step],
) -> Result<Option<KeyRef>, ConfigError> {
    if let Some(RawKey { token, key }) = &raw.ceremony.sign_with {
        let token = token_named(source, tokens, "ceremony.sign_with", token.as_ref())?;
        return Ok(Some(KeyRef { token, label: key.clone() }));
    }
    let audit = steps.iter().find(|step| matches!(step.action, Action::AuditKey { .. }));
    Ok(audit.map(|step| KeyRef { token: step.token.clone(), label: step.key.clone() }))
}

/// Texts that stand in one line of the plan.
fn people(raw: &RawCeremony, source: &Source) -> Result<People, ConfigError> {
    let check = |span: Range<usize>, key: &str, text: &str| match text.trim().is_empty()
        || text.chars().any(char::is_control)
    {
        true => Err(source.error_at(span, key, "must be a text of one line")),
        false => Ok(()),
    };
    for (key, text) in [("ceremony.script", &raw.script), ("ceremony.operator", &raw.operator)] {
        text.as_ref().map_or(Ok(()), |text| check(text.span(), key, text.get_ref()))?;
    }
    for witness in &raw.witnesses {
        let Witness { name, role } = witness.get_ref();
        check(witness.span(), "ceremony.witnesses.name", name)?;
        check(witness.span(), "ceremony.witnesses.role", role)?;
    }
    let text = |text: &Option<Spanned<String>>| text.as_ref().map(|text| text.get_ref().clone());
    Ok(People {
        script: text(&raw.script),
        operator: text(&raw.operator),
        witnesses: raw.witnesses.iter().map(|witness| witness.get_ref().clone()).collect(),
    })
}

fn file_ref(source: &Source, written: &Spanned<PathBuf>) -> FileRef {
    let path = source.folder().join(written.get_ref());
    FileRef { written: written.get_ref().clone(), path, span: written.span() }
}

/// Reads one step: which keys it needs and may have depends on what it does.
struct StepReader<'a> {
    source: &'a Source,
    tokens: &'a BTreeMap<String, TokenUri>,
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
        let token = self.token("step.token", self.raw.token.as_ref())?;
        Ok(Step { name, token, key: self.raw.key.clone(), action })
    }

    fn token(&self, key: &str, name: Option<&Spanned<String>>) -> Result<String, ConfigError> {
        token_named(self.source, self.tokens, key, name)
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
                key: IssuerKey::Token(KeyRef {
                    token: self.token("step.token", self.raw.token.as_ref())?,
                    label: self.raw.key.clone(),
                }),
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
        let RawIssuer { certificate, token, key, key_file } = issuer.get_ref();
        let key = match (key, key_file) {
            (Some(label), None) => {
                let token = self.token("step.issuer.token", token.as_ref().or(self.raw.token.as_ref()))?;
                IssuerKey::Token(KeyRef { token, label: label.clone() })
            }
            (None, Some(file)) => IssuerKey::File(file_ref(self.source, file)),
            _ => {
                let message = "must have either key (its label in a token) or key_file (PKCS#8 PEM)";
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
            ("days = 10", "dayz = 10", "there is no key `dayz`"),
        ] {
            let message = load(&ROOT.replace(from, to)).map(|file| panic!("{file:?}")).unwrap_or_else(|error| error);
            assert!(message.contains(says), "{from} -> {to}: {message}");
        }
        assert!(load("").is_err_and(|message| message.contains("at least one [[step]]")));
    }
}
