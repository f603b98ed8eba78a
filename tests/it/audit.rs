//! What an auditor asks: the history of a certificate, and the ledger's entries, over the network.

use std::{collections::BTreeSet, process::Output};

use serde_json::{Value, json};

use crate::support::{
    site::{Daemon, Site, csr, json_line},
    token::{refused, succeeded, text},
};

const CLOUD: &str = "\n[destinations.cloud]\nformat = \"jsonl\"\n";

fn lines(run: &Output) -> Vec<Value> {
    succeeded(run).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sign(site: &Site, devices: &[&str], more: &[&str]) {
    let lines: String = devices.iter().map(|id| json_line(id, &csr(id))).collect();
    site.token.write("devices.jsonl", &lines);
    succeeded(&site.sign("line1/t1", "lot", "devices.jsonl", "certs").args(more).output().unwrap());
}

fn confirm(site: &Site, daemon: &Daemon) {
    let mut confirm = site.token.command(&["station", "confirm", "--certificates", "certs", "--server", &daemon.url()]);
    succeeded(&confirm.arg("--identity").arg(site.identity("station", "line1/t1")).output().unwrap());
}

fn events(history: &[Value]) -> Vec<String> {
    let told = history.iter().map(|entry| match entry["batch"].as_str() {
        Some(batch) => format!("{} {batch}", entry["event"].as_str().unwrap()),
        None => entry["event"].as_str().unwrap().to_owned(),
    });
    told.collect()
}

/// All that happened to both certificates of a device, each with actor, time and number of the journal's own entry; the same from
/// an index that was made anew.
#[test]
fn history_of_a_device_is_that_of_the_journal() {
    let site = Site::new();
    site.configure(|usual| usual + CLOUD);
    let daemon = site.start();
    site.create_order("lot", 100);
    let cut = || succeeded(&site.operator(&["export", "create", "cloud", "--out", "out"]));
    sign(&site, &["d1", "d2"], &[]);
    cut();
    confirm(&site, &daemon);
    let history = |of: &str| lines(&site.operator(&["record", "history", of, "--json"]));
    let old = history("d1")[0]["serial_number"].as_str().unwrap().to_owned();
    succeeded(&site.operator(&["record", "scrap", "d1", "--reason", "cracked"]));
    cut();
    sign(&site, &["d1"], &["--reissue"]);
    cut();
    succeeded(&site.operator(&["record", "revoke", &old, "--reason", "keyCompromise"]));
    cut();
    let of_the_first = [
        "reserved",
        "issued",
        "exported cloud.0001",
        "confirmed",
        "scrapped",
        "withdrawn cloud.0002",
        "revoked",
        "withdrawn cloud.0004",
    ];
    assert_eq!(events(&history(&old)), of_the_first);
    let all = history("d1");
    assert_eq!(events(&all)[8..], ["reserved", "issued", "exported cloud.0003"]);
    assert_eq!(all[..8], history(&old));
    assert_eq!(events(&history("d2")), ["reserved", "issued", "exported cloud.0001", "confirmed"]);

    let dump = lines(&site.token.birthmark(&["journal", "dump", "data"]));
    for entry in &all {
        let of_dump = dump.iter().find(|dumped| dumped["sequence"] == entry["sequence"]).unwrap();
        assert_eq!([&of_dump["time"], &of_dump["actor"]], [&entry["time"], &entry["actor"]]);
        match entry["batch"].as_str() {
            None => {
                assert_eq!([&of_dump["event"], &of_dump["serial_number"]], [&entry["event"], &entry["serial_number"]])
            }
            Some(batch) => assert_eq!([&of_dump["event"], &of_dump["batch"]], [&json!("batch_created"), &json!(batch)]),
        }
    }
    let table = succeeded(&site.operator(&["record", "history", "d1"]));
    assert_eq!(table.lines().count(), 1 + all.len(), "{table}");
    assert!(table.contains("reason=cracked") && table.contains("operator:local-"), "{table}");
    refused(&site.operator(&["record", "history", "d9"]), &["RECORD_UNKNOWN"]);

    daemon.end();
    std::fs::remove_dir_all(site.path("data/index")).unwrap();
    let daemon = site.start();
    assert_eq!(history("d1"), all);
    daemon.end();
}

/// Pages of any size, put together, are the whole journal, and each filter is that of the dump.
#[test]
fn audit_list_in_pages_is_the_whole_journal() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("lot", 100);
    site.create_order("other", 7);
    sign(&site, &["d1", "d2", "d3"], &[]);
    confirm(&site, &daemon);
    succeeded(&site.operator(&["record", "scrap", "d2", "--reason", "cracked"]));
    succeeded(&site.operator(&["order", "pause", "other", "--reason", "moved"]));
    let identity = site.identity("auditor", "eve").display().to_string();
    let url = daemon.url();
    let ask = |arguments: &[&str]| {
        site.token.birthmark(&[&["audit", "list", "--server", &url, "--identity", &identity], arguments].concat())
    };
    let all = lines(&ask(&["--json"]));
    let dump = lines(&site.token.birthmark(&["journal", "dump", "data"]));
    // All that the dump says, but where in the files it is.
    for (entry, dumped) in all.iter().zip(&dump) {
        let fields = dumped.as_object().unwrap();
        let apart = ["chain_hash", "file", "offset"];
        for (name, value) in fields.iter().filter(|(name, _)| !apart.contains(&name.as_str())) {
            assert_eq!(&entry[name], value, "{name} of {entry}");
        }
    }
    assert!(all.iter().map(|entry| entry["sequence"].as_u64().unwrap()).eq(1..=all.len() as u64));

    let (mut paged, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let page = ask(&["--json", "--limit", "4", "--after", &after]);
        paged.extend(lines(&page));
        let said = text(&page.stderr);
        let Some((_, next)) = said.trim().rsplit_once("--after ") else { break };
        after = next.to_owned();
    }
    assert_eq!(paged, all);

    let with = |arguments: &[&str]| lines(&ask(&[arguments, &["--json"]].concat()));
    let pick = |fits: &dyn Fn(&Value) -> bool| all.iter().filter(|entry| fits(entry)).cloned().collect::<Vec<_>>();
    assert_eq!(with(&["--event", "order_*"]), pick(&|entry| entry["event"].as_str().unwrap().starts_with("order_")));
    assert_eq!(with(&["--actor", "station:*"]), pick(&|entry| entry["actor"] == "station:line1/t1"));
    assert_eq!(with(&["--order", "lot"]), pick(&|entry| entry["order"] == "lot"));
    assert_eq!(with(&["--order", "lot"]).len(), 1 + 3 * 3 + 1);
    let of_device: Vec<_> = with(&["--device", "d2"]).iter().map(|entry| entry["event"].clone()).collect();
    assert_eq!(of_device, ["reserved", "issued", "confirmed", "scrapped"]);
    let middle = all[all.len() / 2]["time"].as_str().unwrap();
    assert_eq!(with(&["--since", middle]), pick(&|entry| entry["time"].as_str().unwrap() >= middle));
    assert_eq!(with(&["--until", middle]), pick(&|entry| entry["time"].as_str().unwrap() < middle));
    refused(&ask(&["--event", "orders"]), &["no event is called \"orders\"", "order_created"]);
    assert_eq!(succeeded(&ask(&[])).lines().count(), 1 + all.len());
    // Times of the dump and of this are of one width, and sort as text.
    let widths: BTreeSet<_> = all.iter().map(|entry| entry["time"].as_str().unwrap().len()).collect();
    assert_eq!(widths.len(), 1);
    daemon.end();
}
