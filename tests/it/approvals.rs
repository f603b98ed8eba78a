//! Four eyes: what one operator cannot do alone.

use crate::support::{
    site::{Site, csr, json_line},
    token::{refused, succeeded},
};

#[tokio::test(flavor = "multi_thread")]
async fn order_above_the_limit_needs_a_second_operator() {
    let site = Site::new();
    let usual = std::fs::read_to_string(site.path("birthmark.toml")).unwrap();
    let rules = "[approval]\norders_above = 10\nquantity_changes = true\n\n[http]";
    site.token.write("birthmark.toml", &usual.replace("[http]", rules));
    let daemon = site.start();
    let identities = ["anna", "otto"].map(|name| site.identity("operator", name).display().to_string());
    let url = daemon.url();
    let run = |who: usize, arguments: &[&str]| {
        site.token.birthmark(&[arguments, &["--server", &url, "--identity", &identities[who]]].concat())
    };
    let create = |id: &'static str, quantity: &'static str| {
        ["order", "create", id, "--profile", "device", "--quantity", quantity]
    };
    succeeded(&run(0, &create("small", "10")));
    for _ in 0..2 {
        refused(&run(0, &create("large", "11")), &["second operator", "quantity 11", "grant 1", "APPROVAL_REQUIRED"]);
    }
    refused(&run(0, &["approval", "grant", "1"]), &["operator:anna has made", "APPROVAL_OWN"]);
    refused(&run(1, &["approval", "grant", "2"]), &["APPROVAL_UNKNOWN"]);
    // It is good for that alone, also after a restart.
    succeeded(&run(1, &["approval", "grant", "1"]));
    daemon.end();
    let daemon = site.start();
    refused(&run(0, &create("large", "12")), &["grant 2"]);
    refused(&run(0, &create("larger", "11")), &["grant 3"]);
    succeeded(&run(0, &create("large", "11")));
    // Creating it again is a retry, and uses nothing.
    succeeded(&run(0, &create("large", "11")));
    refused(&run(1, &["approval", "grant", "1"]), &["used", "APPROVAL_OVER"]);

    let raise = ["order", "change", "small", "--quantity", "12"];
    refused(&run(0, &raise), &["from 10 to 12", "grant 4"]);
    succeeded(&run(1, &["approval", "grant", "4"]));
    succeeded(&run(0, &raise));
    let shown = succeeded(&site.operator(&["order", "show", "small", "--changes"]));
    let changed = shown.lines().find(|line| line.contains("order_quantity_changed")).unwrap();
    assert!(changed.contains("operator:anna") && shown.contains("order_created"), "{shown}");
    // Back and up again is another change.
    refused(&run(0, &["order", "change", "small", "--quantity", "10"]), &["from 12 to 10", "grant 5"]);
    daemon.end();
    std::fs::remove_dir_all(site.path("data/index")).unwrap();
    let daemon = site.start();
    let listed: serde_json::Value =
        serde_json::from_str(&succeeded(&site.operator(&["approval", "list", "--json"]))).unwrap();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 5);
    let names = ["requested_by", "granted_by", "used_by"].map(|name| listed[0][name].as_str().unwrap().to_owned());
    assert_eq!(names, ["operator:anna", "operator:otto", "operator:anna"]);
    assert_eq!(succeeded(&site.operator(&["approval", "list", "--pending"])).lines().count(), 4);
    daemon.end();
    succeeded(&site.token.birthmark(&["journal", "verify", "--config", "birthmark.toml"]));
}

/// A small order that is raised is a large one.
#[tokio::test(flavor = "multi_thread")]
async fn order_raised_above_the_limit_needs_a_second_operator() {
    let site = Site::new();
    site.configure(|usual| usual + "\n[approval]\norders_above = 10\n");
    let daemon = site.start();
    site.create_order("small", 3);
    let change = |quantity: &str| site.operator(&["order", "change", "small", "--quantity", quantity]);
    succeeded(&change("10"));
    refused(&change("11"), &["from 10 to 11", "APPROVAL_REQUIRED"]);
    let otto = site.identity("operator", "otto").display().to_string();
    let grant = ["approval", "grant", "1", "--server", &daemon.url(), "--identity", &otto];
    succeeded(&site.token.birthmark(&grant));
    succeeded(&change("11"));
    // Lowering is anybody's.
    succeeded(&change("5"));
    daemon.end();
}

/// One operator revokes so many alone; for more a second one agrees to this very list, once.
#[tokio::test(flavor = "multi_thread")]
async fn revocation_of_many_needs_a_second_operator() {
    let site = Site::new();
    site.configure(|usual| usual + "\n[approval]\nrevocations_above = 3\n");
    let daemon = site.start();
    site.create_order("lot", 20);
    let lines: String = (0..8).map(|number| json_line(&format!("d{number}"), &csr("d"))).collect();
    site.token.write("devices.jsonl", &lines);
    site.create_order("other", 3);
    let more: String = (0..3).map(|number| json_line(&format!("n{number}"), &csr("n"))).collect();
    site.token.write("more.jsonl", &more);
    succeeded(&site.sign("line1/t1", "lot", "devices.jsonl", "certs").output().unwrap());
    let identities = ["anna", "otto"].map(|name| site.identity("operator", name).display().to_string());
    let url = daemon.url();
    let run = |who: usize, arguments: &[&str]| {
        site.token.birthmark(&[arguments, &["--server", &url, "--identity", &identities[who]]].concat())
    };
    let state = |device: &str| {
        let shown = succeeded(&site.operator(&["record", "show", device, "--json"]));
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()["state"].as_str().unwrap().to_owned()
    };
    site.token.write("few.txt", "d0\n# a comment\nd1 # two\n\n");
    assert!(succeeded(&run(0, &["record", "revoke", "--file", "few.txt"])).contains("2 certificates are revoked"));
    succeeded(&run(0, &["record", "revoke", "d2", "--reason", "keyCompromise"]));
    refused(&run(0, &["record", "revoke", "d3"]), &["revoke the certificate", "grant 1", "APPROVAL_REQUIRED"]);
    assert_eq!(state("d3"), "issued");
    // The other operator has not revoked any.
    succeeded(&run(1, &["record", "revoke", "d3"]));
    let all = ["record", "revoke", "--order", "lot", "--reason", "superseded"];
    refused(&run(0, &all), &["revoke 4 certificates for superseded", "grant 2"]);
    refused(&run(0, &["approval", "grant", "2"]), &["APPROVAL_OWN"]);
    succeeded(&run(1, &["approval", "grant", "2"]));
    refused(&run(0, &["record", "revoke", "--order", "lot", "--reason", "keyCompromise"]), &["grant 3"]);
    assert!(succeeded(&run(0, &all)).contains("4 certificates are revoked"));
    assert!((0..8).all(|number| state(&format!("d{number}")) == "revoked"));
    // A restart forgets nothing: anna has revoked her three alone, and what otto agreed to does not count for anybody.
    daemon.end();
    let daemon = site.start();
    succeeded(&site.sign("line1/t1", "other", "more.jsonl", "more").output().unwrap());
    refused(&run(0, &["record", "revoke", "n0"]), &["revoke the certificate", "APPROVAL_REQUIRED"]);
    succeeded(&run(1, &["record", "revoke", "n0"]));
    succeeded(&run(1, &["record", "revoke", "n1"]));
    refused(&run(1, &["record", "revoke", "n2"]), &["APPROVAL_REQUIRED"]);
    // Both names are in the journal.
    let dump = succeeded(&site.token.birthmark(&["journal", "dump", "data"]));
    let names = ["approval_requested", "approval_granted", "approval_used"].map(|event| {
        let line = dump.lines().find(|line| line.contains(event) && line.contains("\"number\":2")).unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()["actor"].as_str().unwrap().to_owned()
    });
    assert_eq!(names, ["operator:anna", "operator:otto", "operator:anna"]);
    // What is not there is named, and the rest is not touched.
    site.token.write("wrong.txt", "d0\nd99\n");
    refused(&run(1, &["record", "revoke", "--file", "wrong.txt"]), &["wrong.txt, line 2: d99", "RECORD_UNKNOWN"]);
    refused(&run(1, &["record", "revoke", "--order", "lot"]), &["no certificate to revoke"]);
    daemon.end();
}
