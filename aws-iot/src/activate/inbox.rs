//! The folder into which bundles are put: each new one is verified and becomes an allow-list.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use super::activator::{Activator, locked};
use crate::{bundle::Bundle, lists, metrics};

/// What was looked at, and why it was refused if it was.
#[derive(Debug)]
pub(super) struct Inbox {
    seen: BTreeMap<PathBuf, (Mark, Option<String>)>,
}

/// What tells that a bundle has changed: its manifest's or tar's time and length.
type Mark = (SystemTime, u64);

impl Inbox {
    pub(super) fn new() -> Self {
        Inbox { seen: BTreeMap::new() }
    }
}

/// The bundles of a folder: folders with a manifest, and tars. Names that begin with a dot are still being written.
fn bundles(folder: &Path) -> io::Result<BTreeMap<PathBuf, Mark>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let marked = if path.is_dir() { path.join(birthmark::export::manifest::SIGNATURE) } else { path.clone() };
        let is_bundle = !name.starts_with('.') && (path.is_dir() || name.ends_with(".tar"));
        let Some(metadata) = is_bundle.then(|| fs::metadata(marked).ok()).flatten() else { continue };
        found.insert(path, (metadata.modified()?, metadata.len()));
    }
    Ok(found)
}

impl Activator {
    /// Verifies what is new in the folder of bundles, and takes it into the allow-lists. Whether there was anything.
    pub(super) async fn look_for_bundles(self: &Arc<Self>, inbox: &mut Inbox) -> bool {
        let found = match bundles(&self.options.bundles) {
            Ok(found) => found,
            Err(error) => {
                let told = format!("the bundles in {} cannot be read: {error}", self.options.bundles.display());
                locked(&self.health).refused = vec![told];
                return false;
            }
        };
        let mut news = false;
        for (path, mark) in &found {
            if inbox.seen.get(path).is_some_and(|(seen, _)| seen == mark) {
                continue;
            }
            let (activator, bundle) = (self.clone(), path.clone());
            // A bundle of a million certificates takes all processors for half a minute.
            let taken = tokio::task::spawn_blocking(move || activator.take(&bundle)).await;
            let refused = match taken {
                Ok(Ok(told)) => {
                    tracing::info!("{told}");
                    news = true;
                    None
                }
                Ok(Err(told)) => Some(told),
                Err(error) => Some(format!("{}: {error}", path.display())),
            };
            if let Some(told) = &refused {
                tracing::error!("{told}");
            }
            inbox.seen.insert(path.clone(), (*mark, refused));
        }
        inbox.seen.retain(|path, _| found.contains_key(path));
        let lists = self.lists();
        let refused: Vec<_> = inbox.seen.values().filter_map(|(_, refused)| refused.clone()).collect();
        metrics::bundles(lists.len(), refused.len(), lists.entries());
        let mut health = locked(&self.health);
        (health.refused, health.bundles) = (refused, lists.len());
        news
    }

    fn take(&self, path: &Path) -> Result<String, String> {
        let bundle = Bundle::open(path, &self.options.keys).map_err(|error| error.to_string())?;
        let list = lists::compile(&self.options.state, &bundle).map_err(|error| error.to_string())?;
        let mut lists = (*self.lists()).clone();
        lists.add(bundle.name(), Arc::new(list), bundle.issuers());
        *locked(&self.lists) = Arc::new(lists);
        let (certificates, withdrawn) = (bundle.certificates(), bundle.withdrawn());
        Ok(format!("the bundle {} is known: {certificates} certificates, {withdrawn} withdrawn", bundle.name()))
    }
}
