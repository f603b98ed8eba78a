//! The companion of just-in-time registration: makes certificates active that have connected for the first time, if the
//! factory knows them.
//!
//! Events get lost, so they only make it quicker: a sweep of each CA's certificates, the newest first, finds whoever waits.
//! What the factory knows are the bundles in a folder; whatever was verified once stays known, also when its bundle is taken
//! away, so that nobody can undo a withdrawal by removing a file.

mod activator;
mod http;
mod inbox;
mod queue;
mod sweep;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use futures_util::future::Either;
use tokio::{net::TcpListener, time::MissedTickBehavior};

pub use self::activator::Options;
use self::{
    activator::{Activator, locked},
    inbox::Inbox,
};
use crate::{
    lists::Lists,
    metrics,
    platform::{ConnectError, Platform, Settings, sdk_config},
};

/// Why the activator does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivateError {
    /// AWS cannot be asked.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A folder cannot be used.
    #[error("{0}: {1}")]
    Folder(PathBuf, std::io::Error),
    /// The port cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The metrics cannot be counted.
    #[error(transparent)]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Runs until `stop` is done. Whatever is in work then is done again by the next start.
///
/// # Errors
/// [`ActivateError`]: it cannot begin.
pub async fn run(settings: &Settings, options: Options, stop: impl Future<Output = ()>) -> Result<(), ActivateError> {
    let prometheus = metrics::install()?;
    let folder =
        |path: &PathBuf| std::fs::create_dir_all(path).map_err(|error| ActivateError::Folder(path.clone(), error));
    folder(&options.state)?;
    std::fs::read_dir(&options.bundles).map_err(|error| ActivateError::Folder(options.bundles.clone(), error))?;
    let config = sdk_config(settings).await?;
    let activator = Arc::new(Activator {
        platform: Platform::new(&config, settings),
        lists: Mutex::default(),
        health: Mutex::default(),
        alarmed: Mutex::default(),
        failing: Mutex::default(),
        watermarks: Mutex::default(),
        options,
    });
    let served = match activator.options.listen {
        None => Either::Left(std::future::pending::<()>()),
        Some(address) => {
            let listener = TcpListener::bind(address).await.map_err(|error| ActivateError::Listen(address, error))?;
            if let Ok(address) = listener.local_addr() {
                tracing::info!("metrics and readiness are at http://{address}/metrics and /readyz");
            }
            Either::Right(http::serve(listener, activator.clone(), prometheus))
        }
    };
    let events = match &activator.options.queue {
        None => Either::Left(std::future::pending::<()>()),
        Some(url) => Either::Right(activator.take_events(aws_sdk_sqs::Client::new(&config), url)),
    };
    tokio::select! {
        () = activator.sweep_for_ever() => {}
        () = served => {}
        () = events => {}
        () = stop => {}
    }
    Ok(())
}

impl Activator {
    async fn sweep_for_ever(self: &Arc<Self>) {
        let mut tick = tokio::time::interval(self.options.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inbox = Inbox::new();
        // What is damaged is made anew from a bundle that is here. Without any of the lists nothing is done: a withdrawal might
        // be forgotten.
        self.look_for_bundles(&mut inbox).await;
        while let Err(error) = Lists::open(&self.options.state).map(|lists| *locked(&self.lists) = Arc::new(lists)) {
            tracing::error!("nothing is activated: {error}");
            locked(&self.health).error = Some(error.to_string());
            tokio::time::sleep(self.options.interval).await;
            self.look_for_bundles(&mut inbox).await;
        }
        let mut next_full = tokio::time::Instant::now();
        loop {
            tick.tick().await;
            let news = self.look_for_bundles(&mut inbox).await;
            let fully = news || tokio::time::Instant::now() >= next_full;
            match self.sweep(fully).await {
                Ok(()) => {
                    if fully {
                        next_full = tokio::time::Instant::now() + self.options.full_interval;
                    }
                }
                Err(error) => {
                    let told = error.to_string();
                    let mut health = locked(&self.health);
                    if health.error.as_deref() != Some(&told) {
                        tracing::error!("the sweep failed, and is tried again: {told}");
                    }
                    health.error = Some(told);
                    // What a new bundle brought is looked for again.
                    next_full = next_full.min(tokio::time::Instant::now());
                }
            }
        }
    }
}
