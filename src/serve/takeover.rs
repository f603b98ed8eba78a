//! Tells in the log when another issuer takes over for a profile, as the configuration has set its moment.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{issuer::Policy, live::Live};

const INTERVAL: Duration = Duration::from_secs(1);

/// Watches until the daemon ends.
pub(super) async fn watch(policy: Arc<Live<Policy>>) {
    let mut interval = tokio::time::interval(INTERVAL);
    let mut known = issuers(&policy.get(), Timestamp::now());
    loop {
        interval.tick().await;
        let now = issuers(&policy.get(), Timestamp::now());
        for (profile, before, issuer) in changes(&known, &now) {
            tracing::info!(profile, issuer, before, "another issuer takes over");
        }
        known = now;
    }
}

fn issuers(policy: &Policy, now: Timestamp) -> BTreeMap<String, String> {
    let named = policy.profiles.iter().map(|(name, profile)| (name.clone(), profile.issuer_at(now).name().to_owned()));
    named.collect()
}

/// The profiles whose issuer is another one now: their names, the issuers' before and now. A profile that is new has none before.
fn changes<'a>(
    known: &'a BTreeMap<String, String>,
    now: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
    now.iter().filter_map(|(profile, issuer)| {
        let before = known.get(profile).filter(|before| *before != issuer)?;
        Some((profile.as_str(), before.as_str(), issuer.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuer_that_takes_over_is_told_once() {
        let of = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(profile, issuer)| ((*profile).to_owned(), (*issuer).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let (before, after) = (of(&[("a", "old"), ("b", "old")]), of(&[("a", "old"), ("b", "new"), ("c", "new")]));
        assert_eq!(changes(&before, &after).collect::<Vec<_>>(), [("b", "old", "new")]);
        assert_eq!(changes(&after, &after).count(), 0);
    }
}
