//! What is read aloud at the end of a ceremony and held against the minutes: fingerprints, in groups that ears can follow.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::record::{CertificateRecord, Record, StepRecord};

/// Hexadecimal digits in groups of four, eight of them in a line.
const GROUP: usize = 4;
const GROUPS: usize = 8;

/// The fingerprints of a record's certificates, keys and requests, and the attributes of new keys, as its `Display`.
#[derive(Debug)]
pub struct ReadAloud<'a>(pub &'a Record);

impl fmt::Display for ReadAloud<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.steps.iter().enumerate() {
            writeln!(f, "{:>2}. {} \"{}\"", index + 1, step.r#do, step.key.label)?;
            write_step(f, step)?;
            writeln!(f)?;
        }
        if let Some(signature) = &self.0.signature {
            writeln!(f, "The record is signed with \"{}\"", signature.key)?;
            write_hash(f, "key", &signature.key_sha256)?;
        }
        Ok(())
    }
}

fn write_step(f: &mut fmt::Formatter<'_>, step: &StepRecord) -> fmt::Result {
    for certificate in step.certificate.iter().chain(&step.root_certificate) {
        let CertificateRecord { file, fingerprint_sha256, subject, not_before, not_after, .. } = certificate;
        writeln!(f, "    certificate {}", file.path.display())?;
        writeln!(f, "    subject     {subject}")?;
        writeln!(f, "    valid       {not_before} to {not_after}")?;
        write_hash(f, "certificate", fingerprint_sha256)?;
    }
    for file in step.request.iter().chain(&step.public_key) {
        writeln!(f, "    file        {}", file.path.display())?;
        write_hash(f, "file", &file.sha256)?;
    }
    write_hash(f, "key", &step.key.public_key_sha256)?;
    let pin = hex::decode(&step.key.public_key_sha256).unwrap_or_default();
    writeln!(f, "    key pin     sha256/{}", STANDARD.encode(pin))?;
    let told =
        |name: &str, flag: Option<bool>| format!("{name} {}", flag.map_or("not told".into(), |flag| flag.to_string()));
    let attributes = &step.key.attributes;
    let flags = [
        told("sensitive", attributes.sensitive),
        told("always sensitive", attributes.always_sensitive),
        told("extractable", attributes.extractable),
        told("never extractable", attributes.never_extractable),
        told("local", attributes.local),
    ];
    writeln!(f, "    attributes  {}", flags.join(", "))?;
    match &attributes.key_gen_mechanism {
        Some(mechanism) => writeln!(f, "                made with {mechanism}"),
        None => Ok(()),
    }
}

fn write_hash(f: &mut fmt::Formatter<'_>, of: &str, hash: &str) -> fmt::Result {
    let groups: Vec<_> = hash.as_bytes().chunks(GROUP).map(String::from_utf8_lossy).collect();
    for (line, groups) in groups.chunks(GROUPS).enumerate() {
        let title = if line == 0 { format!("SHA-256 of the {of}") } else { String::new() };
        writeln!(f, "    {title:<27} {}", groups.join(" "))?;
    }
    Ok(())
}
