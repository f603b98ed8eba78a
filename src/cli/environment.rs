//! The environment variables that PKCS#11 modules read, set before anything else runs.

use std::{collections::BTreeMap, env, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, bail};

/// Holds the process id of the one that started itself again. `exec` keeps the id, children have another, so they may
/// start themselves again for a configuration of their own.
const MARK: &str = "BIRTHMARK_RESTARTED";

/// Makes sure that this process has these environment variables: if one differs, the process starts itself again in
/// its own place with all of them set. Call it before any thread exists; it returns only if nothing is to be done.
///
/// C libraries read the environment at any time from any thread, so it cannot be changed safely in a running process.
pub(crate) fn apply(wanted: &BTreeMap<String, String>) -> anyhow::Result<()> {
    if wanted.iter().all(|(name, value)| env::var_os(name).is_some_and(|current| current == value.as_str())) {
        return Ok(());
    }
    let names = wanted.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let own_id = std::process::id().to_string();
    if env::var_os(MARK).is_some_and(|mark| mark == own_id.as_str()) {
        bail!("the variables of [environment] ({names}) do not stay set; set them where birthmark is started");
    }
    let program = env::current_exe().context("cannot find the birthmark program to start it with [environment]")?;
    let mut arguments = env::args_os();
    let mut command = Command::new(&program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let error = command.args(arguments).envs(wanted).env(MARK, own_id).exec();
    Err(error).with_context(|| format!("cannot start {} again with the variables {names}", program.display()))
}
