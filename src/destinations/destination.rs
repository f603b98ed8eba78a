//! A destination as it is configured, and what its batches are made with.

use std::{collections::BTreeMap, sync::Arc};

use super::{error::BatchError, figures::Figures};
use crate::{
    committer::Committer,
    config::Unattended,
    export::settings::Settings,
    ledger::{Filter, Records},
    signer::{PublicKey, Signer},
};

/// A platform that is to know the devices, as it is configured.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    /// Its name.
    pub(crate) name: String,
    /// Which certificates it gets.
    pub(crate) filter: Filter,
    /// How the files look.
    pub(crate) settings: Settings,
    /// How the daemon cuts batches by itself, if it does; the folder is absolute.
    pub(crate) unattended: Option<Unattended>,
}

/// The audit key, which signs what batches are.
#[derive(Clone)]
pub(crate) struct ManifestSigner {
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) key: PublicKey,
}

/// All destinations, and what their batches are made with. Clones share it.
#[derive(Clone)]
pub(crate) struct Destinations {
    /// By name.
    pub(crate) all: Arc<BTreeMap<String, Arc<Destination>>>,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) committer: Committer,
    /// There is one if there is a destination, or was.
    pub(crate) signer: Option<ManifestSigner>,
    /// What waits for each.
    pub(crate) figures: Arc<Figures>,
}

impl Destinations {
    /// The destination of this name.
    ///
    /// # Errors
    /// None of that name is configured.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Destination>, BatchError> {
        let found = self.all.get(name).cloned();
        found.ok_or_else(|| BatchError::DestinationUnknown {
            name: name.to_owned(),
            known: self.all.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }
}
