//! Two real daemons over three PostgreSQL that replace each other (Patroni, etcd). `make cluster-test` runs them; they take minutes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use birthmark::proto::IssueRequest;
use birthmark_bench::patroni::{Cluster, Replication};
use tonic::Code;

use crate::support::{
    pair::{Certificates, Pair, account},
    site::{Daemon, IssueStream, csr, request, wait_until},
    token::text,
};

/// What a station that waits has got.
struct Got {
    certificates: Certificates,
    requests: Vec<IssueRequest>,
    longest: Duration,
}

/// A station that has one device after the other certified and waits for each answer. No answer but a certificate is expected.
async fn patient(mut stream: IssueStream, name: u32, stop: Arc<AtomicBool>) -> Got {
    let mut got = Got { certificates: BTreeMap::new(), requests: Vec::new(), longest: Duration::ZERO };
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let device = format!("s{name}-{number}");
        let begun = Instant::now();
        let request = device_request(&device);
        let issued = stream.ask(request.clone()).await.issued();
        got.longest = got.longest.max(begun.elapsed());
        got.requests.push(request);
        got.certificates.insert(device, issued.certificate.to_vec());
    }
    got
}

/// With a key of its own.
fn device_request(device: &str) -> IssueRequest {
    request(device, "lot", csr(device))
}

/// Primaries die like in a power cut while stations wait: no station is told of an error, and nothing that was acknowledged is lost
/// or doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "minutes: make cluster-test"]
async fn primary_that_dies_loses_and_doubles_nothing() {
    let rounds = std::env::var("BIRTHMARK_FAILOVERS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let mut cluster = Cluster::start(Replication::Strict).unwrap();
    let pair = Pair::at(cluster.place().unwrap(), 2, "patience = \"60s\"\n");
    let (one, two) = (pair.one(), pair.two());
    pair.site.create_order("lot", 10_000_000);
    let stop = Arc::new(AtomicBool::new(false));
    let mut stations = Vec::new();
    for number in 0..4 {
        let daemon = if number % 2 == 0 { &one } else { &two };
        let stream = pair.site.stream(daemon, &format!("line1/t{number}")).await;
        stations.push(tokio::spawn(patient(stream, number, Arc::clone(&stop))));
    }
    let mut took = Vec::new();
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_secs(3)).await;
        tokio::task::block_in_place(|| {
            let killed = cluster.kill_primary().unwrap();
            let begun = Instant::now();
            let next = cluster.wait_for_primary().unwrap();
            assert_ne!(next, killed);
            took.push(begun.elapsed());
            cluster.start_again(&killed).unwrap();
            cluster.wait_for_standbys().unwrap();
            println!(
                "{killed} was killed: {next} took writes after {:?}, a standby followed after {:?}",
                took.last(),
                begun.elapsed()
            );
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::Relaxed);
    let (mut certificates, mut requests, mut longest) = (Certificates::new(), Vec::new(), Duration::ZERO);
    for station in stations {
        let got = station.await.unwrap_or_else(|error| panic!("{error}; the daemons' log: {}", pair.site.log()));
        certificates.extend(got.certificates);
        requests.extend(got.requests);
        longest = longest.max(got.longest);
    }
    println!(
        "{rounds} fail-overs, new primaries after {took:?}: {} certificates, longest wait {longest:?}",
        certificates.len()
    );
    assert!(longest < Duration::from_secs(30), "{longest:?}");
    let mut stream = pair.site.stream(&one, "line1/t9").await;
    for request in requests.into_iter().step_by(7) {
        let device = request.request_id.clone();
        assert_eq!(stream.ask(request).await.issued().certificate, certificates[&device]);
    }
    assert_eq!(pair.site.order("lot")["issued"], certificates.len());
    drop(stream);
    one.end();
    two.end();
    account(&pair, &certificates);
}

/// Patroni's default: what the standby lacked is gone. The daemon stops and says which batches, and
/// its copy completes the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "minutes: make cluster-test"]
async fn asynchronous_fail_over_is_refused_and_completed() {
    let mut cluster = Cluster::start(Replication::Asynchronous).unwrap();
    let pair = Pair::at(cluster.place().unwrap(), 1, "patience = \"60s\"\n");
    let mut one = pair.one();
    pair.site.create_order("lot", 100);
    let mut stream = pair.site.stream(&one, "line1/t1").await;
    let mut certificates = Vec::new();
    for number in 0..20 {
        if number == 10 {
            cluster.stop_senders().unwrap();
        }
        let request = device_request(&format!("d{number}"));
        let issued = stream.ask(request.clone()).await.issued();
        certificates.push((request, issued.certificate));
    }
    cluster.kill_primary().unwrap();
    tokio::task::block_in_place(|| cluster.wait_for_primary()).unwrap();
    let said = || pair.site.log();
    wait_until("the daemon says what is lost", || said().contains("has lost what it had acknowledged"));
    assert!(!tokio::task::block_in_place(|| one.wait()).success());
    let line = said();
    assert!(line.contains("this daemon's copy has") && line.contains("batches"), "{line}");
    let refused = pair.site.refuse_to_start();
    assert!(refused.contains("birthmark ledger restore"), "{refused}");
    let restored = pair.own(&["restore"]);
    println!("{restored}");
    let one = pair.one();
    let mut stream = pair.site.stream(&one, "line1/t1").await;
    let number = certificates.len();
    for (request, certificate) in certificates {
        assert_eq!(stream.ask(request).await.issued().certificate, certificate);
    }
    drop(stream);
    one.end();
    let dump = text(&pair.site.token.birthmark(&["journal", "dump", "data"]).stdout);
    assert_eq!(dump.matches("\"issued\"").count(), number);
}

/// Without any standby a daemon that asks for two copies issues nothing, which `refused` looks at; it goes on by itself when one is
/// back.
async fn without_a_standby(replication: Replication, refused: impl AsyncFnOnce(&Pair, &Daemon, &mut IssueStream)) {
    let mut cluster = Cluster::start(replication).unwrap();
    let pair = Pair::at(cluster.place().unwrap(), 2, "patience = \"3s\"\n");
    let one = pair.one();
    pair.site.create_order("lot", 100);
    let mut stream = pair.site.stream(&one, "line1/t1").await;
    stream.ask(device_request("d1")).await.issued();
    let killed = cluster.kill_standbys().unwrap();
    refused(&pair, &one, &mut stream).await;
    for name in killed {
        cluster.start_again(&name).unwrap();
    }
    tokio::task::block_in_place(|| cluster.wait_for_standbys()).unwrap();
    wait_until("the daemon is ready again", || one.get("/readyz").0 == 200);
    stream.ask(device_request("d2")).await.issued();
    assert_eq!(pair.site.order("lot")["issued"], 2);
    drop(stream);
    one.end();
}

/// Strict: no COMMIT comes back, so nothing is acknowledged, and that is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "minutes: make cluster-test"]
async fn strict_cluster_without_a_standby_acknowledges_nothing() {
    without_a_standby(Replication::Strict, async |_, one, stream| {
        stream.ask(device_request("d2")).await.must_be(Code::Unavailable, "STORAGE_UNAVAILABLE");
        // It stays so, though the database answers whoever only looks.
        for _ in 0..30 {
            let (code, said) = one.get("/readyz");
            assert!(code == 503 && said.contains("is away since"), "{code} {said}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
}

/// Where Patroni gives up synchronous replication when there is no standby, daemons that ask for two copies reserve nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "minutes: make cluster-test"]
async fn cluster_without_a_standby_is_refused_until_one_is_back() {
    without_a_standby(Replication::NotStrict, async |pair, one, stream| {
        wait_until("it is said", || one.get("/readyz").1.contains("no synchronous standby"));
        stream.ask(device_request("d2")).await.must_be(Code::Unavailable, "STORAGE_UNAVAILABLE");
        assert_eq!(pair.site.order("lot")["issued"], 1);
    })
    .await;
}
