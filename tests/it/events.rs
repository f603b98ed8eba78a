//! `birthmark events`: real mosquitto, mutual TLS, kills of everything, and messages that a foreign validator judges.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    site::{Daemon, Port, Process, Site, csr, request, wait_until},
    token::{refused, succeeded, text},
};

/// A broker that knows the station CA, and keeps what subscribers are owed over a restart in order.
struct Broker<'s> {
    site: &'s Site,
    port: Port,
    process: Option<Process>,
}

impl<'s> Broker<'s> {
    fn start(site: &'s Site) -> Broker<'s> {
        let port = Port::hold().unwrap();
        let at = |name: &str| site.path(name).display().to_string();
        let user = if rustix::process::geteuid().is_root() { "user root\n" } else { "" };
        let configuration = format!(
            "listener {} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n\
             use_identity_as_username true\npersistence true\npersistence_location {}/\nmax_queued_messages 0\n{user}",
            port.number(),
            at("ca/station-ca.pem"),
            at("tls/cert.pem"),
            at("tls/key.pem"),
            at("")
        );
        Broker::start_with(site, port, &configuration)
    }

    /// As a configuration says, which listens at this port.
    fn start_with(site: &'s Site, port: Port, configuration: &str) -> Broker<'s> {
        fs::write(site.path("mosquitto.conf"), configuration).unwrap();
        let mut broker = Broker { site, port, process: None };
        broker.begin();
        broker
    }

    fn begin(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.site.path("mosquitto.log")).unwrap();
        let mut command = Command::new("/usr/sbin/mosquitto");
        command.arg("-c").arg(self.site.path("mosquitto.conf"));
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(Process::spawn(&mut command).unwrap());
        let address = self.port.address();
        wait_until("the broker listens", || TcpStream::connect(address).is_ok());
    }

    /// SIGTERM: it writes down what it has acknowledged.
    fn end(&mut self) {
        let mut process = self.process.take().unwrap();
        process.signal(Signal::TERM).unwrap();
        process.wait().unwrap();
    }

    fn kill(&mut self) {
        self.process.take().unwrap().kill().unwrap();
    }

    fn url(&self) -> String {
        format!("mqtts://localhost:{}", self.port.number())
    }

    /// A subscriber that writes `topic payload` lines, and goes on over restarts of the broker.
    fn subscribe(&self, out: &Path) -> Process {
        let identity = self.site.identity("auditor", "seer");
        let mut command = Command::new("mosquitto_sub");
        command.args([
            "-h",
            "localhost",
            "-p",
            &self.port.number().to_string(),
            "-t",
            "#",
            "-q",
            "1",
            "-F",
            "%t %p",
            "-c",
            "-i",
            "seer",
        ]);
        command.arg("--cafile").arg(self.site.path("ca/station-ca.pem"));
        command.arg("--cert").arg(identity.join("cert.pem")).arg("--key").arg(identity.join("key.pem"));
        command.stdout(fs::File::create(out).unwrap()).stderr(Stdio::null());
        Process::spawn(&mut command).unwrap()
    }

    /// `birthmark events` as an auditor.
    fn events(&self, daemon: &Daemon, more: &[&str]) -> Command {
        let identity = self.site.identity("auditor", "mes");
        let mut command = self.site.token.command(&["events", "--server", &daemon.url(), "--mqtt", &self.url()]);
        command.args(["--cursor", "mes.cursor", "--ca", "ca/station-ca.pem", "--identity"]).arg(&identity);
        command.arg("--cert").arg(identity.join("cert.pem")).arg("--key").arg(identity.join("key.pem"));
        command.args(more);
        command
    }
}

/// What a subscriber has seen, whole lines only.
fn seen(out: &Path) -> Vec<(String, Value)> {
    let text = fs::read_to_string(out).unwrap();
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    let line = |line: &str| {
        let (topic, payload) = line.split_once(' ').unwrap();
        (topic.to_owned(), serde_json::from_str(payload).unwrap())
    };
    whole.lines().map(line).collect()
}

/// The plain events, doubles removed; a double must be what it is a double of.
fn plain(seen: &[(String, Value)]) -> Vec<Value> {
    let mut first: BTreeMap<String, Value> = BTreeMap::new();
    let mut order = Vec::new();
    for (topic, event) in seen.iter().filter(|(topic, _)| topic.starts_with("birthmark/")) {
        let Some(id) = event["id"].as_str() else { continue };
        assert_eq!(*topic, format!("birthmark/events/{}", event["event"].as_str().unwrap()));
        match first.get(id) {
            Some(before) => assert_eq!(before, event, "a double that differs"),
            None => {
                first.insert(id.to_owned(), event.clone());
                order.push(event.clone());
            }
        }
    }
    order
}

/// How many CFX messages there are of each name; the validator takes each.
fn judged(seen: &[(String, Value)]) -> BTreeMap<String, u64> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut judge = Command::new(root.join("tests/.venv/bin/python"))
        .arg(root.join("tests/judges/cfx.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut unique = BTreeMap::new();
    for (topic, message) in seen.iter().filter(|(_, message)| message["MessageName"].is_string()) {
        assert_eq!(*topic, format!("Birthmark.Events.1/{}", message["MessageName"].as_str().unwrap()));
        unique.insert(message["UniqueID"].as_str().unwrap(), message);
    }
    let mut input = judge.stdin.take().unwrap();
    unique.values().for_each(|message| writeln!(input, "{message}").unwrap());
    drop(input);
    let output = judge.wait_with_output().unwrap();
    serde_json::from_str(&succeeded(&output)).unwrap()
}

fn bad_csr(device: &str) -> Vec<u8> {
    let mut csr = csr(device);
    *csr.last_mut().unwrap() ^= 1;
    csr
}

/// What happens becomes CFX messages that the published shapes allow: started, completed, failed, scrapped, at fault.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_published_as_json_and_cfx() {
    let site = Site::new();
    let daemon = site.start();
    let broker = Broker::start(&site);
    site.create_order("lot", 100);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let issued = stream.ask(request("a", "lot", csr("a"))).await.issued();
    stream.ask(request("b", "lot", bad_csr("b"))).await.must_be(tonic::Code::InvalidArgument, "POP_INVALID");
    let serial = hex::encode(&issued.serial_number);
    succeeded(&site.operator(&["record", "scrap", &serial, "--reason", "cracked"]));
    let out = site.path("seen");
    let _subscriber = broker.subscribe(&out);
    std::thread::sleep(Duration::from_secs(2));
    wait_until("the refusal is recorded", || {
        succeeded(&site.token.birthmark(&["journal", "dump", "data"])).contains("\"refused\"")
    });
    succeeded(&broker.events(&daemon, &["--once"]).output().unwrap());
    let count = succeeded(&site.token.birthmark(&["journal", "dump", "data"])).lines().count();
    wait_until("all is seen", || plain(&seen(&out)).len() >= count);
    let seen_now = seen(&out);
    let events = plain(&seen_now);
    assert!(events.iter().enumerate().all(|(index, event)| event["sequence"] == index as u64 + 1));
    let counts = judged(&seen_now);
    let count_of = |name: &str| counts.get(name).copied().unwrap_or(0);
    assert_eq!(count_of("CFX.Production.WorkStarted"), 2, "{counts:?}");
    assert_eq!(count_of("CFX.Production.WorkCompleted"), 2, "{counts:?}");
    assert_eq!(count_of("CFX.Production.UnitsDisqualified"), 1, "{counts:?}");
    assert_eq!(count_of("CFX.ResourcePerformance.FaultOccurred"), 1, "{counts:?}");
    assert!(count_of("CFX.Heartbeat") >= 1, "{counts:?}");
    let of = |name: &str, device: &str| {
        let found = seen_now.iter().map(|(_, message)| message).find(|message| {
            message["MessageName"] == format!("CFX.Production.{name}")
                && message["MessageBody"]["PrimaryIdentifier"] == device
        });
        found.unwrap()["MessageBody"].clone()
    };
    let (started, completed) = (of("WorkStarted", "a"), of("WorkCompleted", "a"));
    assert_eq!(started["TransactionID"], completed["TransactionID"]);
    assert_eq!(
        (&started["WorkOrderIdentifier"]["WorkOrderId"], &started["RecipeName"]),
        (&"lot".into(), &"device".into())
    );
    assert_eq!((&completed["Result"], &of("WorkCompleted", "b")["Result"]), (&"Completed".into(), &"Failed".into()));

    // Nothing twice without need; one process a cursor; one form alone.
    let before = seen(&out).len();
    succeeded(&broker.events(&daemon, &["--once", "--json"]).output().unwrap());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(seen(&out).len(), before);
    let begin = || Process::spawn(broker.events(&daemon, &["--cfx"]).stderr(Stdio::null())).unwrap();
    let mut running = begin();
    wait_until("it has the cursor", || {
        // It may have found the cursor taken by the one below.
        if !running.is_running().unwrap() {
            running = begin();
        }
        let second = broker.events(&daemon, &["--once"]).output().unwrap();
        !second.status.success() && text(&second.stderr).contains("another process publishes")
    });
    running.signal(Signal::TERM).unwrap();
    assert!(running.wait().unwrap().success());
    daemon.end();
}

/// Our process killed at random moments, the broker restarted, the daemon restarted: every event at least once, in order once
/// doubles are removed.
#[tokio::test(flavor = "multi_thread")]
async fn events_come_at_least_once_and_in_order_over_kills() {
    const DEVICES: usize = 120;
    let seed = std::env::var("BIRTHMARK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("BIRTHMARK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let site = Site::new();
    let mut daemon = site.start();
    let mut broker = Broker::start(&site);
    site.create_order("lot", 1000);
    let out = site.path("seen");
    let _subscriber = broker.subscribe(&out);
    std::thread::sleep(Duration::from_secs(2));
    let (mut issued, mut round) = (0, 0);
    while issued < DEVICES {
        let mut stream = site.stream(&daemon, "line1/t1").await;
        let mut running =
            Process::spawn(broker.events(&daemon, &["--in-flight", "7", "--heartbeat", "1"]).stderr(Stdio::null()))
                .unwrap();
        for _ in 0..12 {
            let device = format!("d{issued}");
            stream.ask(request(&device, "lot", csr(&device))).await.issued();
            issued += 1;
        }
        match round % 3 {
            0 => broker.end(),
            1 => drop(stream),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
        running.kill().unwrap();
        if broker.process.is_none() {
            broker.begin();
        }
        if round == 4 {
            daemon.end();
            daemon = site.start();
        }
        round += 1;
    }
    // The daemon may write something of its own meanwhile.
    wait_until("all is seen", || {
        succeeded(&broker.events(&daemon, &["--once"]).output().unwrap());
        let count = succeeded(&site.token.birthmark(&["journal", "dump", "data"])).lines().count();
        plain(&seen(&out)).len() >= count
    });
    let all = seen(&out);
    let events = plain(&all);
    let sequences: Vec<_> = events.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert!(sequences.iter().copied().eq(1..=sequences.len() as u64), "seed {seed}: {sequences:?}");
    assert_eq!(judged(&all)["CFX.Production.WorkCompleted"], DEVICES as u64, "seed {seed}");
    daemon.end();
}

/// A broker that is killed, and one that is not there at all: it is waited for, and the next acknowledgement counts.
#[tokio::test(flavor = "multi_thread")]
async fn broker_that_is_killed_is_waited_for() {
    let site = Site::new();
    let daemon = site.start();
    let mut broker = Broker::start(&site);
    broker.kill();
    site.create_order("lot", 100);
    let log = fs::File::create(site.path("events.log")).unwrap();
    let mut running = Process::spawn(broker.events(&daemon, &["--once"]).stderr(log)).unwrap();
    wait_until("it tries again", || {
        fs::read_to_string(site.path("events.log")).unwrap().matches("trying again").count() >= 2
    });
    assert!(running.is_running().unwrap() && !site.path("mes.cursor").exists());
    broker.begin();
    assert!(running.wait().unwrap().success());
    let cursor: Value = serde_json::from_str(&fs::read_to_string(site.path("mes.cursor")).unwrap()).unwrap();
    let count = succeeded(&site.token.birthmark(&["journal", "dump", "data"])).lines().count() as u64;
    assert!(cursor["after"].as_u64().unwrap() >= count - 1, "{cursor} of {count}");
    // A ledger that was restored may lack what is published: to wait for that would be to pass over what comes in its place.
    site.token.write("mes.cursor", "{\"form\":1,\"after\":99999}");
    refused(&broker.events(&daemon, &["--once"]).output().unwrap(), &["none of the number 99999", "restored"]);
    daemon.end();
}

/// Killed in the middle of publishing, it has no time for a word: the broker says the last one for it, and not for one that ended in order.
#[tokio::test(flavor = "multi_thread")]
async fn publisher_that_is_killed_is_told_of_by_the_broker() {
    let site = Site::new();
    let daemon = site.start();
    let broker = Broker::start(&site);
    let out = site.path("seen");
    let _subscriber = broker.subscribe(&out);
    std::thread::sleep(Duration::from_secs(2));
    let lost = || seen(&out).iter().filter(|(_, event)| event["event"] == "publisher_lost").count();
    let all = || plain(&seen(&out)).len();
    for (signal, wills) in [(Signal::TERM, 0), (Signal::KILL, 1)] {
        let before = all();
        let mut running = Process::spawn(broker.events(&daemon, &["--json"]).stderr(Stdio::null())).unwrap();
        site.create_order(&format!("lot-{wills}"), 10);
        wait_until("it publishes", || all() > before);
        running.signal(signal).unwrap();
        running.wait().unwrap();
        wait_until("the broker has told of it", || lost() >= wills);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(lost(), wills, "{signal:?}");
    }
    daemon.end();
}

/// The broker is killed again and again while it is published to: whoever listens to the next one misses nothing after what the cursor
/// says.
#[tokio::test(flavor = "multi_thread")]
async fn broker_killed_while_publishing_misses_nothing() {
    let site = Site::new();
    let daemon = site.start();
    let mut broker = Broker::start(&site);
    site.create_order("lot", 1_000_000);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let line = tokio::spawn(async move {
        for number in 0.. {
            let device = format!("d{number}");
            stream.ask(request(&device, "lot", csr(&device))).await.issued();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let cursor = || -> u64 {
        let text = fs::read_to_string(site.path("mes.cursor")).unwrap_or_default();
        serde_json::from_str::<Value>(&text).map_or(0, |cursor| cursor["after"].as_u64().unwrap())
    };
    let log = fs::File::create(site.path("events.log")).unwrap();
    let lost = || fs::read_to_string(site.path("events.log")).unwrap().matches("trying again").count();
    let mut running = Process::spawn(broker.events(&daemon, &["--json", "--in-flight", "5"]).stderr(log)).unwrap();
    for round in 0..3 {
        let (before, lost_before) = (cursor(), lost());
        wait_until("it goes on", || cursor() > before + 20);
        broker.kill();
        // With the second failure it has written what the killed broker had acknowledged.
        wait_until("the broker is missed", || lost() >= lost_before + 2);
        // Held, so that the next broker has its listener before it is published to.
        running.signal(Signal::STOP).unwrap();
        let known = cursor();
        broker.begin();
        let out = site.path(&format!("seen{round}"));
        let _subscriber = broker.subscribe(&out);
        std::thread::sleep(Duration::from_secs(2));
        running.signal(Signal::CONT).unwrap();
        wait_until("it goes on with the next broker", || plain(&seen(&out)).len() > 20);
        let sequences: Vec<_> = plain(&seen(&out)).iter().filter_map(|event| event["sequence"].as_u64()).collect();
        assert!(sequences[0] <= known + 1, "{known}: {sequences:?}");
        assert!(sequences.windows(2).all(|pair| pair[1] <= pair[0] + 1), "a gap in {sequences:?}");
    }
    line.abort();
    running.signal(Signal::TERM).unwrap();
    assert!(running.wait().unwrap().success());
    daemon.end();
}

/// A broker that wants a name and a password gets them from a file that is private; a wrong one is told at once.
#[tokio::test(flavor = "multi_thread")]
async fn broker_with_a_password_is_published_to() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    let daemon = site.start();
    let port = Port::hold().unwrap();
    let at = |name: &str| site.path(name).display().to_string();
    site.token.write("passwords", "mes:right one\n");
    let hashed = Command::new("mosquitto_passwd").arg("-U").arg(site.path("passwords")).status().unwrap();
    assert!(hashed.success());
    let user = if rustix::process::geteuid().is_root() { "user root\n" } else { "" };
    let configuration = format!(
        "listener {} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\npassword_file {}\nallow_anonymous false\n{user}",
        port.number(),
        at("ca/station-ca.pem"),
        at("tls/cert.pem"),
        at("tls/key.pem"),
        at("passwords")
    );
    let broker = Broker::start_with(&site, port, &configuration);
    let identity = site.identity("auditor", "mes");
    let publish = |file: &str, password: &str, mode: u32| {
        site.token.write(file, password);
        fs::set_permissions(site.path(file), fs::Permissions::from_mode(mode)).unwrap();
        let mut command = site.token.command(&["events", "--once", "--cursor", "mes.cursor", "--mqtt", &broker.url()]);
        command.arg("--ca").arg(site.path("ca/station-ca.pem")).arg("--socket").arg(&daemon.socket);
        command.arg("--cert").arg(identity.join("cert.pem")).arg("--key").arg(identity.join("key.pem"));
        command.args(["--username", "mes", "--password-file", file]).output().unwrap()
    };
    refused(&publish("open.txt", "right one\n", 0o644), &["chmod 600"]);
    refused(&publish("wrong.txt", "wrong one\n", 0o600), &["not authorised"]);
    assert!(!site.path("mes.cursor").exists());
    succeeded(&publish("right.txt", "right one\n", 0o600));
    assert!(site.path("mes.cursor").exists());
    daemon.end();
}

/// How many events a second reach a broker with mutual TLS at QoS 1, and what that costs.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn events_a_second() {
    const DEVICES: usize = 20_000;
    let site = Site::new();
    let daemon = site.start();
    let broker = Broker::start(&site);
    site.create_order("lot", 1_000_000);
    let load = crate::support::faults::Load::start(&site, &daemon, "lot").await;
    wait_until("enough is issued", || load.issued() as usize >= DEVICES);
    load.abandon().await;
    for (number, form) in ["--json", "--cfx"].into_iter().enumerate() {
        let cursor = format!("cursor{number}");
        let identity = site.identity("auditor", "mes");
        let mut command =
            site.token.command(&["events", "--server", &daemon.url(), "--mqtt", &broker.url(), "--once", form]);
        command.args(["--cursor", &cursor, "--ca", "ca/station-ca.pem", "--identity"]).arg(&identity);
        command.arg("--cert").arg(identity.join("cert.pem")).arg("--key").arg(identity.join("key.pem"));
        let began = Instant::now();
        succeeded(&command.output().unwrap());
        let text = fs::read_to_string(site.path(&cursor)).unwrap();
        let events = serde_json::from_str::<Value>(&text).unwrap()["after"].as_u64().unwrap();
        println!(
            "{form}: {events} entries in {:.2} s, {:.0}/s",
            began.elapsed().as_secs_f64(),
            events as f64 / began.elapsed().as_secs_f64()
        );
    }
    daemon.end();
}

/// What can never work is said at once, in one sentence: no TLS to another machine, no certificate, an exposed key, a station's
/// certificate, a broker that does not know us.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_can_never_be_published_are_refused() {
    let site = Site::new();
    let daemon = site.start();
    let broker = Broker::start(&site);
    let usage = site.token.birthmark(&["events", "--cursor", "c", "--mqtt", "mqtt://mes.example"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(text(&usage.stderr).contains("mqtts://"), "{}", text(&usage.stderr));
    let mut bare =
        site.token.command(&["events", "--cursor", "c", "--mqtt", &broker.url(), "--socket", "run/admin.sock"]);
    refused(&bare.output().unwrap(), &["--cert FILE"]);
    let identity = site.identity("station", "line1/t1");
    let mut station =
        site.token.command(&["events", "--cursor", "c", "--mqtt", &broker.url(), "--server", &daemon.url()]);
    station.arg("--identity").arg(&identity).arg("--ca").arg(site.path("ca/station-ca.pem"));
    station.arg("--cert").arg(identity.join("cert.pem")).arg("--key").arg(identity.join("key.pem"));
    refused(&station.output().unwrap(), &["ROLE_REQUIRED"]);
    use std::os::unix::fs::PermissionsExt;
    let key = site.identity("auditor", "mes").join("key.pem");
    fs::copy(&key, site.path("open.key")).unwrap();
    fs::set_permissions(site.path("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let mut open = site.token.command(&["events", "--cursor", "c", "--mqtt", &broker.url(), "--key", "open.key"]);
    open.arg("--ca").arg(site.path("ca/station-ca.pem")).arg("--cert").arg(key.with_file_name("cert.pem"));
    refused(&open.arg("--socket").arg(&daemon.socket).output().unwrap(), &["chmod 600"]);
    fs::write(site.path("mes.cursor"), "7").unwrap();
    refused(&broker.events(&daemon, &[]).output().unwrap(), &["mes.cursor", "no cursor"]);
    daemon.end();
}
