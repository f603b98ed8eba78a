//! The pages of `birthmark demo` and `birthmark bench`, which this program has.

use std::path::Path;

/// There is a page for each command, and none of a program that it is not.
#[test]
fn manual_has_a_page_for_demo_and_bench() {
    let program = Path::new(env!("CARGO_BIN_EXE_birthmark-bench"));
    let pages = birthmark_bench::manual::check(program, &["birthmark"]);
    assert_eq!(pages.iter().map(String::as_str).collect::<Vec<_>>(), ["birthmark-bench", "birthmark-demo"]);
}
