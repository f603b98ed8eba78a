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

/// An error and its causes as one line; a cause that the sentence before it has told already is left out.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        told if told.contains(&cause) => told.to_owned(),
        told => format!("{told}: {cause}"),
    })
}

/// Prints on standard output, where `print!` would panic when a reader such as `head` has seen enough.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sentence_tells_each_cause_once() {
        let told = anyhow::anyhow!("no such file").context("cannot read x: no such file; create it").context("step 1");
        assert_eq!(super::sentence(&told), "step 1: cannot read x: no such file; create it");
    }
}
