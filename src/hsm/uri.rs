//! PKCS#11 URIs (RFC 7512).

use std::{
    fmt,
    path::{Path, PathBuf},
};

use percent_encoding::percent_decode_str;

use crate::signer::SignatureAlgorithm;

/// Names a private key: `pkcs11:token=birthmark;object=issuing?module-path=…&pin-source=file:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUri {
    /// Where the key is.
    pub token: TokenUri,
    /// Which of the token's keys it is.
    pub key: KeyQuery,
}

/// Names a token: `pkcs11:token=birthmark?module-path=…&pin-source=file:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUri {
    /// The path of the PKCS#11 module; a relative one starts at the configuration file's folder.
    pub module: PathBuf,
    /// The token's label.
    pub label: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// The token's manufacturer.
    pub manufacturer: Option<String>,
    /// The token's model.
    pub model: Option<String>,
    /// The slot's number, which many HSMs change with every start: the label is the better name.
    pub slot_id: Option<u64>,
    /// The file that holds the PIN; a relative path starts at the configuration file's folder.
    pub pin_source: Option<PathBuf>,
}

/// Which private key of a token; at least one of the two is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyQuery {
    /// CKA_LABEL.
    pub label: Option<String>,
    /// CKA_ID.
    pub id: Option<Vec<u8>>,
    /// How it signs; the usual way of its kind if absent. No URI says this.
    pub algorithm: Option<SignatureAlgorithm>,
}

/// What is wrong with a PKCS#11 URI, as one sentence.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a usable PKCS#11 URI: {0}")]
pub struct UriError(Fault);

impl From<Fault> for UriError {
    fn from(fault: Fault) -> Self {
        UriError(fault)
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("it does not begin with \"pkcs11:\"")]
    Scheme,
    #[error("\"{0}\" is not of the form name=value")]
    NotAPair(String),
    #[error("{0} is given twice")]
    Twice(String),
    #[error("the value of {0} is empty")]
    Empty(String),
    #[error("the value of {0} is not UTF-8")]
    NotUtf8(String),
    #[error("a \"%\" in the value of {0} is not followed by two hexadecimal digits")]
    Escape(String),
    #[error("slot-id={0} is not a number")]
    NotANumber(String),
    #[error("{0} belongs after the \"?\" of the URI")]
    NotInQuery(String),
    #[error(
        "the attribute {0} is not known; the attributes are token, serial, manufacturer, model, slot-id, object, id and type, and after \"?\" module-path and pin-source"
    )]
    UnknownAttribute(String),
    #[error("the query attribute {0} is not known; the query attributes are module-path and pin-source")]
    UnknownQueryAttribute(String),
    #[error("pin-source must name a file")]
    PinSource,
    /// The value is not repeated: this message ends up in the logs that the secret must stay out of.
    #[error(
        "it holds a PIN (pin-value), which would show in logs; write the PIN into a file of mode 600 and use pin-source=file:…"
    )]
    PinValue,
    #[error("module-name is ambiguous; name the module's file with module-path=/…")]
    ModuleName,
    #[error("it does not name the HSM's PKCS#11 module; add ?module-path=/path/to/module.so")]
    NoModule,
    #[error("it names no token; add token=LABEL")]
    NoToken,
    #[error("it names no key; add object=LABEL or id=%…")]
    NoKey,
    #[error("type={0} is not a private key; use type=private or leave it out")]
    NotPrivate(String),
    #[error("it must name the token only; take out object, id and type")]
    NotTokenOnly,
}

impl KeyUri {
    /// Reads a URI that names a key by its label (`object`), its `id`, or both.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let parts = Parts::parse(text)?;
        if parts.object.is_none() && parts.id.is_none() {
            return Err(Fault::NoKey.into());
        }
        if let Some(kind) = &parts.kind
            && kind != "private"
        {
            return Err(Fault::NotPrivate(kind.clone()).into());
        }
        let key = KeyQuery { label: parts.object.clone(), id: parts.id.clone(), algorithm: None };
        Ok(KeyUri { token: parts.token()?, key })
    }
}

impl TokenUri {
    /// Reads a URI that names a token and no key.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let parts = Parts::parse(text)?;
        if parts.object.is_some() || parts.id.is_some() || parts.kind.is_some() {
            return Err(Fault::NotTokenOnly.into());
        }
        Ok(parts.token()?)
    }

    /// What logs and metrics call the token: its label as it is, or what else the URI says of it.
    pub(super) fn name(&self) -> String {
        let parts = [&self.label, &self.serial, &self.manufacturer, &self.model];
        let parts: Vec<_> = parts.into_iter().flatten().map(String::as_str).collect();
        let slot = self.slot_id.map(|id| format!("slot {id}"));
        parts.into_iter().chain(slot.as_deref()).collect::<Vec<_>>().join("/")
    }

    /// The module's path, made absolute.
    pub(super) fn module_in(&self, base_dir: &Path) -> PathBuf {
        base_dir.join(&self.module)
    }
}

/// Which token, as an error message names it.
impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = [
            ("label", &self.label),
            ("serial number", &self.serial),
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
        ];
        let mut named: Vec<_> = texts
            .iter()
            .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name} \"{value}\"")))
            .collect();
        named.extend(self.slot_id.map(|id| format!("slot number {id}")));
        f.write_str(&named.join(" and "))
    }
}

/// Which key, as an error message names it.
impl fmt::Display for KeyQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.label, &self.id) {
            (Some(label), Some(id)) => write!(f, "label \"{label}\" and id {}", hex::encode(id)),
            (Some(label), None) => write!(f, "label \"{label}\""),
            (None, id) => write!(f, "id {}", hex::encode(id.as_deref().unwrap_or_default())),
        }
    }
}

/// The attributes of a URI, decoded but not yet judged together.
#[derive(Default)]
struct Parts {
    label: Option<String>,
    serial: Option<String>,
    manufacturer: Option<String>,
    model: Option<String>,
    slot_id: Option<u64>,
    object: Option<String>,
    id: Option<Vec<u8>>,
    kind: Option<String>,
    module: Option<PathBuf>,
    pin_source: Option<PathBuf>,
}

impl Parts {
    fn parse(text: &str) -> Result<Self, Fault> {
        let rest = text.strip_prefix("pkcs11:").ok_or(Fault::Scheme)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut parts = Parts::default();
        for attribute in path.split(';').filter(|attribute| !attribute.is_empty()) {
            parts.path_attribute(attribute)?;
        }
        for attribute in query.split('&').filter(|attribute| !attribute.is_empty()) {
            parts.query_attribute(attribute)?;
        }
        Ok(parts)
    }

    fn path_attribute(&mut self, attribute: &str) -> Result<(), Fault> {
        let (name, value) = split(attribute)?;
        match name {
            "token" => set(&mut self.label, name, decode(name, value)?),
            "serial" => set(&mut self.serial, name, decode(name, value)?),
            "manufacturer" => set(&mut self.manufacturer, name, decode(name, value)?),
            "model" => set(&mut self.model, name, decode(name, value)?),
            "slot-id" => {
                let number = decode(name, value)?;
                let number = number.parse().map_err(|_| Fault::NotANumber(number.clone()))?;
                set(&mut self.slot_id, name, number)
            }
            "object" => set(&mut self.object, name, decode(name, value)?),
            "id" => set(&mut self.id, name, decode_bytes(name, value)?),
            "type" => set(&mut self.kind, name, decode(name, value)?),
            "module-path" | "pin-source" | "module-name" | "pin-value" => Err(Fault::NotInQuery(name.to_owned())),
            _ => Err(Fault::UnknownAttribute(name.to_owned())),
        }
    }

    fn query_attribute(&mut self, attribute: &str) -> Result<(), Fault> {
        let (name, value) = split(attribute)?;
        match name {
            "module-path" => set(&mut self.module, name, decode(name, value)?.into()),
            "pin-source" => {
                let source = decode(name, value)?;
                let path = source.strip_prefix("file:").unwrap_or(&source);
                // `file:///path` is the same file as `file:/path` (RFC 8089).
                let path = path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path);
                if path.is_empty() || path.starts_with('|') {
                    return Err(Fault::PinSource);
                }
                set(&mut self.pin_source, name, path.into())
            }
            "pin-value" => Err(Fault::PinValue),
            "module-name" => Err(Fault::ModuleName),
            _ => Err(Fault::UnknownQueryAttribute(name.to_owned())),
        }
    }

    fn token(self) -> Result<TokenUri, Fault> {
        let module = self.module.ok_or(Fault::NoModule)?;
        let named = [&self.label, &self.serial, &self.manufacturer, &self.model].iter().any(|value| value.is_some());
        if !named && self.slot_id.is_none() {
            return Err(Fault::NoToken);
        }
        Ok(TokenUri {
            module,
            label: self.label,
            serial: self.serial,
            manufacturer: self.manufacturer,
            model: self.model,
            slot_id: self.slot_id,
            pin_source: self.pin_source,
        })
    }
}

fn split(attribute: &str) -> Result<(&str, &str), Fault> {
    attribute.split_once('=').ok_or_else(|| Fault::NotAPair(attribute.to_owned()))
}

fn set<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), Fault> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Fault::Twice(name.to_owned())),
    }
}

fn decode(name: &str, value: &str) -> Result<String, Fault> {
    String::from_utf8(decode_bytes(name, value)?).map_err(|_| Fault::NotUtf8(name.to_owned()))
}

fn decode_bytes(name: &str, value: &str) -> Result<Vec<u8>, Fault> {
    // percent-encoding passes a broken escape through, which would name another key than the writer meant.
    let whole = value
        .split('%')
        .skip(1)
        .all(|rest| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)));
    if !whole {
        return Err(Fault::Escape(name.to_owned()));
    }
    let bytes: Vec<u8> = percent_decode_str(value).collect();
    if bytes.is_empty() { Err(Fault::Empty(name.to_owned())) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &str = "module-path=/usr/lib/module.so";

    fn refused(text: &str) -> String {
        KeyUri::parse(text).map_or_else(|error| error.to_string(), |uri| panic!("{uri:?} was accepted"))
    }

    /// A key is named by token label and id.
    #[test]
    fn uri_names_a_key_by_token_label_and_id() {
        let uri = KeyUri::parse(&format!(
            "pkcs11:token=Site%20A;serial=0a1b;manufacturer=Acme;model=M;slot-id=7;object=issuing%3b1;id=%01%fF;type=private?{MODULE}&pin-source=file:pin"
        ))
        .unwrap();
        assert_eq!(uri.token.label.as_deref(), Some("Site A"));
        assert_eq!(uri.token.slot_id, Some(7));
        assert_eq!(uri.key.label.as_deref(), Some("issuing;1"));
        assert_eq!(uri.key.id, Some(vec![1, 255]));
        assert_eq!(uri.token.module, Path::new("/usr/lib/module.so"));
        assert_eq!(uri.token.pin_source.as_deref(), Some(Path::new("pin")));
    }

    /// Two tokens of a pool that only their serial numbers tell apart have two names.
    #[test]
    fn token_is_called_by_its_label_as_it_is() {
        for (attributes, name) in [
            ("token=birthmark", "birthmark"),
            ("token=Site%20A;serial=0a1b", "Site A/0a1b"),
            ("serial=0a1b", "0a1b"),
            ("slot-id=7", "slot 7"),
            ("token=t;slot-id=7", "t/slot 7"),
        ] {
            let uri = TokenUri::parse(&format!("pkcs11:{attributes}?{MODULE}")).unwrap();
            assert_eq!(uri.name(), name, "{attributes}");
        }
    }

    /// A PIN source is a path with or without file.
    #[test]
    fn uri_pin_source_is_a_path_with_or_without_scheme() {
        for (written, path) in
            [("file:/a/pin", "/a/pin"), ("file:///a/pin", "/a/pin"), ("/a/pin", "/a/pin"), ("a/pin", "a/pin")]
        {
            let uri = TokenUri::parse(&format!("pkcs11:token=t?{MODULE}&pin-source={written}")).unwrap();
            assert_eq!(uri.pin_source.as_deref(), Some(Path::new(path)), "{written}");
        }
    }

    /// A PIN in the URI is refused and not repeated.
    #[test]
    fn uri_with_a_pin_is_refused_and_not_repeated() {
        let message = refused(&format!("pkcs11:token=t;object=k?{MODULE}&pin-value=483920"));
        assert!(message.contains("pin-source") && !message.contains("483920"), "{message}");
    }

    /// A URI that cannot be used is refused with the reason.
    #[test]
    fn uri_that_is_wrong_is_refused_with_the_reason() {
        for (uri, says) in [
            ("token=t".to_owned(), "begin with \"pkcs11:\""),
            ("pkcs11:token=t;object=k".to_owned(), "module-path"),
            (format!("pkcs11:token=t?{MODULE}"), "object=LABEL"),
            (format!("pkcs11:object=k?{MODULE}"), "token=LABEL"),
            (format!("pkcs11:token=t;objekt=k?{MODULE}"), "objekt is not known"),
            (format!("pkcs11:token=t;object=k?{MODULE}&x-vendor=1"), "x-vendor is not known"),
            (format!("pkcs11:token=t;object=k;object=l?{MODULE}"), "given twice"),
            (format!("pkcs11:token=t;object=k%2?{MODULE}"), "hexadecimal"),
            (format!("pkcs11:token=t;object=k;type=cert?{MODULE}"), "type=cert"),
            (format!("pkcs11:token=t;object=k;slot-id=x?{MODULE}"), "not a number"),
            ("pkcs11:token=t;object=k?module-name=softhsm2".to_owned(), "module-path"),
        ] {
            let message = refused(&uri);
            assert!(message.contains(says), "{uri}: {message}");
        }
        assert!(TokenUri::parse(&format!("pkcs11:token=t;object=k?{MODULE}")).is_err());
    }
}
