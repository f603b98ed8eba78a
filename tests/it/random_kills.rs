//! The daemon killed (SIGKILL) at random moments under load, again and again: in its start, in its recovery, between
//! reservation and record, between record and reply. Some of the certificates are confirmed and some scrapped
//! meanwhile.
//!
//! `BIRTHMARK_KILL_ROUNDS` sets how often, `BIRTHMARK_SEED` repeats the moments of a run (the machine's own timing
//! differs all the same).

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use birthmark::proto::{
    ConfirmRequest, IssueRequest, IssuedCertificate, ScrapCertificateRequest, admin_client::AdminClient,
    issuance_client::IssuanceClient,
};
use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::timeout;
use tonic::{Status, transport::Channel};

use crate::support::{
    site::{Answer, Daemon, IssueStream, PATIENCE, Site, csr, request},
    token::{succeeded, text},
};

const STATIONS: usize = 3;
/// Requests that a station has under way.
const WINDOW: usize = 8;
/// The small order's quantity: it is used up on the way.
const SMALL: u64 = 40;

/// A station: what it asked for and what it was given, which survives the daemon.
struct Station {
    name: String,
    /// Asked for, and not answered yet.
    unanswered: BTreeMap<String, IssueRequest>,
    /// What it holds, and the request to ask for it again.
    held: HashMap<String, (IssueRequest, IssuedCertificate)>,
    /// Devices whose certificate came since it was last asked for again.
    fresh: Vec<String>,
    /// The daemon said that these are confirmed.
    confirmed: Vec<Bytes>,
    /// The daemon was asked to scrap these, and may not have answered.
    scrapped: Vec<Bytes>,
    asked: usize,
}

impl Station {
    fn new(number: usize) -> Self {
        Station {
            name: format!("line1/t{number}"),
            unanswered: BTreeMap::new(),
            held: HashMap::new(),
            fresh: Vec::new(),
            confirmed: Vec::new(),
            scrapped: Vec::new(),
            asked: 0,
        }
    }

    /// A new device's request; every fourth on the small order.
    fn new_request(&mut self) -> IssueRequest {
        self.asked += 1;
        let order = if self.asked.is_multiple_of(4) { "small" } else { "large" };
        let device = format!("{}-{}", self.name.replace('/', "-"), self.asked);
        request(&device, order, csr(&device))
    }

    /// Asks until the daemon is gone.
    async fn work(&mut self, site: &Site, daemon: &Daemon) {
        let Some(channel) = daemon.try_connect(site.identity("station", &self.name)).await else { return };
        let Ok(mut stream) = timeout(PATIENCE, IssueStream::open(channel.clone())).await.unwrap() else { return };
        let mut issuance = IssuanceClient::new(channel);
        let mut open = 0;
        for again in self.unanswered.values().cloned().collect::<Vec<_>>() {
            if stream.try_send(again).await.is_err() {
                return;
            }
            open += 1;
        }
        loop {
            while open < WINDOW {
                let new = self.new_request();
                self.unanswered.insert(new.request_id.clone(), new.clone());
                if stream.try_send(new).await.is_err() {
                    return;
                }
                open += 1;
            }
            let Ok(Some(reply)) = stream.receive().await else { return };
            open -= 1;
            let device = reply.request_id.clone();
            self.take(reply);
            let Some((request, issued)) = self.held.get(&device) else { continue };
            let serial_number = issued.serial_number.clone();
            match self.asked % 8 {
                0 => {
                    let serial_numbers = vec![serial_number.clone()];
                    let Ok(reply) = issuance.confirm(ConfirmRequest { serial_numbers, ..Default::default() }).await
                    else {
                        return;
                    };
                    if reply.into_inner().results[0].error.is_none() {
                        self.confirmed.push(serial_number);
                    }
                }
                4 if request.order == "large" => {
                    self.held.remove(&device);
                    self.fresh.retain(|fresh| *fresh != device);
                    self.scrapped.push(serial_number.clone());
                    let Some(channel) = daemon.try_connect_locally().await else { return };
                    if scrap(&mut AdminClient::new(channel), serial_number).await.is_err() {
                        return;
                    }
                }
                _ => {}
            }
        }
    }

    fn take(&mut self, reply: birthmark::proto::IssueReply) {
        let Some(request) = self.unanswered.remove(&reply.request_id) else { panic!("nobody asked: {reply:?}") };
        let device = request.device_id.clone();
        match Answer::of(reply) {
            Answer::Issued(issued) => {
                self.fresh.push(device.clone());
                assert!(self.held.insert(device, (request, issued)).is_none(), "given twice");
            }
            Answer::Refused { reason, .. } if reason == "ORDER_EXHAUSTED" && request.order == "small" => {}
            // Going down; the request stands.
            Answer::Refused { retry: true, .. } => drop(self.unanswered.insert(request.request_id.clone(), request)),
            other => panic!("{device}: {other:?}"),
        }
    }

    /// What it holds must be found again, byte by byte: what came since the last look, or everything.
    async fn ask_again(&mut self, site: &Site, daemon: &Daemon, everything: bool) {
        let mut stream = self.connect(site, daemon).await.expect("the daemon is ready");
        let fresh = std::mem::take(&mut self.fresh);
        let devices = if everything { self.held.keys().cloned().collect() } else { fresh };
        for some in devices.chunks(64) {
            for device in some {
                stream.try_send(self.held[device].0.clone()).await.unwrap();
            }
            for _ in some {
                let reply = stream.receive().await.unwrap().unwrap();
                let (_, held) = &self.held[&reply.request_id];
                let again = Answer::of(reply).issued();
                assert!(again.replay && again.certificate == held.certificate, "{:?}", held.serial_number);
            }
        }
    }

    /// Asks for what was never answered, until it is.
    async fn catch_up(&mut self, site: &Site, daemon: &Daemon) {
        let mut stream = self.connect(site, daemon).await.expect("the daemon is ready");
        for again in self.unanswered.values().cloned().collect::<Vec<_>>() {
            stream.try_send(again).await.unwrap();
            let reply = stream.receive().await.unwrap().unwrap();
            self.take(reply);
        }
        assert!(self.unanswered.is_empty());
        let mut admin = daemon.admin().await;
        for serial_number in &self.scrapped {
            scrap(&mut admin, serial_number.clone()).await.unwrap();
        }
    }

    async fn connect(&self, site: &Site, daemon: &Daemon) -> Option<IssueStream> {
        let channel = daemon.try_connect(site.identity("station", &self.name)).await?;
        timeout(PATIENCE, IssueStream::open(channel)).await.unwrap().ok()
    }
}

async fn scrap(admin: &mut AdminClient<Channel>, serial_number: Bytes) -> Result<(), Status> {
    let request = ScrapCertificateRequest { serial_number, reason: "a test".into() };
    admin.scrap_certificate(request).await.map(drop)
}

/// Killed at any moment, it loses nothing and signs nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn daemon_killed_at_any_moment_loses_and_repeats_nothing() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = number("BIRTHMARK_KILL_ROUNDS").unwrap_or(200);
    let seed = number("BIRTHMARK_SEED").unwrap_or_else(rand::random);
    println!("BIRTHMARK_KILL_ROUNDS={rounds} BIRTHMARK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);

    let site = Site::new();
    site.configure(|usual| usual.replace("[audit]\n", "[audit]\ninterval = \"1s\"\n"));
    let daemon = site.start();
    site.create_order("large", 1_000_000);
    site.create_order("small", SMALL);
    daemon.end();
    // SoftHSM rewrites its token in place at every login; killed just then, it loses the token. That is not what is
    // tried here.
    let token = Copy::of(site.path("tokens"));
    let mut stations: Vec<_> = (0..STATIONS).map(Station::new).collect();
    for station in &stations {
        site.identity("station", &station.name);
    }

    let started = Instant::now();
    let mut in_start = 0;
    for round in 0..rounds {
        if random.random_ratio(1, 5) {
            site.start_and_kill(Duration::from_millis(random.random_range(0..200)));
            in_start += 1;
            token.put_back();
        }
        let mut daemon = site.start();
        if round.is_multiple_of(20) {
            check(&site, &daemon, &mut stations, false).await;
        }
        let life = Duration::from_millis(random.random_range(5..80));
        // Half of the time the stations begin with what they hold, so that the kill may come while that is looked up.
        let look_back = random.random();
        let ask = async {
            for station in &mut stations {
                if look_back {
                    station.ask_again(&site, &daemon, false).await;
                }
            }
        };
        ask.await;
        let kill = async {
            tokio::time::sleep(life).await;
            rustix::process::kill_process(
                rustix::process::Pid::from_raw(daemon.pid() as i32).unwrap(),
                rustix::process::Signal::KILL,
            )
            .unwrap();
        };
        let work = futures_util::future::join_all(stations.iter_mut().map(|station| station.work(&site, &daemon)));
        tokio::join!(kill, work);
        daemon.kill();
        token.put_back();
    }

    let daemon = site.start();
    check(&site, &daemon, &mut stations, true).await;
    daemon.end();
    let verified = site.token.birthmark(&["journal", "verify", "data", "--trusted-key", "ca/audit.pem"]);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    assert!(!site.log().contains("panicked"), "{}", site.log());
    let held: usize = stations.iter().map(|station| station.held.len()).sum();
    println!(
        "killed {rounds} times under load and {in_start} times in the start, {held} certificates, {:.0} s\n{}",
        started.elapsed().as_secs_f64(),
        text(&verified.stdout)
    );
}

/// The files of a folder, in memory.
struct Copy(Vec<(PathBuf, Vec<u8>)>);

impl Copy {
    fn of(folder: PathBuf) -> Copy {
        let mut files = Vec::new();
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push((path.clone(), fs::read(path).unwrap()));
                }
            }
        }
        Copy(files)
    }

    fn put_back(&self) {
        for (path, content) in &self.0 {
            fs::write(path, content).unwrap();
        }
    }
}

/// The certificates of an order, by serial number, and their states.
fn states(site: &Site, order: &str) -> HashMap<String, String> {
    let listed = succeeded(&site.operator(&["record", "list", "--order", order, "--json"]));
    let records = listed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    records.map(|record| (word(&record["serial_number"]), word(&record["state"]))).collect()
}

/// Everybody has an answer; then the orders count exactly what the stations hold, and the journal verifies.
async fn check(site: &Site, daemon: &Daemon, stations: &mut [Station], last: bool) {
    for station in &mut *stations {
        station.catch_up(site, daemon).await;
        station.ask_again(site, daemon, last).await;
    }
    if last {
        // What crashes gave back of the small order is there to be used, and not more.
        for _ in 0..=SMALL {
            let mut new = stations[0].new_request();
            new.order = "small".into();
            stations[0].unanswered.insert(new.request_id.clone(), new);
        }
        stations[0].catch_up(site, daemon).await;
        assert_eq!(site.order("small")["issued"], SMALL);
    }
    let mut serial_numbers = std::collections::HashSet::new();
    for order in ["large", "small"] {
        let held =
            stations.iter().flat_map(|station| station.held.values()).filter(|(request, _)| request.order == order);
        let mut count = 0;
        for (_, certificate) in held {
            assert!(serial_numbers.insert(certificate.serial_number.clone()), "a serial number was used twice");
            count += 1;
        }
        let told = site.order(order);
        assert_eq!((&told["issued"], &told["reserved"]), (&count.into(), &0.into()), "{order}");
        let states = states(site, order);
        let scrapped = stations.iter().flat_map(|station| &station.scrapped);
        let confirmed = stations.iter().flat_map(|station| &station.confirmed);
        let expected = scrapped.map(|serial| (serial, "scrapped")).chain(confirmed.map(|serial| (serial, "confirmed")));
        for (serial, state) in expected {
            let serial = hex::encode(serial);
            assert!(states.get(&serial).is_none_or(|found| found == state), "{serial} is not {state}");
        }
        let scrapped = states.values().filter(|state| *state == "scrapped").count();
        assert_eq!((told["scrapped"].as_u64(), states.len()), (Some(scrapped as u64), count + scrapped), "{order}");
    }
    let ended: usize = stations.iter().map(|station| station.scrapped.len()).sum();
    assert_eq!(site.order("large")["scrapped"], ended);
    let verified = site.token.birthmark(&["journal", "verify", "data", "--trusted-key", "ca/audit.pem"]);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
}
