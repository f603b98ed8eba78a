//! How far a run is, on standard error: a bar on a terminal, otherwise a line now and then.

use std::{
    io::IsTerminal,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The interval between lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How far a run is. Its methods may be called from every task.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    begun: Instant,
    length: u64,
    done: AtomicU64,
    failed: AtomicU64,
    /// Milliseconds after `begun` when the next line is due.
    next_line: AtomicU64,
}

impl Progress {
    /// Of so many certificates, of which so many are done already.
    pub(crate) fn new(length: u64, done: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(5));
            let style = ProgressStyle::with_template("[{bar:40}] {pos}/{len}, {per_sec}, {eta} left{msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_position(done);
            bar.reset_eta();
            bar
        });
        Progress {
            bar,
            begun: Instant::now(),
            length,
            done: AtomicU64::new(done),
            failed: AtomicU64::new(0),
            next_line: AtomicU64::new(millis(LINE_EVERY)),
        }
    }

    /// A certificate is done.
    pub(crate) fn finish(&self, failed: bool) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let failed = self.failed.fetch_add(u64::from(failed), Ordering::Relaxed) + u64::from(failed);
        let told = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        if let Some(bar) = &self.bar {
            bar.inc(1);
            bar.set_message(told);
            return;
        }
        let elapsed = self.begun.elapsed();
        let due = self.next_line.load(Ordering::Relaxed);
        let next = millis(elapsed + LINE_EVERY);
        let is_due = millis(elapsed) >= due;
        if is_due && self.next_line.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            eprintln!("birthmark-aws: {done} of {}{told}{}", self.length, left(done, self.length, elapsed));
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How fast it goes and how long it will take.
fn left(done: u64, length: u64, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let seconds = length.saturating_sub(done) as f64 / rate.max(0.001);
    format!(", {rate:.0}/s, about {} left", duration_text(seconds))
}

fn duration_text(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time left is told in units that a person reads.
    #[test]
    fn time_left_is_told_in_readable_units() {
        assert_eq!(left(100, 1000, Duration::from_secs(10)), ", 10/s, about 1 min 30 s left");
        assert_eq!(left(10, 1_000_010, Duration::from_secs(1)), ", 10/s, about 27 h 46 min left");
        assert_eq!(left(990, 1000, Duration::from_secs(99)), ", 10/s, about 1 s left");
    }
}
