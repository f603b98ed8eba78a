//! A TOML file, and errors that name its line and key.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::text_file;

/// The keys that had other names before version 1.0, by table (the root is ""), with their names of today. An old name
/// is an error and no alias: two names for one setting would have to be explained for as long as there are both.
const RENAMED: [(&str, &str, &str); 8] = [
    ("", "keys", "[refused_keys]"),
    ("audit", "key", "key_uri"),
    ("issuers", "key", "key_uri"),
    ("profiles", "back_dated_minutes", "backdate_minutes"),
    ("profiles", "beyond_issuer", "when_outliving_issuer"),
    ("profiles", "keys", "key_types"),
    ("profiles", "order", "order_requirement"),
    ("station_ca", "key", "key_uri"),
];

/// More errors of one file than this are not looked for.
const MOST_ERRORS: usize = 100;

/// A key of the file that has another name now.
struct Renamed {
    old_key: String,
    new_name: &'static str,
}

/// The field of serde's error about an unknown one.
fn unknown_field(message: &str) -> Option<&str> {
    Some(message.strip_prefix("unknown field `")?.split_once('`')?.0)
}

/// A TOML file: where it came from, to name lines in errors and to resolve relative paths. The ceremony reads its file
/// with it too.
#[derive(Debug, Default)]
pub(crate) struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Reads the file, which an error calls `kind`.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &Path, kind: &str) -> Result<(T, Self), ConfigError> {
        let text = text_file::read(path, text_file::LONGEST)
            .map_err(|error| ConfigError(format!("cannot read the {kind} {}: {error}", path.display())))?;
        let path = std::path::absolute(path).map_err(|error| ConfigError(format!("{}: {error}", path.display())))?;
        let source = Source { path, text };
        let content = toml::from_str(&source.text).map_err(|error| source.parse_error(&error))?;
        Ok((content, source))
    }

    /// As [`Source::read`], with every error: a line that has one is passed over, and the rest read again.
    pub(crate) fn read_with_all_errors<T: serde::de::DeserializeOwned>(
        path: &Path,
        kind: &str,
    ) -> (Option<(T, Self)>, Vec<ConfigError>) {
        let unreadable =
            |error: &dyn fmt::Display| ConfigError(format!("cannot read the {kind} {}: {error}", path.display()));
        let text = match text_file::read(path, text_file::LONGEST) {
            Ok(text) => text,
            Err(error) => return (None, vec![unreadable(&error)]),
        };
        let path = match std::path::absolute(path) {
            Ok(path) => path,
            Err(error) => return (None, vec![unreadable(&error)]),
        };
        let source = Source { path, text };
        let (mut rest, mut errors) = (source.text.clone(), Vec::new());
        loop {
            let error = match toml::from_str(&rest) {
                Ok(content) => return (Some((content, source)), errors),
                Err(error) => error,
            };
            errors.push(source.parse_error(&error));
            // What is missing cannot be passed over, nor a table's header.
            let at = error.span().map_or(rest.len(), |span| span.start);
            let begin = rest.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
            let end = rest.get(begin..).and_then(|line| line.find('\n')).map_or(rest.len(), |length| begin + length);
            let line = rest.get(begin..end).unwrap_or_default();
            if error.message().contains("missing field") || !line.contains('=') || errors.len() >= MOST_ERRORS {
                return (None, errors);
            }
            let blank = format!("#{}", " ".repeat(line.len().saturating_sub(1)));
            rest.replace_range(begin..end, &blank);
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The file's folder: where relative paths start.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Environment variables with `{config_dir}` filled in.
    pub(crate) fn fill_in(&self, environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let folder = self.folder().display().to_string();
        environment.iter().map(|(key, value)| (key.clone(), value.replace("{config_dir}", &folder))).collect()
    }

    /// toml's own error is a picture of some lines.
    fn parse_error(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or_default();
        let mut message = error.message().lines().collect::<Vec<_>>().join("; ");
        if let Some(renamed) = unknown_field(&message).and_then(|field| self.renamed(span.start, field)) {
            return self.error_at(span, &renamed.old_key, format!("its name is {} now", renamed.new_name));
        }
        if message == "invalid socket address syntax" {
            message += "; write an IP address and a port, such as 127.0.0.1:8443";
        }
        match self.key_at(span.start) {
            Some(key) => self.error_at(span, &key, message),
            None => ConfigError(format!("{}:{}: {message}", self.path.display(), self.line_at(span.start))),
        }
    }

    /// The key whose value, or the table whose header, stands in the line of this place.
    fn key_at(&self, place: usize) -> Option<String> {
        let table = |line: &str| Some(line.trim().strip_prefix('[')?.split_once(']')?.0.trim_matches('[').to_owned());
        let mut lines: Vec<_> = self.text.lines().take(self.line_at(place)).collect();
        let line = lines.pop()?;
        let Some((key, _)) = line.split_once('=') else { return table(line) };
        let key = key.trim().to_owned();
        Some(match lines.into_iter().rev().find_map(table) {
            Some(table) => format!("{table}.{key}"),
            None => key,
        })
    }

    /// The new name of an unknown `field` whose name stands at this place, if it has had another one.
    fn renamed(&self, place: usize, field: &str) -> Option<Renamed> {
        let key = self.key_at(place)?;
        let table = key.split_once('.').map_or(key.as_str(), |(table, _)| table);
        let top_level = table == field;
        let table = if top_level { "" } else { table };
        let (_, _, new_name) = RENAMED.iter().find(|(of, old, _)| *of == table && *old == field)?;
        let old_key = if top_level || key.ends_with(&format!(".{field}")) { key } else { format!("{key}.{field}") };
        Some(Renamed { old_key, new_name })
    }

    fn line_at(&self, place: usize) -> usize {
        self.text.get(..place).map_or(1, |before| before.matches('\n').count() + 1)
    }

    /// An error about the value of `key`, which stands at `span` of the file.
    pub(crate) fn error_at(&self, span: Range<usize>, key: &str, message: impl fmt::Display) -> ConfigError {
        let line = self.line_at(span.start);
        ConfigError(format!("{}:{line}: {key}: {message}", self.path.display()))
    }
}

/// What is wrong with the configuration, as one sentence that names the file, the line and the key.
#[derive(Debug)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wherever it stands: below its table's header, with dots, in an inline table.
    #[test]
    fn renamed_key_is_an_error_with_its_new_name() {
        for (text, says) in [
            ("[keys]\nblock_list = \"x\"\n", ":1: keys: its name is [refused_keys] now"),
            ("[audit]\nkey = \"pkcs11:\"\n", ":2: audit.key: its name is key_uri now"),
            ("audit = { key = \"pkcs11:\" }\n", ":1: audit.key: its name is key_uri now"),
            ("[issuers.a]\nchain = []\nkey = \"pkcs11:\"\n", ":3: issuers.a.key: its name is key_uri now"),
            ("[profiles.p]\nkeys = []\n", ":2: profiles.p.keys: its name is key_types now"),
            ("profiles.p.order = \"optional\"\n", ":1: profiles.p.order: its name is order_requirement now"),
            ("[profiles.p]\nback_dated_minutes = 1\n", "its name is backdate_minutes now"),
            ("[profiles.p]\nbeyond_issuer = \"allow\"\n", "its name is when_outliving_issuer now"),
            ("[station_ca]\ncertificate = \"c\"\nkey = \"pkcs11:\"\n", "station_ca.key: its name is key_uri now"),
        ] {
            let source = Source { path: "/birthmark.toml".into(), text: text.into() };
            let error = toml::from_str::<crate::config::Config>(text).map(drop).expect_err(text);
            let message = source.parse_error(&error).to_string();
            assert!(message.contains(says), "{text}: {message}");
        }
    }

    #[test]
    fn key_that_never_existed_has_no_other_name() {
        let text = "[profiles.p]\nkees = []\n";
        let source = Source { path: "/birthmark.toml".into(), text: text.into() };
        let error = toml::from_str::<crate::config::Config>(text).map(drop).expect_err(text);
        let message = source.parse_error(&error).to_string();
        assert!(message.contains(":2: profiles.p.kees: unknown field `kees`"), "{message}");
    }
}
