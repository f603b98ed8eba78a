//! Two daemons that share a ledger on PostgreSQL, each with a token of its own and the same CA key.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    time::Duration,
};

use birthmark_bench::{
    port::Port,
    postgres::{Place, Server, psql},
    shared::Sharing,
};
use rustix::process::Signal;

use super::{
    site::{Daemon, Site},
    token::{succeeded, text},
};

/// What a station has: each device's certificate.
pub(crate) type Certificates = BTreeMap<String, Vec<u8>>;

/// A site with two daemons.
pub(crate) struct Pair {
    pub(crate) site: Site,
    pub(crate) place: Place,
    /// For mTLS at the second daemon.
    _port: Port,
}

impl Pair {
    /// With an empty ledger; `ledger` are further lines of `[ledger]`.
    pub(crate) fn new(ledger: &str) -> Pair {
        Pair::at(Server::shared().place().unwrap(), 1, ledger)
    }

    /// In this place, with so many copies.
    pub(crate) fn at(place: Place, copies: u8, ledger: &str) -> Pair {
        let pair = Pair { site: Site::new(), place, _port: Port::hold().unwrap() };
        let Pair { site, place, _port: port } = &pair;
        let sharing = Sharing { place, copies, lines: &format!("lease = \"4s\"\n{ledger}") };
        let mut two = String::new();
        site.configure(|text| {
            let elsewhere = text.replace(&site.address().to_string(), &port.address().to_string());
            two = site.further(&sharing, &elsewhere, "two");
            sharing.first(&text, "one").unwrap()
        });
        site.token.write("two.toml", &two);
        pair.own(&["create", "--role", &place.role]);
        pair
    }

    /// `birthmark ledger …` as the owner of the tables.
    pub(crate) fn own(&self, arguments: &[&str]) -> String {
        let all =
            [&["ledger"][..], arguments, &["--config", "birthmark.toml", "--database", &self.place.owner]].concat();
        succeeded(&self.site.token.birthmark(&all))
    }

    pub(crate) fn one(&self) -> Daemon {
        self.site.start()
    }

    pub(crate) fn two(&self) -> Daemon {
        self.two_as(|command| command)
    }

    /// As [`Pair::two`], after a change of the command; the process must stay the daemon's.
    pub(crate) fn two_as(&self, change: impl FnOnce(Command) -> Command) -> Daemon {
        let arguments = ["serve", "--config", "two.toml", "--ready-file", "ready.json"];
        self.site.start_as(|_| change(self.site.token.command(&arguments)))
    }
}

/// Stops it for so long.
pub(crate) fn pause(daemon: &Daemon, milliseconds: u64) {
    daemon.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(milliseconds));
    daemon.signal(Signal::CONT);
}

/// What the journal says, read by `birthmark journal`, and the tables beside it.
pub(crate) fn account(pair: &Pair, certificates: &Certificates) {
    for data in ["data", "data-two"] {
        succeeded(&pair.site.token.birthmark(&["journal", "verify", data]));
    }
    let dump = text(&pair.site.token.birthmark(&["journal", "dump", "data"]).stdout);
    let mut devices = BTreeMap::new();
    let mut issued = BTreeSet::new();
    for line in dump.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        match entry["event"].as_str().unwrap() {
            "reserved" => {
                let device = entry["device_id"].as_str().unwrap().to_owned();
                devices.insert(entry["serial_number"].as_str().unwrap().to_owned(), device);
            }
            "issued" => {
                let device = &devices[entry["serial_number"].as_str().unwrap()];
                assert!(issued.insert(device.clone()), "{device} was issued two certificates");
            }
            _ => {}
        }
    }
    for device in certificates.keys() {
        assert!(issued.contains(device), "{device} was told of a certificate that is not recorded");
    }
    let tables = "SELECT id || ' ' || used FROM orders ORDER BY id";
    let before = psql(&pair.place.owner, tables).unwrap();
    pair.own(&["rebuild"]);
    assert_eq!(psql(&pair.place.owner, tables).unwrap(), before);
}
