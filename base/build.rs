//! The version that programs print: with the commit, where whoever builds them says which it is.

use std::env;

fn main() {
    println!("cargo:rerun-if-env-changed=BIRTHMARK_COMMIT");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let commit = env::var("BIRTHMARK_COMMIT").unwrap_or_default();
    let text = if commit.is_empty() { version } else { format!("{version} ({commit})") };
    println!("cargo:rustc-env=BIRTHMARK_COMMIT={commit}");
    println!("cargo:rustc-env=BIRTHMARK_VERSION={text}");
}
