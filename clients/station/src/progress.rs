//! What a person at the station sees while devices are signed: a bar on a terminal, otherwise a line now and then.
//! All of it goes to standard error.

use std::{
    fmt,
    io::IsTerminal,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// The interval between lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How far a run is. Its methods may be called from every thread.
#[derive(Debug)]
pub struct Progress {
    show: Show,
    started: Instant,
    expected: AtomicU64,
    ignored: AtomicU64,
    finished: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug)]
enum Show {
    Bar(ProgressBar),
    Lines,
    #[cfg(test)]
    Nothing,
}

impl Progress {
    /// A bar if standard error is a terminal, otherwise lines.
    pub fn on_standard_error() -> Self {
        if !std::io::stderr().is_terminal() {
            return Progress::new(Show::Lines);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        bar.set_style(style("{spinner} {pos} done, {rate}, {elapsed}{msg}"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress::new(Show::Bar(bar))
    }

    /// Shows nothing.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Progress::new(Show::Nothing)
    }

    fn new(show: Show) -> Self {
        Progress {
            show,
            started: Instant::now(),
            expected: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// The duration of the run so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// `devices` more will come; from now on the time left is known.
    pub(crate) fn expect(&self, devices: u64) {
        let expected = self.expected.fetch_add(devices, Ordering::Relaxed) + devices;
        if let Show::Bar(bar) = &self.show {
            bar.set_style(style("[{bar:40}] {pos}/{len}, {rate}, {eta} left{msg}"));
            bar.set_length(expected);
        }
    }

    /// A file is not a CSR.
    pub(crate) fn ignore(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of files that were not CSRs.
    pub(crate) fn ignored(&self) -> u64 {
        self.ignored.load(Ordering::Relaxed)
    }

    /// A device is done.
    pub(crate) fn finish_device(&self, refused: bool) {
        self.finished.fetch_add(1, Ordering::Relaxed);
        let refused = self.refused.fetch_add(u64::from(refused), Ordering::Relaxed) + u64::from(refused);
        if let Show::Bar(bar) = &self.show {
            bar.inc(1);
            if refused > 0 {
                bar.set_message(format!(", {refused} refused"));
            }
        }
    }

    /// Prints a line, above the bar if there is one.
    pub fn say(&self, line: &str) {
        let line = birthmark_base::console::plain(line);
        match &self.show {
            Show::Bar(bar) => bar.suspend(|| eprintln!("birthmark: {line}")),
            Show::Lines => eprintln!("birthmark: {line}"),
            #[cfg(test)]
            Show::Nothing => {}
        }
    }

    /// Runs `write`, which prints on standard output, without a bar in its way.
    pub(crate) fn beside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.show {
            Show::Bar(bar) => bar.suspend(write),
            _ => write(),
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Show::Bar(bar) = &self.show {
            bar.finish_and_clear();
        }
    }

    /// Prints a line every few seconds if something happened since; never returns, may be dropped at any time.
    pub(crate) async fn print_lines(&self) {
        let mut printed = (0, Duration::ZERO);
        loop {
            tokio::time::sleep(LINE_EVERY).await;
            let finished = self.finished.load(Ordering::Relaxed);
            if matches!(self.show, Show::Lines) && finished > printed.0 {
                let now = self.elapsed();
                let rate = rate(finished - printed.0, now - printed.1);
                eprintln!("birthmark: {}", self.line(finished, rate));
                printed = (finished, now);
            }
        }
    }

    fn line(&self, finished: u64, rate: f64) -> String {
        let (expected, refused) = (self.expected.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed));
        let issued = finished.saturating_sub(refused);
        match expected {
            0 => format!("{issued} issued, {refused} refused, {rate:.1}/s"),
            expected => {
                let left = expected.saturating_sub(finished) as f64 / rate.max(0.001);
                format!("{finished} of {expected}: {issued} issued, {refused} refused, {rate:.1}/s, {left:.0} s left")
            }
        }
    }
}

/// The number per second.
pub(super) fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(0.001)
}

/// `1 block`, `2 blocks`.
pub fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn style(template: &str) -> ProgressStyle {
    // The templates above are right; if not, a plain bar is better than none.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
        .with_key("rate", |state: &ProgressState, text: &mut dyn fmt::Write| {
            let _ = write!(text, "{:.1}/s", state.per_sec());
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_line_has_the_time_left_once_known() {
        let progress = Progress::silent();
        assert_eq!(progress.line(7, 3.5), "7 issued, 0 refused, 3.5/s");
        progress.expect(107);
        progress.finish_device(true);
        assert_eq!(progress.line(7, 50.0), "7 of 107: 6 issued, 1 refused, 50.0/s, 2 s left");
    }
}
