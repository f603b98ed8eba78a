//! An earlier run, and this one beside it.

use std::{fmt, fs, path::Path};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::Value;

/// The figures that are compared: their place in the JSON, and what they are called.
const FIGURES: [(&str, &str); 10] = [
    ("/certificates_per_second", "certificates/s"),
    ("/latency_ms/p50", "latency, p50, ms"),
    ("/latency_ms/p99", "latency, p99, ms"),
    ("/latency_floor_ms", "latency floor, ms"),
    ("/raw_sign_ratio", "rate over C_Sign alone"),
    ("/daemon_cpu_us_per_certificate", "daemon, µs a certificate"),
    ("/floor_us_per_certificate", "floor, µs a certificate"),
    ("/cpu_ratio", "daemon over floor"),
    ("/stations_cpu_us_per_certificate", "stations, µs a certificate"),
    ("/peak_rss_mib", "memory, MiB"),
];

/// What a run was asked for: two runs that differ in it cannot be compared.
const TERMS: [&str; 12] = [
    "key",
    "stations",
    "window",
    "rate",
    "seconds_asked",
    "records",
    "hsm_latency_ms",
    "hsm_parallel",
    "hsm_sessions",
    "ledger",
    "daemons",
    "processors",
];

/// The JSON of an earlier run.
pub(super) struct Baseline(Value);

/// One figure of both runs.
#[derive(Debug, Serialize)]
struct Compared {
    figure: &'static str,
    before: f64,
    now: f64,
    /// The second by the first.
    ratio: f64,
}

/// Both runs, figure by figure, and in what they differ otherwise.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    figures: Vec<Compared>,
    /// The terms that differ: `stations: 4, now 1000`.
    other_terms: Vec<String>,
}

impl Baseline {
    /// Reads what `birthmark bench --json` printed, with or without a baseline of its own.
    pub(super) fn read(path: &Path) -> anyhow::Result<Baseline> {
        let shown = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read the baseline {shown}"))?;
        let read: Value = serde_json::from_str(&text)
            .with_context(|| format!("{shown} is not JSON; make it with `birthmark bench --json > {shown}`"))?;
        let run = read.get("run").unwrap_or(&read).clone();
        ensure!(
            run.pointer("/certificates_per_second").is_some_and(Value::is_number),
            "{shown} is not of a run; make it with `birthmark bench --json > {shown}`"
        );
        Ok(Baseline(run))
    }

    pub(super) fn compare(&self, now: &Value) -> Comparison {
        let figure = |(place, figure): (&str, &'static str)| {
            let number = |run: &Value| run.pointer(place).and_then(Value::as_f64);
            let (before, now) = (number(&self.0)?, number(now)?);
            Some(Compared { figure, before, now, ratio: now / before })
        };
        let differs = |term: &&str| {
            // Runs of before a term was known have none.
            let (before, now) = (self.0.get(*term)?, &now[*term]);
            (before != now).then(|| format!("{term}: {before}, now {now}"))
        };
        Comparison {
            figures: FIGURES.into_iter().filter_map(figure).collect(),
            other_terms: TERMS.iter().filter_map(differs).collect(),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:<28}  {:>12}  {:>12}  {:>6}", "COMPARED", "BEFORE", "NOW", "RATIO")?;
        for Compared { figure, before, now, ratio } in &self.figures {
            writeln!(f, "  {figure:<28}  {before:>12.2}  {now:>12.2}  {ratio:>6.2}")?;
        }
        if !self.other_terms.is_empty() {
            writeln!(f, "\nThe runs are not alike: {}.", self.other_terms.join("; "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(rate: f64, stations: u32) -> Value {
        json!({ "certificates_per_second": rate, "latency_ms": { "p50": 2.0 }, "key": "p256", "stations": stations })
    }

    /// Figures that both runs have are compared, and terms in which they differ are named.
    #[test]
    fn comparison_has_what_both_runs_have() {
        let compared = Baseline(run(100.0, 4)).compare(&run(150.0, 1));
        let shown = compared.to_string();
        assert_eq!(compared.figures.len(), 2, "{shown}");
        assert!(shown.contains("certificates/s") && shown.contains("1.50"), "{shown}");
        assert!(shown.contains("not alike: stations: 4, now 1"), "{shown}");
    }

    /// A baseline that is none is refused before anything is measured.
    #[test]
    fn baseline_that_is_no_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.json");
        for (text, says) in [("x", "is not JSON"), ("{}", "is not of a run")] {
            fs::write(&file, text).unwrap();
            let error = Baseline::read(&file).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        fs::write(&file, json!({ "run": run(1.0, 4), "compared": {} }).to_string()).unwrap();
        assert!(Baseline::read(&file).is_ok());
    }
}
