//! The `birthmark` program, run as its users run it.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What the program and the PKCS#11 modules read from the environment; a site sets it in its own files.
const VARIABLES: [&str; 6] =
    ["SOFTHSM2_CONF", "KRYOPTIC_CONF", "BIRTHMARK_PIN", "BIRTHMARK_SOCKET", "BIRTHMARK_SERVER", "BIRTHMARK_IDENTITY"];

/// The program beside this one, otherwise the one on PATH.
///
/// # Errors
///
/// The system does not tell where this program is.
pub fn beside_or_on_path(name: &str) -> io::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name(name);
    // A name without a slash is looked for on PATH when it is started.
    Ok(if beside.exists() { beside } else { name.into() })
}

/// The program in this folder, without a terminal and without what the caller's environment says about birthmark.
pub fn command(program: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command
}
