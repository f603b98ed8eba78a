//! What is said on the terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// Tells on standard error what is done now.
pub(crate) fn step(text: &str) {
    eprintln!("· {text}");
}

/// A bar on the terminal, if standard error is one, that counts `what` up to `length`.
pub(crate) fn progress(length: u64, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(&format!("  {{bar:40}} {{pos}}/{{len}} {what}  {{per_sec}}"));
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Prints a value for programs.
pub(crate) fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    Ok(birthmark::console::print_json(value)?)
}

/// Prints on standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    Ok(birthmark::console::print(text)?)
}
