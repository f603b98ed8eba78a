//! How a run went, for people and as the last line for programs.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use crate::progress::{plural, rate};

/// How a run went.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// New certificates.
    pub issued: u64,
    /// Certificates that had been issued before and were returned again.
    pub replayed: u64,
    /// Devices that had their certificate from an earlier run.
    pub already_there: u64,
    /// Devices that got none.
    pub refused: u64,
    /// CSRs that stay in the watched folder, because the order or the disk does not take them for now.
    pub held: u64,
    /// Files that are not CSRs.
    pub ignored_files: u64,
    /// The refused devices by reason.
    pub refused_by_reason: BTreeMap<String, Group>,
    /// How long the run took.
    pub seconds: f64,
    /// Why it ended before all was done, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// The devices that were refused for one reason.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Group {
    /// Their number.
    pub count: u64,
    /// The first few, each with its message.
    pub examples: Vec<String>,
}

impl Summary {
    /// Devices that have their certificate now.
    pub fn succeeded(&self) -> u64 {
        self.issued + self.replayed + self.already_there
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.issued + self.replayed;
        write!(
            f,
            "{} issued, {} replayed, {} already there, {} refused in {:.1} s",
            self.issued, self.replayed, self.already_there, self.refused, self.seconds
        )?;
        if self.held > 0 {
            write!(f, ", {} waiting", self.held)?;
        }
        // For a few devices a rate means nothing.
        if asked >= 10 {
            write!(f, " ({:.1} certificates/s)", rate(asked, Duration::from_secs_f64(self.seconds)))?;
        }
        if self.ignored_files > 0 {
            write!(f, "; {} ignored", plural(self.ignored_files, "other file"))?;
        }
        for (reason, group) in &self.refused_by_reason {
            write!(f, "\n  {reason}: {}", plural(group.count, "device"))?;
            for example in &group.examples {
                write!(f, "\n    {example}")?;
            }
            if group.count > group.examples.len() as u64 {
                write!(f, "\n    …")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_groups_refusals_by_reason() {
        let mut summary = Summary { issued: 10, refused: 4, ignored_files: 1, seconds: 2.0, ..Summary::default() };
        summary.refused_by_reason.insert("KEY_WEAK".into(), Group { count: 4, examples: vec!["a: RSA-512".into()] });
        assert_eq!(
            summary.to_string(),
            "10 issued, 0 replayed, 0 already there, 4 refused in 2.0 s (5.0 certificates/s); 1 other file ignored\n  \
             KEY_WEAK: 4 devices\n    a: RSA-512\n    …"
        );
    }
}
