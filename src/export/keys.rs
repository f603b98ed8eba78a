//! The keys of a destination's section, read one by one; all that is wrong is said at once.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

use toml::{Table, Value};

use crate::quote::quoted;

/// What is wrong with a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct SettingError {
    /// The key, such as `thing_name`, or `attributes.lot` in a table of its own.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// The keys that are still to be read.
#[derive(Debug)]
pub(super) struct Keys<'t> {
    rest: BTreeMap<&'t str, &'t Value>,
    known: Vec<&'static str>,
    errors: Vec<SettingError>,
}

impl<'t> Keys<'t> {
    pub(super) fn new(section: &'t Table) -> Self {
        let rest = section.iter().map(|(key, value)| (key.as_str(), value)).collect();
        Keys { rest, known: Vec::new(), errors: Vec::new() }
    }

    /// Takes note that a key is wrong.
    pub(super) fn wrong(&mut self, key: impl Into<String>, message: impl fmt::Display) {
        self.errors.push(SettingError { key: key.into(), message: message.to_string() });
    }

    /// The key must be there; whether it was of a wrong type was said.
    pub(super) fn missing(&mut self, key: &str, message: impl fmt::Display) {
        if self.errors.iter().all(|error| error.key != key) {
            self.wrong(key, format!("it is missing; {message}"));
        }
    }

    fn take<T>(&mut self, key: &'static str, what: &str, read: impl FnOnce(&'t Value) -> Option<T>) -> Option<T> {
        self.known.push(key);
        let value = self.rest.remove(key)?;
        let read = read(value);
        if read.is_none() {
            self.wrong(key, format!("it must be {what}, and is {}", kind(value)));
        }
        read
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<String> {
        self.take(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    pub(super) fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        self.take(key, "a list of strings", |value| {
            value.as_array()?.iter().map(|value| value.as_str().map(str::to_owned)).collect()
        })
    }

    /// A table whose values are strings, by its keys.
    pub(super) fn table(&mut self, key: &'static str) -> Option<BTreeMap<String, String>> {
        self.take(key, "a table of strings", |value| {
            let pairs = value.as_table()?.iter();
            pairs.map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
        })
    }

    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let number = self.take(key, "a number", Value::as_integer)?;
        let fits = u32::try_from(number).ok().filter(|number| range.contains(number));
        if fits.is_none() {
            self.wrong(key, format!("it must be {} to {}, and is {number}", range.start(), range.end()));
        }
        fits
    }

    pub(super) fn errors(self) -> Vec<SettingError> {
        self.errors
    }

    /// A key that nobody has asked for is a mistake too.
    pub(super) fn finish(mut self, format: &str) -> Result<(), Vec<SettingError>> {
        for key in std::mem::take(&mut self.rest).into_keys() {
            let known = self.known.join(", ");
            self.wrong(key, format!("the format {format} has no key {}; it has {known}", quoted(key)));
        }
        if self.errors.is_empty() { Ok(()) } else { Err(self.errors) }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a time",
        Value::Array(_) => "a list of something else",
        Value::Table(_) => "a table",
    }
}
