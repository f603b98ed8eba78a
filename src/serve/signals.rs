//! Signals: which ones shut the daemon down, and which ones are only logged.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::grpc::Reload;

/// From now on SIGTERM, SIGINT and SIGQUIT do not terminate the process; the future resolves to the name of the first.
pub(super) fn shutdown_signal() -> io::Result<impl Future<Output = &'static str>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut quit = signal(SignalKind::quit())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            // A core dump would have the PIN in it.
            _ = quit.recv() => "SIGQUIT",
        }
    })
}

/// From now on SIGHUP ends nothing; what is to become of it comes later.
pub(super) fn hangups() -> io::Result<Hangups> {
    Ok(Hangups(signal(SignalKind::hangup())?))
}

/// The SIGHUPs that the process receives.
pub(super) struct Hangups(Signal);

impl Hangups {
    /// Has the configuration reloaded at each.
    pub(super) async fn each(mut self, reload: Reload) {
        while self.0.recv().await.is_some() {
            tracing::info!("SIGHUP received: the configuration is read anew");
            // What came of it is in the log.
            let _ = reload(None).await;
        }
    }
}

/// From now on these signals are logged: a closed terminal, the rotation of logs or the habit of `systemctl reload`
/// must not terminate the daemon. SIGPIPE is ignored by Rust's runtime already; a write beyond the limit of file sizes
/// fails when SIGXFSZ does not terminate the process.
pub(super) fn log_other_signals() -> io::Result<()> {
    let number = |signal: rustix::process::Signal| SignalKind::from_raw(signal.as_raw());
    let signals = [
        ("SIGUSR1", SignalKind::user_defined1(), "it has no meaning here"),
        ("SIGUSR2", SignalKind::user_defined2(), "it has no meaning here"),
        ("SIGALRM", SignalKind::alarm(), "it has no meaning here"),
        ("SIGVTALRM", number(rustix::process::Signal::VTALARM), "it has no meaning here"),
        ("SIGPROF", number(rustix::process::Signal::PROF), "it has no meaning here"),
        ("SIGIO", SignalKind::io(), "it has no meaning here"),
        ("SIGXFSZ", number(rustix::process::Signal::XFSZ), "a file would be larger than the process' limit allows"),
    ];
    for (name, kind, meaning) in signals {
        let mut received = signal(kind)?;
        tokio::spawn(async move {
            while received.recv().await.is_some() {
                tracing::warn!("{name} received: {meaning}");
            }
        });
    }
    Ok(())
}
