//! The program's man pages and completions.

use std::path::Path;

/// There is a page for each command, which man and the shells understand.
#[test]
fn manual_has_a_page_for_every_command() {
    let program = Path::new(env!("CARGO_BIN_EXE_birthmark-aws"));
    let pages = birthmark_bench::manual::check(program, &["birthmark"]);
    assert!(pages.contains("birthmark-aws-activate") && pages.len() == 12, "{pages:?}");
}
