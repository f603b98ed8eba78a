//! The revocation lists: who makes which, and where they are.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;
use toml::Spanned;

use crate::{
    ca::IssuingCa,
    committer::Committer,
    config::{self, Config, ConfigError},
    configure::Issuers,
    crl::{Directory, ListId, Shards, Store},
    crl_publisher::{ListIssuer, Publisher},
    ledger::{RecordedIssuer, Records},
    signer::PublicKey,
    x509::{CRL_SIGN, Certificate},
};

/// The lists of all issuers, if any are made. Checked before the ledger is changed.
pub(super) struct Lists<'a> {
    settings: &'a config::Crl,
    times: config::CrlTimes,
    issuers: Vec<Arc<ListIssuer>>,
}

impl<'a> Lists<'a> {
    /// Reads the settings, and checks that each issuer may sign lists.
    pub(super) fn read(config: &'a Config, issuers: &Issuers) -> Result<Option<Lists<'a>>, ConfigError> {
        let Some(settings) = &config.crl else { return Ok(None) };
        let times = settings.times();
        let times = times.map_err(|(span, key, message)| config.error_at(span, &format!("crl.{key}"), message))?;
        let issuers = issuers.values().map(|issuer| list_issuer(config, issuer).map(Arc::new));
        Ok(Some(Lists { settings, times, issuers: issuers.collect::<Result<_, _>>()? }))
    }

    /// Opens what was published before.
    pub(super) fn open(
        self,
        config: &Config,
        data: &Path,
        records: Arc<dyn Records>,
        committer: Committer,
    ) -> Result<Arc<Publisher>, ConfigError> {
        let Lists { settings, times, issuers } = self;
        let store = Store::open(&data.join("crl"));
        let store = store.map_err(|error| config.error_at(config.ledger.path.span(), "ledger.path", error))?;
        let store = Arc::new(store);
        let mut directory = Directory::new(Arc::clone(&store));
        for issuer in &issuers {
            let ca = issuer.issuer.certificates().issuing().der();
            directory.add(issuer.issuer.name(), ca, issuer.shards, |shard| issuer.list(shard));
        }
        // The newest generation of a name first; what is not configured any more keeps the list that it had.
        for recorded in records.issuers().iter().rev() {
            add_generation(&mut directory, &store, recorded);
        }
        let publisher = Publisher {
            issuers,
            store,
            directory: Arc::new(directory),
            folder: settings.folder.as_ref().map(|folder| config.resolve(folder.get_ref())),
            times,
            include_scrapped: settings.include_scrapped,
            records,
            committer,
            figures: Mutex::default(),
        };
        publisher.load();
        Ok(Arc::new(publisher))
    }
}

/// An issuer that was recorded at some time, by its name and generation, and by its name alone if no newer one has it.
fn add_generation(directory: &mut Directory, store: &Store, recorded: &RecordedIssuer) {
    let Some(certificate) = recorded.chain.first().and_then(|der| Certificate::from_der(der).ok()) else { return };
    let Ok(key) = PublicKey::of(&certificate) else { return };
    let shards = u16::try_from(recorded.crl_shards).ok().and_then(Shards::new).unwrap_or(Shards::ONE);
    let list = |shard: u16| ListId::new(certificate.subject().as_der(), &key, shard);
    for shard in 0..shards.count() {
        if let Err(error) = store.load(&list(shard), &key) {
            tracing::warn!(%error, "a revocation list of an earlier run is not served");
        }
    }
    let RecordedIssuer { name, generation, .. } = recorded;
    directory.add(&format!("{name}-{generation}"), certificate.der(), shards, list);
    directory.add(name, certificate.der(), shards, list);
}

fn list_issuer(config: &Config, issuer: &Arc<IssuingCa>) -> Result<ListIssuer, ConfigError> {
    let name = issuer.name();
    let settings = config.issuers.get(name);
    // RFC 5280 section 4.2.1.3: without keyUsage a key may do everything.
    let usage = issuer.certificates().issuing().key_usage().ok().flatten();
    if usage.is_some_and(|usage| usage & CRL_SIGN == 0) {
        let span = settings.and_then(|settings| settings.chain.first()).map_or(0..0, Spanned::span);
        let message = "its keyUsage has no cRLSign, so that nobody would accept its revocation lists; take a CA certificate \
                       that has it, or leave the section [crl] out";
        return Err(config.error_at(span, &format!("issuers.{name}.chain"), message));
    }
    let wrong = |message: &str| {
        let span = settings.and_then(|settings| settings.crl_shards.as_ref()).map_or(0..0, Spanned::span);
        config.error_at(span, &format!("issuers.{name}.crl_shards"), message)
    };
    let shards = Shards::new(issuer.crl_shards()).ok_or_else(|| wrong("must be 1 to 4096"))?;
    let uses = |profile: &&config::Profile| {
        let one = profile.issuer.as_ref().is_some_and(|issuer| issuer.get_ref() == name);
        one || profile.issuers.iter().any(|line| line.get_ref().name.get_ref() == name)
    };
    let points = config.profiles.values().filter(uses).flat_map(|profile| &profile.crl_distribution_points);
    let mut urls: Vec<_> = points.map(|url| url.get_ref().clone()).filter(|url| url.contains("{crl_shard}")).collect();
    urls.sort();
    urls.dedup();
    if shards.count() > 1 && urls.is_empty() {
        return Err(wrong(
            "no profile of this issuer has crl_distribution_points with {crl_shard}, so that nobody would know which list \
             is a certificate's",
        ));
    }
    Ok(ListIssuer { issuer: Arc::clone(issuer), shards, urls })
}
