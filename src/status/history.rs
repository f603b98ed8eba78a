//! The last hour, one sample every ten seconds, and the counters of the last minute.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;

use crate::throughput::Counted;

/// How long one sample is.
const SAMPLE: Duration = Duration::from_secs(10);

/// How many there are: an hour.
const SAMPLES: usize = 360;

/// Over how long rates and quantiles of a snapshot are.
const WINDOW: Duration = Duration::from_secs(60);

/// What happened in ten seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// When they ended.
    pub(crate) at: Timestamp,
    /// New certificates a second.
    pub(crate) rate: f64,
    /// Requests refused a second.
    pub(crate) refused_rate: f64,
    /// As in a snapshot; none if there was no certificate.
    pub(crate) median_seconds: Option<f64>,
    pub(crate) p99_seconds: Option<f64>,
    /// Whether the daemon was ready whenever it was looked at.
    pub(crate) ready: bool,
}

/// The samples of the last hour, the oldest first.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct History {
    /// The length of a sample in seconds.
    pub(crate) seconds: u64,
    pub(crate) samples: Vec<Sample>,
}

/// What was counted in the last minute, or since the start if that is shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) counted: Counted,
    took: Duration,
}

impl Window {
    /// New certificates a second.
    pub(super) fn rate(&self) -> f64 {
        rate(self.counted.issued(), self.took)
    }
}

/// The counters at a moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    counted: Counted,
    refused: u64,
}

/// Keeps the last hour and the last minute.
#[derive(Debug)]
pub(super) struct Recorder {
    samples: VecDeque<Sample>,
    /// At the begin of the sample that is being made.
    begun: Mark,
    ready: bool,
    /// The counters every few seconds of the last minute, the oldest first, and the newest.
    marks: VecDeque<Mark>,
    newest: Mark,
}

impl Recorder {
    pub(super) fn new(counted: Counted, refused: u64) -> Recorder {
        let begun = Mark { at: Instant::now(), counted, refused };
        let marks = VecDeque::from([begun]);
        Recorder { samples: VecDeque::with_capacity(SAMPLES), begun, ready: true, marks, newest: begun }
    }

    /// Takes note of the counters, and makes a sample when ten seconds are over.
    pub(super) fn note(&mut self, (counted, refused): (Counted, u64), ready: bool) {
        self.note_at(Mark { at: Instant::now(), counted, refused }, ready);
    }

    fn note_at(&mut self, mark: Mark, ready: bool) {
        self.newest = mark;
        self.ready &= ready;
        // One in five seconds is exact enough, and the second is the first to be of use when the first is too old.
        if self.marks.back().is_none_or(|last| mark.at.duration_since(last.at) >= WINDOW / 12) {
            self.marks.push_back(mark);
        }
        while self.marks.get(1).is_some_and(|second| mark.at.duration_since(second.at) >= WINDOW) {
            self.marks.pop_front();
        }
        let took = mark.at.duration_since(self.begun.at);
        if took < SAMPLE {
            return;
        }
        let counted = mark.counted.since(&self.begun.counted);
        let seconds = |quantile| counted.quantile(quantile).map(|took| took.as_secs_f64());
        let sample = Sample {
            at: Timestamp::now(),
            rate: rate(counted.issued(), took),
            refused_rate: rate(mark.refused.saturating_sub(self.begun.refused), took),
            median_seconds: seconds(0.5),
            p99_seconds: seconds(0.99),
            ready: self.ready,
        };
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        (self.begun, self.ready) = (mark, true);
    }

    /// The last minute.
    pub(super) fn minute(&self) -> Window {
        let oldest = self.marks.front().unwrap_or(&self.begun);
        let Mark { at, counted, .. } = self.newest;
        Window { counted: counted.since(&oldest.counted), took: at.duration_since(oldest.at) }
    }

    /// The last hour.
    pub(super) fn history(&self) -> History {
        History { seconds: SAMPLE.as_secs(), samples: self.samples.iter().copied().collect() }
    }
}

fn rate(number: u64, took: Duration) -> f64 {
    if took.is_zero() { 0.0 } else { number as f64 / took.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throughput::Throughput;

    /// An hour of samples is kept, each of its own ten seconds, and a snapshot's rate is that of the last minute.
    #[test]
    fn history_keeps_an_hour_and_rates_a_minute() {
        let throughput = Throughput::default();
        let mut recorder = Recorder::new(throughput.counted(), 0);
        let begun = recorder.begun.at;
        for half in 1..=8000_u32 {
            // Two a second, and five from the last minute on.
            for _ in 0..if half > 7880 { 5 } else { 1 } {
                throughput.note(false, Duration::from_millis(3));
            }
            let at = begun + Duration::from_millis(500) * half;
            let mark = Mark { at, counted: throughput.counted(), refused: u64::from(half) };
            recorder.note_at(mark, half != 7990);
        }
        let history = recorder.history();
        assert_eq!((history.samples.len(), history.seconds), (SAMPLES, 10));
        let rates: Vec<_> = history.samples.iter().map(|sample| sample.rate).collect();
        assert_eq!((rates[0], rates[SAMPLES - 1]), (2.0, 10.0));
        assert_eq!(history.samples[SAMPLES - 1].refused_rate, 2.0);
        let unready: Vec<_> = history.samples.iter().filter(|sample| !sample.ready).collect();
        assert_eq!(unready.len(), 1, "the ten seconds in which it was not ready");
        let minute = recorder.minute();
        assert_eq!((minute.rate(), minute.counted.all()), (10.0, 600));
        assert!(minute.counted.quantile(0.5).is_some());
    }

    /// A daemon that has just begun divides by the time that it has run.
    #[test]
    fn rate_of_a_new_daemon_is_that_of_its_time() {
        let throughput = Throughput::default();
        let mut recorder = Recorder::new(throughput.counted(), 0);
        assert_eq!(recorder.minute().rate(), 0.0);
        (0..10).for_each(|_| throughput.note(false, Duration::from_millis(3)));
        let at = recorder.begun.at + Duration::from_secs(2);
        recorder.note_at(Mark { at, counted: throughput.counted(), refused: 0 }, true);
        assert_eq!(recorder.minute().rate(), 5.0);
    }
}
