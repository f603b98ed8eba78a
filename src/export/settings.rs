//! What a destination's section of the configuration says of the format, checked against what the platform takes.
//!
//! A batch keeps its settings as text (canonical JSON), so it is rendered the same after a change of the configuration.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    certificate::{Certificate, UnfitReason},
    formats::{aws_bulk::AwsBulk, azure_dps::AzureDps, csv::Csv, matter, thingpress},
    keys::Keys,
};
use crate::quote::quoted;

pub use super::keys::SettingError;

/// Lines a file, unless the destination says otherwise.
const USUAL_CHUNK: u32 = 10_000;

/// More lines a file nobody's importer wants, and whoever verifies one reads it whole.
const LARGEST_CHUNK: u32 = 50_000;

/// How a destination's bundles look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The format and what it needs.
    #[serde(flatten)]
    pub format: Format,
    /// How many certificates a file has at most.
    pub chunk: u32,
}

/// The shapes that platforms import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Format {
    /// A JSON object for each certificate, with all that the ledger knows.
    Jsonl,
    /// AWS IoT bulk registration: parameters and a provisioning template.
    AwsBulk(AwsBulk),
    /// Comma-separated values.
    Csv(Csv),
    /// AWS' bulk importer Thingpress, its `generated` provider.
    Thingpress,
    /// Azure Device Provisioning Service.
    AzureDps(AzureDps),
    /// Matter Device Attestation Certificates, as factory tools read them.
    Matter,
}

/// The names that the configuration has for the formats.
const FORMATS: &str = "jsonl, aws-bulk, csv, thingpress, azure-dps, matter";

/// Settings of a batch that this version does not understand.
#[derive(Debug, thiserror::Error)]
#[error("the settings of the batch cannot be read: {0}; another version of birthmark wrote them")]
pub struct UnreadableSettings(#[from] serde_json::Error);

impl Settings {
    /// Reads what belongs to the format in a destination's section: `format`, `chunk` and the format's own keys.
    ///
    /// # Errors
    /// Everything that is wrong, each with its key.
    pub fn parse(section: &toml::Table) -> Result<Settings, Vec<SettingError>> {
        let mut keys = Keys::new(section);
        let name = keys.string("format");
        let (mut usual, mut largest) = (USUAL_CHUNK, LARGEST_CHUNK);
        let format = match name.as_deref() {
            Some("jsonl") => Format::Jsonl,
            Some("aws-bulk") => Format::AwsBulk(AwsBulk::read(&mut keys)),
            Some("csv") => Format::Csv(Csv::read(&mut keys)),
            Some("thingpress") => Format::Thingpress,
            Some("azure-dps") => {
                (usual, largest) = (AzureDps::LARGEST_CHUNK, AzureDps::LARGEST_CHUNK);
                Format::AzureDps(AzureDps::read(&mut keys))
            }
            Some("matter") => Format::Matter,
            Some(other) => {
                keys.wrong("format", format!("{} is no format; choose one of {FORMATS}", quoted(other)));
                return Err(keys.errors());
            }
            None => {
                keys.missing("format", format!("say which: {FORMATS}"));
                return Err(keys.errors());
            }
        };
        let chunk = match format {
            // Every certificate is a file.
            Format::Matter => 1,
            _ => keys.number("chunk", 1..=largest).unwrap_or(usual),
        };
        keys.finish(&format.to_string())?;
        Ok(Settings { format, chunk })
    }

    /// As the journal keeps them.
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Settings::to_json`] wrote.
    ///
    /// # Errors
    /// If this version cannot.
    pub fn from_json(text: &str) -> Result<Settings, UnreadableSettings> {
        Ok(serde_json::from_str(text)?)
    }

    /// Whether the platform takes this certificate.
    ///
    /// # Errors
    /// Why not.
    pub fn fitness(&self, certificate: &Certificate<'_>) -> Result<(), UnfitReason> {
        match &self.format {
            Format::Jsonl => Ok(()),
            Format::AwsBulk(settings) => settings.fitness(certificate),
            Format::Csv(settings) => settings.fitness(certificate),
            Format::Thingpress => thingpress::fitness(certificate),
            Format::AzureDps(settings) => settings.fitness(certificate),
            Format::Matter => matter::fitness(certificate),
        }
    }
}

/// The configuration's name.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Jsonl => "jsonl",
            Format::AwsBulk(_) => "aws-bulk",
            Format::Csv(_) => "csv",
            Format::Thingpress => "thingpress",
            Format::AzureDps(_) => "azure-dps",
            Format::Matter => "matter",
        })
    }
}

#[cfg(test)]
mod tests;
