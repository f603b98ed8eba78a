//! Batches of destinations: each certificate once to each, what is unfit or refused again, what is scrapped withdrawn.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    batch::{bundle_files, each, lines},
    site::{Daemon, Site, csr, json_line, wait_until},
    token::{refused, succeeded, text},
};

const CLOUD: &str = "\n[destinations.cloud]\nformat = \"jsonl\"\n";
const AWS: &str = "\n[destinations.aws]\nformat = \"aws-bulk\"\npolicy = \"device\"\n";

/// A site with these destinations, a daemon and the order `o1`.
fn site(destinations: &str) -> (Site, Daemon) {
    let site = Site::new();
    site.configure(|usual| usual + destinations);
    let daemon = site.start();
    site.create_order("o1", 100_000);
    (site, daemon)
}

/// Gives these devices a certificate for a new key.
fn sign(site: &Site, devices: &[impl AsRef<str>], more: &[&str]) {
    let line = |id: &str| json_line(id, &csr(id));
    let lines: String = devices.iter().map(|id| line(id.as_ref())).collect();
    site.token.write("devices.jsonl", &lines);
    succeeded(&site.sign("line1/t1", "o1", "devices.jsonl", "certs").args(more).output().unwrap());
}

fn parsed(run: &Output) -> Value {
    serde_json::from_str(&succeeded(run)).unwrap()
}

/// Cuts the next batch, and gives what was said.
#[track_caller]
fn create(site: &Site, destination: &str) -> Value {
    parsed(&site.operator(&["export", "create", destination, "--out", "out", "--json"]))
}

fn bundle(site: &Site, batch: &str) -> PathBuf {
    site.path(&format!("out/{batch}"))
}

/// The devices of a bundle's certificates.
fn devices(site: &Site, batch: &str) -> Vec<String> {
    each(&lines(&bundle(site, batch), "data-"), "device_id")
}

fn withdrawn(site: &Site, batch: &str) -> Vec<Value> {
    lines(&bundle(site, batch), "withdrawn.jsonl")
}

#[track_caller]
fn verify(site: &Site, batch: &str) {
    let bundle = bundle(site, batch);
    succeeded(&site.token.birthmark(&["export", "verify", bundle.to_str().unwrap(), "--trusted-key", "ca/audit.pem"]));
}

/// One unfit device neither blocks its batch nor is forgotten: it is named, and comes when it fits.
#[test]
fn unfit_device_is_left_out_and_tried_again() {
    let (site, daemon) = site(AWS);
    sign(&site, &["d1", "dev.2", "d3"], &[]);
    let planned = parsed(&site.operator(&["export", "plan", "aws", "--json"]));
    assert_eq!([&planned["number"], &planned["certificates"]], [&json!(1), &json!(2)]);
    let made = create(&site, "aws");
    assert_eq!([&made["id"], &made["certificates"]], [&json!("aws.0001"), &json!(2)]);
    assert_eq!([&made["unfit"], &made["first"], &made["end"]], [&planned["unfit"], &planned["first"], &planned["end"]]);
    assert_eq!(made["unfit"][0]["device_id"], "dev.2");
    let names: BTreeSet<_> = each(&lines(&bundle(&site, "aws.0001"), "data-"), "ThingName").into_iter().collect();
    assert_eq!(names, ["d1", "d3"].map(str::to_owned).into());
    verify(&site, "aws.0001");
    let manifest: Value = serde_json::from_slice(&bundle_files(&bundle(&site, "aws.0001"))["manifest.json"]).unwrap();
    assert_eq!(manifest["unfit"], made["unfit"]);
    let listed = succeeded(&site.operator(&["export", "list", "aws"]));
    assert!(listed.contains("dev.2") && listed.contains("left out"), "{listed}");
    // Nothing but what is unfit: nothing to export, and it says so.
    let nothing = succeeded(&site.operator(&["export", "create", "aws"]));
    assert!(nothing.contains("nothing new") && nothing.contains("1 devices are left out"), "{nothing}");
    sign(&site, &["d4"], &[]);
    assert_eq!(create(&site, "aws")["unfit"], made["unfit"]);
    daemon.end();

    // The platform takes it under another setting.
    let files = bundle_files(&bundle(&site, "aws.0001"));
    site.configure(|usual| usual + &CLOUD.replace("cloud", "aws"));
    succeeded(&site.token.birthmark(&["journal", "reindex", "data"]));
    let daemon = site.start();
    let made = create(&site, "aws");
    assert_eq!([&made["id"], &made["certificates"], &made["unfit"]], [&json!("aws.0003"), &json!(1), &json!([])]);
    assert_eq!(devices(&site, "aws.0003"), ["dev.2"]);
    // What was cut before stays what it was.
    succeeded(&site.operator(&["export", "get", "aws.0001", "--out", "again"]));
    assert_eq!(bundle_files(&site.path("again/aws.0001")), files);
    daemon.end();
}

/// What was scrapped or revoked after it went out is withdrawn, also alone; what replaces it is named and goes out.
#[test]
fn scrapped_and_reissued_device_is_withdrawn_and_sent() {
    let (site, daemon) = site(CLOUD);
    sign(&site, &["d1", "d2", "d3", "d4"], &[]);
    succeeded(&site.operator(&["record", "scrap", "d4", "--reason", "before it went out"]));
    create(&site, "cloud");
    assert_eq!(devices(&site, "cloud.0001").len(), 3);
    let record = |of: &str| parsed(&site.operator(&["record", "show", of, "--json"]));
    let (first, second) = (record("d1"), record("d2"));

    succeeded(&site.operator(&["record", "scrap", "d1", "--reason", "cracked"]));
    let planned = parsed(&site.operator(&["export", "plan", "cloud", "--json"]));
    assert_eq!([&planned["withdrawals"][0]["device_id"], &planned["certificates"]], [&json!("d1"), &json!(0)]);
    let made = create(&site, "cloud");
    assert_eq!([&made["certificates"], &made["withdrawn"]], [&json!(0), &json!(1)]);
    let gone = &withdrawn(&site, "cloud.0002")[0];
    assert_eq!([&gone["reason"], &gone["text"], &gone["batch"]], ["scrapped", "cracked", "cloud.0001"]);
    assert_eq!([&gone["certificate_id"], &gone["replaced_by"]], [&first["certificate_id"], &Value::Null]);
    verify(&site, "cloud.0002");

    succeeded(&site.operator(&["record", "revoke", "d1", "--reason", "keyCompromise"]));
    succeeded(&site.operator(&["record", "revoke", "d2", "--reason", "superseded"]));
    sign(&site, &["d1", "d2"], &["--reissue"]);
    create(&site, "cloud");
    let gone = withdrawn(&site, "cloud.0003");
    let codes: Vec<_> =
        gone.iter().map(|line| (line["device_id"].as_str().unwrap(), line["code"].as_str().unwrap())).collect();
    // Revoked after it was scrapped: that is news, and no second scrap.
    let expected = [&first["serial_number"], &second["serial_number"]];
    assert_eq!(gone.iter().map(|line| &line["serial_number"]).collect::<Vec<_>>(), expected);
    assert_eq!(codes, [("d1", "keyCompromise"), ("d2", "superseded")]);
    for line in &gone {
        let now = record(line["device_id"].as_str().unwrap());
        assert_eq!(line["replaced_by"]["serial_number"], now["serial_number"]);
    }
    assert_eq!(devices(&site, "cloud.0003").into_iter().collect::<BTreeSet<_>>().len(), 2);
    let nothing = parsed(&site.operator(&["export", "create", "cloud", "--json"]));
    assert_eq!(nothing["id"], Value::Null);
    daemon.end();
    let verified = site.token.birthmark(&["journal", "verify", "data", "--trusted-key", "ca/audit.pem", "--json"]);
    assert_eq!(parsed(&verified)["counts"]["batches"], 3);
}

/// The results of a platform: counted, recorded once, and what failed comes again.
#[test]
fn results_are_recorded_and_what_failed_comes_again() {
    let (site, daemon) = site(CLOUD);
    sign(&site, &["d1", "d2", "d3"], &[]);
    create(&site, "cloud");
    let sent = lines(&bundle(&site, "cloud.0001"), "data-");
    let said = |line: &Value, state: &str| {
        let id = &line["certificate_id"];
        json!({ "certificate_id": id, "state": state, "code": "E7", "message": "m", "at": "2026-01-01T00:00:00Z" })
            .to_string()
            + "\n"
    };
    let results = [said(&sent[0], "registered"), said(&sent[1], "already"), said(&sent[2], "failed")].concat();
    site.token.write("results.jsonl", &results);
    site.token
        .write("foreign.jsonl", &(results.clone() + &said(&json!({ "certificate_id": "ab".repeat(32) }), "failed")));
    site.token.write("broken.jsonl", &(results.clone() + "{\"certificate_id\""));
    let acknowledge =
        |batch: &str, file: &str| site.operator(&["export", "acknowledge", batch, "--results", file, "--json"]);
    refused(&acknowledge("cloud.0001", "foreign.jsonl"), &["RESULTS_INVALID"]);
    refused(&acknowledge("cloud.0001", "broken.jsonl"), &["line 4", "RESULTS_INVALID"]);
    refused(&acknowledge("cloud.0009", "results.jsonl"), &["no batch cloud.0009", "BATCH_UNKNOWN"]);
    refused(&acknowledge("cloud.0001", "none.jsonl"), &["none.jsonl"]);
    let told = parsed(&acknowledge("cloud.0001", "results.jsonl"));
    let counts = ["registered", "already", "withdrawn", "failed"].map(|name| told["results"][name].as_u64().unwrap());
    assert_eq!(counts, [1, 1, 0, 1]);
    let sum = site.token.openssl(&["dgst", "-sha256", "-r", "results.jsonl"]);
    assert_eq!(told["results"]["sha256"], sum.split(' ').next().unwrap());
    // Again changes nothing, and other results are refused.
    assert_eq!(parsed(&acknowledge("cloud.0001", "results.jsonl")), told);
    assert_eq!(parsed(&site.operator(&["export", "acknowledge", "cloud.0001", "--json"])), told);
    site.token.write("other.jsonl", &said(&sent[0], "registered"));
    refused(&acknowledge("cloud.0001", "other.jsonl"), &["acknowledged already", "BATCH_ACKNOWLEDGED"]);

    let made = create(&site, "cloud");
    assert_eq!([&made["certificates"], &made["withdrawn"]], [&json!(1), &json!(0)]);
    assert_eq!(devices(&site, "cloud.0002"), [sent[2]["device_id"].as_str().unwrap()]);
    // Refused once more, and scrapped then: now it is to be withdrawn, and comes again as that when that fails.
    site.token.write("results.jsonl", &said(&sent[2], "failed"));
    parsed(&acknowledge("cloud.0002", "results.jsonl"));
    let device = sent[2]["device_id"].as_str().unwrap();
    succeeded(&site.operator(&["record", "scrap", device, "--reason", "broken"]));
    for number in 3..=4 {
        let made = create(&site, "cloud");
        assert_eq!([&made["certificates"], &made["withdrawn"]], [&json!(0), &json!(1)], "{number}");
        let id = format!("cloud.{number:04}");
        assert_eq!(withdrawn(&site, &id)[0]["batch"], "cloud.0002");
        site.token.write("results.jsonl", &said(&sent[2], if number == 3 { "failed" } else { "withdrawn" }));
        parsed(&acknowledge(&id, "results.jsonl"));
    }
    assert_eq!(parsed(&site.operator(&["export", "create", "cloud", "--json"]))["id"], Value::Null);
    wait_until("the metric follows", || {
        daemon.metric("birthmark_destination_unacknowledged_batches", &["cloud"]) == 0.0
    });
    daemon.end();
}

/// An order may have a colon in its id; no file of a bundle does.
#[test]
fn order_with_a_colon_gives_portable_file_names() {
    let (site, daemon) = site(AWS);
    site.create_order("lot:7", 1);
    site.token.write("devices.jsonl", &json_line("c1", &csr("c1")));
    succeeded(&site.sign("line1/t1", "lot:7", "devices.jsonl", "certs").output().unwrap());
    create(&site, "aws");
    for name in bundle_files(&bundle(&site, "aws.0001")).keys() {
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte)), "{name}");
    }
    refused(&site.operator(&["export", "get", "aws.0001", "--out", "out"]), &["aws.0001 exists"]);
    succeeded(&site.operator(&["export", "get", "aws.0001", "--out", "out", "--tar"]));
    let tar = site.path("out/aws.0001.tar");
    succeeded(&site.token.birthmark(&["export", "verify", tar.to_str().unwrap(), "--trusted-key", "ca/audit.pem"]));
    refused(&site.operator(&["export", "create", "azure"]), &["no destination \"azure\"", "DESTINATION_UNKNOWN"]);
    daemon.end();
}

/// More unfit devices than a person can look at come from a wrong setting.
#[test]
fn batch_with_too_many_unfit_devices_is_refused() {
    let (site, daemon) = site(AWS);
    let all: Vec<_> = (0..1001).map(|number| format!("dev.{number}")).collect();
    sign(&site, &all, &[]);
    for command in ["plan", "create"] {
        refused(&site.operator(&["export", command, "aws"]), &["more than 1000 devices", "dev.", "TOO_MANY_UNFIT"]);
    }
    assert!(succeeded(&site.operator(&["export", "list"])).contains("there are no batches"));
    daemon.end();
}

/// What is wrong with a destination is said at the start, with file, line and key.
#[test]
fn destination_that_cannot_be_is_named_with_line_and_key() {
    let site = Site::new();
    let usual = {
        site.configure(|usual| usual);
        fs::read_to_string(site.path("birthmark.toml")).unwrap()
    };
    let first = usual.lines().count() + 2;
    for (section, line, says) in [
        ("[destinations.aws]\nformat = \"aws-bulk\"\npolicy = \"a b\"\n", 2, "destinations.aws.policy"),
        ("[destinations.aws]\nformat = \"excel\"\n", 1, "destinations.aws.format"),
        ("[destinations.aws]\npolicy = \"device\"\n", 0, "destinations.aws.format"),
        ("[destinations.Aws]\nformat = \"jsonl\"\n", 0, "cannot be the name of a destination"),
        ("[destinations.a]\nformat = \"jsonl\"\nonly = \"scrapped\"\n", 2, "destinations.a.only"),
        ("[destinations.a]\nformat = \"jsonl\"\nevery = \"15m\"\n", 0, "destinations.a.folder"),
        ("[destinations.a]\nformat = \"jsonl\"\nevery = \"0s\"\nfolder = \"f\"\n", 2, "destinations.a.every"),
        ("[destinations.a]\nformat = \"jsonl\"\nprofiles = [\"sensor*\"]\n", 2, "destinations.a.profiles"),
        ("[destinations.a]\nformat = \"jsonl\"\ncolour = \"red\"\n", 2, "destinations.a.colour"),
    ] {
        site.token.write("birthmark.toml", &format!("{usual}\n{section}"));
        let said = site.refuse_to_start();
        assert!(
            said.contains(&format!("birthmark.toml:{}: ", first + line)) && said.contains(says),
            "{section}: {said}"
        );
    }
    let without = usual.split("[audit]").next().unwrap().to_owned()
        + "[station_ca]"
        + usual.split("[station_ca]").nth(1).unwrap();
    site.token.write("birthmark.toml", &(without + CLOUD));
    assert!(site.refuse_to_start().contains("needs an [audit] key"));
}

/// The daemon cuts and writes by itself: whole folders, once each, and not while they pile up.
#[test]
fn daemon_cuts_and_writes_by_itself() {
    let unattended = "every = \"1s\"\nfolder = \"outbox\"\nmin_free_mib = 1\nmax_unacknowledged = 2\n";
    let (site, mut daemon) = site(&format!("{CLOUD}{unattended}"));
    let outbox = |number: u32| site.path(&format!("outbox/cloud.{number:04}"));
    sign(&site, &["d1", "d2"], &[]);
    wait_until("the first batch is written", || outbox(1).exists());
    let all = |number: u32| each(&lines(&outbox(number), "data-"), "device_id");
    let mut found: Vec<_> = all(1);
    if found.len() < 2 {
        wait_until("the second batch is written", || outbox(2).exists());
        found.extend(all(2));
    }
    found.sort();
    assert_eq!(found, ["d1", "d2"]);
    let batches = parsed(&site.operator(&["export", "list", "--json"])).as_array().unwrap().clone();
    assert!(batches.iter().all(|batch| batch["created_by"] == "daemon"));
    for batch in &batches {
        succeeded(&site.operator(&["export", "acknowledge", batch["id"].as_str().unwrap()]));
    }
    let mut last = batches.len() as u32;

    // Taken out of the folder: not written again, and what an operator cuts is written too.
    for number in 1..=last {
        fs::remove_dir_all(outbox(number)).unwrap();
    }
    sign(&site, &["d3"], &[]);
    last += 1;
    wait_until("the next batch is written", || outbox(last).exists());
    daemon.kill();
    daemon = site.start();
    sign(&site, &["d4"], &[]);
    last += 1;
    wait_until("a batch is written after the kill", || outbox(last).exists());
    assert!(!outbox(1).exists());

    // Two are not acknowledged: the next is not cut before one is.
    sign(&site, &["d5"], &[]);
    wait_until("it says that it waits", || daemon.metric("birthmark_destination_held", &["cloud"]) == 1.0);
    assert!(site.log().contains("2 batches are not acknowledged"), "{}", site.log());
    assert!(!outbox(last + 1).exists());
    wait_until("backlog and batches are counted", || {
        let of = |name: &str| daemon.metric(&format!("birthmark_destination_{name}"), &["cloud"]);
        of("backlog") == 1.0 && of("unacknowledged_batches") == 2.0 && of("unacknowledged_age_seconds") > 0.0
    });
    succeeded(&site.operator(&["export", "acknowledge", &format!("cloud.{last:04}")]));
    wait_until("it is cut after all", || outbox(last + 1).exists());
    daemon.end();
    let names: Vec<_> = fs::read_dir(site.path("outbox")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{names:?}");

    // The disk is full, as far as the daemon may know.
    site.configure(|usual| {
        usual + CLOUD + &unattended.replace("= 1\nmax", "= 900000000\nmax").replace("= 2\n", "= 9\n")
    });
    let daemon = site.start();
    sign(&site, &["d6"], &[]);
    wait_until("it says why", || site.log().contains("MiB it must have"));
    assert!(!outbox(last + 2).exists());
    daemon.end();
}

/// What waits is counted as it comes and goes.
#[test]
fn backlog_of_a_destination_is_counted_as_it_changes() {
    let confirmed = "\n[destinations.late]\nformat = \"jsonl\"\nonly = \"confirmed\"\n";
    let (site, daemon) = site(&format!("{CLOUD}{confirmed}"));
    let is = |name: &str, destination: &str, value: f64| {
        let metric = format!("birthmark_destination_{name}");
        wait_until(&format!("{metric} of {destination} is {value}"), || {
            daemon.metric(&metric, &[destination]) == value
        });
    };
    sign(&site, &["d1", "d2", "d3"], &[]);
    is("backlog", "cloud", 3.0);
    is("backlog", "late", 0.0);
    let mut confirm = site.token.command(&["station", "confirm", "--certificates", "certs", "--server", &daemon.url()]);
    confirm.arg("--identity").arg(site.identity("station", "line1/t1"));
    succeeded(&confirm.output().unwrap());
    is("backlog", "late", 3.0);
    succeeded(&site.operator(&["record", "scrap", "d1", "--reason", "x"]));
    is("backlog", "cloud", 2.0);
    is("backlog", "late", 2.0);
    is("withdrawals", "cloud", 0.0);
    create(&site, "cloud");
    create(&site, "late");
    is("backlog", "cloud", 0.0);
    assert!(each(&lines(&bundle(&site, "late.0001"), "data-"), "confirmed_at").iter().all(|time| !time.is_empty()));
    succeeded(&site.operator(&["record", "revoke", "d2"]));
    is("withdrawals", "cloud", 1.0);
    is("withdrawals", "late", 1.0);
    is("backlog_age_seconds", "late", 0.0);
    daemon.end();
}

/// The moments of kills; the same seed has the same ones.
fn random() -> rand::rngs::StdRng {
    let seed = std::env::var("BIRTHMARK_SEED").ok().map_or_else(rand::random, |text| text.parse().unwrap());
    println!("BIRTHMARK_SEED={seed}");
    rand::SeedableRng::seed_from_u64(seed)
}

/// Daemon, command and both are killed at random moments while stations issue and two destinations are exported: over all
/// bundles together, each certificate is there once for each destination, and nothing else.
#[test]
fn each_certificate_goes_out_once_whatever_is_killed() {
    use rand::RngExt;
    let rounds: usize = std::env::var("BIRTHMARK_KILL_ROUNDS").map_or(12, |text| text.parse().unwrap());
    let mut random = random();
    let late = "\n[destinations.late]\nformat = \"jsonl\"\nonly = \"confirmed\"\nchunk = 7\n";
    let (site, mut daemon) = site(&format!("{CLOUD}{late}"));
    let token = fs::read_dir(site.path("tokens")).unwrap().next().unwrap().unwrap().path().join("token.object");
    let token_content = fs::read(&token).unwrap();
    for round in 0..rounds {
        let ids: Vec<_> = (0..60).map(|number| format!("r{round}-{number}")).collect();
        let input: String = ids.iter().map(|id| json_line(id, &csr(id))).collect();
        site.token.write(&format!("in-{round}.jsonl"), &input);
        let mut station = site.sign("line1/t1", "o1", &format!("in-{round}.jsonl"), "certs");
        let mut station = station.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut commands: Vec<_> = ["cloud", "late"]
            .map(|destination| {
                let arguments = ["export", "create", destination, "--out", "bundles"];
                let mut command = site.token.command(&arguments);
                command.env("BIRTHMARK_SOCKET", site.path("run/admin.sock"));
                command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .into();
        thread::sleep(Duration::from_millis(random.random_range(0..120)));
        let what = random.random_range(0..3);
        if what != 0 {
            commands.iter_mut().for_each(|command| command.kill().unwrap());
        }
        if what != 1 {
            daemon.kill();
            fs::write(&token, &token_content).unwrap();
        }
        for mut command in commands {
            command.wait().unwrap();
        }
        if what != 1 {
            daemon = site.start();
        }
        // It goes on where it was.
        assert!(station.wait().unwrap().success());
        let mut confirm =
            site.token.command(&["station", "confirm", "--certificates", "certs", "--server", &daemon.url()]);
        confirm.arg("--identity").arg(site.identity("station", "line1/t1"));
        succeeded(&confirm.output().unwrap());
    }
    for destination in ["cloud", "late"] {
        succeeded(&site.operator(&["export", "create", destination]));
        let batches = parsed(&site.operator(&["export", "list", destination, "--json"]));
        let mut seen = BTreeSet::new();
        for batch in batches.as_array().unwrap() {
            let id = batch["id"].as_str().unwrap();
            if !site.path(&format!("bundles/{id}")).exists() {
                succeeded(&site.operator(&["export", "get", id, "--out", "bundles"]));
            }
            let found = lines(&site.path(&format!("bundles/{id}")), "data-");
            assert_eq!(found.len() as u64, batch["certificates"], "{id}");
            for serial in each(&found, "serial_number") {
                assert!(seen.insert(serial), "twice in {destination}");
            }
            // A bundle that is there is whole.
            let path = site.path(&format!("bundles/{id}"));
            let path = path.to_str().unwrap();
            succeeded(&site.token.birthmark(&["export", "verify", path, "--trusted-key", "ca/audit.pem"]));
        }
        let listed = succeeded(&site.operator(&["record", "list", "--order", "o1", "--json"]));
        let records = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let all: BTreeSet<_> = records.map(|record| record["serial_number"].as_str().unwrap().to_owned()).collect();
        assert_eq!((seen.len(), &seen), (rounds * 60, &all), "{destination}");
    }
    let left: Vec<_> = fs::read_dir(site.path("bundles")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    println!("{rounds} kills: {left:?}");
    daemon.end();
    let verified = site.token.birthmark(&["journal", "verify", "data", "--trusted-key", "ca/audit.pem"]);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
}

/// `export push` is killed at random moments, its command with it: the site's program gets every bundle, in order, and after a
/// kill at most the one that it had last once more.
#[test]
fn pushed_bundles_come_in_order_whatever_is_killed() {
    use rand::RngExt;
    use std::os::unix::process::CommandExt;
    const BATCHES: u32 = 12;
    let mut random = random();
    let (site, daemon) = site(CLOUD);
    for number in 0..BATCHES {
        sign(&site, &[format!("d{number}")], &[]);
        create(&site, "cloud");
    }
    let command = "sleep 0.03; cp -r \"$1\" arrived/ && echo $BIRTHMARK_BATCH >> arrived/log; sleep 0.03";
    let arguments =
        ["export", "push", "cloud", "--from", "out", "--trusted-key", "ca/audit.pem", "--once", "--command"];
    fs::create_dir(site.path("arrived")).unwrap();
    let mut kills = 0;
    loop {
        let mut push = site.token.command(&[&arguments[..], &[command]].concat());
        let mut push = push.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(random.random_range(10..400 + 20 * kills as u64)));
        if let Some(status) = push.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            break;
        }
        let group = rustix::process::Pid::from_child(&push);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        push.wait().unwrap();
        kills += 1;
    }
    daemon.end();
    let log = fs::read_to_string(site.path("arrived/log")).unwrap();
    let mut came: Vec<&str> = log.lines().collect();
    println!("{kills} kills, {} hand-overs", came.len());
    assert!(came.len() <= BATCHES as usize + kills, "{came:?}");
    came.dedup();
    let all: Vec<String> = (1..=BATCHES).map(|number| format!("cloud.{number:04}")).collect();
    assert_eq!(came, all);
    assert_eq!(fs::read_to_string(site.path("out/.cloud.pushed")).unwrap(), format!("cloud.{BATCHES:04}\n"));
}
