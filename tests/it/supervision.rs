//! The daemon under a supervisor, and the units that come with it.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{
    faults::Faults,
    site::{Site, wait_until},
    token::{refused, text},
};

/// What listens to sd_notify(3).
struct Supervisor {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Supervisor {
    fn at(path: &Path) -> Supervisor {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        Supervisor { socket, heard: Vec::new() }
    }

    /// Waits for messages that begin so, in any order, and forgets them and all that came before.
    fn hears(&mut self, what: &str, wanted: &[&str]) {
        let mut buffer = [0; 4096];
        wait_until(what, || {
            while let Ok(length) = self.socket.recv(&mut buffer) {
                self.heard.extend(text(&buffer[..length]).lines().map(str::to_owned));
            }
            wanted.iter().all(|wanted| self.heard.iter().any(|message| message.starts_with(wanted)))
        });
        self.heard.clear();
    }
}

/// A supervisor learns that the daemon listens, is alive, reads its configuration anew, cannot issue and shuts down.
#[test]
fn supervisor_is_told_what_the_daemon_does() {
    let site = Site::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let mut supervisor = Supervisor::at(&path);
    let faults = Faults::between(&site, "wait_seconds = 1");
    let mut daemon = site.start_as(|mut command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
        command
    });
    supervisor.hears("it listens and issues", &["READY=1", "STATUS=ready"]);
    for _ in 0..3 {
        supervisor.hears("it is alive", &["WATCHDOG=1"]);
    }
    // A reload that is refused is over as well.
    let good = fs::read_to_string(site.path("birthmark.toml")).unwrap();
    for text in [&good, &(good.clone() + "nonsense = 1\n")] {
        site.token.write("birthmark.toml", text);
        daemon.signal(Signal::HUP);
        supervisor.hears("it reloads", &["RELOADING=1", "MONOTONIC_USEC=", "READY=1"]);
    }
    faults.set("fail * CKR_DEVICE_ERROR");
    let code = "00000000-0000-4000-8000-000000000000";
    refused(&site.operator(&["ca", "prove", code, "--issuer", "main", "--out", "proof.pem"]), &["HSM_UNAVAILABLE"]);
    supervisor.hears("it cannot issue", &["STATUS=not ready: "]);
    faults.set("");
    supervisor.hears("it issues again", &["STATUS=ready"]);
    daemon.signal(Signal::TERM);
    supervisor.hears("it shuts down", &["STOPPING=1"]);
    daemon.wait();
}

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd")
}

/// Each unit is what systemd understands, and is confined: `systemd-analyze security` gives 2.0 at most.
#[test]
fn units_are_understood_and_confined() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(units()).unwrap() {
        let path = entry.unwrap().path();
        let analyzed = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--threshold=20"])
            .arg(&path)
            .output()
            .expect("systemd-analyze (Debian: systemd) must be installed");
        assert!(analyzed.status.success(), "{}{}", text(&analyzed.stdout), text(&analyzed.stderr));
        // The programs and manuals are where the package puts them, and not here.
        let unit = fs::read_to_string(&path).unwrap();
        let unit = unit.lines().filter(|line| !line.starts_with("Documentation=man:")).map(|line| {
            match line.split_once("=/usr/bin/birthmark") {
                Some((setting, program)) => {
                    let arguments = program.split_once(' ').map_or("", |(_, arguments)| arguments);
                    format!("{setting}=/bin/true {arguments}\n")
                }
                None => format!("{line}\n"),
            }
        });
        let name = path.file_name().unwrap().to_str().unwrap().replace("@.", "@line1.");
        let copy = folder.path().join(name);
        fs::write(&copy, unit.collect::<String>()).unwrap();
        let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output().unwrap();
        let said = text(&verified.stderr);
        let ours: Vec<_> = said.lines().filter(|line| line.contains("birthmark")).collect();
        assert!(verified.status.success() && ours.is_empty(), "{said}");
        seen += 1;
    }
    assert_eq!(seen, 3);
}
