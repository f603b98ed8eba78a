//! A SoftHSM token of a site's own, made by the script that newcomers use.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

use crate::site::Token;

const SET_UP: &str = include_str!("../../hsm-config/softhsm/setup.sh");

/// Makes a token with random PINs in the folder `hsm` of this folder.
///
/// # Errors
///
/// SoftHSM or bash is not installed; the message says what to install.
pub fn make_token(folder: &Path) -> anyhow::Result<Token> {
    let mut child = Command::new("bash")
        .args(["-s", "--", "hsm", "birthmark"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start bash")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(SET_UP.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let told = String::from_utf8(output.stdout)?;
    let uri = told.split_whitespace().find(|word| word.starts_with("pkcs11:"));
    Ok(Token {
        uri: uri.context("the set-up script did not tell the token's URI")?.to_owned(),
        variable: "SOFTHSM2_CONF",
        configuration: "hsm/softhsm2.conf",
    })
}
