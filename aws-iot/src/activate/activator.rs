//! What the parts of the activator share.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use crate::{arn::CertificateId, bundle::TrustedKeys, lists::Lists, platform::Platform};

/// How the activator works.
#[derive(Debug)]
pub struct Options {
    /// The folder into which bundles are put.
    pub bundles: PathBuf,
    /// Who may have signed them.
    pub keys: TrustedKeys,
    /// The folder of allow-lists.
    pub state: PathBuf,
    /// The time between two sweeps of what is new.
    pub interval: Duration,
    /// The time between two sweeps of everything.
    pub full_interval: Duration,
    /// The queue with the events of first connections.
    pub queue: Option<String>,
    /// Revoke what no bundle names instead of leaving it pending.
    pub revoke_unknown: bool,
    /// How many certificates are in work at a time.
    pub parallel: usize,
    /// Where `/metrics` and `/readyz` are.
    pub listen: Option<SocketAddr>,
}

/// How it goes, for `/readyz`.
#[derive(Debug, Default)]
pub(super) struct Health {
    pub(super) swept: Option<Timestamp>,
    pub(super) swept_fully: bool,
    /// What AWS refused at the last sweep.
    pub(super) error: Option<String>,
    /// CAs of the bundles that are not registered.
    pub(super) absent: Vec<String>,
    /// Files among the bundles that do not verify.
    pub(super) refused: Vec<String>,
    pub(super) bundles: usize,
}

/// The activator.
#[derive(Debug)]
pub(super) struct Activator {
    pub(super) platform: Platform,
    pub(super) options: Options,
    pub(super) lists: Mutex<Arc<Lists>>,
    pub(super) health: Mutex<Health>,
    /// Which unknown certificates were told of.
    pub(super) alarmed: Mutex<BTreeSet<CertificateId>>,
    /// Which certificates cannot be settled, and were told of.
    pub(super) failing: Mutex<BTreeSet<CertificateId>>,
    /// The newest certificate of each CA that was looked at: milliseconds of Unix time.
    pub(super) watermarks: Mutex<BTreeMap<CertificateId, i64>>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Activator {
    pub(super) fn lists(&self) -> Arc<Lists> {
        locked(&self.lists).clone()
    }
}
