//! What tests demand of the man pages and completions that a program writes of itself.
#![expect(clippy::panic, clippy::expect_used, reason = "a test ends by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::assertions::succeeded;

/// Has a program write them, and judges: pages by mandoc, completions by their shells, and each page that a page refers to must
/// be there, or be one of these of other programs. Gives the names of the pages.
pub fn check(program: &Path, elsewhere: &[&str]) -> BTreeSet<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let written = Command::new(program).arg("manual").arg(folder.path()).output().expect("the program starts");
    succeeded(&written);
    let pages = files(&folder.path().join("man/man1"));
    let name = |page: &PathBuf| page.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let names: BTreeSet<String> = pages.iter().map(name).collect();
    let lint = run(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).args(&pages));
    // Before a list of values there is an empty line too many, which nobody sees.
    let faults: Vec<_> = lint.lines().filter(|line| !line.contains("skipping paragraph macro")).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for page in &pages {
        let text = fs::read_to_string(page).expect("a page").replace("\\-", "-");
        for referred in text.split("(1)").filter_map(|before| before.rsplit([' ', '\n', ',']).next()) {
            let known = !referred.starts_with("birthmark") || names.contains(referred) || elsewhere.contains(&referred);
            assert!(known, "{}: there is no page {referred}(1)", page.display());
        }
    }
    for (shell, place) in
        [("bash", "bash-completion/completions"), ("zsh", "zsh/site-functions"), ("fish", "fish/vendor_completions.d")]
    {
        for completion in files(&folder.path().join(place)) {
            let said = run(Command::new(shell).arg("-n").arg(&completion));
            assert!(said.is_empty(), "{said}");
        }
    }
    names
}

/// What a judge says, which must be installed.
fn run(command: &mut Command) -> String {
    let judge = command.get_program().to_string_lossy().into_owned();
    let output = command.output().unwrap_or_else(|_| panic!("{judge} must be installed (Debian: {judge})"));
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// None, where a program has no folder of this kind.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}
