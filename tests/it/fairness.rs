//! One identity among others: its share of the HSM, and what it may have open.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use birthmark::proto::{
    ConfirmReply, ConfirmRequest, GetOrderRequest, IssueReply, Order, admin_client::AdminClient,
    issuance_client::IssuanceClient,
};
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{
    connections::watch_health,
    support::{
        faults::Faults,
        site::{Answer, Daemon, IssueStream, PATIENCE, Site, csr, request, wait_until},
    },
};

/// A number of `/proc/PID/status`, such as `VmHWM` in KiB.
pub(crate) fn status_of(daemon: &Daemon, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// A connection over the Unix socket of which each stream, and all together, take little before they are read.
pub(crate) async fn narrow(daemon: &Daemon) -> Channel {
    let endpoint = Endpoint::from_shared(format!("unix://{}", daemon.socket.display())).unwrap();
    endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535).connect().await.unwrap()
}

/// Opens a call and gives its reply unread.
async fn open<T: prost::Message + 'static, R: prost::Message + Default + 'static>(
    channel: Channel,
    path: &'static str,
    message: T,
) -> Result<Streaming<R>, Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let codec = ProstCodec::<T, R>::default();
    Ok(client.server_streaming(Request::new(message), PathAndQuery::from_static(path), codec).await?.into_inner())
}

/// The status with which a call ends.
async fn end_of<T: prost::Message + 'static, R: prost::Message + Default + 'static>(
    channel: &Channel,
    path: &'static str,
    message: T,
) -> Answer {
    let ended = match open::<T, R>(channel.clone(), path, message).await {
        Ok(mut replies) => replies.message().await.map(drop),
        Err(status) => Err(status),
    };
    Answer::of_call(&ended.unwrap_err())
}

/// A stream that always has `window` requests for new devices unanswered, until it is stopped.
fn flood(mut stream: IssueStream, name: String, window: usize, stop: &Arc<AtomicBool>) -> Arc<AtomicU64> {
    let (issued, stop) = (Arc::new(AtomicU64::new(0)), Arc::clone(stop));
    let counter = Arc::clone(&issued);
    tokio::spawn(async move {
        let mut open = 0;
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let device = format!("{name}-{number}");
            // The daemon ends with the test.
            if stream.try_send(request(&device, "o1", csr(&device))).await.is_err() {
                break;
            }
            open += 1;
            if open == window {
                let Ok(Some(reply)) = stream.receive().await else { break };
                Answer::of(reply).issued();
                counter.fetch_add(1, Ordering::Relaxed);
                open -= 1;
            }
        }
    });
    issued
}

/// The HSM is the bottleneck, at 500 signatures a second: what each station gets of it does not depend on the machine.
#[tokio::test(flavor = "multi_thread")]
async fn station_with_eight_streams_gets_one_share() {
    let site = Site::new();
    let faults = Faults::between(&site, "sessions = 2");
    let daemon = site.start();
    faults.set("latency C_Sign 4ms");
    site.create_order("o1", 1_000_000);
    let stop = Arc::default();
    let mut greedy = Vec::new();
    for number in 0..8 {
        greedy.push(flood(site.stream(&daemon, "line1/greedy").await, format!("g{number}"), 64, &stop));
    }
    let greedy = || greedy.iter().map(|stream| stream.load(Ordering::Relaxed)).sum::<u64>();
    wait_until("the eight streams are busy", || greedy() > 200);

    let ordinary = flood(site.stream(&daemon, "line1/ordinary").await, "o".to_owned(), 64, &stop);
    let ordinary = || ordinary.load(Ordering::Relaxed);
    wait_until("the other station is busy", || ordinary() > 128);
    let (greedy_before, ordinary_before) = (greedy(), ordinary());
    wait_until("some time has passed", || ordinary() >= ordinary_before + 300);
    let (of_greedy, of_ordinary) = (greedy() - greedy_before, ordinary() - ordinary_before);
    println!("{of_greedy} certificates for the station with eight streams, {of_ordinary} for the other");
    // As a share of the whole; one of nine streams would have had a ninth.
    assert!(of_ordinary as f64 >= 0.4 * (of_greedy + of_ordinary) as f64, "{of_ordinary} and {of_greedy}");

    // A third, one device at a time, waits for a few of the others' requests and not for all 576.
    let mut stream = site.stream(&daemon, "line1/single").await;
    stream.ask(request("first", "o1", csr("first"))).await.issued();
    let began = Instant::now();
    for number in 0..10 {
        let device = format!("single{number}");
        stream.ask(request(&device, "o1", csr(&device))).await.issued();
    }
    let mean = began.elapsed() / 10;
    println!("{mean:?} for one device");
    assert!(mean < Duration::from_millis(500), "{mean:?}");
    stop.store(true, Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_connections_of_one_identity_are_bounded() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 10);
    let channel = site.connect(&daemon, "station", "line1/many").await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(IssueStream::open(channel.clone()).await.unwrap());
    }
    let other_connection = site.connect(&daemon, "station", "line1/many").await;
    for channel in [&channel, &other_connection] {
        let refused = IssueStream::open(channel.clone()).await.err().expect("a 65th stream");
        let answer = Answer::of_call(&refused);
        answer.must_be(Code::ResourceExhausted, "TOO_MANY_STREAMS");
        assert!(matches!(answer, Answer::Refused { retry: true, .. }));
    }
    assert!(daemon.metric("birthmark_refusals_total", &["reason=\"TOO_MANY_STREAMS\""]) >= 2.0);
    // Other identities have theirs, and the streams that are open work.
    site.stream(&daemon, "line1/other").await.ask(request("d1", "o1", csr("d1"))).await.issued();
    streams[63].ask(request("d2", "o1", csr("d2"))).await.issued();
    drop(streams);
    wait_until("the streams have ended", || daemon.metric("birthmark_streams", &[]) <= 1.0);
    site.stream(&daemon, "line1/many").await.ask(request("d3", "o1", csr("d3"))).await.issued();

    // Connections with open calls.
    let mut connections = Vec::new();
    for _ in 0..64 {
        connections.push(watch_health(daemon.connect_locally().await).await);
    }
    let refusals = || daemon.metric("birthmark_refusals_total", &["reason=\"TOO_MANY_CONNECTIONS\""]);
    if let Some(channel) = daemon.try_connect_locally().await {
        assert!(AdminClient::new(channel).get_order(GetOrderRequest { id: "o1".into() }).await.is_err());
    }
    wait_until("the refusal is counted", || refusals() >= 1.0);
    drop(connections);
    wait_until("connections are free again", || site.operator(&["order", "show", "o1"]).status.success());
    daemon.end();
}

/// 4,000 calls with a reply of some hundred kilobytes each, of which none is read.
#[tokio::test(flavor = "multi_thread")]
async fn unread_confirm_calls_take_bounded_memory() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 10);
    let before = status_of(&daemon, "VmHWM");
    let channel = narrow(&daemon).await;
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..4_000_u32 {
        let channel = channel.clone();
        calls.spawn(async move {
            let serial = |number: u32| [&[1; 12][..], &call.to_be_bytes(), &number.to_be_bytes()].concat().into();
            let message = ConfirmRequest { serial_numbers: (0..1000).map(serial).collect(), ..Default::default() };
            open::<_, ConfirmReply>(channel, "/birthmark.v1.Issuance/Confirm", message).await
        });
    }
    let (mut unread, mut refused) = (Vec::new(), 0);
    while let Some(call) = tokio::time::timeout(PATIENCE, calls.join_next()).await.expect("calls hang") {
        match call.unwrap() {
            Ok(reply) => unread.push(reply),
            Err(status) => {
                Answer::of_call(&status).must_be(Code::ResourceExhausted, "TOO_MANY_REQUESTS");
                refused += 1;
            }
        }
    }
    println!("{} unread, {refused} refused", unread.len());
    assert!(refused > 3_000, "{refused}");
    assert!(daemon.metric("birthmark_refusals_total", &["reason=\"TOO_MANY_REQUESTS\""]) >= 3_000.0);
    let grown = status_of(&daemon, "VmHWM") - before;
    assert!(grown < 200 << 10, "{grown} KiB more");
    // Stations are served, and when the replies are read the peer may confirm again.
    site.stream(&daemon, "line1/t1").await.ask(request("d1", "o1", csr("d1"))).await.issued();
    // All at once, as what one does not read is in the others' way.
    for reply in futures_util::future::join_all(unread.iter_mut().map(|reply| reply.message())).await {
        assert_eq!(reply.unwrap().unwrap().results.len(), 1000);
    }
    drop(unread);
    let message = ConfirmRequest { serial_numbers: vec![vec![1; 20].into(); 1000], ..Default::default() };
    assert_eq!(IssuanceClient::new(channel).confirm(message).await.unwrap().into_inner().results.len(), 1000);
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn request_that_is_no_protobuf_is_an_invalid_argument() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 10);
    let station = site.connect(&daemon, "station", "line1/t1").await;
    // A string field that is not UTF-8.
    let garbage = || ConfirmRequest { serial_numbers: vec![vec![0xff, 0xfe].into()], ..Default::default() };
    let issue = end_of::<_, IssueReply>(&station, "/birthmark.v1.Issuance/Issue", garbage()).await;
    issue.must_be(Code::InvalidArgument, "REQUEST_INVALID");
    let local = daemon.connect_locally().await;
    let order = end_of::<_, Order>(&local, "/birthmark.v1.Admin/GetOrder", garbage()).await;
    order.must_be(Code::InvalidArgument, "REQUEST_INVALID");
    let huge = || ConfirmRequest { serial_numbers: vec![vec![0; 2 << 20].into()], ..Default::default() };
    for path in ["/birthmark.v1.Issuance/Issue", "/birthmark.v1.Issuance/Confirm"] {
        let refused = end_of::<_, ConfirmReply>(&station, path, huge()).await;
        refused.must_be(Code::OutOfRange, "MESSAGE_TOO_LARGE");
    }
    assert!(daemon.metric("birthmark_refusals_total", &["reason=\"REQUEST_INVALID\""]) >= 2.0);

    // What is refused is not sent back whole.
    let mut stream = IssueStream::open(station).await.unwrap();
    let mut long = request("d1", "o1", csr("d1"));
    long.request_id = "é".repeat(200_000);
    stream.send(long).await;
    let reply = stream.receive().await.unwrap().unwrap();
    assert_eq!(reply.request_id, "é".repeat(32));
    Answer::of(reply).must_be(Code::InvalidArgument, "REQUEST_INVALID");
    for (order, profile, reason) in [("x", "y", "REQUEST_INVALID"), ("o1", "x", "PROFILE_UNKNOWN")] {
        let mut long = request("d1", &order.repeat(500_000), csr("d1"));
        if reason == "PROFILE_UNKNOWN" {
            (long.order, long.profile) = (order.to_owned(), profile.repeat(500_000));
        }
        match stream.ask(long).await {
            Answer::Refused { reason: found, message, .. } => {
                assert!(found == reason && message.len() < 2_000, "{found}: {} bytes", message.len());
            }
            Answer::Issued(_) => panic!("{reason}"),
        }
    }
    stream.ask(request("d1", "o1", csr("d1"))).await.issued();
    daemon.end();
}
