//! What keeps an idle daemon from issuing is in `/readyz` and in the metric within a second, and gone within a second of
//! its end: nobody has to ask for a certificate first.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};

use crate::{
    storage::faketime,
    support::{
        faults::Faults,
        site::{Daemon, Site, wait_until},
        token::LABEL,
    },
    tls::SoftCa,
};

const SECOND: Duration = Duration::from_secs(1);

/// How often a second may be missed because the machine does something else.
const ATTEMPTS: usize = 3;

/// What `/readyz` begins with, and what the metric is.
#[derive(Clone, Copy)]
enum State {
    Ready,
    Not(&'static str),
    Degraded(&'static str),
}

impl State {
    fn is_that_of(self, daemon: &Daemon) -> bool {
        let (status, said) = daemon.get("/readyz");
        let metric = daemon.metric("birthmark_ready", &[]);
        match self {
            State::Ready => status == 200 && said == "ready\n" && metric == 1.0,
            State::Not(why) => status == 503 && said.contains(why) && metric == 0.0,
            State::Degraded(why) => status == 200 && said.contains(why) && metric == 1.0,
        }
    }

    /// How long it takes until it is so.
    fn follows(self, daemon: &Daemon) -> Duration {
        let began = Instant::now();
        wait_until("readiness follows", || self.is_that_of(daemon));
        began.elapsed()
    }
}

/// A fault begins and ends, each seen within a second.
fn flips(daemon: &Daemon, what: &str, fault: State, begin: &dyn Fn(), end: &dyn Fn()) {
    State::Ready.follows(daemon);
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        begin();
        let began = fault.follows(daemon);
        end();
        let over = State::Ready.follows(daemon);
        if began.max(over) < SECOND {
            return;
        }
        seen.push((began, over));
    }
    panic!("{what}: {seen:?}");
}

/// An HSM that fails in any way is noticed while nobody asks for a signature.
#[test]
fn hsm_fault_of_an_idle_daemon_flips_readiness_in_a_second() {
    let site = Site::new();
    let faults = Faults::between(&site, "sessions = 4\ncall_limit_seconds = 1\nwait_seconds = 1");
    let daemon = site.start();
    for script in [
        "fail * CKR_DEVICE_ERROR".to_owned(),
        "fail C_Sign CKR_GENERAL_ERROR".to_owned(),
        "fail C_SignInit CKR_TOKEN_NOT_PRESENT".to_owned(),
        "wrong-signature".to_owned(),
        format!("remove {LABEL}"),
    ] {
        let not_ready = State::Not("hsm of issuer main: ");
        flips(&daemon, &script, not_ready, &|| faults.set(&script), &|| faults.set(""));
    }
    // One that stays away longer is taken back as soon.
    let mut seen = Vec::new();
    while seen.last().is_none_or(|back| *back >= 2 * SECOND) {
        assert!(seen.len() < ATTEMPTS, "{seen:?}");
        faults.set("fail * CKR_DEVICE_ERROR");
        std::thread::sleep(3 * SECOND);
        assert!(!State::Ready.is_that_of(&daemon));
        faults.set("");
        seen.push(State::Ready.follows(&daemon));
    }
    daemon.end();
}

/// An HSM whose calls do not return is noticed long before the limit for calls: by page, gauge and `/readyz`.
#[test]
fn hsm_that_hangs_flips_readiness_in_a_second() {
    let site = Site::new();
    let faults = Faults::between(&site, "sessions = 8\ncall_limit_seconds = 60");
    let mut daemon = site.start();
    let hangs = "hang C_Sign 20s";
    // What hangs stays so for its time, but the other sessions sign again.
    flips(&daemon, hangs, State::Not("it does not answer"), &|| faults.set(hangs), &|| faults.set(""));
    faults.set(hangs);
    wait_until("page and gauge count the calls that hang", || {
        let status: serde_json::Value = serde_json::from_str(&daemon.get("/status.json").1).unwrap();
        let token = status["hsm"].as_array().unwrap().iter().find(|token| token["issuer"] == "main").unwrap();
        let (hung, working) = (token["hung"].as_u64().unwrap(), token["working"].as_u64().unwrap());
        let gauge = daemon.metric("birthmark_hsm_calls_hung", &["issuer=\"main\""]);
        hung >= 1 && working + hung == 8 && gauge >= 1.0
    });
    assert_eq!(daemon.metric("birthmark_hsm_call_timeouts_total", &[]), 0.0);
    daemon.kill();
}

/// A test signature is made when there was none for a while, by one session, and never while certificates are signed.
#[test]
fn idle_hsm_makes_a_test_signature_a_second_or_two() {
    let site = Site::new();
    let faults = Faults::between(&site, "sessions = 8");
    let daemon = site.start();
    faults.set("");
    let began = Instant::now();
    std::thread::sleep(4 * SECOND);
    let (signed, seconds) = (faults.seen("C_Sign.script") as f64, began.elapsed().as_secs_f64());
    assert!((seconds * 1.1..=seconds * 3.5).contains(&signed), "{signed} in {seconds}");
    daemon.end();
}

/// The disk is filled, mounted read-only, and taken away, each while nothing is written.
#[test]
fn disk_fault_of_an_idle_daemon_flips_readiness_in_a_second() {
    let site = Site::new();
    fs::create_dir(site.path("data")).unwrap();
    site.configure(|text| text.replace("path = \"data\"", "path = \"data\"\nmin_free_mib = 16"));
    let daemon = site.start_as(|command| {
        let mount = "mount -t tmpfs -o size=40m tmpfs data && exec \"$@\"";
        let mut mounted = Command::new("unshare");
        mounted.args(["--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]);
        mounted.arg(command.get_program()).args(command.get_args()).current_dir(command.get_current_dir().unwrap());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => mounted.env(name, value),
                None => mounted.env_remove(name),
            };
        }
        mounted
    });
    let inside = |program: &[&str]| {
        let pid = daemon.pid().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--user", "--mount", "--preserve-credentials"]).args(program);
        assert!(command.current_dir("/").status().unwrap().success(), "{program:?}");
    };
    let data = site.path("data");
    let (data, journal, away) =
        (data.to_str().unwrap(), format!("{}/journal", data.display()), format!("{}/away", data.display()));
    let full = format!("{data}/full");
    flips(&daemon, "low", State::Not("make room"), &|| inside(&["fallocate", "-l", "30m", &full]), &|| {
        inside(&["rm", &full]);
    });
    // What has a file open for writing cannot be made read-only by hand, so another file system lies over it.
    let read_only = format!("mount -t tmpfs tmpfs {data} && mkdir {journal} && mount -o remount,ro {data}");
    flips(&daemon, "read-only", State::Not("is mounted read-only"), &|| inside(&["sh", "-c", &read_only]), &|| {
        inside(&["umount", data]);
    });
    let gone = State::Not("cannot be reached");
    flips(&daemon, "away", gone, &|| inside(&["mv", &journal, &away]), &|| inside(&["mv", &away, &journal]));
    daemon.end();
}

/// One of the journal's two disks is away: the daemon goes on, and says so.
#[test]
fn mirror_that_is_away_degrades_within_a_second() {
    let site = Site::new();
    fs::create_dir(site.path("mirror")).unwrap();
    site.configure(|text| text.replace("path = \"data\"", "path = \"data\"\nmirror = \"mirror\""));
    let daemon = site.start();
    let (mirror, away) = (site.path("mirror"), site.path("away"));
    flips(
        &daemon,
        "mirror",
        State::Degraded("degraded: journal mirror: "),
        &|| fs::rename(&mirror, &away).unwrap(),
        &|| fs::rename(&away, &mirror).unwrap(),
    );
    daemon.end();
}

/// A clock that a daemon was started with, and that can be set.
pub(crate) struct Clock(PathBuf);

impl Clock {
    pub(crate) fn set(&self, offset: &str) {
        let draft = self.0.with_extension("draft");
        fs::write(&draft, offset).unwrap();
        fs::rename(draft, &self.0).unwrap();
    }

    /// Starts a daemon that has a clock of its own.
    pub(crate) fn start(site: &Site) -> (Clock, Daemon) {
        let library = faketime().expect("faketime (Debian: faketime) must be installed");
        let clock = Clock(site.path("clock"));
        clock.set("+0");
        let daemon = site.start_as(|mut command| {
            command.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", &clock.0);
            command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command
        });
        (clock, daemon)
    }
}

/// A clock that is set wrong, and right again.
#[test]
fn wrong_clock_of_an_idle_daemon_flips_readiness_in_a_second() {
    let site = Site::new();
    let (clock, daemon) = Clock::start(&site);
    flips(&daemon, "ahead", State::Not("the clock ("), &|| clock.set("+10d"), &|| clock.set("+0"));
    flips(&daemon, "back", State::Not("the clock ("), &|| clock.set("-1d"), &|| clock.set("+0"));
    daemon.end();
}

/// The daemon's certificate expires, and is replaced.
#[test]
fn expired_server_certificate_flips_readiness_in_a_second() {
    let site = Site::new();
    let identity = ServerIdentity::of(&site);
    let daemon = site.start();
    let expired = State::Not("server certificate: expired at");
    flips(&daemon, "certificate", expired, &|| identity.expire(), &|| identity.put_back());
    daemon.end();
}

/// The daemon's certificate and key, which can expire.
pub(crate) struct ServerIdentity([(PathBuf, Vec<u8>); 2]);

impl ServerIdentity {
    pub(crate) fn of(site: &Site) -> ServerIdentity {
        ServerIdentity(
            ["tls/cert.pem", "tls/key.pem"].map(|name| (site.path(name), fs::read(site.path(name)).unwrap())),
        )
    }

    pub(crate) fn expire(&self) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        let key = KeyPair::generate().unwrap();
        let [(certificate_file, _), (key_file, _)] = &self.0;
        fs::write(key_file, key.serialize_pem()).unwrap();
        fs::write(certificate_file, SoftCa::new("Server CA").certify(&params, &key)).unwrap();
    }

    pub(crate) fn put_back(&self) {
        self.0.iter().for_each(|(file, content)| fs::write(file, content).unwrap());
    }
}
