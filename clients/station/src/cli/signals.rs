//! How the user stops a run.

use std::{
    process,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::sign::Stop;

/// What a shell reports for a process that SIGINT or SIGTERM ended.
pub(super) const INTERRUPTED: u8 = 128 + 2;
pub(super) const TERMINATED: u8 = 128 + 15;

/// Signals that come together are one request to stop.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// The first signal stops the run in good order, the second one ends the process.
pub(super) fn stop_at_signals() -> anyhow::Result<watch::Receiver<Option<Stop>>> {
    let (sender, stop) = watch::channel(None);
    let mut signals = Signals::new()?;
    tokio::spawn(async move {
        let mut first: Option<Instant> = None;
        loop {
            let how = signals.next().await;
            let code = match how {
                Stop::Interrupt => INTERRUPTED,
                Stop::Terminate => TERMINATED,
            };
            match first {
                None => {
                    first = Some(Instant::now());
                    sender.send_replace(Some(how));
                }
                // Some supervisors signal the process and then its group: that is one request to stop.
                Some(first) if first.elapsed() < ONE_REQUEST => {}
                Some(_) => process::exit(code.into()),
            }
        }
    });
    Ok(stop)
}

/// SIGINT and SIGTERM.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }
}

/// Ctrl-C; and Ctrl-Break, the console's window being closed, and the system's shutdown, which stand for SIGTERM.
#[cfg(windows)]
struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
    pause: tokio::signal::windows::CtrlBreak,
    close: tokio::signal::windows::CtrlClose,
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
        Ok(Signals { interrupt: ctrl_c()?, pause: ctrl_break()?, close: ctrl_close()?, shutdown: ctrl_shutdown()? })
    }

    async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.pause.recv() => Stop::Terminate,
            _ = self.close.recv() => Stop::Terminate,
            _ = self.shutdown.recv() => Stop::Terminate,
        }
    }
}
