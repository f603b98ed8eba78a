//! Daemons and stations that are killed in the middle of the work.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rcgen::{KeyPair, PublicKeyData};
use rustix::process::Signal;

use crate::support::{
    site::{Process, Site, certificate, csr_of, json_line, key_of, wait_until},
    token::succeeded,
};

/// What each device's CSR asks for: its public key, DER.
type Keys = BTreeMap<String, Vec<u8>>;

/// Makes this number of CSRs for each of these stations, on a thread each, in `<station>.jsonl`.
fn make_csrs(site: &Site, stations: &[&str], each: usize) -> Keys {
    thread::scope(|scope| {
        let threads: Vec<_> = stations
            .iter()
            .map(|station| {
                let path = site.path(&format!("{station}.jsonl"));
                scope.spawn(move || {
                    let mut lines = String::new();
                    let mut keys = Keys::new();
                    for number in 0..each {
                        let device = format!("{station}-{number:05}");
                        let key = KeyPair::generate().unwrap();
                        lines += &json_line(&device, &csr_of(&key, &device));
                        keys.insert(device, key.subject_public_key_info());
                    }
                    fs::write(path, lines).unwrap();
                    keys
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// A running `station sign --json` that signs `<station>.jsonl` into `certs/` under the order `o1`.
struct Station {
    process: Process,
    /// How many devices it has reported.
    reported: Arc<AtomicUsize>,
}

impl Station {
    fn start(site: &Site, station: &str) -> Station {
        let mut command = site.sign(&format!("line1/{station}"), "o1", &format!("{station}.jsonl"), "certs");
        let log = fs::File::options().create(true).append(true).open(site.path(&format!("{station}.log"))).unwrap();
        let mut process = Process::spawn(command.arg("--json").stdout(Stdio::piped()).stderr(log)).unwrap();
        let reported = Arc::new(AtomicUsize::new(0));
        let output = process.child().stdout.take().unwrap();
        thread::spawn({
            let reported = Arc::clone(&reported);
            move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    reported.fetch_add(usize::from(line.contains("device_id")), Ordering::Relaxed);
                }
            }
        });
        Station { process, reported }
    }

    fn reported(&self) -> usize {
        self.reported.load(Ordering::Relaxed)
    }

    fn must_succeed(&mut self, site: &Site, name: &str) {
        let status = self.process.wait().unwrap();
        assert!(
            status.success(),
            "{name}: {status}: {}",
            fs::read_to_string(site.path(&format!("{name}.log"))).unwrap()
        );
    }
}

/// Each device has one certificate, with its key and a serial number of its own, and the ledger has the same.
fn must_all_be_issued_once(site: &Site, keys: &Keys) {
    let listed = succeeded(&site.operator(&["record", "list", "--order", "o1", "--json"]));
    let mut exported = BTreeMap::new();
    for line in listed.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| line[name].as_str().unwrap().to_owned();
        let certificate = pem::parse(field("certificate_pem")).unwrap().into_contents();
        assert!(exported.insert(field("device_id"), certificate).is_none(), "twice: {}", line["device_id"]);
    }
    assert_eq!(exported.len(), keys.len());
    let mut serials = HashSet::new();
    for (device, key) in keys {
        let held = certificate(&site.path(&format!("certs/{device}.pem")));
        assert!(exported[device] == held, "the ledger has another certificate of {device} than its station");
        assert!(key_of(&held) == *key, "{device} has a certificate with another key");
        let parsed = <x509_cert::Certificate as der::Decode>::from_der(&held).unwrap();
        assert!(serials.insert(parsed.tbs_certificate().serial_number().as_bytes().to_vec()), "{device}");
    }
    let order = site.order("o1");
    assert_eq!([&order["issued"], &order["reserved"], &order["left"]], [keys.len(), 0, 0], "{order}");
}

/// Twenty thousand devices get one certificate each though the daemon is killed three times.
#[test]
fn daemon_killed_three_times_gives_each_device_one_certificate() {
    let site = Site::new();
    let names = ["s1", "s2", "s3", "s4"];
    let keys = make_csrs(&site, &names, 5_000);
    let mut daemon = site.start();
    site.create_order("o1", keys.len() as u64);
    let mut stations = names.map(|name| Station::start(&site, name));
    for percent in [20, 45, 70] {
        wait_until("the stations go on", || {
            stations.iter().map(Station::reported).sum::<usize>() * 100 >= keys.len() * percent
        });
        daemon.kill();
        assert!(stations.iter_mut().any(|station| station.process.is_running().unwrap()), "killed too late");
        daemon = site.start();
    }
    for (station, name) in stations.iter_mut().zip(names) {
        station.must_succeed(&site, name);
    }
    must_all_be_issued_once(&site, &keys);
    daemon.end();
}

/// A station that is killed goes on where it was.
#[test]
fn station_that_is_killed_goes_on_where_it_was() {
    let site = Site::new();
    let keys = make_csrs(&site, &["s1"], 2_000);
    let daemon = site.start();
    site.create_order("o1", keys.len() as u64);
    for part in [3, 2] {
        let mut station = Station::start(&site, "s1");
        wait_until("the station goes on", || station.reported() >= keys.len() / part);
        station.process.kill().unwrap();
    }
    // As if it had been killed between writing a file and giving it its name.
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let left_behind = site.path(&format!("certs/.s1-00000.pem.{}.{}.tmp", machine.trim(), u32::MAX));
    fs::write(&left_behind, "half").unwrap();
    let another_machine = site.path(&format!("certs/.s1-00000.pem.elsewhere.{}.tmp", u32::MAX));
    fs::write(&another_machine, "half").unwrap();
    Station::start(&site, "s1").must_succeed(&site, "s1");
    assert!(!left_behind.exists() && another_machine.exists());
    fs::remove_file(another_machine).unwrap();
    assert_eq!(fs::read_dir(site.path("certs")).unwrap().count(), keys.len());
    must_all_be_issued_once(&site, &keys);
    daemon.end();
}

/// A daemon that is told to stop abandons nothing, and the next one takes over.
#[test]
fn daemon_told_to_stop_abandons_nothing_and_the_next_goes_on() {
    let site = Site::new();
    let names = ["s1", "s2"];
    let keys = make_csrs(&site, &names, 2_000);
    let mut daemon = site.start();
    site.create_order("o1", keys.len() as u64);
    let mut stations = names.map(|name| Station::start(&site, name));
    for part in [4, 2] {
        wait_until("the stations go on", || stations.iter().map(Station::reported).sum::<usize>() >= keys.len() / part);
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.wait().code(), Some(0), "{}", site.log());
        daemon = site.start();
        assert!(stations.iter_mut().any(|station| station.process.is_running().unwrap()), "stopped too late");
    }
    for (station, name) in stations.iter_mut().zip(names) {
        station.must_succeed(&site, name);
    }
    must_all_be_issued_once(&site, &keys);
    assert!(!site.log().contains("abandon"), "{}", site.log());
    daemon.end();
}
