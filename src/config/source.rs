//! A TOML file, and errors that name its line and key.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// The first name in a table's header, which may be broken: `profiles` of `[profiles.device`.
fn first_name(header: &str) -> String {
    let names = header.trim_start().trim_start_matches('[');
    let name = names.split(['.', ']', '#']).next().unwrap_or_default();
    name.trim().trim_matches(['"', '\'']).to_owned()
}

/// What is wrong with a value, in the words of a configuration; `text` is the value as it stands in the file. What is not
/// one of serde's sentences stays as it is.
fn in_words(message: &str, text: &str) -> String {
    if message == "wanted string or table" {
        return "it takes one of its values, in quotation marks".to_owned();
    }
    if let Some(unfit) = unfit(message, text) {
        return unfit;
    }
    let Some((problem, (name, rest))) =
        message.split_once('`').and_then(|(problem, rest)| Some((problem, rest.split_once('`')?)))
    else {
        return message.to_owned();
    };
    let allowed = rest.strip_prefix(", expected ").map(|names| names.strip_prefix("one of ").unwrap_or(names));
    match (problem, allowed) {
        ("missing field ", None) => format!("the key `{name}` is missing"),
        ("unknown field ", Some(names)) => format!("there is no key `{name}` here, but {names}"),
        ("unknown variant ", Some(names)) => format!("`{name}` is none of its values, which are {names}"),
        _ => message.to_owned(),
    }
}

/// What a key takes, and what it was given: of serde's `invalid type: string "x", expected u32`.
fn unfit(message: &str, text: &str) -> Option<String> {
    let problem = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))?;
    // The value may have these words in it as well.
    let (found, expected) = problem.rsplit_once(", expected ")?;
    let found = match found.split_once(' ') {
        Some(("string", string)) => format!("the text {string}"),
        Some(("integer" | "floating", number)) => {
            format!("the number {}", number.trim_start_matches("point ").trim_matches('`'))
        }
        Some(("boolean", value)) => value.trim_matches('`').to_owned(),
        None if found == "map" && text.starts_with(|first: char| first.is_ascii_digit()) => "a date".to_owned(),
        None if found == "map" => "a table".to_owned(),
        None if found == "sequence" => "a list".to_owned(),
        _ => found.to_owned(),
    };
    let takes = match expected.trim_start_matches("a nonzero ") {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => {
            match found.strip_prefix("the number ").map(str::parse::<i64>) {
                Some(Ok(..0)) => "a whole number from 0 on",
                Some(Ok(_)) => "smaller whole numbers",
                _ => "a whole number",
            }
        }
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => "a text in quotation marks",
        "a sequence" => "a list",
        "a map" => "a table",
        "socket address" => "an IP address and a port, in quotation marks",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    Some(format!("it takes {takes}, and not {found}"))
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

    /// As [`Source::read`], with every error: a line or a table that has one is passed over, and the rest read again.
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
        let (mut rest, mut errors, mut passed_over) = (source.text.clone(), Vec::new(), BTreeSet::new());
        loop {
            let error = match toml::from_str(&rest) {
                Ok(content) => return (Some((content, source)), errors),
                Err(error) => error,
            };
            let told = source.parse_error(&error);
            // What the file as a whole lacks cannot be passed over.
            if errors.contains(&told) || errors.len() >= MOST_ERRORS {
                return (None, errors);
            }
            let at = error.span().map_or(rest.len(), |span| span.start);
            let begin = rest.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
            let after = rest.get(begin..).unwrap_or_default();
            let line = after.lines().next().unwrap_or_default();
            // What a line that is passed over leaves its table without is told already.
            let missing = error.message().strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
            if !missing.is_some_and(|(field, _)| passed_over.contains(&(begin, field.to_owned()))) {
                errors.push(told);
            }
            let length = match line.split_once('=') {
                _ if line.trim_start().starts_with('[') => {
                    // The file as a whole is without it then.
                    passed_over.insert((0, first_name(line)));
                    after.find("\n[").unwrap_or(after.len())
                }
                Some((key, _)) if missing.is_none() => {
                    let table = rest.get(..begin).and_then(|before| before.rfind("\n[")).map_or(0, |at| at + 1);
                    passed_over.insert((table, key.trim().to_owned()));
                    line.len()
                }
                _ => return (None, errors),
            };
            let blank = after.get(..length).unwrap_or_default().bytes();
            let blank: String = blank.map(|octet| if octet == b'\n' { '\n' } else { ' ' }).collect();
            rest.replace_range(begin..begin + blank.len(), &blank);
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
        message = in_words(&message, self.text.get(span.clone()).unwrap_or_default());
        if message == "invalid socket address syntax" {
            message += "; write an IP address and a port, such as 127.0.0.1:8443";
        }
        // The file as a whole stands at no place, and at none of its keys.
        match self.key_at(span.start).filter(|_| span != (0..0)) {
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
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]
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
        assert!(message.contains(":2: profiles.p.kees: there is no key `kees` here, but `"), "{message}");
    }

    /// What was found and what the key takes, in words; names and values that are allowed are listed.
    #[test]
    fn value_that_does_not_fit_is_told_in_words() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        enum Colour {
            Red,
            DarkBlue,
        }
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only errors of reading it are looked at")]
        struct Thing {
            number: Option<u32>,
            flag: Option<bool>,
            name: Option<String>,
            list: Option<Vec<String>>,
            inner: Option<Box<Thing>>,
            address: Option<std::net::SocketAddr>,
            colour: Option<Colour>,
        }
        for (text, says) in [
            ("number = \"lots\"", "number: it takes a whole number, and not the text \"lots\""),
            ("number = 1.5", "number: it takes a whole number, and not the number 1.5"),
            ("number = -5", "number: it takes a whole number from 0 on, and not the number -5"),
            ("number = 5000000000", "number: it takes smaller whole numbers, and not the number 5000000000"),
            ("flag = \"yes\"", "flag: it takes true or false, and not the text \"yes\""),
            ("name = true", "name: it takes a text in quotation marks, and not true"),
            ("name = 2061-01-01", "name: it takes a text in quotation marks, and not a date"),
            ("name = { number = 1 }", "name: it takes a text in quotation marks, and not a table"),
            ("list = \"a, expected b\"", "list: it takes a list, and not the text \"a, expected b\""),
            ("inner = \"Ben\"", "inner: it takes a table, and not the text \"Ben\""),
            (
                "address = 8443",
                "address: it takes an IP address and a port, in quotation marks, and not the number 8443",
            ),
            ("colour = \"green\"", "colour: `green` is none of its values, which are `red` or `dark-blue`"),
            ("colour = 3", "colour: it takes one of its values, in quotation marks"),
            ("numbre = 3", "numbre: there is no key `numbre` here, but `number`, `flag`"),
        ] {
            let source = Source { path: "/birthmark.toml".into(), text: text.into() };
            let error = toml::from_str::<Thing>(text).map(drop).expect_err(text);
            let message = source.parse_error(&error).to_string();
            assert!(message.starts_with(&format!("/birthmark.toml:1: {says}")), "{text}: {message}");
        }
    }

    /// What is passed over for its fault is not called missing afterwards, be it a line, a table, or the only table of its kind.
    #[test]
    fn table_passed_over_for_its_fault_is_not_called_missing() {
        let good = "[server]\nlisten = \"127.0.0.1:0\"\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"a\"\n\
                    [ledger]\npath = \"data\"\n[issuers.main]\nchain = [\"c\"]\nkey_uri = \"pkcs11:\"\n\
                    [profiles.device]\nissuer = \"main\"\n";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("birthmark.toml");
        let errors = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let (_, errors) = Source::read_with_all_errors::<crate::config::Config>(&path, "configuration");
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(errors(good), [""; 0]);
        for (from, to, says) in [
            ("listen = \"127.0.0.1:0\"", "listen = \"localhost\"", "birthmark.toml:2: server.listen: "),
            ("[server]", "[server", "birthmark.toml:1: "),
            ("[ledger]", "[ledger # of the line", "birthmark.toml:6: "),
            ("path = \"data\"\n", "", "birthmark.toml:6: ledger: the key `path` is missing"),
            ("[profiles.device]", "[profiles.device", "birthmark.toml:11: "),
            ("issuer = \"main\"", "issuer = 3", "birthmark.toml:12: profiles.device.issuer: "),
            ("[issuers.main]\nchain = [\"c\"]\n", "[issuers.main]\n", "issuers.main: the key `chain` is missing"),
        ] {
            let errors = errors(&good.replace(from, to));
            assert!(errors.len() == 1 && errors[0].contains(says), "{to}: {errors:?}");
        }
        // What the file really lacks is told, at none of its tables.
        let told = errors(&good.replace("[ledger]\npath = \"data\"\n", ""));
        assert!(told.len() == 1 && told[0].ends_with("birthmark.toml:1: the key `ledger` is missing"), "{told:?}");
    }

    /// Two ports cannot have one address; any free port is nobody's.
    #[test]
    fn address_that_another_port_has_is_told() {
        let text = |server: &str, http: &str, est: &str| {
            format!(
                "[server]\nlisten = \"{server}\"\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"a\"\n[http]\nlisten = \"{http}\"\n\
                 [est]\nlisten = \"{est}\"\n[ledger]\npath = \"data\"\n[issuers.main]\nchain = [\"c\"]\nkey_uri = \"pkcs11:\"\n\
                 [profiles.device]\nissuer = \"main\"\n"
            )
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("birthmark.toml");
        for (server, http, est, told) in [
            ("127.0.0.1:8443", "127.0.0.1:8080", "127.0.0.1:8444", vec![]),
            ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", vec![]),
            ("127.0.0.1:8443", "127.0.0.2:8443", "[::1]:8443", vec![]),
            (
                "127.0.0.1:8443",
                "127.0.0.1:8443",
                "127.0.0.1:8444",
                vec!["toml:7: http.listen: 127.0.0.1:8443 is the address of server.listen"],
            ),
            (
                "0.0.0.0:8443",
                "127.0.0.1:8080",
                "127.0.0.1:8443",
                vec!["toml:9: est.listen: 127.0.0.1:8443 is the address of server.listen"],
            ),
        ] {
            std::fs::write(&path, text(server, http, est)).unwrap();
            let (_, errors) = crate::config::Config::load_with_all_problems(&path);
            let errors: Vec<_> =
                errors.iter().map(ToString::to_string).filter(|error| error.contains("listen")).collect();
            assert!(
                errors.len() == told.len() && errors.iter().zip(&told).all(|(error, told)| error.contains(told)),
                "{errors:?}"
            );
        }
    }
}
