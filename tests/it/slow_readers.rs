//! Peers that ask and do not read: they hold up nobody, and what they hold is bounded and taken from them.

use std::{collections::BTreeSet, time::Duration};

use birthmark::proto::{GetOrderRequest, ListRecordsRequest, OrderTerms, Record, admin_client::AdminClient};
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::{
    fairness::{narrow, status_of},
    support::site::{Answer, Daemon, IssueStream, PATIENCE, Site, csr, request, wait_until},
};

/// How many certificates there are to read: more than buffers hold.
const RECORDS: usize = 1_500;

/// A site with a profile that shows an order's attribute, where streams are ended after two seconds without progress,
/// and its daemon.
async fn site_with_records() -> (Site, Daemon) {
    let site = Site::new();
    site.configure(|usual| {
        usual.replacen("[server]\n", "[server]\nstall_seconds = 2\n", 1)
            + "\n[profiles.batch]\nissuer = \"main\"\nsubject = [\"OU={order.batch}\", \"CN={device_id}\"]\n"
    });
    let daemon = site.start();
    site.create_order("o1", 10_000);
    let terms = OrderTerms {
        id: "batch".into(),
        profile: "batch".into(),
        quantity: 1_000,
        attributes: [("batch".to_owned(), "B7".to_owned())].into(),
        ..OrderTerms::default()
    };
    daemon.admin().await.create_order(birthmark::proto::CreateOrderRequest { terms: Some(terms) }).await.unwrap();
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let mut unanswered = 0;
    for number in 0..RECORDS {
        let device = format!("d{number}");
        stream.send(request(&device, "o1", csr(&device))).await;
        unanswered += 1;
        if unanswered == 64 {
            Answer::of(stream.receive().await.unwrap().unwrap()).issued();
            unanswered -= 1;
        }
    }
    for reply in stream.finish().await.unwrap() {
        Answer::of(reply).issued();
    }
    (site, daemon)
}

async fn list(channel: &Channel) -> Result<Streaming<Record>, Status> {
    let request = ListRecordsRequest { order: "o1".into() };
    Ok(AdminClient::new(channel.clone()).list_records(request).await?.into_inner())
}

/// Reads a stream to its end.
async fn read(mut records: Streaming<Record>) -> Result<Vec<String>, Status> {
    let mut devices = Vec::new();
    while let Some(record) = tokio::time::timeout(PATIENCE, records.message()).await.expect("no record")? {
        devices.push(record.device_id);
    }
    Ok(devices)
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_records_hold_no_thread_and_end() {
    let (site, daemon) = site_with_records().await;
    let mut admin = daemon.admin().await;
    let before = status_of(&daemon, "VmHWM");
    // Of one peer eight at a time, of the many more that it wants none.
    let channel = narrow(&daemon).await;
    let mut unread = Vec::new();
    for number in 0..520 {
        match list(&channel).await {
            Ok(records) => unread.push(records),
            Err(refused) => {
                assert!(number >= 8, "{refused}");
                Answer::of_call(&refused).must_be(Code::ResourceExhausted, "TOO_MANY_STREAMS");
            }
        }
    }
    assert!(unread.len() >= 8);
    assert!(daemon.metric("birthmark_refusals_total", &["reason=\"TOO_MANY_STREAMS\""]) >= 1.0);
    // Another peer reads all, an operator's look-up and a station whose certificates show an attribute are served at
    // once.
    let auditor = site.connect(&daemon, "auditor", "bob").await;
    let devices = read(list(&auditor).await.unwrap()).await.unwrap();
    assert_eq!(devices.len(), RECORDS);
    assert_eq!(devices.iter().collect::<BTreeSet<_>>().len(), RECORDS);
    let look_up = admin.get_order(GetOrderRequest { id: "o1".into() });
    tokio::time::timeout(Duration::from_secs(10), look_up).await.expect("the look-up waits").unwrap();
    let mut stream = site.stream(&daemon, "line1/t2").await;
    let mut wanted = request("b1", "batch", csr("b1"));
    wanted.profile = "batch".into();
    stream.ask(wanted).await.issued();
    let grown = status_of(&daemon, "VmHWM") - before;
    assert!(grown < 100 << 10, "{grown} KiB more");
    // Eight readers, the runtime's workers, the HSM's and the ledger's threads; not one thread a stream.
    let threads = status_of(&daemon, "Threads");
    assert!(threads < 64, "{threads} threads");

    // Those that are not read end, also for the daemon: others take their place while they are still unread.
    let other = narrow(&daemon).await;
    let deadline = std::time::Instant::now() + PATIENCE;
    let again = loop {
        match list(&other).await {
            Ok(records) => break records,
            Err(_) => assert!(std::time::Instant::now() < deadline, "the places are never free"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(read(again).await.unwrap().len(), RECORDS);
    wait_until("the streams are ended", || {
        daemon.metric("birthmark_refusals_total", &["reason=\"STREAM_STALLED\""]) >= 8.0
    });
    // All at once, as what one does not read is in the others' way.
    for ended in futures_util::future::join_all(unread.into_iter().map(read)).await {
        let ended = ended.expect_err("a stream that was not read");
        Answer::of_call(&ended).must_be(Code::Aborted, "STREAM_STALLED");
    }
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn issue_stream_whose_replies_stay_unread_ends() {
    let (site, daemon) = site_with_records().await;
    let stalled = || daemon.metric("birthmark_refusals_total", &["reason=\"STREAM_STALLED\""]);
    let mut stream = IssueStream::open(site.connect(&daemon, "station", "line1/deaf").await).await.unwrap();
    // Retries are free, and as long as the first replies.
    let again = request("deaf", "o1", csr("deaf"));
    stream.ask(again.clone()).await.issued();
    let mut sent = 0;
    while stalled() < 1.0 {
        let send = stream.try_send(again.clone());
        // Otherwise the daemon reads no more, and then has ended the stream.
        if let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(100), send).await {
            sent += 1;
        }
    }
    assert!(sent > 1_000, "{sent}");
    // The same identity's other streams, and its calls, go on.
    let mut other = site.stream(&daemon, "line1/deaf").await;
    other.ask(request("other", "o1", csr("other"))).await.issued();
    wait_until("the stream has ended", || daemon.metric("birthmark_streams", &[]) <= 1.0);
    let mut taken = 0;
    let ended = loop {
        match stream.receive().await {
            Ok(Some(_)) => taken += 1,
            Ok(None) => panic!("an end without a status"),
            Err(status) => break status,
        }
    };
    assert!(taken > 100 && taken <= sent, "{taken} of {sent}");
    Answer::of_call(&ended).must_be(Code::Aborted, "STREAM_STALLED");
    daemon.end();
}
