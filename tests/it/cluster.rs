//! Two real daemons that share a ledger on PostgreSQL, each with a token of its own and the same CA key, and stations that ask
//! whichever answers.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use birthmark::{
    client::Connection,
    proto::{ConfirmRequest, ConfirmResult, IssueRequest, ReadBack, issuance_client::IssuanceClient},
};
use birthmark_bench::{
    postgres::{Place, Server, psql},
    proxy::Proxy,
    shared::wait_until_followed,
};
use rcgen::KeyPair;
use tonic::Code;

use crate::{
    disk_faults::{failing, insist},
    readiness_faults::Clock,
    support::{
        faults::Faults,
        issue::csr_of,
        pair::{Certificates, Pair, account, pause},
        site::{Answer, IssueStream, Site, csr, request, wait_until},
        token::{succeeded, text},
    },
};

async fn open(url: String, identity: PathBuf) -> Option<IssueStream> {
    let connection = Connection { server: Some(url), identity: Some(identity), socket: None };
    let connected = tokio::time::timeout(Duration::from_secs(3), connection.daemon().unwrap().connect()).await;
    IssueStream::open(connected.ok()?.ok()?).await.ok()
}

/// The devices of each order, by number. Of ten, the last two have one key.
fn devices(orders: u64) -> Vec<Vec<IssueRequest>> {
    let device = |order: u64, number: usize, key: &KeyPair| {
        let device = format!("r{order}-d{number}");
        request(&device, &format!("lot-{order}"), csr_of(key, &device))
    };
    let devices = |order: u64| {
        let mut key = KeyPair::generate().unwrap();
        let mut next = |number: usize| {
            if number % 10 != 9 {
                key = KeyPair::generate().unwrap();
            }
            device(order, number, &key)
        };
        (0..200).map(&mut next).collect()
    };
    (0..orders).map(devices).collect()
}

/// Whether another device has this one's key.
fn is_cloned(device: &str) -> bool {
    device.ends_with('8') || device.ends_with('9')
}

/// A station that has these devices certified, by whichever daemon answers, until each has its certificate, the order is used up, or
/// another device has its key. What it was told once it must be told again.
async fn station(
    urls: Arc<[String; 2]>,
    identity: PathBuf,
    devices: Vec<IssueRequest>,
    first: usize,
) -> (Certificates, u64) {
    let (mut got, mut used_up, mut at, mut stream) = (Certificates::new(), 0, first, None);
    for (number, request) in devices.into_iter().enumerate() {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} was not answered in time", request.request_id);
            if stream.is_none() {
                at += 1;
                let url = urls[at % 2].clone();
                stream = open(url, identity.clone()).await;
                if stream.is_none() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            }
            let Some(open) = &mut stream else { continue };
            let answered = async {
                open.try_send(request.clone()).await.ok()?;
                open.receive().await.ok()?
            };
            let Ok(Some(reply)) = tokio::time::timeout(Duration::from_secs(6), answered).await else {
                stream = None;
                continue;
            };
            match Answer::of(reply) {
                Answer::Issued(certificate) => {
                    got.insert(request.request_id.clone(), certificate.certificate.to_vec());
                    break;
                }
                Answer::Refused { reason, .. } if reason == "ORDER_EXHAUSTED" => {
                    used_up += 1;
                    break;
                }
                Answer::Refused { reason, .. } if reason == "KEY_REUSED" && is_cloned(&request.request_id) => break,
                Answer::Refused { code: Code::Unavailable, retry: true, .. } => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => panic!("{}: {other:?}", request.request_id),
            }
        }
        // Now and then the other one is asked next.
        if number % 7 == 3 {
            stream = None;
        }
    }
    (got, used_up)
}

/// What is done to the daemons and their database while stations ask.
struct Attacks {
    place: Place,
    proxy: Option<Proxy>,
}

impl Attacks {
    /// Where the daemons find their database over a network that can be cut, unless it is somebody's own.
    fn new() -> Attacks {
        let server = Server::shared();
        let mut place = server.place().unwrap();
        let proxy = server.port().map(|port| {
            let proxy = Proxy::to(port).unwrap();
            place.daemons = proxy.url(&place.daemons, port);
            proxy
        });
        Attacks { place, proxy }
    }

    /// Ends the connection of whoever commits next: the COMMIT arrives, and its answer does not.
    fn cut_at_commit(&self) {
        if let Some(proxy) = &self.proxy {
            proxy.cut_at_commit();
        }
    }

    /// Ends sessions that are about to write.
    fn kill_session(&self) {
        let kill = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE relation = '{}.head'::regclass AND pid <> pg_backend_pid()",
            self.place.schema
        );
        psql(&self.place.owner, &kill).unwrap();
    }
}

/// Daemons are killed, stopped while they have their turn, and stopped past their lease; sessions are ended by the server, and
/// connections are cut behind a COMMIT; two stations ask for the same devices at both daemons; devices have other devices' keys;
/// there are more devices than the order has units. At the end: every device that was told of a certificate has exactly this one,
/// no key has two, no order is exceeded, and the journal keeps all rules. Again and again with
/// new daemons, for `BIRTHMARK_TORTURE_SECONDS`, and until each attack was made once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_daemons_under_attack_lose_and_double_nothing() {
    let seconds = std::env::var("BIRTHMARK_TORTURE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(25);
    let (begun, mut attacks) = (Instant::now(), 0);
    while begun.elapsed().as_secs() < seconds || attacks < KINDS {
        attack_two_daemons(seconds / 12 + 1, &mut attacks).await;
    }
}

/// How many kinds of attack there are.
const KINDS: u32 = 7;

/// One life of both daemons. `attack` counts on from one to the next.
#[expect(clippy::too_many_lines, reason = "stations, attacks and the account of both are one story")]
async fn attack_two_daemons(rounds: u64, attack: &mut u32) {
    let attacks = Attacks::new();
    let pair = Pair::at(attacks.place.clone(), 1, "patience = \"20s\"\n");
    let (mut one, mut two) = (pair.one(), pair.two());
    let quantity = 150_u64;
    for round in 0..rounds {
        pair.site.create_order(&format!("lot-{round}"), quantity);
    }
    let urls = Arc::new([one.url(), two.url()]);
    let requests = Arc::new(devices(rounds));
    let identities: Vec<_> = (0..4).map(|number| pair.site.identity("station", &format!("line1/t{number}"))).collect();
    let stations: Vec<_> = (0..4)
        .map(|number| {
            let (urls, identity, requests) = (Arc::clone(&urls), identities[number].clone(), Arc::clone(&requests));
            tokio::spawn(async move {
                let mut all = (Certificates::new(), 0);
                for devices in requests.iter() {
                    // Each two stations have the same devices, one from the front and one from the back.
                    let mut devices = devices[number / 2 * 100..number / 2 * 100 + 100].to_vec();
                    if number % 2 == 1 {
                        devices.reverse();
                    }
                    let (got, used_up) = station(Arc::clone(&urls), identity.clone(), devices, number).await;
                    all.0.extend(got);
                    all.1 += used_up;
                }
                all
            })
        })
        .collect();
    while stations.iter().any(|station| !station.is_finished()) {
        tokio::task::block_in_place(|| {
            match *attack % KINDS {
                0 | 3 => (0..20).for_each(|_| {
                    attacks.kill_session();
                    std::thread::sleep(Duration::from_millis(15));
                }),
                5 => (0..20).for_each(|_| {
                    attacks.cut_at_commit();
                    std::thread::sleep(Duration::from_millis(15));
                }),
                1 => {
                    two.kill();
                    two.wait();
                    two = pair.two();
                }
                2 => {
                    one.kill();
                    one.wait();
                    one = pair.one();
                }
                // Past the lease.
                4 => pause(&two, 7000),
                // Longer than a session may be idle in its turn, and shorter than the lease.
                _ => pause(&one, 2500),
            }
        });
        *attack += 1;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let mut certificates = Certificates::new();
    for station in stations {
        for (device, certificate) in station.await.unwrap().0 {
            // Whoever asked, the device has one.
            let same = certificates.entry(device.clone()).or_insert_with(|| certificate.clone());
            assert_eq!(*same, certificate, "{device} has two certificates");
        }
    }
    for device in certificates.keys().filter_map(|device| device.strip_suffix('8')) {
        assert!(
            !certificates.contains_key(&format!("{device}9")),
            "{device}8 and {device}9 have certificates of one key"
        );
    }
    // The same bytes, from both.
    for url in urls.iter() {
        let mut stream = loop {
            // A daemon that was stopped past its lease may take its time on a busy machine.
            match open(url.clone(), identities[0].clone()).await {
                Some(stream) => break stream,
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        for request in requests.iter().flatten().step_by(9) {
            if let Some(certificate) = certificates.get(&request.request_id) {
                assert_eq!(stream.ask(request.clone()).await.issued().certificate, *certificate);
            }
        }
    }
    let issued: u64 =
        (0..rounds).map(|round| pair.site.order(&format!("lot-{round}"))["issued"].as_u64().unwrap()).sum();
    // A certificate may have been recorded whose device was never told: it is told at the next retry.
    assert!(issued >= certificates.len() as u64 && issued <= quantity * rounds, "{issued} of {}", certificates.len());
    one.end();
    two.end();
    account(&pair, &certificates);
    println!(
        "{} certificates, {issued} issued of {}, {attack} attacks up to now",
        certificates.len(),
        quantity * rounds
    );
}

/// A daemon that stands still past its lease while its HSM signs is given up by the other, and what was signed never leaves it: the
/// station is told `RESERVATION_LOST` once, asks again, and has one certificate, the same at both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn station_of_a_given_up_daemon_is_told_and_asks_again() {
    let pair = Pair::new("patience = \"10s\"\n");
    let faults = Faults::in_configuration(&pair.site, "call_limit_seconds = 60\nwait_seconds = 60");
    let (one, two) = (pair.one(), pair.two());
    pair.site.create_order("lot", 10);
    let mut stream = pair.site.stream(&one, "line1/t1").await;
    let first = stream.ask(request("d1", "lot", csr("d1"))).await.issued();
    faults.set("hang C_Sign 3s");
    let second = request("d2", "lot", csr("d2"));
    stream.send(second.clone()).await;
    let used = || psql(&pair.place.owner, "SELECT used FROM orders WHERE id = 'lot'").unwrap();
    wait_until("it is reserved", || used() == "2");
    tokio::task::block_in_place(|| pause(&one, 8000));
    let told = Answer::of(stream.receive().await.unwrap().unwrap());
    told.must_be(Code::Unavailable, "RESERVATION_LOST");
    let issued = stream.ask(second.clone()).await.issued();
    let mut other = pair.site.stream(&two, "line1/t2").await;
    assert_eq!(other.ask(second).await.issued().certificate, issued.certificate);
    assert_eq!(used(), "2");
    drop((stream, other));
    one.end();
    two.end();
    let dump = text(&pair.site.token.birthmark(&["journal", "dump", "data"]).stdout);
    assert_eq!(dump.matches("nothing was heard of the daemon").count(), 1, "{dump}");
    let certificates =
        [("d1", first), ("d2", issued)].map(|(device, issued)| (device.to_owned(), issued.certificate.to_vec()));
    account(&pair, &Certificates::from(certificates));
}

/// What one daemon wrote a moment ago the other does not refuse for good: an order without a profile beside it, a device, a new
/// certificate of a device, and one that was read back, which are confirmed. What nobody wrote it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_daemon_wrote_just_now_is_known() {
    let pair = Pair::new("patience = \"10s\"\n");
    let (one, two) = (pair.one(), pair.two());
    let mut at_one = pair.site.stream(&one, "line1/t1").await;
    let mut at_two = pair.site.stream(&two, "line1/t2").await;
    let mut client = IssuanceClient::new(two.connect(pair.site.identity("station", "line1/t2")).await);
    let unconfirmed = |results: Vec<ConfirmResult>| -> Vec<String> {
        results.into_iter().map(|result| result.reason).filter(|reason| !reason.is_empty()).collect()
    };
    for number in 0..5 {
        let (order, device) = (format!("lot-{number}"), format!("d{number}"));
        pair.site.create_order(&order, 10);
        let of_order = IssueRequest { profile: String::new(), ..request(&format!("p{number}"), &order, csr("p")) };
        at_two.ask(of_order).await.issued();
        let issued = at_one.ask(request(&device, &order, csr(&device))).await.issued();
        let read_back = ReadBack { certificate: issued.certificate, device_id: device.clone() };
        let asked = ConfirmRequest { read_back: vec![read_back], ..ConfirmRequest::default() };
        assert_eq!(unconfirmed(client.confirm(asked).await.unwrap().into_inner().results), [""; 0]);
        let other = format!("e{number}");
        at_one.ask(request(&other, &order, csr(&other))).await.issued();
        let asked = ConfirmRequest { device_ids: vec![other, "nobody".into()], ..ConfirmRequest::default() };
        assert_eq!(unconfirmed(client.confirm(asked).await.unwrap().into_inner().results), ["RECORD_UNKNOWN"]);
        // A device that has a newer one.
        succeeded(&pair.site.operator(&["record", "scrap", &device, "--reason", "cracked"]));
        if number % 2 == 0 {
            // The other one knows of the end of the old one, or not.
            wait_until_followed();
        }
        let again = IssueRequest { reissue: true, ..request(&device, &order, csr(&device)) };
        at_one.ask(again).await.issued();
        let asked = ConfirmRequest { device_ids: vec![device], ..ConfirmRequest::default() };
        assert_eq!(unconfirmed(client.confirm(asked).await.unwrap().into_inner().results), [""; 0]);
    }
    drop((at_one, at_two, client));
    one.end();
    two.end();
}

/// A daemon whose own disk takes nothing for a while refuses for itself, says why, and goes on when there is room; what others write
/// meanwhile it has then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_whose_own_disk_is_full_follows_when_there_is_room() {
    let pair = Pair::new("patience = \"10s\"\n");
    let one = pair.one();
    pair.site.create_order("lot", 1000);
    // More calls than a start makes, and a second each while nobody asks.
    let full = "pwrite64:error=ENOSPC:when=30..40";
    let journal = pair.site.path("data-two/journal/00000001.journal");
    let two = pair.two_as(|command| failing(&command, &journal, &[full]));
    let mut at_one = pair.site.stream(&one, "line1/t1").await;
    let mut at_two = pair.site.stream(&two, "line1/t2").await;
    let mut issued = Vec::new();
    while two.get("/readyz").0 == 200 {
        assert!(issued.len() < 100, "the disk is never full");
        let asked = request(&format!("d{}", issued.len()), "lot", csr("d"));
        issued.push((asked.clone(), at_one.ask(asked).await.issued().certificate));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (_, said) = two.get("/readyz");
    assert!(
        said.contains("this daemon's copy of the ledger cannot be written") && said.contains("No space left"),
        "{said}"
    );
    at_two.ask(request("e", "lot", csr("e"))).await.must_be(Code::Unavailable, "STORAGE_LOW");
    let asked = request("meanwhile", "lot", csr("meanwhile"));
    issued.push((asked.clone(), at_one.ask(asked).await.issued().certificate));
    wait_until("there is room", || two.get("/readyz").0 == 200);
    for (asked, certificate) in issued {
        assert_eq!(at_two.ask(asked).await.issued().certificate, certificate);
    }
    at_two.ask(request("e", "lot", csr("e"))).await.issued();
    drop((at_one, at_two));
    one.end();
    two.end();
    account(&pair, &Certificates::new());
}

/// What a daemon has written into the database, and its own disk does not take, is recorded: it takes it in when there is room, and
/// whoever asks again has the same certificate from both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_that_the_own_disk_does_not_take_is_taken_in_when_there_is_room() {
    let pair = Pair::new("patience = \"10s\"\n");
    let one = pair.one();
    pair.site.create_order("lot", 100);
    let journal = pair.site.path("data-two/journal/00000001.journal");
    let two = pair.two_as(|command| failing(&command, &journal, &["pwrite64:error=ENOSPC:when=30..34"]));
    let mut stations = Vec::new();
    for station in 0..8 {
        let mut stream = pair.site.stream(&two, &format!("line1/t{station}")).await;
        // At once, so that a batch has several of them.
        stations.push(tokio::spawn(async move {
            let (mut issued, mut refusals) = (Vec::new(), 0);
            for number in 0..10 {
                let asked = request(&format!("d{station}-{number}"), "lot", csr("d"));
                let (answer, refused) = insist(&mut stream, &asked).await;
                refusals += refused;
                issued.push((asked, answer.certificate));
            }
            (issued, refusals)
        }));
    }
    let (mut issued, mut refusals) = (Vec::new(), 0);
    for station in stations {
        let (certificates, refused) = station.await.unwrap();
        issued.extend(certificates);
        refusals += refused;
    }
    assert!(refusals > 0, "the disk was never full");
    let mut at_two = pair.site.stream(&two, "line1/t2").await;
    let mut at_one = pair.site.stream(&one, "line1/t1").await;
    for (asked, certificate) in issued {
        assert_eq!(at_two.ask(asked.clone()).await.issued().certificate, certificate);
        assert_eq!(at_one.ask(asked).await.issued().certificate, certificate);
    }
    assert_eq!(pair.site.order("lot")["issued"], 80);
    drop((at_one, at_two));
    one.end();
    two.end();
    account(&pair, &Certificates::new());
}

/// A daemon whose clock is wrong by more than some seconds refuses for itself alone, until it is right again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_whose_clock_is_wrong_refuses_for_itself() {
    let pair = Pair::new("patience = \"10s\"\n");
    let (clock, one) = Clock::start(&pair.site);
    let two = pair.two();
    pair.site.create_order("lot", 10);
    let mut at_one = pair.site.stream(&one, "line1/t1").await;
    let mut at_two = pair.site.stream(&two, "line1/t2").await;
    for (number, (wrong, reason)) in [("+20", "CLOCK_IMPLAUSIBLE"), ("-20", "CLOCK_BACKWARDS")].into_iter().enumerate()
    {
        at_one.ask(request(&format!("a{number}"), "lot", csr("a"))).await.issued();
        clock.set(wrong);
        wait_until("it is not ready", || one.get("/readyz").0 == 503);
        let (_, said) = one.get("/readyz");
        assert!(said.contains("the clock ("), "{said}");
        let refused = at_one.ask(request(&format!("b{number}"), "lot", csr("b"))).await;
        refused.must_be(Code::Unavailable, reason);
        at_two.ask(request(&format!("c{number}"), "lot", csr("c"))).await.issued();
        clock.set("+0");
        wait_until("it is ready again", || one.get("/readyz").0 == 200);
    }
    drop((at_one, at_two));
    one.end();
    two.end();
}

/// The way of a site: one machine, then a database and two daemons, then one machine again; a database that is away is said, and
/// reads go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn site_moves_to_a_shared_ledger_and_back() {
    let site = Site::new();
    let alone = site.start();
    site.create_order("lot", 20);
    let mut stream = site.stream(&alone, "line1/t1").await;
    let first = stream.ask(request("d1", "lot", csr("d1"))).await.issued();
    drop(stream);
    alone.end();
    let place = Server::shared().place().unwrap();
    let shared = |ledger: &str| {
        format!("[ledger]\npath = \"data\"\ndatabase = \"{}\"\ndaemon = \"one\"\ncopies = 1\n{ledger}", place.daemons)
    };
    site.configure(|text| text.replace("[ledger]\npath = \"data\"\n", &shared("patience = \"3s\"\n")));
    let own = |arguments: &[&str]| {
        let all = [&["ledger"][..], arguments, &["--config", "birthmark.toml", "--database", &place.owner]].concat();
        site.token.birthmark(&all)
    };
    let created = succeeded(&own(&["create", "--from", "data", "--role", &place.role]));
    assert!(created.contains("entries"), "{created}");
    let one = site.start();
    let mut stream = site.stream(&one, "line1/t1").await;
    let request_again = request("d1", "lot", csr("d1"));
    // Another key: the device has its certificate.
    stream.ask(request_again).await.must_be(Code::AlreadyExists, "DEVICE_HAS_CERTIFICATE");
    let second = stream.ask(request("d2", "lot", csr("d2"))).await.issued();
    let status = succeeded(&own(&["status", "--json"]));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["daemons"][0]["daemon"], "one");
    assert!(one.metric("birthmark_ledger_commit_duration_seconds_count", &[]) > 0.0);
    wait_until("the heartbeat", || one.metric("birthmark_ledger_daemons", &[]) > 0.0);
    // The database takes nothing any more: it is said, and what is known is read.
    psql(&place.owner, &format!("REVOKE ALL ON head FROM {}", place.role)).unwrap();
    let asked = stream.ask(request("d3", "lot", csr("d3"))).await;
    asked.must_be(Code::Unavailable, "STORAGE_UNAVAILABLE");
    let (code, said) = one.get("/readyz");
    assert!(code == 503 && said.contains("is away since") && said.contains("GRANT UPDATE ON head TO"), "{code} {said}");
    assert_eq!(site.order("lot")["issued"], 2);
    // With the moment of which it is: in the answers, for whoever reads on the command line, and in the status.
    let marked = |answer: &std::process::Output| text(&answer.stderr).contains("birthmark: as of 2");
    assert!(marked(&site.operator(&["order", "show", "lot"])));
    let as_of = || -> serde_json::Value {
        let status: serde_json::Value = serde_json::from_str(&one.get("/status.json").1).unwrap();
        status["ledger"]["as_of"].clone()
    };
    wait_until("the status says of which moment it is", || as_of().is_string());
    psql(&place.owner, &format!("GRANT SELECT, UPDATE ON head TO {}", place.role)).unwrap();
    wait_until("the daemon is ready again", || one.get("/readyz").0 == 200);
    assert!(!marked(&site.operator(&["order", "show", "lot"])));
    wait_until("the status is of now", || as_of().is_null());
    let third = stream.ask(request("d3", "lot", csr("d3"))).await.issued();
    drop(stream);
    one.end();
    succeeded(&own(&["leave"]));
    site.configure(|text| text);
    let alone = site.start();
    let mut stream = site.stream(&alone, "line1/t1").await;
    let fourth = stream.ask(request("d4", "lot", csr("d4"))).await.issued();
    let serials = [first, second, third, fourth].map(|issued| issued.serial_number);
    assert!(serials.is_sorted(), "{serials:?}");
    drop(stream);
    alone.end();
    succeeded(&site.token.birthmark(&["journal", "verify", "data"]));
}
