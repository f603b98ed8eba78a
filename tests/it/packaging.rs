//! What the packages are made of, without building them: `make deb` and `make deb-test` do.

use std::{fs, path::Path, process::Command};

use birthmark::config::Config;
use birthmark_bench::{
    assertions::{succeeded, text},
    manual,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The values of a setting in a unit or of a field in Debian's files.
fn values<'a>(text: &'a str, begin: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(begin)).map(str::trim).collect()
}

/// Every command has a man page that man reads without a warning, and every page that it refers to exists; each argument has a
/// text, or the program refuses to write pages. Shells understand the completions.
#[test]
fn manual_has_a_page_for_every_command() {
    let others = ["birthmark-station", "birthmark-aws", "birthmark-demo", "birthmark-bench"];
    let pages = manual::check(Path::new(env!("CARGO_BIN_EXE_birthmark")), &others);
    for page in ["birthmark", "birthmark-serve", "birthmark-order", "birthmark-order-create", "birthmark-station-sign"]
    {
        assert!(pages.contains(page), "{pages:?}");
    }
    assert!(
        pages.iter().all(|page| !page.ends_with("-help") && page != "birthmark-manual" && page != "birthmark-demo")
    );
}

/// The one version is that of every crate, of the Python package and of the packages.
#[test]
fn version_of_all_that_is_built_is_one() {
    let ours = env!("CARGO_PKG_VERSION");
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
    let mut members: Vec<String> = serde_json::from_str(members).unwrap();
    members.retain(|member| !member.starts_with("tests/"));
    for folder in members.into_iter().chain(["clients/python".to_owned()]) {
        let kind = if folder.ends_with("python") { "pyproject.toml" } else { "Cargo.toml" };
        let found = read(&format!("{folder}/{kind}"));
        assert_eq!(values(&found, "version = "), [format!("\"{ours}\"")], "{folder}");
    }
    let changelog = read("packaging/debian/changelog");
    let newest = changelog.split(['(', ')']).nth(1).unwrap();
    assert_eq!(newest.rsplit_once('-').unwrap().0, ours);
}

/// What a unit starts is a program of a package, and who it runs as is made by that package.
#[test]
fn unit_has_its_program_and_its_user_in_a_package() {
    let control = read("packaging/debian/control");
    let packages = values(&control, "Package:");
    let rules = read("packaging/debian/rules");
    assert_eq!(values(&rules, "programs :="), [packages.join(" ")]);
    for entry in fs::read_dir(root().join("packaging/systemd")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let unit = read(&format!("packaging/systemd/{name}"));
        // debhelper takes a unit by its package's name.
        let package = name.trim_end_matches(".service").trim_end_matches('@');
        assert!(packages.contains(&package), "{name}");
        let started = values(&unit, "ExecStart=");
        assert!(started[0].starts_with(&format!("/usr/bin/{package} ")), "{name}: {started:?}");
        for user in values(&unit, "User=") {
            let users = read(&format!("packaging/sysusers.d/{package}.conf"));
            assert!(users.lines().any(|line| line.starts_with(&format!("u {user} "))), "{name}: {user}");
            read(&format!("packaging/tmpfiles.d/{package}.conf"));
        }
        for page in values(&unit, "Documentation=man:") {
            assert!(page.starts_with(package), "{name}: {page} is in another package");
        }
    }
}

/// What README.md and the pages refer to is in the package, where they do.
#[test]
fn packaged_documents_refer_to_files_of_the_package() {
    let rules = read("packaging/debian/rules");
    let documents: Vec<_> = values(&rules, "documents :=").iter().flat_map(|line| line.split(' ')).collect();
    let link = regex::Regex::new(r"\]\(([^)#\s]+)").unwrap();
    let mut pages = vec!["README.md".to_owned()];
    let docs = fs::read_dir(root().join("docs")).unwrap();
    pages.extend(docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap())));
    let mut seen = 0;
    for page in pages {
        for found in link.captures_iter(&read(&page)) {
            let target = &found[1];
            if target.contains("://") {
                continue;
            }
            let target = match (target.strip_prefix("../"), page.starts_with("docs/")) {
                (Some(above), _) => above.to_owned(),
                (None, true) => format!("docs/{target}"),
                (None, false) => target.to_owned(),
            };
            // Debian has these under names of its own.
            let elsewhere = ["LICENSE", "CHANGELOG.md"].contains(&target.as_str());
            let packaged = documents.iter().any(|document| Path::new(&target).starts_with(document));
            assert!(elsewhere || packaged, "{page}: {target}");
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
}

/// The configuration in the package is the example in the places of the unit, and can be read.
#[test]
fn packaged_configuration_is_the_example_in_its_places() {
    let printed = Command::new(root().join("packaging/configuration.sh")).output().unwrap();
    let packaged = succeeded(&printed);
    let unit = read("packaging/systemd/birthmark.service");
    let example = read("hsm-config/birthmark.toml");
    let (begin, settings) = packaged.split_once("# Relative paths").unwrap();
    assert!(begin.lines().all(|line| line.starts_with('#')), "{begin}");
    let example = example.split_once("# Relative paths").unwrap().1;
    let differ = example.lines().zip(settings.lines()).filter(|(example, packaged)| example != packaged);
    let differ: Vec<_> = differ.map(|(_, packaged)| packaged).collect();
    assert_eq!(differ, ["socket = \"/run/birthmark/admin.sock\"", "path = \"/var/lib/birthmark\""]);
    assert_eq!(example.lines().count(), settings.lines().count());
    assert_eq!(values(&unit, "RuntimeDirectory="), ["birthmark"]);
    assert_eq!(values(&unit, "StateDirectory="), ["birthmark"]);
    assert!(values(&unit, "ExecStart=")[0].ends_with("serve --config /etc/birthmark/birthmark.toml"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("birthmark.toml");
    fs::write(&file, &packaged).unwrap();
    if let Err(error) = Config::load(&file) {
        panic!("{error}");
    }
    // Before the keys are made each problem is a file that is not there yet.
    let check =
        Command::new(env!("CARGO_BIN_EXE_birthmark")).args(["serve", "--check", "--config"]).arg(&file).output();
    let told = text(&check.unwrap().stderr);
    let problems: Vec<_> = told.lines().filter(|line| line.starts_with("birthmark: ")).collect();
    assert!(!told.is_empty() && problems.iter().all(|line| line.contains("os error 2")), "{told}");
}
