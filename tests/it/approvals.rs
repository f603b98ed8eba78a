//! Four eyes: what one operator cannot do alone.

use crate::support::{
    site::Site,
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
