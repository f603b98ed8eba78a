//! Certificates that a restored ledger lacks, taken back from what was exported: bundles of every format that holds them, as
//! folders and as tars.

use std::{collections::BTreeMap, fs};

use crate::{
    restore::{certificates, sign},
    support::{
        site::{Site, csr, json_line},
        token::{refused, succeeded, text},
    },
};

const FORMATS: &str = "
[destinations.lines]
format = \"jsonl\"
chunk = 5
[destinations.aws]
format = \"aws-bulk\"
policy = \"device\"
[destinations.named]
format = \"aws-bulk\"
policy = \"device\"
thing_name = \"acme-{device_id}\"
[destinations.table]
format = \"csv\"
[destinations.things]
format = \"csv\"
preset = \"thingsboard\"
[destinations.prints]
format = \"csv\"
preset = \"fingerprints\"
[destinations.press]
format = \"thingpress\"
[destinations.azure]
format = \"azure-dps\"
";

/// How often something was said of what was found.
fn tally(site: &Site, arguments: &[&str]) -> (u64, u64, usize) {
    let reconcile = ["journal", "reconcile", "data", "--json", "--certificates"];
    let run = site.token.birthmark(&[&reconcile[..], arguments].concat());
    assert!(matches!(run.status.code(), Some(0 | 3)), "{}", text(&run.stderr));
    let told: serde_json::Value = serde_json::from_str(&text(&run.stdout)).unwrap();
    let refused = told["refused"].as_array().unwrap().len();
    assert_eq!(run.status.code() == Some(3), refused > 0, "{told}");
    (told["recovered"].as_u64().unwrap(), told["known"].as_u64().unwrap(), refused)
}

#[test]
fn bundle_of_any_format_gives_back_what_a_ledger_lacks() {
    let site = Site::new();
    site.configure(|usual| usual + FORMATS);
    let mut daemon = site.start();
    let (number, order) = (12, ["--order", "lot"]);
    site.create_order("lot", 100);
    succeeded(&site.token.birthmark(&["backup", "kept", "--config", "birthmark.toml"]));
    let lines: String = (0..number).map(|n| json_line(&format!("dev-{n}"), &csr(&format!("dev-{n}")))).collect();
    site.token.write("all.jsonl", &lines);
    succeeded(&sign(&site, &site.path("all.jsonl"), "out"));
    let destinations = ["lines", "aws", "named", "table", "things", "prints", "press", "azure"];
    for destination in destinations {
        succeeded(&site.operator(&["export", "create", destination, "--out", "bundles"]));
        succeeded(&site.operator(&["export", "get", &format!("{destination}.0001"), "--out", "tars", "--tar"]));
    }
    succeeded(&site.operator(&["export", "plan", "lines"]));
    daemon.kill();
    daemon.wait();
    let issued = certificates(&site.path("out"));

    // Which tell the device, which the order, and which hold no certificate.
    let tells: BTreeMap<_, (bool, bool, bool)> = BTreeMap::from([
        ("lines", (true, true, true)),
        ("aws", (true, false, true)),
        ("named", (false, false, true)),
        ("table", (true, true, true)),
        ("things", (true, false, true)),
        ("prints", (false, false, false)),
        ("press", (false, false, true)),
        ("azure", (true, false, true)),
    ]);
    let all = number as usize;
    for destination in destinations {
        let (device, charge, holds) = tells[destination];
        for place in [format!("bundles/{destination}.0001"), format!("tars/{destination}.0001.tar")] {
            fs::remove_dir_all(site.path("data")).unwrap();
            succeeded(&site.token.birthmark(&["restore", "kept", "--config", "birthmark.toml"]));
            if !holds {
                assert_eq!(tally(&site, &[&place]), (0, 0, 1), "{place}");
                continue;
            }
            // Nothing is guessed.
            let bare = tally(&site, &[&place]);
            assert_eq!(bare, if device && charge { (12, 0, 0) } else { (0, 0, all) }, "{place}");
            let with_order = tally(&site, &[&[&*place][..], &order].concat());
            let expected = match (device, charge) {
                (true, true) => (0, 12, 0),
                (true, false) => (12, 0, 0),
                _ => (0, 0, all),
            };
            assert_eq!(with_order, expected, "{place}");
            let with_subject = tally(&site, &[&[&*place][..], &order, &["--device-in-subject"]].concat());
            assert_eq!(with_subject, if device { (0, 12, 0) } else { (12, 0, 0) }, "{place}");
        }
    }
    // All at once, as somebody in a hurry does it; the tar is the same once more.
    fs::remove_dir_all(site.path("data")).unwrap();
    succeeded(&site.token.birthmark(&["restore", "kept", "--config", "birthmark.toml"]));
    let everything = [&["bundles", "tars", "out"][..], &order, &["--device-in-subject"]].concat();
    assert_eq!(tally(&site, &everything), (12, 12 * 14, 0));

    // Damage is told with its place, and nothing is taken.
    let data = site.path("bundles/press.0001/data-00001.txt");
    let good = fs::read_to_string(&data).unwrap();
    fs::write(&data, good.replacen('\n', "x\n", 2)).unwrap();
    let reconcile = ["journal", "reconcile", "data", "--order", "lot", "--certificates", "bundles/press.0001"];
    refused(&site.token.birthmark(&reconcile), &["press.0001/data-00001.txt", "line 1"]);
    fs::write(&data, good).unwrap();
    // What is torn is named, and so is a folder that has none, as that of a share which is not mounted. A chain alone will do.
    for folder in ["torn", "empty"] {
        fs::create_dir(site.path(folder)).unwrap();
    }
    let pem = |number: u8| fs::read(site.path(&format!("out/dev-{number}.pem"))).unwrap();
    site.token.write("torn/dev-1.pem", &String::from_utf8_lossy(&pem(1)[..200]));
    site.token.write("torn/dev-2.pem", "");
    site.token.write("torn/dev-3.chain.pem", &String::from_utf8_lossy(&pem(3)));
    assert_eq!(tally(&site, &["torn", "empty", "--order", "lot"]), (0, 1, 3));

    let accept = ["journal", "accept-loss", "data", "--reason", "the exports were read"];
    succeeded(&site.token.birthmark(&accept));
    let daemon = site.start();
    succeeded(&sign(&site, &site.path("all.jsonl"), "again"));
    assert!(certificates(&site.path("again")) == issued, "some devices have two certificates");
    assert_eq!(site.order("lot")["issued"], 12);
    daemon.end();
}
