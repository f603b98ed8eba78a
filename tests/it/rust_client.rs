//! The library for stations in Rust, against the real daemon: every call, and what it does when the daemon is killed.

use std::time::Duration;

use birthmark_client::{Client, Connection, Error, Named, Options, Reason, Request};

use crate::support::{
    site::{Daemon, Site, csr, json_line},
    token::succeeded,
};

fn client(site: &Site, daemon: &Daemon, role: &str, name: &str) -> Client {
    let connection =
        Connection { server: Some(daemon.url()), identity: Some(site.identity(role, name)), ..Connection::default() };
    Client::new(&connection).unwrap()
}

/// One device by either call: the same certificate, with its chain; and a refusal is the device's, with its reason.
#[tokio::test(flavor = "multi_thread")]
async fn library_issues_confirms_and_checks() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 2);
    let station = client(&site, &daemon, "station", "line1/t1");
    let check = station.check("o1", "device").await.unwrap();
    assert_eq!((check.name.as_str(), check.order.unwrap().left), ("station:line1/t1", 2));

    let request = Request::new("d1", "device", csr("d1")).order("o1");
    let first = station.issue(request.clone()).await.unwrap().unwrap();
    let again = station.issue_one(request).await.unwrap().unwrap();
    assert_eq!((first.replay, again.replay), (false, true));
    assert_eq!((&first.der, first.chain_pem()), (&again.der, again.chain_pem()));
    assert_eq!(first.chain_pem().matches("BEGIN CERTIFICATE").count(), 1);
    let second = station.issue_one(Request::new("d2", "device", csr("d2")).order("o1")).await.unwrap().unwrap();

    for refused in [
        station.issue(Request::new("d3", "device", csr("d3")).order("o1")).await,
        station.issue_one(Request::new("d3", "device", csr("d3")).order("o1")).await,
    ] {
        assert_eq!(refused.unwrap().unwrap_err().kind(), Some(Reason::OrderExhausted));
    }
    let foreign = rcgen::generate_simple_self_signed(vec!["d2".to_owned()]).unwrap().cert.der().to_vec();
    let confirmed = station
        .confirm(&[
            Named::ReadBack { certificate: foreign, device_id: "d2".into() },
            Named::Device("d1".into()),
            Named::Serial(second.serial_number.as_ref().try_into().unwrap()),
            Named::Device("d9".into()),
        ])
        .await
        .unwrap();
    let reasons: Vec<_> = confirmed.iter().map(|one| one.error.as_ref().and_then(|error| error.kind())).collect();
    assert_eq!(reasons, [Some(Reason::CertificateMismatch), None, None, Some(Reason::RecordUnknown)]);
    assert_eq!(site.order("o1")["confirmed"], 2);

    // An operator issues nothing, and is told so at once.
    let operator = client(&site, &daemon, "operator", "anna");
    let request = Request::new("d4", "device", csr("d4")).order("o1");
    assert!(matches!(operator.issue(request.clone()).await, Err(Error::NotAllowed(_))));
    assert!(matches!(operator.issue_one(request).await, Err(Error::NotAllowed(_))));
    daemon.end();
}

/// The daemon is killed amid a hundred devices and started again: each gets one certificate, and whoever watches misses
/// none of it.
#[tokio::test(flavor = "multi_thread")]
async fn killed_daemon_costs_the_library_nothing() {
    let site = Site::new();
    let mut daemon = site.start();
    site.create_order("o1", 100);
    let station = client(&site, &daemon, "station", "line1/t1");
    let mut watch = client(&site, &daemon, "auditor", "eve").watch(0);
    let watched = tokio::spawn(async move {
        let (mut issued, mut last) = (0, 0);
        while issued < 100 {
            let entry = watch.next().await.unwrap();
            assert_eq!(entry.sequence, last + 1, "a gap");
            last = entry.sequence;
            issued += u32::from(entry.event == "issued");
        }
        assert_eq!(watch.position(), last);
    });
    let requests = (0..100).map(|number| format!("d{number}"));
    let requests = requests.map(|id| Request::new(&id, "device", csr(&id)).order("o1"));
    let options = Options { window: 8, give_up_after: Some(Duration::from_secs(60)), ..Options::default() };
    let mut answers = station.issue_many(tokio_stream::iter(requests), options);
    let mut answered = 0;
    while let Some(answer) = answers.next().await {
        answer.unwrap().result.unwrap();
        answered += 1;
        if answered == 40 {
            daemon.kill();
            daemon = site.start();
        }
    }
    assert_eq!((answered, &site.order("o1")["issued"]), (100, &100.into()));
    tokio::time::timeout(Duration::from_secs(30), watched).await.unwrap().unwrap();

    // Away for longer than the caller wants to wait.
    daemon.end();
    let impatient = station.patience(Duration::from_millis(300));
    let request = Request::new("d1", "device", csr("d1")).order("o1");
    assert!(matches!(impatient.issue(request.clone()).await, Err(Error::GaveUp { .. })));
    assert!(matches!(impatient.issue_one(request).await, Err(Error::GaveUp { .. })));
    assert!(matches!(impatient.check("", "").await, Err(Error::GaveUp { cause: Some(_), .. })));
}

/// Two daemons: the first is away at the beginning, the other one is killed in the middle of many devices and comes back. Each
/// device has its answer, for the same CSR, and nobody waits for a daemon that is away. Both certificates are of the same name.
#[tokio::test(flavor = "multi_thread")]
async fn library_goes_on_with_another_server() {
    const DEVICES: usize = 300;
    let (one, other) = (Site::new(), Site::new());
    // Stations of one site are stations of both.
    let of_one = |usual: String| {
        let files = usual.replace("\"tls/", &format!("\"{}/", one.path("tls").display()));
        files.replace(
            "client_ca = \"ca/station-ca.pem\"",
            &format!("client_ca = \"{}\"", one.path("ca/station-ca.pem").display()),
        )
    };
    let identity = one.identity("station", "line1/t1");
    other.configure(of_one);
    let (first, mut second) = (one.start(), other.start());
    for site in [&one, &other] {
        site.create_order("lot", 10_000);
    }
    let servers = format!("{},{}", first.url(), second.url());
    let connection =
        Connection { server: Some(servers.clone()), identity: Some(identity.clone()), ..Connection::default() };
    let station = Client::new(&connection).unwrap();
    first.end();
    let began = std::time::Instant::now();
    station.issue(Request::new("d", "device", csr("d")).order("lot")).await.unwrap().unwrap();
    let url = |daemon: &Daemon| daemon.url();
    let address = url(&second);
    one.token.write("d.jsonl", &json_line("cli", &csr("cli")));
    let (dead, live) = servers.split_once(',').unwrap();
    let sign = ["station", "sign", "--in", "d.jsonl", "--out", "certs", "--order", "lot", "--profile", "device"];
    let connect = ["--server", dead, "--server", live, "--identity", identity.to_str().unwrap()];
    succeeded(&one.token.birthmark(&[&sign[..], &connect].concat()));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());

    let first = one.start();
    let requests = (0..DEVICES).map(|number| {
        let name = format!("d{number}");
        Request::new(&name, "device", csr(&name)).order("lot")
    });
    let mut answers = station.issue_many(tokio_stream::iter(requests), Options::default());
    let mut answered = std::collections::BTreeSet::new();
    let mut killed = false;
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        answer.result.unwrap();
        assert!(answered.insert(answer.device_id));
        if answered.len() > DEVICES / 3 && !killed {
            second.kill();
            second.wait();
            killed = true;
        }
    }
    assert_eq!(answered.len(), DEVICES);
    let second = other.start();
    assert_eq!(second.url(), address);
    first.end();
    station.issue(Request::new("e", "device", csr("e")).order("lot")).await.unwrap().unwrap();
    second.end();
}

/// A connection that takes long is not begun anew with each request that comes meanwhile: here three of four servers take
/// connections and say nothing.
#[tokio::test(flavor = "multi_thread")]
async fn library_connects_while_requests_keep_coming() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("lot", 100);
    let silent: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let silent_urls = silent.iter().map(|server| format!("https://localhost:{}", server.local_addr().unwrap().port()));
    let servers: Vec<_> = silent_urls.chain([daemon.url()]).collect();
    let identity = Some(site.identity("station", "line1/t1"));
    let connection = Connection { server: Some(servers.join(",")), identity, ..Connection::default() };
    let station = Client::new(&connection).unwrap();
    let (give, wanted) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for number in 0..40 {
            let name = format!("d{number}");
            let request = Request::new(&name, "device", csr(&name)).order("lot");
            if give.send(request).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    let began = std::time::Instant::now();
    let wanted = tokio_stream::wrappers::ReceiverStream::new(wanted);
    let mut answers = station.issue_many(wanted, Options::default());
    answers.next().await.unwrap().unwrap().result.unwrap();
    // A second for each that is silent; the requests come for twelve.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    drop(answers);
    daemon.end();
}
