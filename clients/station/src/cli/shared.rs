//! What the commands have in common.

use std::time::Duration;

use anyhow::Context;

/// Runs a command that speaks with the daemon.
///
/// # Errors
/// The command's own, or that there are no threads.
pub fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(command);
    // A name that is still being looked up would hold the process up.
    runtime.shutdown_background();
    result
}

/// Prints a value for programs.
pub(super) fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    Ok(birthmark_base::console::print_json(value)?)
}

/// Prints on standard output.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    Ok(birthmark_base::console::print(text)?)
}

/// A duration.
pub(super) fn duration(text: &str) -> anyhow::Result<Duration> {
    let duration = text.parse::<jiff::SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    duration.filter(|duration| !duration.is_zero()).context("a duration is written as 500ms, 90s, 10m or 2h")
}
