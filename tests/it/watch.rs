//! What happens, told as it happens: `journal follow` and `Admin.Watch`.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use birthmark::proto::{WatchRequest, admin_client::AdminClient};

use crate::support::site::{Daemon, PATIENCE, Site, csr, request};

/// A command whose lines are JSON; killed when dropped.
struct Lines {
    child: Child,
    lines: Receiver<serde_json::Value>,
}

impl Lines {
    fn of(site: &Site, arguments: &[&str]) -> Lines {
        let mut child = site.token.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines() {
                if sender.send(serde_json::from_str(&line.unwrap()).unwrap()).is_err() {
                    return;
                }
            }
        });
        Lines { child, lines }
    }

    /// The entries up to the first of this kind.
    fn until(&self, kind: &str) -> Vec<serde_json::Value> {
        let mut found = Vec::new();
        while found.last().is_none_or(|entry: &serde_json::Value| entry["event"] != kind) {
            found.push(self.lines.recv_timeout(PATIENCE).unwrap());
        }
        found
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sequences(entries: &[serde_json::Value]) -> Vec<u64> {
    entries.iter().map(|entry| entry["sequence"].as_u64().unwrap()).collect()
}

async fn issue(site: &Site, daemon: &Daemon, device: &str) {
    site.stream(daemon, "line1/t1").await.ask(request(device, "lot", csr(device))).await.issued();
}

/// Every entry once and in order, over a restart of the daemon and of the follower.
#[tokio::test(flavor = "multi_thread")]
async fn journal_follow_is_gapless_across_restarts() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("lot", 100);
    let follower = Lines::of(&site, &["journal", "follow", "data", "--json", "--after", "0"]);
    issue(&site, &daemon, "a").await;
    let mut seen = follower.until("issued");
    daemon.end();
    let daemon = site.start();
    issue(&site, &daemon, "b").await;
    seen.extend(follower.until("issued"));
    drop(follower);
    let last = sequences(&seen).last().copied().unwrap();
    issue(&site, &daemon, "c").await;
    let follower = Lines::of(&site, &["journal", "follow", "data", "--after", &last.to_string()]);
    seen.extend(follower.until("issued"));
    assert!(sequences(&seen).into_iter().eq(1..=seen.len() as u64), "{:?}", sequences(&seen));
    assert!(
        seen.iter().any(|entry| entry["event"] == "started") && seen.iter().any(|entry| entry["event"] == "stopped")
    );
    // A journal that was restored may lack what is known: to wait for that would be to pass over what comes in its place.
    let ahead = ["--after", "99999"];
    for command in ["follow", "watch"] {
        let run = match command {
            "follow" => site.token.birthmark(&[&["journal", command, "data"][..], &ahead].concat()),
            _ => site.operator(&[&["journal", command][..], &ahead].concat()),
        };
        crate::support::token::refused(&run, &["none of the number 99999", "restored"]);
    }
    daemon.end();
}

/// The same over the network, with what an adapter to an MES needs, and only what is durable.
#[tokio::test(flavor = "multi_thread")]
async fn watch_tells_every_event_once_and_in_order() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("lot", 100);
    issue(&site, &daemon, "a").await;
    let mut admin = AdminClient::new(site.connect(&daemon, "auditor", "mes").await);
    let mut events = admin.watch(WatchRequest { after: 0 }).await.unwrap().into_inner();
    let mut seen = Vec::new();
    let mut next = async || tokio::time::timeout(PATIENCE, events.message()).await.unwrap().unwrap().unwrap();
    while seen.last().is_none_or(|event: &birthmark::proto::WatchReply| event.event != "issued") {
        seen.push(next().await);
    }
    let issued = seen.last().unwrap().clone();
    assert_eq!((issued.device_id.as_str(), issued.order.as_str(), issued.profile.as_str()), ("a", "lot", "device"));
    let serial = hex::encode(&issued.serial_number);
    crate::support::token::succeeded(&site.operator(&["record", "scrap", &serial, "--reason", "cracked"]));
    while seen.last().is_none_or(|event| event.event != "scrapped") {
        seen.push(next().await);
    }
    let scrapped = seen.last().unwrap();
    assert_eq!((scrapped.device_id.as_str(), scrapped.reason.as_str()), ("a", "cracked"));
    assert!(seen.iter().map(|event| event.sequence).eq(1..=seen.len() as u64));
    // Nothing is told before it happens.
    assert!(tokio::time::timeout(Duration::from_millis(300), events.message()).await.is_err());
    daemon.end();
}
