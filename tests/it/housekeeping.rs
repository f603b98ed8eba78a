//! A start that disturbs nobody: the HSM is loaded last, files of daemons that were killed are gone, and the same machine gives
//! the same number of sessions.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::support::{
    faults::Faults,
    site::{Process, Site, wait_until},
    token::text,
};

/// A second daemon, started by mistake, ends before it loads the HSM's module: with the data folder, or one of the ports, of
/// the first.
#[test]
fn second_daemon_does_not_touch_the_hsm() {
    let site = Site::new();
    let _faults = Faults::between(&site, "sessions = 2");
    let daemon = site.start();
    let report = site.path("second.report");
    let usual =
        fs::read_to_string(site.path("birthmark.toml")).unwrap().replace("{config_dir}/faults", "{config_dir}/second");
    fs::write(site.path("second"), "").unwrap();
    let other_data = |usual: &str| usual.replacen("path = \"data\"", "path = \"data2\"", 1);
    let other_port =
        |usual: &str| usual.replacen(&format!("listen = \"{}\"", daemon.grpc), "listen = \"127.0.0.1:0\"", 1);
    let other_socket = |usual: &str| usual.replacen("run/admin.sock", "run/second.sock", 1);
    let begin = |configuration: &str| {
        site.token.write("second.toml", configuration);
        site.token.command(&["serve", "--config", "second.toml"])
    };
    for (configuration, says) in [
        (other_port(&usual), "another birthmark daemon uses the data folder"),
        (other_socket(&other_data(&usual)), "server.listen: cannot listen on"),
        (other_port(&other_data(&usual)), "server.socket: cannot listen on"),
    ] {
        let run = begin(&configuration).output().unwrap();
        let said = text(&run.stderr);
        assert!(run.status.code() == Some(1) && said.contains(says), "{said}");
        assert!(!report.exists() && !said.contains("logged in"), "{said}");
    }
    // With a data folder, ports and a socket of its own it does.
    let mut third = Process::spawn(&mut begin(&other_socket(&other_port(&other_data(&usual))))).unwrap();
    wait_until("the HSM is loaded", || report.exists());
    third.kill().unwrap();
    assert_eq!(daemon.get("/readyz").0, 200);
    daemon.end();
}

/// The file of a daemon that was killed says nothing for the next one, also if that does not start.
#[test]
fn ready_file_of_a_killed_daemon_is_removed_at_the_start() {
    let site = Site::new();
    let mut daemon = site.start();
    daemon.kill();
    let file = site.path("ready.json");
    assert!(file.exists());
    let good = fs::read_to_string(site.path("birthmark.toml")).unwrap();
    for bad in [good.clone() + "nonsense = 1\n", good.replace("ca/issuer.pem", "ca/none.pem")] {
        site.token.write("birthmark.toml", &bad);
        fs::write(&file, "{}").unwrap();
        let run = site.token.birthmark(&["serve", "--config", "birthmark.toml", "--ready-file", "ready.json"]);
        assert!(!run.status.success() && !file.exists(), "{}", text(&run.stderr));
    }
    site.token.write("birthmark.toml", &good);
    let daemon = site.start();
    assert!(file.exists());
    daemon.end();
    assert!(!file.exists());
}

/// `sessions = "auto"` is the fewest that keep an HSM busy, at each start: four, with one that signs four at a time. A start on a
/// machine that others keep from running four threads may find another number, twice that at most; many do not.
#[test]
fn measured_sessions_are_the_fewest_that_keep_the_hsm_busy() {
    let site = Site::new();
    let faults = Faults::between(&site, "sessions = \"auto\"");
    faults.set_before_start("latency C_Sign 10ms\nparallel 4");
    let measure = || {
        let daemon = site.start();
        let sessions = daemon.metric("birthmark_hsm_sessions", &["issuer=\"main\""]);
        daemon.end();
        sessions
    };
    let seen: Vec<_> = (0..7).map(|_| measure()).collect();
    let of_four = seen.iter().filter(|sessions| **sessions == 4.0).count();
    assert!(seen.iter().all(|number| (2.0..=8.0).contains(number)) && of_four >= 3, "{seen:?}");
}

/// A module that computes on this machine's own processors gains nothing by more sessions than they are, though on a busy
/// machine more threads get more of them.
#[test]
fn sessions_of_a_computing_module_are_no_more_than_processors() {
    let site = Site::new();
    let ended = AtomicBool::new(false);
    let processors = thread::available_parallelism().unwrap().get();
    let sessions = thread::scope(|scope| {
        for _ in 0..2 * processors {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let daemon = site.start();
        let sessions = daemon.metric("birthmark_hsm_sessions", &["issuer=\"main\""]);
        ended.store(true, Ordering::Relaxed);
        daemon.end();
        sessions
    });
    assert!(sessions <= processors.max(2) as f64, "{sessions}");
}
