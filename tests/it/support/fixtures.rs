//! The files of tests/fixtures.

use std::{fs, path::PathBuf};

use serde::Deserialize;

/// A CSR of a foreign program, and what is known about it.
#[derive(Deserialize)]
pub(crate) struct Good {
    pub(crate) file: String,
    pub(crate) key: String,
    pub(crate) cn: Option<String>,
    pub(crate) spki_sha256: String,
    pub(crate) asks_ca: bool,
}

/// A file or folder of tests/fixtures.
pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The CSRs of foreign programs in `csr/`.
pub(crate) fn good() -> Vec<Good> {
    serde_json::from_slice(&fs::read(fixture("csr/index.json")).unwrap()).unwrap()
}
