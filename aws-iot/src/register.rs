//! Pre-registration: makes what bundles say so in AWS IoT. Withdrawals first, of all bundles; then certificates.
//!
//! Whatever a run did is done again without harm, so a run may be killed anywhere. The state file saves calls; what a
//! device is, AWS IoT and the bundles alone decide.

mod results;
mod state;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};

use self::state::State;
pub use self::{
    results::{ResultsError, Summary, results_file},
    state::{Done, Outcome, StateError},
};
use crate::{
    bundle::{Bundle, BundleError, WithdrawnLine},
    failure::{CallError, Kind},
    list::{List, ListError},
    lists::{self, CompileError, Lists, Standing},
    platform::{Platform, Status},
    progress::Progress,
    settle::{self, SettleError},
    template::Line,
};

/// How a run is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Register certificates without their CA (`RegisterCertificateWithoutCA`).
    pub without_ca: bool,
    /// How many certificates are in work at a time.
    pub parallel: usize,
    /// The folder of allow-lists and state files.
    pub state: PathBuf,
    /// The folder of result files.
    pub results: PathBuf,
}

/// Why a run ended before everything was tried. The same command goes on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// AWS does not let these credentials do it, or is away.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The allow-list cannot be used.
    #[error(transparent)]
    List(#[from] ListError),
    /// The state file cannot be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The result file cannot be written.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// A folder cannot be made.
    #[error("cannot make the folder {0}: {1}")]
    Folder(PathBuf, std::io::Error),
    /// Something that all devices need is not in the account.
    #[error("nothing was registered: {0}")]
    Missing(String),
}

impl From<CompileError> for RegisterError {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Bundle(error) => error.into(),
            CompileError::List(error) => error.into(),
        }
    }
}

impl From<SettleError> for RegisterError {
    fn from(error: SettleError) -> Self {
        match error {
            SettleError::Call(error) => error.into(),
            SettleError::List(error) => error.into(),
        }
    }
}

/// A bundle in work.
struct Job<'a> {
    bundle: &'a Bundle,
    list: Arc<List>,
    state: State,
}

/// A run.
struct Run<'a> {
    platform: &'a Platform,
    lists: Lists,
    options: &'a Options,
}

/// Registers bundles, the oldest first.
///
/// # Errors
/// [`RegisterError`]; what was done by then is done.
pub async fn register(
    platform: &Platform,
    bundles: &mut [Bundle],
    options: &Options,
) -> Result<Vec<Summary>, RegisterError> {
    bundles.sort_by(|a, b| (a.name().len(), a.name()).cmp(&(b.name().len(), b.name())));
    for folder in [&options.state, &options.results] {
        std::fs::create_dir_all(folder).map_err(|error| RegisterError::Folder(folder.clone(), error))?;
    }
    check(platform, bundles, options).await?;
    let mut jobs = Vec::new();
    for bundle in &*bundles {
        let list = Arc::new(lists::compile(&options.state, bundle)?);
        let path = lists::file_of(&options.state, bundle.name(), bundle.manifest_sha256(), "state.jsonl");
        let state = State::open(&path, &list)?;
        state.forget_failed();
        jobs.push(Job { bundle, list, state });
    }
    // Of bundles that were registered before, too: what they withdrew stays withdrawn.
    let run = Run { platform, lists: Lists::open(&options.state)?, options };
    for job in &jobs {
        run.confirm(job).await?;
    }
    let total = jobs.iter().map(|job| job.bundle.certificates() + job.bundle.withdrawn()).sum();
    let progress = Progress::new(total, 0);
    let done = run.work(&jobs, &progress).await;
    progress.clear();
    done?;
    jobs.iter().map(|job| Ok(results::write(job.bundle, &job.list, &job.state, &options.results)?)).collect()
}

/// What all devices need must be there before the first is registered.
async fn check(platform: &Platform, bundles: &[Bundle], options: &Options) -> Result<(), RegisterError> {
    let region = platform.region();
    let policies: BTreeSet<_> = bundles.iter().filter_map(|bundle| bundle.template().policy()).collect();
    for policy in policies {
        if platform.policy(policy).await?.is_none() {
            return Err(RegisterError::Missing(format!(
                "there is no policy \"{policy}\" in {region}; \"birthmark-aws policy\" prints one, and \"aws iot create-policy\" \
                 makes it"
            )));
        }
    }
    let types: BTreeSet<_> = bundles.iter().filter_map(|bundle| bundle.template().thing_type()).collect();
    for thing_type in types {
        if !platform.has_thing_type(thing_type).await? {
            return Err(RegisterError::Missing(format!(
                "there is no thing type \"{thing_type}\" in {region}; \"aws iot create-thing-type\" makes it"
            )));
        }
    }
    let groups: BTreeSet<_> = bundles.iter().flat_map(|bundle| bundle.template().thing_groups()).collect();
    for group in groups {
        if !platform.has_thing_group(group).await? {
            return Err(RegisterError::Missing(format!(
                "there is no thing group \"{group}\" in {region}; \"aws iot create-thing-group\" makes it"
            )));
        }
    }
    if options.without_ca {
        return Ok(());
    }
    let issuers: BTreeSet<_> = bundles.iter().flat_map(Bundle::issuers).collect();
    for issuer in issuers {
        let authority = platform.describe_authority(&issuer.id).await?;
        if authority.is_none_or(|authority| !authority.active) {
            return Err(RegisterError::Missing(format!(
                "the CA {} ({}) is not registered and active in {region}; \"birthmark-aws register-ca\" registers it, or \
                 --without-ca does without",
                issuer.subject, issuer.id
            )));
        }
    }
    Ok(())
}

impl Run<'_> {
    /// Forgets what the state file says is registered and AWS IoT does not. A page tells of 250 certificates, so this saves
    /// nearly all calls that the state file can save.
    async fn confirm(&self, job: &Job<'_>) -> Result<(), RegisterError> {
        let Job { state, list, bundle } = job;
        let mut unconfirmed: BTreeSet<u64> = state.registered().collect();
        // Beyond that, to do it all again costs less.
        let mut most = 10_000 + 20 * unconfirmed.len();
        let authorities: Vec<_> = match self.options.without_ca {
            true => vec![None],
            false => bundle.issuers().iter().map(|issuer| Some(&issuer.id)).collect(),
        };
        for authority in authorities {
            let mut from = None;
            while !unconfirmed.is_empty() && most > 0 {
                let page = self.platform.list_certificates(authority, from).await?;
                most = most.saturating_sub(page.certificates.len());
                for certificate in page.certificates {
                    if certificate.status == Status::Active
                        && let Some(found) = list.find(&certificate.id)?
                    {
                        unconfirmed.remove(&found.index);
                    }
                }
                from = page.next;
                if from.is_none() {
                    break;
                }
            }
        }
        unconfirmed.into_iter().for_each(|index| state.forget(index));
        Ok(())
    }

    async fn work(&self, jobs: &[Job<'_>], progress: &Progress) -> Result<(), RegisterError> {
        for job in jobs {
            stream::iter(job.bundle.withdrawals()?)
                .map(|line| async move { self.withdraw(job, line?, progress).await })
                .buffer_unordered(self.options.parallel)
                .try_collect::<()>()
                .await?;
        }
        for job in jobs {
            stream::iter(job.bundle.lines())
                .map(|line| async move { self.certificate(job, line?, progress).await })
                .buffer_unordered(self.options.parallel)
                .try_collect::<()>()
                .await?;
        }
        Ok(())
    }

    async fn withdraw(&self, job: &Job<'_>, line: WithdrawnLine, progress: &Progress) -> Result<(), RegisterError> {
        let Some(found) = job.list.find(&line.id)? else { return Ok(()) };
        let outcome = match settle::end(self.platform, &line.id).await {
            Ok(_) => Outcome::new(Done::Withdrawn),
            Err(error) if error.is_general() => return Err(error.into()),
            Err(error) => Outcome::failed(&error.code, &error.to_string()),
        };
        progress.finish(outcome.state == Done::Failed);
        Ok(job.state.record(found.index, &line.id, outcome)?)
    }

    async fn certificate(&self, job: &Job<'_>, line: Line, progress: &Progress) -> Result<(), RegisterError> {
        let Some(found) = job.list.find(&line.id)? else { return Ok(()) };
        let withdrawn = match self.lists.standing(&line.id)? {
            Standing::Withdrawn(withdrawal, batch) => Some(format!("{}, says {batch}", withdrawal.reason)),
            Standing::Known(..) | Standing::Unknown => None,
        };
        if withdrawn.is_none() && job.state.outcome(found.index).is_some() {
            progress.finish(false);
            return Ok(());
        }
        let outcome = match withdrawn {
            Some(reason) => settle::end(self.platform, &line.id)
                .await
                .map_err(SettleError::from)
                .map(|_| Outcome { message: reason, ..Outcome::new(Done::Withdrawn) }),
            None => self.settle(&line).await,
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(SettleError::Call(error)) if !error.is_general() => Outcome::failed(&error.code, &error.to_string()),
            Err(error) => return Err(error.into()),
        };
        progress.finish(outcome.state == Done::Failed);
        Ok(job.state.record(found.index, &line.id, outcome)?)
    }

    /// Registers one certificate, with all that it needs.
    async fn settle(&self, line: &Line) -> Result<Outcome, SettleError> {
        let platform = self.platform;
        let registered = match self.options.without_ca {
            true => platform.register_certificate_without_ca(&line.certificate_pem).await,
            false => platform.register_certificate(&line.certificate_pem, &line.ca_pem).await,
        };
        let (arn, state, pending) = match registered {
            Ok(arn) => (arn, Done::Registered, false),
            Err(error) if error.kind == Kind::Exists => match platform.describe_certificate(&line.id).await? {
                Some(certificate) if certificate.status == Status::Active => (certificate.arn, Done::Already, false),
                // It has connected before it was registered (just-in-time registration).
                Some(certificate) if certificate.status == Status::PendingActivation => {
                    (certificate.arn, Done::Registered, true)
                }
                Some(certificate) => return Ok(asleep(certificate.status)),
                None => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        };
        let settled = settle::provide(platform, &self.lists, &line.id, &arn, &line.device).await?;
        if pending {
            platform.activate_certificate(&line.id).await?;
        }
        for other in settled.others {
            tracing::warn!(
                "the thing {} also has the certificate {other}, which no bundle withdraws; it was left alone",
                line.device.thing.name
            );
        }
        Ok(Outcome::new(state))
    }
}

/// What is said of a certificate that somebody switched off.
fn asleep(status: Status) -> Outcome {
    let code = match status {
        Status::Revoked => "CERTIFICATE_REVOKED",
        Status::Inactive => "CERTIFICATE_INACTIVE",
        _ => "CERTIFICATE_IN_TRANSFER",
    };
    let message =
        format!("it is {status} in AWS IoT; whoever did that knows why, and it is not made active again here");
    Outcome::failed(code, &message)
}
