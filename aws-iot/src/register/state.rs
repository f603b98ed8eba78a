//! What was done of a bundle, so that it need not be done again: an append-only file. It saves calls and decides nothing:
//! that a certificate is registered counts only if AWS IoT says so too.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{arn::CertificateId, list::List};

/// What became of a certificate: a line of the results, as `birthmark export acknowledge` takes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which.
    pub state: Done,
    /// AWS's own name of what is wrong, or empty.
    #[serde(default)]
    pub code: String,
    /// What is wrong, or empty.
    #[serde(default)]
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// What became of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// It is registered now, and has all that it needs.
    Registered,
    /// It was registered before, and has all that it needs.
    Already,
    /// AWS IoT does not take it, or somebody switched it off.
    Failed,
    /// It may not connect, because the factory has withdrawn it.
    Withdrawn,
}

impl Outcome {
    /// Without anything wrong, now.
    pub fn new(state: Done) -> Self {
        Outcome { state, code: String::new(), message: String::new(), at: now() }
    }

    /// With what is wrong, now.
    pub fn failed(code: &str, message: &str) -> Self {
        Outcome { state: Done::Failed, code: code.to_owned(), message: message.to_owned(), at: now() }
    }
}

/// Now, to the millisecond, as it is written.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// A line of the state file and of the results.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line<'a> {
    pub(super) certificate_id: std::borrow::Cow<'a, str>,
    #[serde(flatten)]
    pub(super) outcome: std::borrow::Cow<'a, Outcome>,
}

/// What was done of one bundle.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    file: File,
    /// By the certificate's index in the bundle's list.
    outcomes: HashMap<u64, Outcome>,
}

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the state file {path}: {cause}")]
pub struct StateError {
    path: PathBuf,
    cause: io::Error,
}

impl State {
    /// Opens the file, or begins it. Lines that are cut off or not of this bundle are passed over.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn open(path: &Path, list: &List) -> Result<State, StateError> {
        let open = || -> io::Result<Known> {
            let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
            let mut outcomes = HashMap::new();
            let mut whole = true;
            let mut reader = BufReader::new(&file);
            let mut text = Vec::new();
            while reader.read_until(b'\n', &mut text)? > 0 {
                whole = text.ends_with(b"\n");
                if let Ok(line) = serde_json::from_slice::<Line<'_>>(&text) {
                    let id = line.certificate_id.parse::<CertificateId>().ok();
                    let found = id.map(|id| list.find(&id)).transpose().map_err(io::Error::other)?.flatten();
                    outcomes.extend(found.map(|found| (found.index, line.outcome.into_owned())));
                }
                text.clear();
            }
            if !whole {
                file.write_all(b"\n")?;
            }
            Ok(Known { file, outcomes })
        };
        let known = open().map_err(|cause| StateError { path: path.to_owned(), cause })?;
        Ok(State { path: path.to_owned(), known: Mutex::new(known) })
    }

    /// What became of a certificate, in this run or one before.
    pub(super) fn outcome(&self, index: u64) -> Option<Outcome> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).outcomes.get(&index).cloned()
    }

    /// The certificates that are said to be registered.
    pub(super) fn registered(&self) -> impl Iterator<Item = u64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let registered = |outcome: &Outcome| matches!(outcome.state, Done::Registered | Done::Already);
        let found = known.outcomes.iter().filter(|(_, outcome)| registered(outcome)).map(|(index, _)| *index);
        found.collect::<Vec<_>>().into_iter()
    }

    /// How many certificates anything is known of.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).outcomes.len()
    }

    /// Forgets what is known of a certificate, because AWS IoT says otherwise.
    pub(super) fn forget(&self, index: u64) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).outcomes.remove(&index);
    }

    /// Forgets what failed, so that it is tried again.
    pub(super) fn forget_failed(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.outcomes.retain(|_, outcome| outcome.state != Done::Failed);
    }

    /// Records what became of a certificate.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn record(&self, index: u64, id: &CertificateId, outcome: Outcome) -> Result<(), StateError> {
        let line = Line { certificate_id: id.to_string().into(), outcome: std::borrow::Cow::Borrowed(&outcome) };
        let written = serde_json::to_vec(&line).map_err(io::Error::other).and_then(|mut text| {
            text.push(b'\n');
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.file.write_all(&text)?;
            known.outcomes.insert(index, outcome.clone());
            Ok(())
        });
        written.map_err(|cause| StateError { path: self.path.clone(), cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::{Entry, Withdrawal, Writer};

    fn list(folder: &Path) -> List {
        let path = folder.join("b.list");
        let mut writer = Writer::create(&path, &[1; 32], 2).unwrap();
        for octet in [1, 2] {
            let withdrawal = Withdrawal { device_id: "d".into(), reason: "scrapped".into() };
            writer.push(&CertificateId::from_octets([octet; 32]), &Entry::Withdrawn(withdrawal)).unwrap();
        }
        writer.finish().unwrap();
        List::open(&path).unwrap().unwrap()
    }

    /// What was recorded is known after a kill in the middle of a line; failures are tried again.
    #[test]
    fn state_is_known_again_after_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let (list, path) = (list(folder.path()), folder.path().join("b.state"));
        let [first, second] = [1, 2].map(|octet| CertificateId::from_octets([octet; 32]));
        let index = |id: &CertificateId| list.find(id).unwrap().unwrap().index;
        let state = State::open(&path, &list).unwrap();
        let outcome = Outcome::new(Done::Registered);
        state.record(index(&first), &first, outcome.clone()).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"certificate_id\":\"02").unwrap();

        let state = State::open(&path, &list).unwrap();
        assert_eq!(state.outcome(index(&first)), Some(outcome));
        assert_eq!(state.outcome(index(&second)), None);
        state.record(index(&second), &second, Outcome::failed("X", "no")).unwrap();
        // A certificate of another bundle.
        state.record(7, &CertificateId::from_octets([3; 32]), Outcome::new(Done::Already)).unwrap();

        let state = State::open(&path, &list).unwrap();
        assert_eq!(state.len(), 2);
        state.forget_failed();
        assert_eq!(state.outcome(index(&second)), None);
        assert!(state.outcome(index(&first)).is_some());
    }
}
