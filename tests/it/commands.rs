//! The operators' and auditors' commands.

use std::{collections::BTreeMap, fs, process::Output};

use serde_json::{Value, json};

use crate::support::{
    site::{Daemon, Site, csr, json_line},
    token::{refused, succeeded},
};

/// A site with a daemon, the order `o1` and this number of certificates `d1`, `d2`… under it.
fn site(devices: usize) -> (Site, Daemon) {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 100);
    let lines: String = (1..=devices).map(|number| format!("d{number}")).map(|id| json_line(&id, &csr(&id))).collect();
    site.token.write("devices.jsonl", &lines);
    succeeded(&site.sign("line1/t1", "o1", "devices.jsonl", "certs").output().unwrap());
    (site, daemon)
}

fn parsed(run: &Output) -> Value {
    serde_json::from_str(&succeeded(run)).unwrap()
}

/// A command over mTLS as the holder of this identity.
fn remote(site: &Site, daemon: &Daemon, role: &str, name: &str, arguments: &[&str]) -> Output {
    let identity = site.identity(role, name);
    site.token.command(arguments).args(["--server", &daemon.url(), "--identity"]).arg(identity).output().unwrap()
}

/// Label software and spreadsheets read every list: a line of headings, then a line for each, as many cells in all of them.
#[test]
fn list_of_every_kind_is_printed_as_csv() {
    let (site, daemon) = site(2);
    for (list, lines) in [
        (&["order", "list"][..], 1),
        (&["order", "devices", "o1"], 0),
        (&["record", "list", "--order", "o1"], 2),
        (&["station", "list"], 1),
        (&["export", "list"], 0),
        (&["export", "list", "--order", "o1"], 0),
        (&["issuer", "list"], 1),
        (&["approval", "list"], 0),
        (&["vend", "list"], 0),
        (&["roles"], 20),
    ] {
        let printed = succeeded(&site.operator(&[list, &["--csv"]].concat()));
        let rows: Vec<_> = printed.split_terminator("\r\n").collect();
        assert!(rows.len() > lines, "{list:?}: {printed}");
        let cells = |row: &str| row.split('"').step_by(2).map(|outside| outside.matches(',').count()).sum::<usize>();
        assert!(cells(rows[0]) > 0 && rows.iter().all(|row| cells(row) == cells(rows[0])), "{list:?}: {printed}");
        assert_eq!(rows[0], rows[0].to_lowercase(), "{list:?}");
    }
    daemon.end();
}

#[test]
fn orders_are_created_listed_shown_and_closed() {
    let (site, daemon) = site(2);
    let printed = succeeded(&site.operator(&["order", "show", "o1"]));
    let fields: BTreeMap<_, _> =
        printed.lines().filter_map(|line| line.split_once("  ")).map(|(name, value)| (name, value.trim())).collect();
    for (name, value) in [
        ("order", "o1"),
        ("profile", "device"),
        ("state", "open"),
        ("quantity", "100"),
        ("issued", "2"),
        ("left", "98"),
        ("stations", "all"),
    ] {
        assert_eq!(fields.get(name), Some(&value), "{printed}");
    }

    let create = ["order", "create", "o2", "--profile", "device", "--quantity", "5", "--station", "line1/*"];
    let window = ["--not-before", "2026-01-01T00:00:00Z", "--not-after", "2999-01-01T01:00:00+01:00", "--json"];
    let create = [&create[..], &window].concat();
    let created = parsed(&site.operator(&create));
    let expected = json!({
        "id": "o2", "profile": "device", "state": "open", "closed": false, "quantity": 5, "issued": 0, "reserved": 0,
        "left": 5, "confirmed": 0, "scrapped": 0, "revoked": 0, "not_before": "2026-01-01T00:00:00Z",
        "not_after": "2999-01-01T00:00:00Z", "stations": ["line1/*"],
        "attributes": {},
        "devices": 0, "devices_listed": 0, "per_day": 0, "reserved_today": 0, "first_pass": null,
        "created_at": created["created_at"], "created_by": created["created_by"],
        "quantity_changed_at": null, "quantity_changed_by": "", "paused_at": null, "paused_by": "", "pause_reason": "",
        "closed_at": null, "closed_by": "",
    });
    assert!(created["created_by"].as_str().unwrap().starts_with("operator:local-"), "{created}");
    assert_eq!(created, expected);
    assert_eq!(parsed(&site.operator(&create)), created, "creating it again changes nothing");
    refused(&site.operator(&["order", "create", "o2", "--profile", "device", "--quantity", "6"]), &["ORDER_EXISTS"]);
    assert_eq!(without_first_pass(site.order("o2")), created);

    let listed = parsed(&site.operator(&["order", "list", "--json"]));
    assert_eq!(listed, json!([without_first_pass(site.order("o1")), created]));
    let table = succeeded(&site.operator(&["order", "list"]));
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.lines().nth(1).unwrap().starts_with("o1 "), "{table}");

    assert_eq!(parsed(&site.operator(&["order", "close", "o2", "--json"]))["closed"], true);
    assert_eq!(parsed(&site.operator(&["order", "close", "o2", "--json"]))["state"], "closed");
    refused(&site.operator(&create), &["ORDER_EXISTS", "closed"]);

    for (arguments, says) in [
        (&["order", "show", "none"][..], &["no order \"none\"", "ORDER_UNKNOWN"][..]),
        (&["order", "close", "none"], &["no order \"none\"", "ORDER_UNKNOWN"]),
        (&["order", "create", "o 3", "--profile", "device", "--quantity", "1"], &["REQUEST_INVALID", "id"]),
        (
            &["order", "create", "o3", "--profile", "none", "--quantity", "1"],
            &["no profile \"none\"", "PROFILE_UNKNOWN"],
        ),
    ] {
        refused(&site.operator(arguments), says);
    }
    for wrong in [&["--quantity", "0"][..], &["--quantity", "many"], &["--quantity", "1", "--not-before", "tomorrow"]] {
        let run = site.operator(&[&["order", "create", "o3", "--profile", "device"], wrong].concat());
        assert_eq!(run.status.code(), Some(2), "{wrong:?}");
    }
    daemon.end();
}

/// A record is found by serial number and by device.
#[test]
fn record_is_found_by_serial_number_and_by_device() {
    let (site, daemon) = site(1);
    let record = parsed(&site.operator(&["record", "show", "d1", "--json"]));
    let pem = fs::read_to_string(site.path("certs/d1.pem")).unwrap();
    let serial = site.token.openssl(&["x509", "-in", "certs/d1.pem", "-noout", "-serial"]);
    let serial = serial.trim().strip_prefix("serial=").unwrap().to_lowercase();
    let id = site.token.openssl(&["x509", "-in", "certs/d1.pem", "-noout", "-fingerprint", "-sha256"]);
    let id = id.trim().split_once('=').unwrap().1.replace(':', "").to_lowercase();
    let expected = json!({
        "serial_number": serial, "state": "issued", "device_id": "d1", "order": "o1", "profile": "device",
        "issuer": "main", "issuer_generation": 1, "issuer_id": 1,
        "station": "line1/t1", "key_sha256": record["key_sha256"],
        "reserved_at": record["reserved_at"], "issued_at": record["issued_at"],
        "changed_at": null, "changed_by": null, "scrap_reason": null, "revocation_reason": null, "replaces": null,
        "certificate_id": id, "certificate_pem": pem,
    });
    assert_eq!(record, expected);
    assert_eq!(record["key_sha256"].as_str().unwrap().len(), 64);

    let colons =
        serial.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect::<Vec<_>>().join(":");
    for of in
        [&[serial.as_str()][..], &[&colons], &[&serial.to_uppercase()], &["--serial", &serial], &["d1", "--device"]]
    {
        assert_eq!(parsed(&site.operator(&[&["record", "show", "--json"], of].concat())), record, "{of:?}");
    }
    assert_eq!(succeeded(&site.operator(&["record", "show", "d1", "--pem"])), pem);
    let printed = succeeded(&site.operator(&["record", "show", "d1"]));
    for value in ["d1", "issued", &serial, &id, "o1", "line1/t1"] {
        assert!(printed.contains(value), "{value} is not in {printed}");
    }
    for of in ["d2", &"0".repeat(39), &format!("1{}", "0".repeat(39))] {
        refused(&site.operator(&["record", "show", of]), &["there is no record of", "RECORD_UNKNOWN"]);
    }
    refused(&site.operator(&["record", "show", "--serial", "xyz"]), &["not a serial number in hex"]);
    daemon.end();
}

#[test]
fn dump_has_order_attributes_and_one_form_of_hashes_and_times() {
    let site = Site::new();
    site.configure(|usual| {
        usual + "\n[profiles.batch]\nissuer = \"main\"\nsubject = [\"OU={order.batch}\", \"CN={device_id}\"]\n"
    });
    let daemon = site.start();
    let order = ["order", "create", "o2", "--profile", "batch", "--quantity", "1", "--attribute", "batch=A7"];
    succeeded(&site.operator(&[&order[..], &["--not-before", "2026-03-01T06:00:00Z"]].concat()));
    daemon.end();
    let dumped = succeeded(&site.token.birthmark(&["journal", "dump", "data"]));
    let entries: Vec<Value> = dumped.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let order = entries.iter().find(|entry| entry["order"] == "o2").unwrap();
    assert_eq!(order["attributes"], json!({ "batch": "A7" }));
    assert_eq!(order["not_before"], "2026-03-01T06:00:00.000000Z");
    for entry in &entries {
        let (time, hash) = (entry["time"].as_str().unwrap(), entry["chain_hash"].as_str().unwrap());
        assert_eq!(
            (time.len(), time.as_bytes()[19], hash.len()),
            ("2026-03-01T06:00:00.000000Z".len(), b'.', 64),
            "{entry}"
        );
    }
    let verified: Value =
        serde_json::from_str(&succeeded(&site.token.birthmark(&["journal", "verify", "data", "--json"]))).unwrap();
    assert_eq!(verified["chain_hash"], entries.last().unwrap()["chain_hash"]);
    assert_eq!(verified["newest_time"], entries.last().unwrap()["time"]);
}

#[test]
fn operators_work_over_the_network_and_auditors_only_read() {
    let (site, daemon) = site(1);
    daemon.end();
    assert!(!site.path("ready.json").exists(), "nobody is ready any more");
    site.configure(|usual| usual + "\n[destinations.cloud]\nformat = \"jsonl\"\n");
    let daemon = site.start();
    succeeded(&site.operator(&["export", "create", "cloud"]));
    let local = [
        parsed(&site.operator(&["order", "show", "o1", "--json"])),
        parsed(&site.operator(&["order", "list", "--json"])),
        parsed(&site.operator(&["record", "show", "d1", "--json"])),
    ];
    for (role, name) in [("auditor", "otto"), ("operator", "anna")] {
        let run = |arguments: &[&str]| remote(&site, &daemon, role, name, arguments);
        let seen = [
            parsed(&run(&["order", "show", "o1", "--json"])),
            parsed(&run(&["order", "list", "--json"])),
            parsed(&run(&["record", "show", "d1", "--json"])),
        ];
        assert_eq!(seen, local, "{role}");
        assert_eq!(parsed(&run(&["export", "list", "cloud", "--json"]))[0]["id"], "cloud.0001");
        assert_eq!(parsed(&run(&["export", "list", "--order", "o1", "--json"])), json!([]));
        assert_eq!(parsed(&run(&["export", "plan", "cloud", "--json"]))["number"], 2);
        succeeded(&run(&["export", "get", "cloud.0001", "--out", role]));
        let create = run(&["order", "create", "o2", "--profile", "device", "--quantity", "1"]);
        let close = run(&["order", "close", "o2"]);
        let cut = run(&["export", "create", "cloud"]);
        let acknowledge = run(&["export", "acknowledge", "cloud.0001"]);
        let scrap = run(&["record", "scrap", "d1", "--reason", "broken"]);
        if role == "operator" {
            for run in [create, close, cut, acknowledge, scrap] {
                succeeded(&run);
            }
        } else {
            for run in [create, close, cut, acknowledge, scrap] {
                refused(&run, &["role", "operator", "auditor:otto", "ROLE_REQUIRED"]);
            }
        }
    }
    refused(&remote(&site, &daemon, "station", "line1/t1", &["record", "list", "--order", "o1"]), &["ROLE_REQUIRED"]);
    daemon.end();
    refused(&site.operator(&["order", "list"]), &["cannot connect to the daemon at", "admin.sock"]);
}

/// Every command explains itself.
#[test]
fn command_of_every_kind_explains_itself() {
    let token = crate::support::token::Token::new();
    let mut commands = vec![vec![]];
    let mut seen = 0;
    while let Some(command) = commands.pop() {
        let help = succeeded(&token.birthmark(&[&command[..], &["--help"]].concat()));
        assert!(help.contains("Usage: birthmark"), "{help}");
        seen += 1;
        let listed = help.split("Commands:\n").nth(1).unwrap_or_default().split("\n\n").next().unwrap_or_default();
        for line in listed.lines() {
            // Lines that go on from the one before are further to the right.
            let Some(name) = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')) else { continue };
            let name = name.split(' ').next().unwrap();
            if name != "help" {
                let name: &'static str = name.to_owned().leak();
                commands.push([&command[..], &[name]].concat());
            }
        }
    }
    assert!(seen >= 23, "{seen}");
    assert!(succeeded(&token.birthmark(&["--version"])).starts_with("birthmark 0."));
    assert_eq!(token.birthmark(&[]).status.code(), Some(2));
}

/// What a list has of an order: the first pass is looked up for one alone.
fn without_first_pass(mut order: Value) -> Value {
    assert!(order["first_pass"]["tried"].is_u64(), "{order}");
    order["first_pass"] = Value::Null;
    order
}
