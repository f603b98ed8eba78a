//! What the log tells of a day, and the security log: who was refused, who changed what, and no secret.

use std::{collections::BTreeSet, fs, net::UdpSocket, process::Command, time::Duration};

use birthmark::proto::{CloseOrderRequest, admin_client::AdminClient};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    site::{Site, csr, json_line, request, wait_until},
    token::{refused, succeeded},
};

const CLOUD: &str = "\n[destinations.cloud]\nformat = \"jsonl\"\n";

fn sign(site: &Site, station: &str, devices: std::ops::Range<u32>) {
    let lines: String = devices.map(|number| format!("d{number}")).map(|id| json_line(&id, &csr(&id))).collect();
    site.token.write("devices.jsonl", &lines);
    succeeded(&site.sign(station, "lot", "devices.jsonl", "certs").output().unwrap());
}

/// A person reads the log of a day in a minute, however much is made and whatever a tester in a loop asks for.
#[tokio::test(flavor = "multi_thread")]
async fn log_of_a_production_day_is_short_and_whole() {
    let site = Site::new();
    site.configure(|usual| usual + CLOUD);
    let daemon = site.start();
    site.create_order("lot", 1000);
    for round in 0..4 {
        sign(&site, "line1/t1", 50 * round..50 * round + 25);
        sign(&site, "line1/t2", 50 * round + 25..50 * round + 50);
    }
    // A tester that is wrong 500 times.
    let mut stream = site.stream(&daemon, "line1/t3").await;
    for number in 0..500 {
        let device = format!("x{number}");
        stream.ask(request(&device, "no-such-order", csr("same"))).await;
    }
    succeeded(&site.operator(&["export", "create", "cloud", "--out", "out"]));
    succeeded(&site.operator(&["export", "acknowledge", "cloud.0001"]));
    succeeded(&site.operator(&["record", "scrap", "d1", "--reason", "cracked"]));
    succeeded(&site.operator(&["record", "revoke", "d2", "--reason", "keyCompromise"]));
    succeeded(&site.operator(&["order", "change", "lot", "--quantity", "900", "--reason", "less"]));
    succeeded(&site.operator(&["order", "pause", "lot"]));
    succeeded(&site.operator(&["order", "resume", "lot"]));
    succeeded(&site.operator(&["order", "close", "lot"]));
    // A retry is nothing new.
    succeeded(&site.operator(&["order", "close", "lot"]));
    succeeded(&site.operator(&["reload"]));
    wait_until("the refusals are told", || site.log().contains("ORDER_UNKNOWN"));
    daemon.end();
    let log = site.log();
    let count = |words: &[&str]| log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
    for (words, times) in [
        (&["started", "version=", "configuration_sha256=", "journal_entries="][..], 1),
        (&["created an order", "lot", "quantity=1000", "operator:local-"], 1),
        (&["changed the quantity of an order", "quantity=900", "less"], 1),
        (&["paused an order"], 1),
        (&["an order goes on"], 1),
        (&["closed an order", "issued="], 1),
        (&["cut a batch", "cloud.0001", "operator:local-"], 1),
        (&["acknowledged a batch", "cloud.0001", "operator:local-"], 1),
        (&["scrapped a certificate", "cracked", "operator:local-"], 1),
        (&["revoked a certificate", "keyCompromise", "operator:local-"], 1),
        (&["the configuration was reloaded", "operator:local-"], 1),
        (&["station:line1/t1", "connected"], 1),
        (&["station:line1/t2", "connected"], 1),
        (&["station:line1/t3", "refused", "ORDER_UNKNOWN"], 1),
        (&["logged in to the HSM's token"], 1),
    ] {
        assert!(count(words) >= times && count(words) <= times + 1, "{words:?}: {} in\n{log}", count(words));
    }
    assert!(log.lines().count() <= 60, "{} lines:\n{log}", log.lines().count());
}

/// Who was refused and who changed what is in the security log, in both of its forms; no PIN, no key, no CSR is.
#[tokio::test(flavor = "multi_thread")]
async fn security_log_has_what_matters_and_no_secret() {
    let site = Site::new();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let address = receiver.local_addr().unwrap();
    site.configure(|usual| {
        format!("{usual}\n[security_log]\nfile = \"security.jsonl\"\nsyslog = \"udp://{address}\"\n\n[approval]\norders_above = 10\n")
    });
    // The log's level is not that of the security log.
    let daemon = site.start_as(|mut command: Command| {
        command.env("BIRTHMARK_LOG", "error");
        command
    });
    site.create_order("lot", 10);
    let request_csr = csr("d1");
    site.stream(&daemon, "line1/t1").await.ask(request("d1", "lot", request_csr.clone())).await.issued();
    let mut admin = AdminClient::new(site.connect(&daemon, "auditor", "eve").await);
    admin.close_order(CloseOrderRequest { id: "lot".into() }).await.unwrap_err();
    refused(
        &site.operator(&["order", "create", "big", "--profile", "device", "--quantity", "11"]),
        &["APPROVAL_REQUIRED"],
    );
    succeeded(&site.operator(&["record", "revoke", "d1"]));
    succeeded(&site.operator(&["station", "revoke", "line1/t1", "--reason", "stolen"]));
    succeeded(&site.operator(&["reload"]));
    // Somebody without a certificate.
    let stranger = std::net::TcpStream::connect(daemon.grpc).unwrap();
    std::io::Write::write_all(&mut &stranger, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let log = || fs::read_to_string(site.path("security.jsonl")).unwrap();
    let wanted = [
        "started",
        "logged in to the HSM's token",
        "refused",
        "waits for a second operator",
        "revoked a certificate",
        "revoked: its connections are closed, and it gets no other",
        "the configuration was reloaded",
        "refused a connection",
    ];
    let told = || -> BTreeSet<String> {
        let lines: Vec<Value> = log().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect()
    };
    wait_until("all is told", || wanted.iter().all(|event| told().contains(*event)));
    let roles = || {
        let of_eve = |line: &&str| line.contains("ROLE_REQUIRED") && line.contains("auditor:eve");
        log().lines().filter(of_eve).count()
    };
    wait_until("the auditor's attempt is told", || roles() == 1);
    assert!(!log().contains("created an order"), "what is no matter of security is elsewhere: {}", log());
    daemon.end();

    let mut messages = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read) = receiver.recv(&mut buffer) {
        messages.push(String::from_utf8(buffer[..read].to_vec()).unwrap());
    }
    assert!(
        messages
            .iter()
            .all(|message| message.starts_with('<') && message.contains(">1 20") && message.contains(" birthmark "))
    );
    for event in wanted {
        assert!(messages.iter().any(|message| message.ends_with(event)), "{event}: {messages:#?}");
    }
    let pin = fs::read_to_string(site.path("pin")).unwrap();
    // The lines of every private key of the site.
    let identities = fs::read_dir(site.path("identities")).unwrap().map(|entry| entry.unwrap().path());
    let folders = identities.chain([site.path("tls")]);
    let keys: Vec<_> = folders.map(|folder| fs::read_to_string(folder.join("key.pem")).unwrap()).collect();
    let keys: Vec<_> = keys.iter().flat_map(|key| key.lines()).filter(|line| !line.starts_with('-')).collect();
    assert!(keys.len() > 3 && keys.iter().all(|line| line.len() > 10), "{keys:?}");
    let csr = [hex::encode(&request_csr), base64(&request_csr)];
    for text in [site.log(), log(), messages.join("\n")] {
        let pin_is_there =
            text.split(|character: char| !character.is_ascii_alphanumeric()).any(|word| word == pin.trim());
        assert!(
            !pin_is_there && !keys.iter().any(|key| text.contains(key)) && !csr.iter().any(|csr| text.contains(csr)),
            "{text}"
        );
        assert!(!text.contains("BEGIN"), "{text}");
    }
}

fn base64(octets: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(octets)
}

/// A receiver that takes nothing holds nobody up.
#[tokio::test(flavor = "multi_thread")]
async fn security_log_without_receiver_does_not_slow_the_daemon() {
    let site = Site::new();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    // The one place in its queue is taken: whoever comes next is not answered.
    let _taken = std::net::TcpStream::connect(address).unwrap();
    site.configure(|usual| format!("{usual}\n[security_log]\nsyslog = \"tcp://{address}\"\n"));
    let daemon = site.start();
    let begun = std::time::Instant::now();
    site.create_order("lot", 100);
    sign(&site, "line1/t1", 0..20);
    daemon.end();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// A wrong address is an error of the start, with its place.
#[test]
fn security_log_with_a_wrong_address_is_refused() {
    let site = Site::new();
    site.configure(|usual| usual + "\n[security_log]\nsyslog = \"logs.example\"\n");
    let said = site.refuse_to_start();
    assert!(said.contains("security_log.syslog") && said.contains("udp://HOST:PORT"), "{said}");
    refused(&site.token.birthmark(&["serve", "--config", "birthmark.toml", "--check"]), &["security_log.syslog"]);
}

/// Nobody reads a PIN out of the daemon: no core dump, and its memory stays out of swap space.
#[test]
fn daemon_leaves_no_core_dump_and_locks_its_pin() {
    let site = Site::new();
    let mut daemon = site.start();
    let process = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", daemon.pid())).unwrap();
    let limits = process("limits");
    let core: Vec<_> =
        limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{limits}");
    let status = process("status");
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap().trim().trim_end_matches(" kB");
    assert!(locked.trim().parse::<u64>().unwrap() >= 4, "{status}");
    // What is not dumpable is root's, whoever runs it.
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(format!("/proc/{}/environ", daemon.pid())).unwrap().uid(), 0);
    daemon.signal(Signal::ABORT);
    daemon.wait();
    let cores: Vec<_> = fs::read_dir(site.path("")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!cores.iter().any(|name| name.to_string_lossy().starts_with("core")), "{cores:?}");
}

/// The command without root's privileges, as any user runs it.
fn without_privileges(command: &Command) -> Command {
    let mut other = Command::new("setpriv");
    other.args(["--clear-groups", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"]);
    other.arg(command.get_program()).args(command.get_args());
    command.get_current_dir().map(|folder| other.current_dir(folder));
    let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    other.envs(variables);
    other
}

/// A debugger of the user as whom the daemon runs reads no PIN out of it, while it does read other processes of the user.
#[test]
fn daemon_refuses_a_debugger_of_its_own_user() {
    let privileged = rustix::process::geteuid().is_root();
    let plain = |command: Command| if privileged { without_privileges(&command) } else { command };
    let site = Site::new();
    let daemon = site.start_as(plain);
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    let mut other = plain(sleep).spawn().unwrap();
    wait_until("it sleeps", || {
        fs::read_to_string(format!("/proc/{}/comm", other.id())).is_ok_and(|name| name.trim() == "sleep")
    });
    // Opening another process' memory asks what a ptrace attach asks.
    let read = |process: u32| {
        let mut open = Command::new("sh");
        open.args(["-c", &format!("exec 3< /proc/{process}/mem")]);
        plain(open).output().unwrap()
    };
    let control = read(other.id());
    assert!(control.status.success(), "{}", String::from_utf8_lossy(&control.stderr));
    let refused = read(daemon.pid());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("denied"), "{refused:?}");
    let mut attach = Command::new("strace");
    attach.args(["-o", "/dev/null", "-p", &daemon.pid().to_string()]);
    let refused = plain(attach).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not permitted"), "{refused:?}");
    other.kill().unwrap();
    other.wait().unwrap();
    daemon.end();
}
