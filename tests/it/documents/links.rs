//! What a document points to is there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use regex::Regex;

use super::root;

/// All files of the repository with these endings, by their paths in it.
fn files(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let path = folder.join(entry.unwrap().file_name());
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with('.') || ["target", "node_modules", "fixtures"].contains(&name) {
            continue;
        }
        if root().join(&path).is_dir() {
            files(&path, endings, found);
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

/// The anchors that a page's headings have on the web: lower case, hyphens for blanks, no other punctuation.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut anchors = BTreeSet::new();
    for line in page.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if let (false, Some(heading)) = (fenced, line.strip_prefix('#')) {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            anchors.insert(kept.collect::<String>().replace(' ', "-"));
        }
    }
    anchors
}

/// The path without `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, component| {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
        plain
    })
}

/// Every link between documents leads to a file, and to a heading where it names one.
#[test]
fn link_of_every_document_leads_somewhere() {
    let mut pages = Vec::new();
    files(Path::new(""), &[".md"], &mut pages);
    // What a document in docs/ begins with is held there.
    pages.retain(|page| !page.starts_with("src"));
    assert!(pages.len() > 20, "{pages:?}");
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut faults = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(root().join(page)).unwrap();
        for target in link.captures_iter(&text).map(|captures| captures.get(1).unwrap().as_str()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => page.clone(),
                file => plain(&page.parent().unwrap().join(file)),
            };
            let fault = match fs::read_to_string(root().join(&path)) {
                Err(_) if root().join(&path).exists() => continue,
                Err(_) => "there is no such file",
                Ok(there) if !anchor.is_empty() && !anchors(&there).contains(anchor) => "there is no such heading",
                Ok(_) => continue,
            };
            faults.push(format!("{}: {target}: {fault}", page.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Messages, help texts and the example configuration name no document that is not there.
#[test]
fn document_that_the_program_names_exists() {
    let mut sources = Vec::new();
    for folder in ["src", "hsm-config", "packaging", "proto", "clients/station/src", "aws-iot/src"] {
        files(Path::new(folder), &[".rs", ".toml", ".proto", ".service", ".sh", ".yml"], &mut sources);
    }
    let named = Regex::new(r"docs/[a-z-]+\.md").unwrap();
    let mut faults = Vec::new();
    for source in &sources {
        let text = fs::read_to_string(root().join(source)).unwrap();
        for name in named.find_iter(&text).map(|found| found.as_str()) {
            if !root().join(name).exists() {
                faults.push(format!("{}: {name}", source.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
