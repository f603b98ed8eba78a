//! Four eyes without a daemon: what two operators must agree to before a loss or a clock is accepted.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use birthmark::{
    agreement::{self, Statement},
    ledger::{
        Actor, Agreed, Agreement, Grounds,
        embedded::{EmbeddedLedger, Settings},
        entry::Event,
        journal::Scan,
    },
};
use jiff::{SignedDuration, Timestamp};

use crate::{
    support::{
        site::{Site, csr, json_line},
        token::{refused, succeeded},
    },
    tls::SoftCa,
};

/// A site whose ledger was moved, and needs an operator's word.
struct Moved {
    site: Site,
    identities: Vec<(&'static str, PathBuf)>,
}

const ACCEPT: [&str; 4] = ["journal", "accept-loss", "--config", "birthmark.toml"];

impl Moved {
    fn new() -> Moved {
        let (site, soft) = (Site::new(), SoftCa::new("Of the operators"));
        let both = fs::read_to_string(site.path("ca/station-ca.pem")).unwrap() + &soft.pem();
        site.token.write("ca/clients.pem", &both);
        let trusts_both =
            |usual: String| usual.replace("client_ca = \"ca/station-ca.pem\"", "client_ca = \"ca/clients.pem\"");
        site.configure(|usual| trusts_both(usual) + "\n[approval]\n");
        let late = soft.identity(&site, "late", &["urn:birthmark:operator:late:security"], |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        });
        let daemon = site.start();
        site.create_order("lot", 9);
        site.token.write("one.jsonl", &json_line("d0", &csr("d0")));
        succeeded(&site.sign("line1/t1", "lot", "one.jsonl", "certs").output().unwrap());
        let enroll = |name: &str, more: &[&str]| {
            let out = format!("people/{name}");
            succeeded(&site.operator(&[&["station", "enroll", name, "--out", &out][..], more].concat()));
            site.path(&out)
        };
        let operator = ["--role", "operator"];
        let of = |duties| [&operator[..], &["--duties", duties]].concat();
        let identities = vec![
            ("anna", enroll("anna", &operator)),
            ("otto", enroll("otto", &of("security+export"))),
            ("ida", enroll("ida", &of("quality"))),
            ("gone", enroll("gone", &of("security"))),
            ("eve", enroll("eve", &["--role", "auditor"])),
            ("late", late),
        ];
        succeeded(&site.operator(&["station", "revoke", "operator:gone", "--reason", "left the company"]));
        daemon.end();
        copy(&site.path("data"), &site.path("moved"));
        fs::remove_dir_all(site.path("data")).unwrap();
        fs::rename(site.path("moved"), site.path("data")).unwrap();
        Moved { site, identities }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.site.token.birthmark(arguments)
    }

    fn folder(&self, name: &str) -> &Path {
        &self.identities.iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// Has somebody sign a statement, without asking whether it may still be used.
    fn sign(&self, statement: &str, name: &str) -> String {
        let text = fs::read_to_string(self.site.path(statement)).unwrap();
        let file = format!("{name}.approved");
        self.site.token.write(&file, &agreement::sign(&text, self.folder(name)).unwrap());
        file
    }

    fn accept(&self, statement: &str, approved: &[&str]) -> Output {
        let approved = approved.iter().flat_map(|file| ["--approved", file]).collect::<Vec<_>>();
        self.run(&[&ACCEPT[..], &["--statement", statement], &approved].concat())
    }

    /// The statement with other text, signed by anna and otto.
    fn accept_changed(&self, change: impl FnOnce(&mut Statement)) -> Output {
        let (mut statement, _) = Statement::read(&self.site.path("s.json")).unwrap();
        change(&mut statement);
        self.site.token.write("other.json", &statement.to_text());
        let approved = ["anna", "otto"].map(|name| self.sign("other.json", name));
        self.accept("other.json", &[&approved[0], &approved[1]])
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let path = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &path),
            false => drop(fs::copy(entry.path(), path).unwrap()),
        }
    }
}

/// One signature, one person twice, another role or duty, a revoked, expired or foreign certificate, another octet, too late, another ledger, an
/// older state: nothing is accepted. Two operators for security: it is, with their names, for good.
#[test]
fn loss_is_accepted_by_two_operators_for_security_only() {
    let moved = Moved::new();
    let site = &moved.site;
    // Leaving the configuration away, or naming one without the section, changes nothing.
    refused(&moved.run(&["journal", "accept-loss", "data", "--reason", "moved"]), &["[approval]", "--config"]);
    let usual = fs::read_to_string(site.path("birthmark.toml")).unwrap();
    site.token.write("without.toml", &usual.replace("[approval]", ""));
    let without = ["journal", "accept-loss", "--config", "without.toml", "--reason", "moved"];
    refused(&moved.run(&without), &["two operators", "--statement"]);
    refused(&moved.run(&[&ACCEPT[..], &["--reason", "moved"]].concat()), &["two operators", "journal approve"]);

    let write = [&ACCEPT[..], &["--reason", "the disk was replaced", "--statement", "s.json"]].concat();
    let told = succeeded(&moved.run(&write));
    assert!(told.contains("nothing is accepted yet") && told.contains("restored, copied or moved"), "{told}");
    refused(&moved.run(&write), &["s.json"]);
    let anna = moved.folder("anna").to_str().unwrap();
    let told = succeeded(&moved.run(&["journal", "approve", "s.json", "--identity", anna, "--out", "a.approved"]));
    assert!(told.contains("the disk was replaced") && told.contains("chain hash"), "{told}");
    let [otto, ida, gone, eve, late] = ["otto", "ida", "gone", "eve", "late"].map(|name| moved.sign("s.json", name));

    let wrong: [(&[&str], &[&str]); 7] = [
        (&["a.approved"], &["1 operator agreed"]),
        (&["a.approved", "a.approved"], &["operator:anna", "signed already"]),
        (&["a.approved", &ida], &["operator:ida:quality", "security"]),
        (&["a.approved", &eve], &["auditor:eve", "security"]),
        (&["a.approved", &gone], &["operator:gone", "Revoked"]),
        (&["a.approved", &late], &["operator:late", "is not taken", "expired"]),
        (&["a.approved", "s.json"], &["s.json is no agreement"]),
    ];
    for (approved, says) in wrong {
        refused(&moved.accept("s.json", approved), says);
    }
    // Who has such a certificate is told before anything is passed on.
    let expired = moved.folder("late").to_str().unwrap();
    let approve = ["journal", "approve", "s.json", "--identity", expired, "--out", "l.approved"];
    refused(&moved.run(&approve), &["2021-01-01", "cert.pem"]);
    assert!(!site.path("l.approved").exists());
    let text = fs::read_to_string(site.path("s.json")).unwrap();
    site.token.write("octet.json", &text.replace("replaced", "replaceD"));
    refused(&moved.accept("octet.json", &["a.approved", &otto]), &["each octet"]);
    let hours = SignedDuration::from_hours;
    refused(&moved.accept_changed(|late| late.made_at -= hours(25)), &["may be used", "write a new one"]);
    refused(&moved.accept_changed(|early| early.made_at += hours(1)), &["may be used"]);
    refused(&moved.accept_changed(|other| other.ledger = "00".repeat(16)), &["about the ledger 0000"]);
    refused(&moved.accept_changed(|older| older.entries -= 1), &["about a journal of", "this one has"]);
    refused(&moved.accept_changed(|older| older.chain_hash = "11".repeat(32)), &["about a journal of"]);
    refused(&moved.accept_changed(|other| other.accepts = agreement::Kind::Clock), &["other kind"]);
    // Whoever has another station CA.
    let other = Site::new();
    let stranger = other.identity("operator", "otto");
    site.token.write("stranger.approved", &agreement::sign(&text, &stranger).unwrap());
    refused(&moved.accept("s.json", &["a.approved", "stranger.approved"]), &["operator:otto", "is not taken"]);
    // The key of another certificate is found where it would sign.
    fs::copy(moved.folder("anna").join("cert.pem"), stranger.join("cert.pem")).unwrap();
    assert!(agreement::sign(&text, &stranger).unwrap_err().to_string().contains("not over this statement"));

    let otto = moved.sign("s.json", "otto");
    let told = succeeded(&moved.accept("s.json", &["a.approved", &otto]));
    assert!(told.contains("accepted and recorded"), "{told}");
    let verified = succeeded(&moved.run(&["journal", "verify", "--config", "birthmark.toml"]));
    assert!(verified.contains("agreed to by operator:anna and operator:otto"), "{verified}");
    let dumped = succeeded(&moved.run(&["journal", "dump", "data"]));
    let entry: serde_json::Value = serde_json::from_str(dumped.lines().last().unwrap()).unwrap();
    assert_eq!(entry["statement"].as_str(), Some(text.as_str()), "{entry}");
    assert_eq!(entry["agreed_by"][1]["operator"].as_str(), Some("operator:otto"));
    // It is used up: the journal has gone on.
    refused(&moved.accept("s.json", &["a.approved", &otto]), &["nothing to accept"]);
    let daemon = site.start();
    assert_eq!(daemon.get("/readyz").0, 200);
    daemon.end();
}

/// The same for a clock, whose entry keeps the agreements through a reindex.
#[test]
fn clock_is_accepted_as_agreed_and_the_entry_has_the_names() {
    let moved = Moved::new();
    let data = moved.site.path("data");
    let (settings, now) = (Settings::default(), Timestamp::now() - SignedDuration::from_hours(30 * 24));
    let found = EmbeddedLedger::acceptable_clock(&data, now, &settings).unwrap();
    assert!(found.what.contains("the newest entry is of"), "{found:?}");
    let agreement = |name: &str| Agreement { by: Actor(name.into()), certificate: vec![1], signature: vec![2] };
    let agreed =
        Agreed { statement: "s".into(), agreements: vec![agreement("operator:anna"), agreement("operator:otto")] };
    let accept = |found| {
        let grounds = Grounds { reason: "it is right".into(), agreed: Some((found, agreed.clone())) };
        EmbeddedLedger::accept_clock(&data, now, &settings, Actor("operator:root".into()), grounds)
    };
    let mut older = found.clone();
    older.entries -= 1;
    assert!(accept(older).unwrap_err().to_string().contains("about a journal of"));
    accept(found).unwrap();
    EmbeddedLedger::reindex(&data, &settings).unwrap();
    let newest = Scan::open(&data).unwrap().map(Result::unwrap).last().unwrap();
    assert!(matches!(&newest.entry.event, Event::ClockAccepted { agreed: Some(kept), .. } if **kept == agreed));
}
