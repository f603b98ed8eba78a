//! Blocks that are not run are read by who reads such things.

use std::fs;

use birthmark::{ceremony::Ceremony, config::Config};
use birthmark_bench::pages::Block;

use super::root;

/// What is wrong with a block of this language.
pub(crate) fn fault(language: &str, block: &Block) -> Option<String> {
    match language {
        "toml" => toml_fault(block),
        "json" => json_fault(&block.text()),
        "proto" => proto_fault(block),
        _ => Some("nobody reads this; documents.rs says what a block may be".to_owned()),
    }
}

/// What stands in the block, over the example: a section takes the place of the example's.
fn toml_fault(block: &Block) -> Option<String> {
    let text = match block.note("in") {
        Some(section) => format!("[{section}]\n{}", block.text()),
        None => block.text(),
    };
    let part: toml::Table = match toml::from_str(&text) {
        Ok(part) => part,
        Err(error) => return Some(error.to_string()),
    };
    let is_ceremony = part.contains_key("step");
    let example = if is_ceremony { "ceremony.toml" } else { "birthmark.toml" };
    let example = fs::read_to_string(root().join("hsm-config").join(example)).unwrap();
    let mut whole: toml::Table = toml::from_str(&example).unwrap();
    lay_over(&mut whole, part, block.note("in").is_some());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("block.toml");
    fs::write(&file, toml::to_string(&whole).unwrap()).unwrap();
    match is_ceremony {
        true => Ceremony::load(&file).err().map(|error| error.to_string()),
        false => Config::load(&file).err().map(|error| error.to_string()),
    }
}

/// Sections take the keys; what has a name, such as a profile, is replaced as a whole unless the block says where its keys belong.
fn lay_over(whole: &mut toml::Table, part: toml::Table, deep: bool) {
    for (name, value) in part {
        let named = ["profiles", "destinations", "issuers"].contains(&name.as_str());
        match (whole.get_mut(&name), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) if named && !deep => below.extend(above),
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => lay_over(below, above, deep),
            (_, value) => drop(whole.insert(name, value)),
        }
    }
}

fn json_fault(text: &str) -> Option<String> {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text);
    let lines = || text.lines().filter(|line| !line.is_empty()).find_map(|line| parse(line).err());
    let whole = parse(text).err()?;
    lines().map(|_| whole.to_string())
}

/// Spaces aside.
fn proto_fault(block: &Block) -> Option<String> {
    let folder = fs::read_dir(root().join("proto/birthmark/v1")).unwrap();
    let protocol: String = folder.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let known: std::collections::BTreeSet<_> = protocol.lines().map(squeeze).collect();
    let unknown = block.lines.iter().map(|line| squeeze(line)).find(|line| {
        let elided = line.is_empty() || line == "…" || line.starts_with("//");
        !elided && !known.iter().any(|known| known == line || known.starts_with(&format!("{line} //")))
    });
    unknown.map(|line| format!("not in proto/birthmark/v1: {line}"))
}
