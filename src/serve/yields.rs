//! The first-pass yields of the stations, as metrics.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    ledger::{FirstPass, Records},
    metrics,
};

/// How often they are looked up.
const INTERVAL: Duration = Duration::from_secs(15);

/// How many stations have metrics of their own, those that tried the most devices; the rest is one.
const STATIONS: usize = 256;

/// Keeps the metrics up to date.
pub(super) async fn watch(records: Arc<dyn Records>) {
    loop {
        let reader = Arc::clone(&records);
        // They may have to be read from the disk.
        match tokio::task::spawn_blocking(move || reader.first_pass(None)).await {
            Ok(Ok(passes)) => publish(&passes),
            Ok(Err(error)) => tracing::debug!(%error, "the first-pass yields could not be read"),
            Err(_) => {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn publish(passes: &BTreeMap<Arc<str>, FirstPass>) {
    let mut sorted: Vec<_> = passes.iter().collect();
    sorted.sort_by_key(|(_, passes)| std::cmp::Reverse(passes.tried()));
    let (shown, rest) = sorted.split_at(sorted.len().min(STATIONS));
    for (station, passes) in shown {
        let station = station.strip_prefix("station:").unwrap_or("none");
        metrics::first_pass(station, passes.tried(), passes.first);
    }
    if !rest.is_empty() {
        let rest = FirstPass::sum(rest.iter().map(|(_, passes)| *passes));
        metrics::first_pass("other", rest.tried(), rest.first);
    }
}
