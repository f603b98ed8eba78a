//! Everything that the configuration names, opened and checked, in this order: the keys, what is said about
//! certificates, the ledger. What the HSM and the files say is known before the ledger is changed; its lock is held before
//! the HSM is loaded, so that a second daemon that is started by mistake disturbs nothing.

use std::{collections::BTreeMap, path::Path, sync::Arc, thread::JoinHandle};

use parking_lot::Mutex;

use super::{
    certificates::{clock_bounds, watched},
    destinations,
    error::ServeError,
    history,
    keys::{AuditKey, Pools, audit_keys, open_audit, open_issuers},
    ledger::OpenLedger,
    lists::Lists,
    reload::{self, Replaceable},
    tls::open_tls,
};
use crate::{
    checkpoint::Checkpoints,
    committer::{CommitError, Committer},
    config::{Config, ConfigError},
    configure::{self, Issuers},
    crl_publisher::Publisher,
    destinations::{Destinations, ManifestSigner},
    grpc::{Access, Signers},
    issuer::Issuance,
    ledger::{
        LedgerError,
        embedded::{self, Claim, EmbeddedRecords, Guards, Settings},
        scrub::Scrub,
    },
    live::Live,
    metrics::AUDIT,
    proof::Prover,
    registration,
    signer::{Recoverable, Signer},
};

/// What the daemon works with, opened and checked.
pub(super) struct Opened {
    pub(super) pools: Pools,
    pub(super) replaceable: Replaceable,
    pub(super) issuers: Issuers,
    pub(super) issuer: Arc<Issuance>,
    pub(super) signers: Signers,
    pub(super) prover: Arc<Prover>,
    pub(super) destinations: Destinations,
    pub(super) records: EmbeddedRecords,
    pub(super) scrub: Option<Scrub>,
    pub(super) committer: Committer,
    pub(super) committer_thread: JoinHandle<Result<(), LedgerError>>,
    pub(super) checkpoints: Option<Arc<Checkpoints>>,
    pub(super) publisher: Option<Arc<Publisher>>,
}

/// Locks the ledger, if there is one.
pub(super) fn claim(config: &Config) -> Result<Claim, ConfigError> {
    Claim::take(&config.resolve(config.ledger.path.get_ref())).map_err(|error| unusable(config, error))
}

fn unusable(config: &Config, error: LedgerError) -> ConfigError {
    config.error_at(config.ledger.path.span(), "ledger.path", error)
}

/// Opens the keys, then what is said about certificates, then the ledger.
pub(super) async fn open(
    config: &Config,
    access: &Arc<Access>,
    claim: Claim,
    expected_checkpoint: Option<&Path>,
) -> Result<Opened, ServeError> {
    let (pools, issuers) = open_issuers(config)?;
    let tls = Live::new(open_tls(config, access)?);
    let policy = Live::new(Arc::new(reload::policy(config, &issuers)?));
    configure::check_client_ca(config, &issuers)?;
    let watched = Live::new(Arc::new(watched(config, &issuers)?));
    let audit = open_audit(config, &issuers)?;
    let lists = Lists::read(config, &issuers)?;
    let all = destinations::read(config, audit.as_ref().map(|audit| &audit.public_key))?;
    let signer = audit.as_ref().map(|audit| ManifestSigner {
        signer: Arc::clone(&audit.signer) as Arc<dyn Signer>,
        key: audit.public_key.clone(),
    });

    let data = config.resolve(config.ledger.path.get_ref());
    let settings = Settings {
        min_free: u64::from(config.ledger.min_free_mib) << 20,
        mirror: config.ledger.mirror.as_ref().map(|mirror| config.resolve(mirror.get_ref())),
        ..Settings::default()
    };
    let guards = Guards {
        audit_keys: audit_keys(config, audit.as_ref())?,
        expected_checkpoint: expected_checkpoint.map(Path::to_owned),
        clock: clock_bounds(config, &issuers),
    };
    let (ledger, records) = OpenLedger::open(config, &data, (&settings, &guards), claim)?;
    let earlier_checkpoints_lost = ledger.lacks_checkpoint(&records, &data);
    let scrub = config.ledger.scrub_interval().map(|interval| Scrub::start(records.clone(), interval)).transpose();
    let scrub = scrub.map_err(ServeError::system("start the scrub"))?;
    let (committer, committer_thread) = ledger.start().map_err(ServeError::system("start the committer"))?;
    record_issuers(config, &committer, &issuers).await?;
    history::record_start(&committer, config).await?;
    let mut signers: BTreeMap<String, Arc<dyn Recoverable>> =
        pools.iter().map(|(name, pool)| (name.clone(), Arc::clone(pool) as Arc<dyn Recoverable>)).collect();
    let checkpoints = audit.map(|AuditKey { signer, public_key, interval }| {
        signers.insert(AUDIT.to_owned(), Arc::clone(&signer) as Arc<dyn Recoverable>);
        Arc::new(Checkpoints {
            signer,
            key: public_key,
            records: Arc::new(records.clone()),
            committer: committer.clone(),
            file: embedded::checkpoint_file(&data),
            interval,
            earlier_checkpoints_lost: earlier_checkpoints_lost.into(),
            figures: Mutex::default(),
        })
    });
    let open_lists = |lists: Lists<'_>| lists.open(config, &data, Arc::new(records.clone()), committer.clone());
    let publisher = lists.map(open_lists).transpose()?;
    let issuer = Issuance::new(Arc::clone(&policy), &issuers, committer.clone(), Arc::new(records.clone()));
    let issuer = Arc::new(issuer);
    let prover = Arc::new(Prover::new(issuers.clone(), committer.clone()));
    let replaceable = Replaceable { policy, tls, watched };
    let signers = Arc::new(signers);
    let (figures, ledger) = (Arc::default(), Arc::new(records.clone()));
    let destinations = Destinations { all, records: ledger, committer: committer.clone(), signer, figures };
    Ok(Opened {
        pools,
        replaceable,
        issuers,
        issuer,
        signers,
        prover,
        destinations,
        records,
        scrub,
        committer,
        committer_thread,
        checkpoints,
        publisher,
    })
}

/// Records what issues before anything is served; the first start on a journal of an earlier version records all.
async fn record_issuers(config: &Config, committer: &Committer, issuers: &Issuers) -> Result<(), ServeError> {
    for issuer in issuers.values() {
        match registration::register(committer, issuer).await {
            Ok(recorded) if recorded.crl_shards.max(1) == u32::from(issuer.crl_shards()) => {}
            Ok(recorded) => return Err(other_shards(config, issuer.name(), recorded.crl_shards.max(1)).into()),
            // As anything else that is new: later, when the clock is right.
            Err(CommitError::Refused(refusal)) => {
                tracing::warn!(issuer = issuer.name(), %refusal, "the issuer is not recorded yet; it issues nothing before");
            }
            Err(error) => return Err(ServeError::Issuer { name: issuer.name().to_owned(), source: error }),
        }
    }
    Ok(())
}

/// The certificates of a CA carry the URL of their shard, so the number of shards stays what it was.
fn other_shards(config: &Config, name: &str, recorded: u32) -> ConfigError {
    let setting = config.issuers.get(name).and_then(|settings| settings.crl_shards.as_ref());
    let message = format!(
        "the certificates of this CA are divided among {recorded} revocation list(s), which their URLs name, and stay so; set \
         crl_shards = {recorded}, or take a new CA"
    );
    config.error_at(setting.map_or(0..0, |setting| setting.span()), &format!("issuers.{name}.crl_shards"), message)
}
