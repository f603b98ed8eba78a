//! `csv`: comma-separated values (RFC 4180) in UTF-8, with a header in each file. Its importers are, by preset: spreadsheets
//! and databases (`generic`), ThingsBoard's bulk import of devices (`thingsboard`), AWS' Thingpress with its `espressif`
//! provider (`espressif`), and platforms that know devices by a fingerprint, such as Huawei's IoTDA (`fingerprints`).

use serde::{Deserialize, Serialize};

use super::{
    super::{
        certificate::{Certificate, UnfitReason},
        keys::Keys,
        template::Template,
    },
    lines::Lines,
};
use crate::quote::quoted;

/// The columns of each preset.
const PRESETS: [(&str, &[&str]); 4] = [
    (
        "generic",
        &[
            "device_id",
            "certificate_id",
            "serial_number",
            "issuer",
            "order",
            "profile",
            "station",
            "issued_at",
            "confirmed_at",
            "not_before",
            "not_after",
            "replaces",
            "certificate={certificate_pem}",
        ],
    ),
    ("thingsboard", &["NAME={device_id}", "TYPE={profile}", "LABEL={order}", "X509={certificate_pem}"]),
    ("espressif", &["MAC={device_id}", "cn={device_id}", "cert={certificate_pem}"]),
    ("fingerprints", &["device_id", "certificate_sha1", "certificate_sha256={certificate_id}", "serial_number"]),
];

/// The most columns.
const MOST_COLUMNS: usize = 100;

/// `[destinations.NAME]` of this format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Csv {
    /// A preset is written out, so that it stays what it was.
    columns: Vec<Column>,
}

/// A column: its name in the header, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Column {
    name: String,
    value: Template,
}

impl Column {
    /// Reads `NAME=VALUE`, or a placeholder's name for a column of that name.
    fn read(text: &str) -> Result<Column, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (text, format!("{{{text}}}")),
        };
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(format!("{} must be NAME=VALUE, such as \"X509={{certificate_pem}}\"", quoted(text)));
        }
        let value = Template::long(&value).map_err(|error| error.to_string())?;
        Ok(Column { name: name.to_owned(), value })
    }
}

impl Csv {
    /// Reads the format's keys.
    pub(in crate::export) fn read(keys: &mut Keys<'_>) -> Csv {
        let preset = keys.string("preset");
        let given = keys.strings("columns");
        if preset.is_some() && given.is_some() {
            keys.wrong("preset", "give a preset or columns, not both");
        }
        let preset = preset.as_deref().unwrap_or("generic");
        let of_preset = PRESETS.iter().find(|(name, _)| *name == preset).map(|(_, columns)| *columns);
        let of_preset_known = of_preset.is_some();
        if !of_preset_known {
            let names = PRESETS.map(|(name, _)| name).join(", ");
            keys.wrong("preset", format!("{} is no preset; choose one of {names}", quoted(preset)));
        }
        let of_preset = of_preset.unwrap_or_default().iter().map(|column| (*column).to_owned());
        let texts = given.unwrap_or_else(|| of_preset.collect());
        if (texts.is_empty() && of_preset_known) || texts.len() > MOST_COLUMNS {
            keys.wrong("columns", format!("there must be 1 to {MOST_COLUMNS}; these are {}", texts.len()));
        }
        let mut columns: Vec<Column> = Vec::new();
        for text in &texts {
            match Column::read(text) {
                Ok(column) if columns.iter().any(|other| other.name == column.name) => {
                    keys.wrong("columns", format!("two columns are called {}", quoted(&column.name)));
                }
                Ok(column) => columns.push(column),
                Err(why) => keys.wrong("columns", why),
            }
        }
        Csv { columns }
    }

    /// What has no column.
    pub(in crate::export) fn fitness(&self, certificate: &Certificate<'_>) -> Result<(), UnfitReason> {
        let mut value = String::new();
        self.columns.iter().try_for_each(|column| column.value.fill(certificate, &mut value))
    }

    /// The column in which the certificate is as PEM or base64 of DER and nothing else, if there is one.
    pub(in crate::export) fn certificate_column(&self) -> Option<usize> {
        self.columns.iter().position(|column| column.value.is_certificate())
    }

    /// Writes lines.
    pub(in crate::export) fn writer(&self) -> CsvLines {
        let mut header = String::new();
        row(self.columns.iter().map(|column| (column.name.as_str(), false)), &mut header);
        CsvLines { header, columns: self.columns.clone(), values: Vec::new() }
    }
}

pub(in crate::export) struct CsvLines {
    header: String,
    columns: Vec<Column>,
    /// As they are filled in; kept for their memory.
    values: Vec<String>,
}

impl Lines for CsvLines {
    fn extension(&self) -> &'static str {
        "csv"
    }

    fn begin(&self) -> &str {
        &self.header
    }

    fn append(&mut self, certificate: &Certificate<'_>, out: &mut String) -> Result<(), UnfitReason> {
        self.values.resize_with(self.columns.len(), String::new);
        for (column, value) in self.columns.iter().zip(&mut self.values) {
            value.clear();
            column.value.fill(certificate, value)?;
        }
        let is_pem = self.columns.iter().map(|column| column.value.is_pem());
        row(self.values.iter().map(String::as_str).zip(is_pem), out);
        Ok(())
    }
}

/// Appends a record of RFC 4180. Of each value is said whether it is PEM, which begins with dashes and is no formula.
fn row<'v>(values: impl Iterator<Item = (&'v str, bool)>, out: &mut String) {
    for (at, (value, is_pem)) in values.enumerate() {
        if at > 0 {
            out.push(',');
        }
        // A spreadsheet runs what begins so as a formula; with an apostrophe it is text.
        let formula = !is_pem && value.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
        if formula || value.contains([',', '"', '\r', '\n']) || value.starts_with(' ') || value.ends_with(' ') {
            out.push('"');
            if formula {
                out.push('\'');
            }
            for (at, part) in value.split('"').enumerate() {
                if at > 0 {
                    out.push_str("\"\"");
                }
                out.push_str(part);
            }
            out.push('"');
        } else {
            out.push_str(value);
        }
    }
    out.push_str("\r\n");
}

/// The values of the next record of what [`row`] wrote, and what follows it. None if it is not whole.
pub(crate) fn read_row(text: &str) -> Option<(Vec<String>, &str)> {
    let (mut values, mut rest) = (Vec::new(), text);
    loop {
        let mut value = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let (part, after) = quoted.split_once('"')?;
                value.push_str(part);
                match after.strip_prefix('"') {
                    Some(after) => {
                        value.push('"');
                        quoted = after;
                    }
                    None => {
                        rest = after;
                        break;
                    }
                }
            }
        } else {
            let end = rest.find([',', '\r'])?;
            let (part, after) = rest.split_at_checked(end)?;
            value.push_str(part);
            rest = after;
        }
        values.push(value);
        match rest.strip_prefix("\r\n") {
            Some(after) => return Some((values, after)),
            None => rest = rest.strip_prefix(',')?,
        }
    }
}

#[cfg(test)]
mod tests;
