use std::{collections::BTreeMap, error::Error};

use super::*;
use crate::export::sample::Sample;

/// Keeps the files in memory, and what it was given at most at once.
#[derive(Default)]
struct Memory(BTreeMap<String, Vec<u8>>, String, usize);

impl Sink for Memory {
    fn start(&mut self, name: &str) -> Result<(), SinkError> {
        self.1 = name.to_owned();
        match self.0.insert(name.to_owned(), Vec::new()) {
            None => Ok(()),
            Some(_) => Err(SinkError::Name(name.to_owned())),
        }
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), SinkError> {
        self.2 = self.2.max(octets.len());
        self.0.entry(self.1.clone()).or_default().extend_from_slice(octets);
        Ok(())
    }
}

fn header(settings: &str, certificates: u64) -> Header {
    Header {
        destination: "cloud".into(),
        number: 1,
        first: 0,
        end: 9,
        chain_hash: [1; 32],
        created_at: Timestamp::UNIX_EPOCH,
        created_by: "operator:anna".into(),
        unfit: Vec::new(),
        certificates,
        withdrawn: 0,
        filter: Filter { profiles: Vec::new(), orders: Vec::new(), only: "issued".into() },
        settings: settings.into(),
    }
}

/// Files have at most as many lines as the destination says, and no sink gets more than a piece at once.
#[test]
fn bundle_is_cut_into_chunks_and_pieces() -> Result<(), Box<dyn Error>> {
    let sample = Sample::new("dev-1")?;
    let mut bundle = Bundle::new(header(r#"{"format":"jsonl","chunk":500}"#, 1001), Memory::default())?;
    for _ in 0..1001 {
        bundle.certificate(&sample.certificate())?;
    }
    let Memory(files, _, longest) = bundle.finish()?.seal("jws")?;
    let lines = |name: &str| files.get(name).map_or(0, |file| file.iter().filter(|octet| **octet == b'\n').count());
    assert_eq!(["1", "2", "3", "4"].map(|n| lines(&format!("data-0000{n}.jsonl"))), [500, 500, 1, 0]);
    assert_eq!(files.get("manifest.jws").map(Vec::as_slice), Some(&b"jws"[..]));
    assert_eq!(longest, 128 << 10);
    Ok(())
}

/// A batch of nothing but withdrawals, or that has more or less than its entry says.
#[test]
fn bundle_has_what_its_entry_says_or_is_none() -> Result<(), Box<dyn Error>> {
    let jsonl = r#"{"format":"jsonl","chunk":5}"#;
    let sample = Sample::new("dev.1")?;
    let Memory(files, ..) = Bundle::new(header(jsonl, 0), Memory::default())?.finish()?.seal("")?;
    assert!(files.keys().eq(["manifest.json", "manifest.jws", "withdrawn.jsonl"]));
    for (counted, given) in [(1, 0), (1, 2)] {
        let mut bundle = Bundle::new(header(jsonl, counted), Memory::default())?;
        for _ in 0..given {
            bundle.certificate(&sample.certificate())?;
        }
        let error = bundle.finish().map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, format!("the batch cloud.0001 has {counted} certificates, and {given} were written"));
    }
    // What was fit when the batch was cut, as this version does not think.
    let aws = crate::export::settings::Settings::parse(&"format = 'aws-bulk'".parse()?).map_err(|_| "settings")?;
    let mut bundle = Bundle::new(header(&aws.to_json(), 1), Memory::default())?;
    let error = bundle.certificate(&sample.certificate()).unwrap_err().to_string();
    assert!(error.starts_with("the certificate of dev.1 in the batch cloud.0001 cannot be written"), "{error}");
    Ok(())
}
