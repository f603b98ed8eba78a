//! The result file of a bundle: what became of each of its certificates, once each, for `birthmark export acknowledge`.

use std::{
    borrow::Cow,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use birthmark::durable::{Access, Unfinished};

use super::state::{Done, Line, State};
use crate::{
    arn::CertificateId,
    bundle::{Bundle, BundleError},
    list::{List, ListError},
};

/// Why the results cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// The bundle cannot be read again.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The allow-list cannot be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// The file system's reason.
    #[error("cannot write the results {path}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

/// What became of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Its name.
    pub batch: String,
    /// Certificates that are registered now.
    pub registered: u64,
    /// Certificates that were registered before.
    pub already: u64,
    /// Certificates that are not.
    pub failed: u64,
    /// Certificates that may not connect any more.
    pub withdrawn: u64,
    /// The first failures: code and message with the certificate's id.
    pub failures: Vec<String>,
    /// The result file.
    pub results: PathBuf,
}

/// How many failures a summary tells.
const TOLD: usize = 5;

/// Where the results of a batch are written.
pub fn results_file(folder: &Path, batch: &str) -> PathBuf {
    folder.join(format!("{batch}.results.jsonl"))
}

/// Writes the results of a bundle of which everything was tried; the file is there whole or not at all.
pub(super) fn write(bundle: &Bundle, list: &List, state: &State, folder: &Path) -> Result<Summary, ResultsError> {
    let path = results_file(folder, bundle.name());
    let io = |cause| ResultsError::Io { path: path.clone(), cause };
    let mut summary = Summary { batch: bundle.name().to_owned(), results: path.clone(), ..Summary::default() };
    let unfinished = Unfinished::create(&path, Access::Public).map_err(io)?;
    let mut out = BufWriter::new(unfinished.file());
    let mut write = |id: &CertificateId| -> Result<(), ResultsError> {
        let outcome = list.find(id)?.and_then(|found| state.outcome(found.index));
        let untried = || io(io::Error::other(format!("nothing is known of the certificate {id}")));
        let outcome = outcome.ok_or_else(untried)?;
        match outcome.state {
            Done::Registered => summary.registered += 1,
            Done::Already => summary.already += 1,
            Done::Withdrawn => summary.withdrawn += 1,
            Done::Failed => summary.failed += 1,
        }
        if outcome.state == Done::Failed && summary.failures.len() < TOLD {
            summary.failures.push(format!("{id}: {} ({})", outcome.message, outcome.code));
        }
        let line = Line { certificate_id: id.to_string().into(), outcome: Cow::Owned(outcome) };
        let written = serde_json::to_writer(&mut out, &line).map_err(io::Error::from);
        written.and_then(|()| out.write_all(b"\n")).map_err(io)
    };
    for line in bundle.lines() {
        write(&line?.id)?;
    }
    for line in bundle.withdrawals()? {
        write(&line?.id)?;
    }
    out.flush().map_err(io)?;
    drop(out);
    unfinished.finish().map_err(io)?;
    Ok(summary)
}
