//! What a ceremony file says, as `load.rs` reads it.

use std::{collections::BTreeMap, ops::Range, path::PathBuf};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::certificate::NotAfter;
use crate::{config::Source, hsm::TokenUri, name::Attribute, possession::PossessionCode, signer::KeyKind};

/// A ceremony file that was read and understood; nothing outside of it was looked at.
#[derive(Debug)]
pub(crate) struct CeremonyFile {
    pub(crate) environment: BTreeMap<String, String>,
    /// By the names that steps have for them; what names none means [`TOKEN`].
    pub(crate) tokens: BTreeMap<String, TokenUri>,
    pub(crate) record: FileRef,
    pub(crate) people: People,
    /// Who signs the record.
    pub(crate) record_key: Option<KeyRef>,
    pub(crate) steps: Vec<Step>,
    pub(crate) source: Source,
}

/// The name of the token of `[token]`.
pub(crate) const TOKEN: &str = "token";

/// Who holds the ceremony, by which script.
#[derive(Clone, Debug, Default)]
pub(crate) struct People {
    /// What the approved script is called.
    pub(crate) script: Option<String>,
    /// Who types.
    pub(crate) operator: Option<String>,
    pub(crate) witnesses: Vec<Witness>,
}

/// Somebody who was there.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// The person's name.
    pub name: String,
    /// As what the person was there, such as "security officer".
    pub role: String,
}

/// A key of a token.
#[derive(Clone, Debug)]
pub(crate) struct KeyRef {
    pub(crate) token: String,
    pub(crate) label: Spanned<String>,
}

/// One step.
#[derive(Debug)]
pub(crate) struct Step {
    /// As the file writes it: `root`, `station-ca`, `intermediate`, `request`, `import`, `audit-key` or `prove`.
    pub(crate) name: &'static str,
    /// The name of the token that has the key.
    pub(crate) token: String,
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
    /// In a token.
    Token(KeyRef),
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
