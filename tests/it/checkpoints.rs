//! Checkpoints, and what `journal verify` makes of a journal that was changed after them.

use std::{fs, path::Path};

use tonic::Code;

use crate::support::{
    faults::{Faults, fault_module},
    site::{Site, csr, request, wait_until},
    token::{LABEL, module, refused, succeeded},
};

/// A site whose daemon issued some certificates in two runs, and has ended.
async fn site_with_journal(interval: &str) -> Site {
    let site = Site::new();
    site.configure(|usual| usual.replace("[audit]\n", &format!("[audit]\ninterval = \"{interval}\"\n")));
    for run in 0..2 {
        let daemon = site.start();
        site.create_order("o1", 100);
        let mut stream = site.stream(&daemon, "line1/t1").await;
        for device in 0..10 {
            let device = format!("d{run}-{device}");
            stream.ask(request(&device, "o1", csr(&device))).await.issued();
        }
        daemon.end();
    }
    site
}

fn verify(site: &Site, arguments: &[&str]) -> std::process::Output {
    site.token.birthmark(&[&["journal", "verify", "data"], arguments].concat())
}

/// The metric of how long entries wait for a checkpoint.
const AGE: &str = "birthmark_checkpoint_lag_seconds";

const TRUSTED: [&str; 2] = ["--trusted-key", "ca/audit.pem"];

fn journal(site: &Site) -> std::path::PathBuf {
    site.path("data/journal/00000001.journal")
}

/// Every entry as `journal dump` tells it.
fn dump(site: &Site) -> Vec<serde_json::Value> {
    let dumped = succeeded(&site.token.birthmark(&["journal", "dump", "--config", "birthmark.toml"]));
    dumped.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The last checkpoint covers all and OpenSSL verifies it.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoint_at_shutdown_covers_all_and_openssl_verifies() {
    let site = site_with_journal("1h").await;
    let told: serde_json::Value =
        serde_json::from_str(&succeeded(&verify(&site, &[&TRUSTED[..], &["--json"]].concat()))).unwrap();
    assert_eq!(told["counts"]["issued"], 20);
    assert!(told["counts"]["checkpoints"].as_u64().unwrap() >= 2, "{told}");
    // Behind it is only its own entry.
    assert_eq!(told["trusted"]["uncovered_entries"], 1, "{told}");
    assert_eq!(told["torn_end"], serde_json::Value::Null);

    let note = fs::read_to_string(site.path("data/checkpoint")).unwrap();
    let (body, signature) = note.split_once("\n\n").unwrap();
    let signature = signature.trim_end().rsplit(' ').next().unwrap();
    let signature = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, signature).unwrap();
    fs::write(site.path("body"), format!("{body}\n")).unwrap();
    fs::write(site.path("signature"), &signature[4..]).unwrap();
    site.token.openssl(&["dgst", "-sha256", "-verify", "ca/audit.pem", "-signature", "signature", "body"]);
    assert!(site.log().contains("checkpoint"), "{}", site.log());

    let entries = dump(&site);
    assert_eq!(entries.iter().filter(|entry| entry["event"] == "issued").count(), 20);
    assert_eq!(entries.last().unwrap()["event"], "checkpoint");
    let of_one = succeeded(&site.token.birthmark(&["journal", "dump", "data", "--device", "d1-3"]));
    assert_eq!(of_one.lines().count(), 2, "{of_one}");
    let some = succeeded(&site.token.birthmark(&["journal", "dump", "data", "--from", "3", "--to", "5"]));
    assert_eq!(some.lines().count(), 3, "{some}");
}

/// A journal that was cut short or rewritten is refused by `journal verify` and by the daemon.
#[tokio::test(flavor = "multi_thread")]
async fn journal_cut_short_or_rewritten_is_refused() {
    let site = site_with_journal("1h").await;
    let whole = fs::read(journal(&site)).unwrap();
    let entries = dump(&site);
    let checkpoints: Vec<_> = entries.iter().filter(|entry| entry["event"] == "checkpoint").collect();
    let copy = site.path("kept-elsewhere");
    fs::copy(site.path("data/checkpoint"), &copy).unwrap();

    // Cut some entries after the first checkpoint.
    let after = checkpoints[0]["sequence"].as_u64().unwrap() as usize + 3;
    let offset = entries[after]["offset"].as_u64().unwrap() as usize;
    fs::write(journal(&site), &whole[..offset]).unwrap();
    refused(&verify(&site, &[]), &["cut short", "data/checkpoint"]);
    refused(&verify(&site, &TRUSTED), &["cut short"]);
    let said = site.refuse_to_start();
    assert!(said.contains("data/checkpoint") && said.contains("can be read"), "{said}");
    fs::remove_file(site.path("data/checkpoint")).unwrap();
    refused(&verify(&site, &[&TRUSTED[..], &["--checkpoint", copy.to_str().unwrap()]].concat()), &["cut short"]);
    // Without any reference it is a journal that ends earlier, and verify says what it does not know.
    assert!(succeeded(&verify(&site, &TRUSTED)).contains("not known: there is no checkpoint file"));

    // Rewritten from the first entry on by somebody who has all but the HSM: a chain that fits itself.
    let forged = rewrite(&whole, &entries);
    fs::write(journal(&site), &forged).unwrap();
    fs::copy(&copy, site.path("data/checkpoint")).unwrap();
    refused(&verify(&site, &[]), &["rewritten"]);
    let said = site.refuse_to_start();
    assert!(said.contains("are not those that it knows"), "{said}");
    fs::remove_file(site.path("data/checkpoint")).unwrap();
    refused(&verify(&site, &[]), &["rewritten", "00000001.journal"]);

    // Another key vouches for nothing.
    fs::write(journal(&site), &whole).unwrap();
    site.token.openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "other.key"]);
    site.token.openssl(&["ec", "-in", "other.key", "-pubout", "-out", "other.pem"]);
    refused(&verify(&site, &["--trusted-key", "other.pem"]), &["not trusted"]);
    succeeded(&verify(&site, &[&TRUSTED[..], &["--checkpoint", copy.to_str().unwrap()]].concat()));
}

/// The journal with another actor in its first entry, and every checksum and chain hash made to fit.
fn rewrite(journal: &[u8], entries: &[serde_json::Value]) -> Vec<u8> {
    const HEADER: usize = 72;
    const HEAD: usize = 44;
    let mut forged = journal.to_vec();
    let mut chain = [0; 32];
    let end = journal.len();
    let starts = entries.iter().map(|entry| entry["offset"].as_u64().unwrap() as usize);
    for (index, start) in starts.enumerate() {
        assert!(index > 0 || start == HEADER);
        let length = u32::from_le_bytes(forged[start..start + 4].try_into().unwrap()) as usize;
        assert!(start + HEAD + length <= end);
        if index == 0 {
            let payload = &mut forged[start + HEAD..start + HEAD + length];
            let at = payload.windows(6).position(|window| window == b"daemon").unwrap();
            payload[at + 5] ^= 1;
        }
        let payload = forged[start + HEAD..start + HEAD + length].to_vec();
        chain = birthmark::hash::sha256(&[&chain[..], &payload].concat());
        forged[start + 12..start + HEAD].copy_from_slice(&chain);
        let checked = [&forged[start..start + 4], &forged[start + 8..start + HEAD], &payload].concat();
        let sum = crc32c::crc32c(&checked);
        forged[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
    }
    forged
}

/// Checkpoints come by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_with_an_interval_come_by_themselves() {
    let site = Site::new();
    site.configure(|usual| usual.replace("[audit]\n", "[audit]\ninterval = \"1s\"\n"));
    let daemon = site.start();
    site.create_order("o1", 100);
    let read = |site: &Site| fs::read_to_string(site.path("data/checkpoint")).unwrap_or_default();
    wait_until("there is a checkpoint", || !read(&site).is_empty());
    let first = read(&site);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("d1", "o1", csr("d1"))).await.issued();
    wait_until("there is another", || read(&site) != first);
    assert!(daemon.metric("birthmark_checkpoint_lag_seconds", &[]) < 100.0);
    // While the daemon runs, its journal can be verified, and its index not be touched.
    succeeded(&verify(&site, &TRUSTED));
    refused(&site.token.birthmark(&["journal", "reindex", "data"]), &["another birthmark daemon uses"]);
    daemon.end();
    let told = succeeded(&site.token.birthmark(&["journal", "reindex", "--config", "birthmark.toml"]));
    assert!(told.contains("rebuilt"), "{told}");

    // A key that issues may not vouch.
    let configuration = fs::read_to_string(site.path("birthmark.toml")).unwrap();
    site.token.write("birthmark.toml", &configuration.replacen("object=audit", "object=issuing", 1));
    let said = site.refuse_to_start();
    assert!(said.contains("audit.key_uri") && said.contains("\"main\""), "{said}");
    site.token.write("birthmark.toml", &configuration.replacen("\"1s\"", "\"0s\"", 1));
    assert!(site.refuse_to_start().contains("audit.interval"));
}

/// While the HSM is away there are no checkpoints; afterwards they come again by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_stop_while_the_hsm_is_away_and_come_again() {
    let site = Site::new();
    let faults = Faults::between(&site, "wait_seconds = 1");
    // The audit key is in the fault module, too.
    let configuration = fs::read_to_string(site.path("birthmark.toml")).unwrap();
    let (before, audit) = configuration.split_once("[audit]\n").unwrap();
    let audit = audit.replacen(module().to_str().unwrap(), fault_module().to_str().unwrap(), 1);
    site.token.write("birthmark.toml", &format!("{before}[audit]\ninterval = \"1s\"\n{audit}"));
    let daemon = site.start();
    site.create_order("o1", 100);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("d1", "o1", csr("d1"))).await.issued();
    let note = || fs::read_to_string(site.path("data/checkpoint")).unwrap_or_default();
    let covers_all =
        || verify(&site, &TRUSTED).status.success() && daemon.metric(AGE, &[]) == 0.0 && !note().is_empty();
    wait_until("a checkpoint covers all", covers_all);

    faults.set(&format!("remove {LABEL}"));
    let last = note();
    // What needs no HSM goes on, and is covered by none.
    site.create_order("o2", 100);
    wait_until("no checkpoint can be made", || site.log().contains("no checkpoint could be made; trying again"));
    stream.ask(request("d2", "o1", csr("d2"))).await.must_be(Code::Unavailable, "HSM_UNAVAILABLE");
    wait_until("the metric says so", || daemon.metric(AGE, &[]) > 1.0);
    assert_eq!(note(), last);

    faults.set("");
    wait_until("checkpoints are made again", || site.log().contains("checkpoints are made again"));
    wait_until("a checkpoint covers all", || note() != last && covers_all());
    stream.ask(request("d2", "o1", csr("d2"))).await.issued();
    daemon.end();
    let told: serde_json::Value =
        serde_json::from_str(&succeeded(&verify(&site, &[&TRUSTED[..], &["--json"]].concat()))).unwrap();
    assert_eq!((&told["counts"]["issued"], &told["trusted"]["uncovered_entries"]), (&2.into(), &1.into()), "{told}");
}

/// What is no journal is said to be none.
#[test]
fn folder_that_is_no_journal_is_said_to_be_none() {
    let token = crate::support::token::Token::new();
    fs::create_dir(token.path("empty")).unwrap();
    for command in [["journal", "verify", "empty"], ["journal", "dump", "empty"], ["journal", "reindex", "empty"]] {
        refused(&token.birthmark(&command), &["empty", "holds no"]);
    }
    assert!(!Path::new(&token.path("empty/index")).exists());
    // Without a folder it is that of the configuration, which this machine has not.
    refused(&token.birthmark(&["journal", "verify"]), &["/etc/birthmark/birthmark.toml"]);
}
