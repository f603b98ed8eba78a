//! What tokens and modules say of themselves.

use std::path::PathBuf;

use cryptoki::slot::Slot;
use cryptoki_sys::{CK_FLAGS, CK_TOKEN_INFO, CK_VERSION};

use super::uri::TokenUri;

/// What a token says that it is (`CK_TOKEN_INFO`), without the padding.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct TokenIdentity {
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// Who made it.
    pub manufacturer: String,
    /// Its model.
    pub model: String,
}

/// What a token says of itself (`CK_TOKEN_INFO`).
pub(super) struct TokenInfo(CK_TOKEN_INFO);

impl TokenInfo {
    pub(super) fn new(info: CK_TOKEN_INFO) -> Self {
        TokenInfo(info)
    }

    pub(super) fn identity(&self) -> TokenIdentity {
        let text = |padded: &[u8]| String::from_utf8_lossy(padded).trim_end_matches([' ', '\0']).to_owned();
        let info = &self.0;
        TokenIdentity {
            label: text(&info.label),
            serial: text(&info.serialNumber),
            manufacturer: text(&info.manufacturerID),
            model: text(&info.model),
        }
    }

    /// Whether it has this flag.
    pub(super) fn has(&self, flag: CK_FLAGS) -> bool {
        self.0.flags & flag != 0
    }

    /// Some modules say that there is no limit, or that they do not tell, in other numbers than the standard's.
    pub(super) fn session_limit(&self) -> Option<usize> {
        usize::try_from(self.0.ulMaxSessionCount).ok().filter(|limit| (1..1 << 20).contains(limit))
    }

    /// The versions of its hardware and firmware, for people.
    pub(super) fn versions(&self) -> (String, String) {
        let text = |version: CK_VERSION| format!("{}.{}", version.major, version.minor);
        (text(self.0.hardwareVersion), text(self.0.firmwareVersion))
    }
}

impl TokenIdentity {
    pub(super) fn is(&self, uri: &TokenUri, slot: Slot) -> bool {
        let same = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        same(&uri.label, &self.label)
            && same(&uri.serial, &self.serial)
            && same(&uri.manufacturer, &self.manufacturer)
            && same(&uri.model, &self.model)
            && uri.slot_id.is_none_or(|id| id == slot.id())
    }
}

/// What a PKCS#11 module says that it is (`CK_INFO`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ModuleInfo {
    /// The library's canonical path.
    pub path: PathBuf,
    /// Who made it.
    pub manufacturer: String,
    /// What it calls itself.
    pub description: String,
    /// Its version.
    pub version: String,
    /// The version of PKCS#11 that it has.
    pub cryptoki: String,
}
