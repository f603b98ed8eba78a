//! `birthmark bench`: every figure is there and could be true. None of these tests looks at how fast the machine is.

use std::{fs, path::Path, process::Output};

use birthmark_bench::assertions::{fault_module, refused, succeeded, text};
use serde_json::Value;

fn bench(folder: &Path, arguments: &[&str]) -> Output {
    super::command(folder, &[&["bench"], arguments].concat()).output().unwrap()
}

/// The figures of a measurement that must succeed.
fn measured(folder: &Path, arguments: &[&str]) -> Value {
    let run = bench(folder, arguments);
    let report: Value = serde_json::from_str(&succeeded(&run)).unwrap();
    let number = |path: &str| {
        let value = report.pointer(path).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("{path} is not in {report:#}"))
    };
    for path in [
        "/certificates_per_second",
        "/latency_ms/p50",
        "/daemon_cpu_us_per_certificate",
        "/floor_us_per_certificate",
        "/cpu_ratio",
        "/raw_sign_per_second",
        "/peak_rss_mib",
    ] {
        assert!(number(path) > 0.0, "{path}: {report:#}");
    }
    assert!(number("/latency_ms/p50") <= number("/latency_ms/p99"), "{report:#}");
    assert!(number("/latency_ms/p99") <= number("/latency_ms/p999"), "{report:#}");
    let ratio = number("/daemon_cpu_us_per_certificate") / number("/floor_us_per_certificate");
    assert!((number("/cpu_ratio") / ratio - 1.0).abs() < 1e-6, "{report:#}");
    assert_eq!(report["unanswered"], 0, "{report:#}");
    // The threads' times are parts of the daemon's; the kernel counts in ticks of 10 ms.
    let threads = report["threads"].as_array().unwrap();
    let time = |thread: &Value| thread["user_us"].as_f64().unwrap() + thread["system_us"].as_f64().unwrap();
    let sum: f64 = threads.iter().map(time).sum();
    let ticks = 10_000.0 * 2.0 * threads.len() as f64 / number("/certificates");
    assert!(sum <= number("/daemon_cpu_us_per_certificate") + ticks, "{report:#}");
    report
}

/// More stations than a few identities may have connections for.
#[test]
fn bench_has_as_many_identities_as_its_stations_need() {
    let temporary = tempfile::tempdir().unwrap();
    let report = measured(temporary.path(), &["--seconds", "1", "--stations", "70", "--window", "1", "--json"]);
    assert_eq!(report["stations"], 70);
}

/// Daemons over PostgreSQL are measured beside the embedded ledger.
#[test]
fn bench_of_several_ledgers_gives_each_its_figures() {
    let temporary = tempfile::tempdir().unwrap();
    let arguments =
        ["--seconds", "1", "--records", "300", "--ledger", "shared,shared+standby", "--daemons", "2", "--json"];
    let run = bench(temporary.path(), &arguments);
    let reports: serde_json::Value = serde_json::from_str(&succeeded(&run)).unwrap();
    let [shared, standby] = &reports.as_array().unwrap()[..] else { panic!("{reports:#}") };
    for (report, ledger) in [(shared, "shared"), (standby, "shared+standby")] {
        assert_eq!((&report["ledger"], &report["daemons"]), (&ledger.into(), &2.into()));
        assert!(report["database_cpu_us_per_certificate"].as_f64().unwrap() > 0.0, "{report:#}");
        // The certificates of before, reserved and issued.
        let certificates = report["certificates"].as_u64().unwrap();
        assert!(report["caught_up"]["entries"].as_u64().unwrap() > 2 * (300 + certificates), "{report:#}");
    }
    assert!(standby["standby_cpu_us_per_certificate"].as_f64().unwrap() > 0.0, "{standby:#}");
    assert_eq!(shared["standby_cpu_us_per_certificate"], serde_json::Value::Null);
    let alone = bench(temporary.path(), &["--daemons", "2"]);
    refused(&alone, &["--ledger shared"]);
}

/// A measurement gives every figure and leaves nothing but the CSRs.
#[test]
fn bench_gives_every_figure_and_leaves_only_the_csrs() {
    let temporary = tempfile::tempdir().unwrap();
    let report = measured(
        temporary.path(),
        &["--seconds", "1", "--stations", "6", "--window", "300", "--records", "2000", "--csrs-out", "csrs", "--json"],
    );
    assert_eq!((&report["stations"], &report["records"], &report["key"]), (&6.into(), &2000.into(), &"p256".into()));
    let left: Vec<_> = fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["csrs"]);
    let first = fs::read(temporary.path().join("csrs/bench-0000000.pem")).unwrap();
    let csr = birthmark::csr::verify(&first, &Default::default()).unwrap();
    assert_eq!(csr.common_name().as_deref(), Ok("bench-0000000"));
}

/// An open loop over a slow HSM counts the time that it takes.
#[test]
fn bench_of_open_loop_over_slow_hsm_counts_its_time() {
    let temporary = tempfile::tempdir().unwrap();
    let module = fault_module();
    let module = module.to_str().unwrap();
    let slow = ["--hsm-latency", "20ms", "--hsm-parallel", "8", "--hsm-module", module, "--sessions", "3"];
    let options = ["--seconds", "1", "--rate", "50", "--key", "p384", "--json"];
    let report = measured(temporary.path(), &[&slow[..], &options].concat());
    assert!(report["latency_ms"]["p50"].as_f64().unwrap() >= 20.0, "{report:#}");
    assert_eq!((&report["hsm_sessions"], &report["rate"]), (&3.into(), &50.into()));
    // 3 sessions of 20 ms.
    assert!(report["raw_sign_per_second"].as_f64().unwrap() <= 150.0, "{report:#}");
}

/// What stations lose beside exports is measured in the same run, with all that was issued in the bundle.
#[test]
fn bench_beside_export_measures_both() {
    let temporary = tempfile::tempdir().unwrap();
    let options = ["--seconds", "1", "--stations", "2", "--records", "2000", "--beside-export", "--json"];
    let report = measured(temporary.path(), &options);
    let beside = |name: &str| report["beside_export"][name].as_f64().unwrap_or_else(|| panic!("{name}: {report:#}"));
    assert!(beside("exported_certificates") > 2000.0 && beside("written_again") >= 1.0, "{report:#}");
    for figure in ["certificates_per_second", "cut_seconds", "write_seconds", "verify_seconds", "bundle_mib"] {
        assert!(beside(figure) > 0.0, "{figure}: {report:#}");
    }
}

/// One station is enough, and a run is held against an earlier one, which may be of other terms.
#[test]
fn bench_with_one_station_is_compared_with_its_baseline() {
    let temporary = tempfile::tempdir().unwrap();
    let options = ["--seconds", "1", "--stations", "1", "--sessions", "2"];
    let report = measured(temporary.path(), &[&options[..], &["--json"]].concat());
    assert_eq!(report["stations"], 1);
    fs::write(temporary.path().join("run.json"), report.to_string()).unwrap();
    let run = bench(temporary.path(), &[&options[..], &["--window", "1", "--baseline", "run.json"]].concat());
    let said = succeeded(&run);
    for part in ["COMPARED", "daemon over floor", "two syncs and the floor", "not alike: window: 64, now 1"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

/// Impossible options are refused before anything is made.
#[test]
fn bench_with_impossible_options_makes_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    for (options, says) in [
        (&["--stations", "0"][..], "1..=10000"),
        (&["--hsm-latency", "fast"], "must be a time from 0 to 1s, such as 5ms"),
        (&["--hsm-parallel", "8"], "--hsm-latency"),
        (&["--baseline", "none.json"], "cannot read the baseline none.json"),
        (&["--csrs-out", "."], ". exists; choose a new folder for the CSRs"),
        (&["--rate", "100", "--window", "8"], "cannot be used with"),
        (&["--hsm-latency", "5ms", "--hsm-module", "none.so"], "--package pkcs11-fault"),
    ] {
        let run = bench(temporary.path(), options);
        let said = text(&run.stderr);
        assert!(!run.status.success() && said.contains(says), "{options:?}: {said}");
    }
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}
