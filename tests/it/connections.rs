//! Whoever opens connections and does nothing with them holds nobody up, and no call outlives its peer's certificate.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    process::Command,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use birthmark::proto::{
    ConfirmRequest, GetIssuerRequest, GetOrderRequest, ListRecordsRequest, admin_client::AdminClient,
    issuance_client::IssuanceClient,
};
use futures_util::FutureExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;
use tonic::{Code, Streaming, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};

use crate::{
    support::{
        site::{Answer, Daemon, IssueStream, PATIENCE, Site, csr, request, wait_until},
        token::succeeded,
    },
    tls::{SoftCa, site_that_trusts},
};

/// The daemon's command, with this number of descriptors.
fn with_descriptors(number: usize) -> impl FnOnce(Command) -> Command {
    move |daemon| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {number}; exec \"$0\" \"$@\"")]);
        command.arg(daemon.get_program()).args(daemon.get_args());
        if let Some(folder) = daemon.get_current_dir() {
            command.current_dir(folder);
        }
        for (name, value) in daemon.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }
}

/// The beginning of a TLS record whose rest never comes.
const HALF_A_HELLO: [u8; 9] = [22, 3, 1, 2, 0, 1, 0, 1, 252];

/// Opens connections that are kept: some silent, some that stop in the middle of their first message.
fn flood(address: SocketAddr, number: usize, begin: &[u8]) -> Vec<TcpStream> {
    let open = |index: usize| {
        let mut stream = TcpStream::connect(address).unwrap();
        if index.is_multiple_of(2) {
            // The daemon may have closed it.
            let _ = stream.write_all(begin);
        }
        stream
    };
    (0..number).map(open).collect()
}

/// What everybody does at all times.
async fn must_serve(site: &Site, daemon: &Daemon, device: &str) {
    let mut stream = site.stream(daemon, "line1/t1").await;
    stream.ask(request(device, "o1", csr(device))).await.issued();
    assert_eq!(daemon.get("/readyz"), (200, "ready\n".into()));
    succeeded(&site.operator(&["order", "show", "o1"]));
}

/// The test needs more descriptors than the daemon has.
pub(crate) fn raise_own_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_of_idle_connections_holds_nobody_up() {
    raise_own_limit();
    let site = Site::new();
    let daemon = site.start_as(with_descriptors(500));
    site.create_order("o1", 50);
    site.identity("station", "line1/t1");
    let crowded = |port: &str| {
        let labels = [format!("port=\"{port}\""), "reason=\"crowded\"".into()];
        daemon.metric("birthmark_connections_refused_total", &[&labels[0], &labels[1]])
    };
    // More than it has descriptors, at each port and at all of them.
    let tls = flood(daemon.grpc, 600, &HALF_A_HELLO);
    must_serve(&site, &daemon, "d1").await;
    assert!(crowded("grpc") > 0.0);
    let http = flood(daemon.http, 600, b"GET /readyz HTTP/1.1\r\nHost: ");
    must_serve(&site, &daemon, "d2").await;
    assert!(crowded("http") > 0.0);
    let local: Vec<_> = (0..600).map(|_| UnixStream::connect(&daemon.socket).unwrap()).collect();
    must_serve(&site, &daemon, "d3").await;
    assert!(crowded("socket") > 0.0);
    // Those that have a certificate, and are connected up to HTTP/2.
    let identity = site.identity("auditor", "eve");
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.extend(daemon.try_connect(identity.clone()).await);
    }
    must_serve(&site, &daemon, "d4").await;
    // With calls that they leave open.
    let mut streams = Vec::new();
    let station = site.identity("station", "line1/t9");
    for _ in 0..200 {
        if let Some(channel) = daemon.try_connect(station.clone()).await {
            streams.extend(IssueStream::open(channel).await.ok());
        }
    }
    must_serve(&site, &daemon, "d5").await;
    assert!(!site.log().contains("panicked"), "{}", site.log());
    drop((tls, http, local, idle, streams));
    daemon.end();
}

/// A call that stays open.
pub(crate) async fn watch_health(channel: Channel) -> Streaming<HealthCheckResponse> {
    let watched = HealthClient::new(channel).watch(HealthCheckRequest::default()).await;
    let mut watched = watched.unwrap().into_inner();
    watched.message().await.unwrap();
    watched
}

/// More than the 64 that a peer may have, on the socket and over TCP: whoever comes next is served, and a connection
/// with an open call is kept.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_a_peer_make_room_for_its_next() {
    raise_own_limit();
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 50);
    let operator = site.identity("operator", "anna");
    let (mut local, mut remote) = (vec![daemon.connect_locally().await], vec![daemon.connect(operator.clone()).await]);
    let mut busy = [watch_health(local[0].clone()).await, watch_health(remote[0].clone()).await];
    for _ in 0..200 {
        for (connections, channel) in
            [(&mut local, daemon.connect_locally().await), (&mut remote, daemon.connect(operator.clone()).await)]
        {
            let order = GetOrderRequest { id: "o1".into() };
            AdminClient::new(channel.clone()).get_order(order).await.unwrap();
            connections.push(channel);
        }
    }
    succeeded(&site.operator(&["order", "show", "o1"]));
    assert_eq!(daemon.metric("birthmark_refusals_total", &["reason=\"TOO_MANY_CONNECTIONS\""]), 0.0);
    for port in ["grpc", "socket"] {
        let labels = [format!("port=\"{port}\""), "reason=\"crowded\"".into()];
        assert!(daemon.metric("birthmark_connections_refused_total", &[&labels[0], &labels[1]]) >= 130.0, "{port}");
    }
    for stream in &mut busy {
        assert!(stream.message().now_or_never().is_none(), "still open");
    }
    drop((local, remote));
    daemon.end();
}

/// When a call is open on each of them, the next connection's call is refused like any other, with the limit.
#[tokio::test(flavor = "multi_thread")]
async fn busy_connections_of_a_peer_refuse_its_next() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 50);
    let [station, _] = ["line1/t1", "line1/t2"].map(|name| site.identity("station", name));
    let mut local = Vec::new();
    for _ in 0..64 {
        local.push(watch_health(daemon.connect_locally().await).await);
    }
    let refused = site.operator(&["order", "show", "o1"]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(
        message.contains("64 connections with open calls") && message.contains("TOO_MANY_CONNECTIONS"),
        "{message}"
    );

    let mut streams = Vec::new();
    for number in 0..16 {
        let mut stream = IssueStream::open(daemon.connect(station.clone()).await).await.unwrap();
        let device = format!("d{number}");
        stream.ask(request(&device, "o1", csr(&device))).await.issued();
        streams.push(stream);
    }
    let refused = IssueStream::open(daemon.connect(station.clone()).await).await.err().expect("a 17th connection");
    let answer = Answer::of_call(&refused);
    answer.must_be(Code::ResourceExhausted, "TOO_MANY_CONNECTIONS");
    assert!(matches!(answer, Answer::Refused { retry: true, .. }) && refused.message().contains("16 connections"));
    // Other peers are served, and with a call less so is the next connection.
    site.stream(&daemon, "line1/t2").await.ask(request("e1", "o1", csr("e1"))).await.issued();
    drop((streams.pop(), local.pop()));
    wait_until("there is room", || site.operator(&["order", "show", "o1"]).status.success());
    daemon.end();
}

#[test]
fn connection_that_says_nothing_is_closed_soon() {
    let site = Site::new();
    let daemon = site.start();
    /// Reads until the other side closes.
    fn must_be_closed(mut stream: impl Read) {
        // A reset is an end too.
        if let Err(error) = stream.read_to_end(&mut Vec::new()) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it is kept open");
        }
    }
    let tcp = |address: SocketAddr, begin: &[u8]| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(begin).unwrap();
        thread::spawn(move || must_be_closed(stream))
    };
    let local = UnixStream::connect(&daemon.socket).unwrap();
    local.set_read_timeout(Some(PATIENCE)).unwrap();
    let slow = {
        let mut stream = TcpStream::connect(daemon.http).unwrap();
        // An octet now and then is no request either.
        thread::spawn(move || {
            while stream.write_all(b"G").is_ok() {
                thread::park_timeout(Duration::from_millis(200));
            }
        })
    };
    let closed = [
        tcp(daemon.grpc, b""),
        tcp(daemon.grpc, &HALF_A_HELLO),
        tcp(daemon.http, b""),
        tcp(daemon.http, b"GET /readyz HTTP/1.1\r\n"),
        thread::spawn(move || must_be_closed(local)),
        slow,
    ];
    for closed in closed {
        closed.join().unwrap();
    }
    for port in ["grpc", "http", "socket"] {
        let labels = [&*format!("port=\"{port}\""), "reason=\"silent\""];
        wait_until("it is counted", || daemon.metric("birthmark_connections_refused_total", &labels) >= 1.0);
    }
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn call_ends_when_its_certificate_expires() {
    let ca = SoftCa::new("Known");
    let site = site_that_trusts(&ca);
    let daemon = site.start();
    site.create_order("o1", 1000);
    // Replies that nobody reads have to wait somewhere.
    let mut stream = site.stream(&daemon, "line1/t1").await;
    for number in 0..500 {
        let device = format!("d{number}");
        stream.ask(request(&device, "o1", csr(&device))).await.issued();
    }
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(8);
    let short = |name: &str, uri: &str| {
        ca.identity(&site, name, &[uri], |params| params.not_after = rcgen::date_time_ymd(1970, 1, 1) + end)
    };
    let channel = daemon.connect(short("short", "urn:birthmark:station:line1/short")).await;
    let mut issuing = IssueStream::open(channel.clone()).await.unwrap();
    issuing.ask(request("own", "o1", csr("own"))).await.issued();
    let auditor = daemon.connect(short("auditor", "urn:birthmark:auditor:eve")).await;
    let order = ListRecordsRequest { order: "o1".into() };
    let mut listing = AdminClient::new(auditor.clone()).list_records(order.clone()).await.unwrap().into_inner();
    assert!(listing.message().await.unwrap().is_some());

    let ended = issuing.receive().await.expect_err("the stream ends");
    Answer::of_call(&ended).must_be(Code::Unauthenticated, "CERTIFICATE_EXPIRED");
    assert!(ended.message().contains("expired"), "{ended}");
    // What has arrived already may still be read.
    let listed = async {
        loop {
            match listing.message().await {
                Ok(Some(_)) => {}
                end => break end,
            }
        }
    };
    // All had left the daemon before, or the rest was cut off.
    if let Err(status) = tokio::time::timeout(PATIENCE, listed).await.unwrap() {
        Answer::of_call(&status).must_be(Code::Unauthenticated, "CERTIFICATE_EXPIRED");
    }
    // The connections are still there.
    let mut calls = JoinSet::new();
    let mut issuance = IssuanceClient::new(channel.clone());
    calls.spawn(async move { issuance.get_issuer(GetIssuerRequest::default()).await.map(drop) });
    let mut issuance = IssuanceClient::new(channel);
    calls.spawn(async move { issuance.confirm(ConfirmRequest::default()).await.map(drop) });
    calls.spawn(async move { AdminClient::new(auditor).list_records(order).await.map(drop) });
    for refused in calls.join_all().await {
        Answer::of_call(&refused.unwrap_err()).must_be(Code::Unauthenticated, "CERTIFICATE_EXPIRED");
    }
    daemon.end();
}
