//! The command line: one file a command.
//!
//! Exit codes: 0 done; 1 failed (nothing, or not all, was done: the message says which); 2 wrong usage;
//! 3 `station sign` and `station confirm` finished with some devices refused, `journal verify` and `dump` found a torn end; 130 and 143 `station sign` was stopped by SIGINT or SIGTERM.

use std::io::{ErrorKind, Write};

pub(crate) mod bench;
pub(crate) mod ceremony;
pub(crate) mod demo;
pub(crate) mod enroll;
pub(crate) mod environment;
pub(crate) mod export;
pub(crate) mod hsm;
pub(crate) mod journal;
pub(crate) mod order;
pub(crate) mod profile;
pub(crate) mod record;
pub(crate) mod serve;
pub(crate) mod site;
pub(crate) mod station;

mod table;

/// Runs a command that speaks with the daemon.
fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(command)
}

/// Prints a value for programs.
fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    print(&format!("{value:#}\n"))
}

/// Prints on standard output, where `print!` would panic when a reader such as `head` has seen enough.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
