//! The shapes of a batch.

/// The shape of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// `<export>.jsonl`: a JSON object for each certificate, with everything that the ledger has about it.
    Jsonl,
    /// AWS IoT bulk registration: `<export>.aws-bulk.jsonl`, the parameters, and `<export>.provisioning-template.json`.
    AwsBulk {
        /// The name of the AWS IoT policy that devices get.
        policy: String,
    },
}

impl Format {
    /// The names of an export's files, the one with the certificates first. A colon, which an id may have, is not among
    /// the characters of AWS' object keys and of Windows' file names.
    pub(super) fn names(&self, id: &str) -> Vec<String> {
        let id = id.replace(':', "_");
        match self {
            Format::Jsonl => vec![format!("{id}.jsonl")],
            Format::AwsBulk { .. } => {
                vec![format!("{id}.aws-bulk.jsonl"), format!("{id}.provisioning-template.json")]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_fit_every_platform() {
        assert_eq!(Format::Jsonl.names("lot:7.0001"), ["lot_7.0001.jsonl"]);
        let aws = Format::AwsBulk { policy: "device".into() };
        for name in aws.names("a:b-c_D.0001") {
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!_.*'()-/".contains(&byte)), "{name}");
        }
    }
}
