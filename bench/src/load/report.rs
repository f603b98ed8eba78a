//! What was measured, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::{
    beside_export::BesideExport,
    calls::Calls,
    floor::{self, Floor},
    ledgers::CaughtUp,
    options::{LedgerName, Options},
    stations::{self, Latency},
};

/// The figures of one run. "us" are microseconds of processor time; those of the daemon are per certificate.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    key: &'static str,
    stations: u32,
    /// None in an open loop.
    window: Option<u32>,
    /// Of an open loop.
    rate: Option<u32>,
    records: u64,
    ledger: &'static str,
    daemons: u32,
    hsm_sessions: usize,
    hsm_latency_ms: Option<f64>,
    /// Signatures at a time, of an HSM with a latency.
    hsm_parallel: Option<u32>,
    processors: usize,
    seconds_asked: u64,
    seconds: f64,
    certificates: u64,
    stopped_early: bool,
    unanswered: u64,
    certificates_per_second: f64,
    latency_ms: Latency,
    daemon_cpu_us_per_certificate: f64,
    /// Of PostgreSQL, all of its processes.
    database_cpu_us_per_certificate: Option<f64>,
    standby_cpu_us_per_certificate: Option<f64>,
    /// C_Sign, proof of possession, and the self-check as the daemon makes it.
    floor_us_per_certificate: f64,
    /// The first by the second.
    cpu_ratio: f64,
    /// The floor with a self-check that nothing is prepared for.
    unprepared_floor_us_per_certificate: f64,
    cpu_ratio_unprepared: f64,
    floor_us: Floor,
    /// The floor with all processors busy with it, as they are while the daemon is measured.
    floor_loaded_us_per_certificate: f64,
    cpu_ratio_loaded: f64,
    raw_sign_per_second: f64,
    /// Certificates by raw signatures.
    raw_sign_ratio: f64,
    stations_cpu_us_per_certificate: f64,
    fdatasync_us: f64,
    /// The least that a lone request takes: two syncs and the floor, one after the other.
    latency_floor_ms: f64,
    peak_rss_mib: f64,
    threads: Vec<Threads>,
    /// The same beside exports, if that was asked for.
    beside_export: Option<BesideExport>,
    /// Other calls, if they were asked for.
    calls: Option<Calls>,
    /// A daemon that had no copy of a shared ledger.
    caught_up: Option<CaughtUp>,
}

/// The threads of one name, per certificate.
#[derive(Debug, Serialize)]
struct Threads {
    name: String,
    threads: usize,
    user_us: f64,
    system_us: f64,
    wake_ups: f64,
}

impl Report {
    /// Joins what the stations saw and the floor of before and after.
    pub(super) fn new(
        options: &Options,
        ledger: LedgerName,
        measured: &stations::Measured,
        [before, after]: &[floor::Measured; 2],
        hsm_sessions: usize,
        fdatasync_us: f64,
    ) -> Report {
        let certificates = measured.certificates as f64;
        let per_second = certificates / measured.seconds;
        let floor = before.floor.least(&after.floor);
        let loaded = before.floor_loaded.least(&after.floor_loaded).sum();
        let daemon = measured.daemon_us / certificates;
        let mut databases = measured.database_us.iter().map(|us| us / certificates);
        // A network HSM's rate is each daemon's own; the processors are shared.
        let raw_sign_per_second = match options.hsm_latency {
            Some(_) => after.raw_sign_per_second * f64::from(options.daemons),
            None => after.raw_sign_per_second,
        };
        let mut threads: Vec<_> = measured
            .groups
            .iter()
            .map(|group| Threads {
                name: group.name.clone(),
                threads: group.threads,
                user_us: group.user_us / certificates,
                system_us: group.system_us / certificates,
                wake_ups: group.wake_ups as f64 / certificates,
            })
            .collect();
        // Threads that ended in between have no line; those that did nothing need none.
        threads.retain(|threads| threads.user_us + threads.system_us > 0.0);
        Report {
            key: options.key.as_str(),
            stations: options.stations,
            window: options.rate.is_none().then_some(options.window),
            rate: options.rate,
            records: options.records,
            ledger: ledger.as_str(),
            daemons: options.daemons,
            hsm_sessions,
            hsm_latency_ms: options.hsm_latency.map(|latency| latency.as_secs_f64() * 1e3),
            hsm_parallel: options.hsm_latency.is_some().then_some(options.hsm_parallel),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            seconds_asked: options.seconds,
            seconds: measured.seconds,
            certificates: measured.certificates,
            stopped_early: measured.stopped_early,
            unanswered: measured.unanswered,
            certificates_per_second: per_second,
            latency_ms: measured.latency_ms,
            daemon_cpu_us_per_certificate: daemon,
            database_cpu_us_per_certificate: databases.next(),
            standby_cpu_us_per_certificate: databases.next(),
            floor_us_per_certificate: floor.sum(),
            cpu_ratio: daemon / floor.sum(),
            unprepared_floor_us_per_certificate: floor.sum_unprepared(),
            cpu_ratio_unprepared: daemon / floor.sum_unprepared(),
            floor_us: floor,
            floor_loaded_us_per_certificate: loaded,
            cpu_ratio_loaded: daemon / loaded,
            raw_sign_per_second,
            raw_sign_ratio: per_second / raw_sign_per_second,
            stations_cpu_us_per_certificate: measured.stations_us / certificates,
            fdatasync_us,
            latency_floor_ms: (2.0 * fdatasync_us + floor.sum()) / 1e3,
            peak_rss_mib: measured.peak_rss_mib,
            threads,
            beside_export: None,
            calls: None,
            caught_up: None,
        }
    }

    /// With what was measured beside exports, of other calls, and of a daemon without a copy.
    pub(super) fn with(
        self,
        beside_export: Option<BesideExport>,
        calls: Option<Calls>,
        caught_up: Option<CaughtUp>,
    ) -> Report {
        Report { beside_export, calls, caught_up, ..self }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = match (self.rate, self.window) {
            (Some(rate), _) => format!("{rate} requests/s at fixed times"),
            (None, window) => format!("{} requests open each", window.unwrap_or_default()),
        };
        writeln!(
            f,
            "\n{:.0} certificates/s: {} in {:.1} s, {} stations, {load}, {} issuer, {} records before\n",
            self.certificates_per_second, self.certificates, self.seconds, self.stations, self.key, self.records
        )?;
        if self.stopped_early {
            writeln!(f, "It stopped early: all CSRs that had been made were used up.\n")?;
        }
        if self.unanswered > 0 {
            writeln!(f, "{} requests had no answer in time; their latency is the time waited.\n", self.unanswered)?;
        }
        for (name, line) in self.lines() {
            writeln!(f, "  {name:<10} {line}")?;
        }
        if let Some(beside) = &self.beside_export {
            writeln!(f, "  {:<10} {beside}", "export")?;
        }
        if let Some(calls) = &self.calls {
            writeln!(f, "  {:<10} {calls}", "calls")?;
        }
        if let Some(us) = self.database_cpu_us_per_certificate {
            let standby = self.standby_cpu_us_per_certificate.map(|us| format!(", the standby {us:.1}"));
            let standby = standby.unwrap_or_default();
            let daemons = self.daemons;
            writeln!(f, "  {:<10} {us:.1} µs of PostgreSQL a certificate{standby}; daemons: {daemons}", "database")?;
        }
        if let Some(caught_up) = &self.caught_up {
            writeln!(f, "  {:<10} {caught_up}", "copy")?;
        }
        self.write_threads(f)
    }
}

impl Report {
    fn lines(&self) -> [(&'static str, String); 9] {
        let Latency { p50, p99, p999, max } = self.latency_ms;
        let Floor { sign_us, proof_of_possession_us, self_check_us, prepared_self_check_us } = self.floor_us;
        let mut latency = format!("p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, longest {max:.2} ms");
        if self.stations == 1 && self.window == Some(1) {
            let floor = self.latency_floor_ms;
            latency += &format!("; p50 is {:.2} × two syncs and the floor ({floor:.2} ms)", p50 / floor);
        }
        let daemon = format!(
            "{:.1} µs of processor time a certificate, {:.2} × the floor",
            self.daemon_cpu_us_per_certificate, self.cpu_ratio
        );
        let floor = format!(
            "{:.1} µs: C_Sign {sign_us:.1}, proof of possession {proof_of_possession_us:.1}, self-check \
             {prepared_self_check_us:.1}",
            self.floor_us_per_certificate
        );
        let unprepared = format!(
            "{:.1} µs with a self-check that nothing is prepared for ({self_check_us:.1}): the daemon has {:.2} × that",
            self.unprepared_floor_us_per_certificate, self.cpu_ratio_unprepared
        );
        let loaded = format!(
            "{:.1} µs with all {} processors busy with it: the daemon has {:.2} × that",
            self.floor_loaded_us_per_certificate, self.processors, self.cpu_ratio_loaded
        );
        let signatures = format!(
            "{:.0}/s by itself with {} sessions; {:.0} % of it was reached",
            self.raw_sign_per_second,
            self.hsm_sessions,
            self.raw_sign_ratio * 100.0
        );
        let stations = format!("{:.1} µs a certificate, on the same processors", self.stations_cpu_us_per_certificate);
        [
            ("floor", floor),
            ("", loaded),
            ("", unprepared),
            ("daemon", daemon),
            ("latency", latency),
            ("C_Sign", signatures),
            ("stations", stations),
            ("fdatasync", format!("{:.0} µs for 4 KiB", self.fdatasync_us)),
            ("memory", format!("{:.0} MiB at most", self.peak_rss_mib)),
        ]
    }

    fn write_threads(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nWhere the daemon's time went, in µs a certificate:\n")?;
        // The kernel keeps 15 characters of a thread's name.
        writeln!(f, "  {:<15}  NUMBER    USER  SYSTEM     ALL  WAKE-UPS", "THREADS")?;
        for Threads { name, threads, user_us, system_us, wake_ups } in &self.threads {
            let all = user_us + system_us;
            writeln!(f, "  {name:<15}  {threads:>6}  {user_us:>6.1}  {system_us:>6.1}  {all:>6.1}  {wake_ups:>8.2}")?;
        }
        Ok(())
    }
}

/// Runs with different ledgers, beside each other.
pub(super) struct Table<'a>(pub(super) &'a [Report]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for report in self.0 {
            write!(f, "{report}")?;
        }
        writeln!(f, "\nThe ledgers beside each other; processor time in µs a certificate:\n")?;
        writeln!(
            f,
            "  {:<15} {:>7} {:>14} {:>8} {:>8} {:>7} {:>8} {:>7}",
            "LEDGER", "DAEMONS", "CERTIFICATES/S", "P50 MS", "P99 MS", "DAEMON", "DATABASE", "STANDBY"
        )?;
        let us = |us: Option<f64>| us.map_or("–".to_owned(), |us| format!("{us:.1}"));
        for report in self.0 {
            writeln!(
                f,
                "  {:<15} {:>7} {:>14.0} {:>8.2} {:>8.2} {:>7.1} {:>8} {:>7}",
                report.ledger,
                report.daemons,
                report.certificates_per_second,
                report.latency_ms.p50,
                report.latency_ms.p99,
                report.daemon_cpu_us_per_certificate,
                us(report.database_cpu_us_per_certificate),
                us(report.standby_cpu_us_per_certificate)
            )?;
        }
        Ok(())
    }
}
