//! What the commands that read a journal end with.

use std::process::ExitCode;

use birthmark::ledger::journal::TornEnd;

/// Whole but for a torn end.
const TORN: u8 = 3;

/// The exit code, after a word about a torn end.
pub(super) fn end(torn: Option<&TornEnd>) -> ExitCode {
    let Some(TornEnd { path, offset, bytes, what }) = torn else { return ExitCode::SUCCESS };
    eprintln!(
        "birthmark: the last entry is incomplete: {} cannot be read from byte {offset} on ({bytes} bytes: {what}); a crash \
         leaves it so, and the daemon cuts it off when it starts",
        path.display()
    );
    ExitCode::from(TORN)
}
