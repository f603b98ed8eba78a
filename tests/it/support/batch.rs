//! Bundles that commands or the daemon wrote, and what is in them.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

/// The files of a bundle, by their paths in it.
#[track_caller]
pub(crate) fn bundle_files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(folder: &Path, before: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            let name = format!("{before}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                walk(&path, &format!("{name}/"), found);
            } else {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, "", &mut found);
    found
}

/// The JSON lines of a bundle's files whose names begin so.
#[track_caller]
pub(crate) fn lines(folder: &Path, name: &str) -> Vec<Value> {
    let files = bundle_files(folder);
    let texts = files.iter().filter(|(file, _)| file.starts_with(name)).map(|(_, content)| content);
    let lines = texts.flat_map(|text| std::str::from_utf8(text).unwrap().lines());
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A field of each line.
pub(crate) fn each(lines: &[Value], field: &str) -> Vec<String> {
    lines.iter().map(|line| line[field].as_str().unwrap_or_default().to_owned()).collect()
}
