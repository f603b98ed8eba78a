//! The `birthmark` program, run as its users run it.

use std::{
    io::{self, Write},
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

/// Writes a program, or a script, to be run where it lies, folders and all.
///
/// The process that writes it has no other thread: a file that is open for writing cannot be run (ETXTBSY), and a child
/// that another thread of ours is about to start would hold what we write open for a moment.
///
/// # Errors
///
/// It cannot be written there, or `install` is missing.
pub fn install(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut writer = Command::new("install");
    let mut writer = writer.args(["-D", "-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped()).spawn()?;
    let written = writer.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(content));
    let ended = writer.wait()?;
    written?;
    if ended.success() { Ok(()) } else { Err(io::Error::other(format!("install: {ended}: {}", path.display()))) }
}
