use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use birthmark_bench::assertions;
use metrics::histogram;

use super::{metric::Unit, *};

/// What the daemon would render after `doing`, described but for what is made at the start.
fn rendered(doing: impl FnOnce()) -> String {
    let recorder = builder().unwrap().build_recorder();
    metrics::with_local_recorder(&recorder, doing);
    recorder.handle().render()
}

/// Those too that a daemon shows only after something went wrong.
#[test]
fn every_metric_is_as_promtool_wants_it() {
    let text = rendered(|| {
        prepare();
        for Metric { kind, name, labels, .. } in all() {
            let labels: Vec<_> = labels.iter().map(|label| (label.0, "x")).collect();
            match kind {
                Kind::Counter => counter!(*name, &labels).increment(1),
                Kind::Gauge => gauge!(*name, &labels).set(1.0),
                Kind::Histogram => histogram!(*name, &labels).record(1.0),
            }
        }
    });
    for Metric { name, help, .. } in all() {
        assert!(text.contains(&format!("# HELP {name} {help}\n")), "{name}: {text}");
    }
    assertions::judge_metrics(&text);
}

/// Names follow Prometheus' conventions, and none stands twice.
#[test]
fn name_of_a_metric_ends_with_its_unit() {
    let mut names = BTreeSet::new();
    for Metric { kind, name, unit, help, labels } in all() {
        assert!(names.insert(*name), "{name} stands twice");
        assert!(name.starts_with("birthmark_") && !help.ends_with('.') && !help.contains('"'), "{name}: {help}");
        assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
        let stem = name.strip_suffix("_total").unwrap_or(name);
        match unit {
            Unit::Seconds => assert!(stem.ends_with("_seconds") && !stem.ends_with("_timestamp_seconds"), "{name}"),
            Unit::Moment => assert!(stem.ends_with("_timestamp_seconds") && *kind == Kind::Gauge, "{name}"),
            Unit::Bytes => assert!(stem.ends_with("_bytes"), "{name}"),
            Unit::Number | Unit::Flag => assert!(!stem.ends_with("_seconds") && !stem.ends_with("_bytes"), "{name}"),
        }
        let labels: BTreeSet<_> = labels.iter().map(|label| label.0).collect();
        assert!(!labels.contains("le") && !labels.contains("quantile"), "{name}");
    }
}

/// An event that makes its counter is one that `increase()` misses.
#[test]
fn counter_without_labels_is_there_from_the_start() {
    let text = rendered(prepare);
    for Metric { kind, name, labels, .. } in all() {
        if *kind == Kind::Counter && labels.is_empty() {
            assert!(text.contains(&format!("\n{name} 0\n")), "{name}: {text}");
        }
    }
}

/// Measured in a process of its own, whose recorder is there before anything asks for it.
#[test]
fn metrics_of_a_certificate_cost_little_beside_the_clock() {
    let measured = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "metrics::tests::cost_of_a_certificate", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&measured.stdout);
    assert!(measured.status.success() && said.contains("1 passed"), "{said}");
}

/// What a certificate costs: every call that the daemon makes for it, all of its looks at the clock included.
#[test]
#[ignore = "needs a process of its own: metrics_of_a_certificate_cost_little_beside_the_clock runs it"]
fn cost_of_a_certificate() {
    const ROUND: u32 = 2_000;
    /// How often a certificate's steps look at the clock.
    const READS: u32 = 15;
    let recorder = builder().unwrap().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).unwrap();
    prepare();
    let (pool, token) = (HsmPool::new("cost"), HsmToken::new("cost", "token", std::iter::empty()));
    let profile = ProfileCertificates::new("cost");
    let (mut best, mut clock) = (Duration::MAX, Duration::MAX);
    for _ in 0..50 {
        let began = Instant::now();
        (0..ROUND * READS).for_each(|_| {
            std::hint::black_box(Instant::now());
        });
        clock = clock.min(began.elapsed() / ROUND);
        let began = Instant::now();
        for _ in 0..ROUND {
            let mut laps = Laps::begin();
            laps.end(Step::Queue);
            laps.skip();
            laps.end(Step::Verify);
            laps.skip();
            let in_flight = InFlight::new();
            laps.end(Step::Reserve);
            let queued_at = Instant::now();
            let signing = Instant::now();
            let took = signing.elapsed();
            token.signed(took);
            pool.step(Step::HsmWait, signing.saturating_duration_since(queued_at));
            pool.step(Step::Sign, took);
            let checking = Instant::now();
            pool.step(Step::Check, checking.elapsed());
            laps.skip();
            drop(in_flight);
            laps.end(Step::Record);
            profile.sent(false, laps.elapsed());
        }
        best = best.min(began.elapsed() / ROUND);
        handle.run_upkeep();
    }
    println!("metrics of a certificate: {best:?}; {READS} looks at the clock: {clock:?}");
    assert!(handle.render().contains("birthmark_issue_step_duration_seconds_count{step=\"record\"} 100000\n"));
    assert!(best <= 6 * clock, "{best:?}, and {READS} looks at the clock {clock:?}");
}

/// docs/metrics.md says what the code says; `BIRTHMARK_WRITE_REFERENCE=1` writes it again.
#[test]
#[expect(clippy::disallowed_methods, reason = "a file of the sources")]
fn reference_in_the_docs_is_that_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = reference::text();
    if std::env::var_os("BIRTHMARK_WRITE_REFERENCE").is_some() {
        fs::write(&file, &text).unwrap();
    }
    assert!(
        fs::read_to_string(file).unwrap() == text,
        "docs/metrics.md is old: BIRTHMARK_WRITE_REFERENCE=1 cargo test --release --locked --lib reference_in_the_docs"
    );
}

/// What alerts, dashboard and documents name exists, and has the labels that they look for.
#[test]
fn metrics_that_others_name_exist_with_their_labels() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = regex::Regex::new(r#"(birthmark_[a-z_]+)(\{([^}]*)\})?"#).unwrap();
    let label = regex::Regex::new(r#"([a-z_]+)\s*(=~|!~|!=|=)"#).unwrap();
    let grouped =
        regex::Regex::new(r"\b(?:by|without|on|group_left|group_right) \(([a-z_, ]*)\)|\$labels\.([a-z_]+)").unwrap();
    // Of Prometheus itself, and the names of files and jobs.
    let anywhere = ["instance", "job", "alertname", "alertstate"];
    for file in ["packaging/prometheus/birthmark.rules.yml", "packaging/grafana/birthmark.json", "docs/metrics.md"] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        let text = text.split("## All metrics").next().unwrap().replace("\\\"", "\"");
        // Each line, and in the rules each alert, is by itself.
        let parts: Vec<_> =
            if file.ends_with("yml") { text.split("- alert:").collect() } else { text.lines().collect() };
        let mut found = 0;
        for part in parts {
            let mut labels: BTreeSet<_> = anywhere.into_iter().collect();
            for captures in named.captures_iter(part) {
                let name = &captures[1];
                let is = |metric: &&Metric| {
                    let suffixes: &[&str] =
                        if metric.kind == Kind::Histogram { &["", "_bucket", "_sum", "_count"] } else { &[""] };
                    suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(metric.name))
                };
                let metric = all().find(is).unwrap_or_else(|| panic!("{file}: there is no {name}: {part}"));
                labels.extend(metric.labels.iter().map(|label| label.0));
                labels.extend(name.ends_with("_bucket").then_some("le"));
                found += 1;
                for matched in captures.get(3).iter().flat_map(|inside| label.captures_iter(inside.as_str())) {
                    let known = |wanted: &str| {
                        anywhere.contains(&wanted) || metric.labels.iter().any(|label| label.0 == wanted)
                    };
                    assert!(known(&matched[1]), "{file}: {name} has no label {}", &matched[1]);
                }
            }
            for captures in grouped.captures_iter(part) {
                let names = captures.get(1).or(captures.get(2)).unwrap().as_str();
                for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                    assert!(labels.contains(name), "{file}: nothing has the label {name}: {part}");
                }
            }
        }
        assert!(found > 20, "{file}");
    }
}
