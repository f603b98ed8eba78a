//! Devices that ask one daemon for what another one of the same ledger wrote a moment ago.

use std::fs;

use rcgen::KeyPair;

use super::{
    again_csr, device_identity, enroll,
    vending::{ask, codes},
};
use crate::support::{
    pair::Pair,
    site::{csr, csr_of, request},
};

/// The codes, certificates and orders of one daemon are known to the other at once, and not refused for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_daemon_wrote_just_now_is_known_over_est() {
    let pair = Pair::new("patience = \"10s\"\n");
    let site = &pair.site;
    let one = pair.one();
    let est = "[est]\nlisten = \"127.0.0.1:0\"\n\n[ledger]\n";
    let second = fs::read_to_string(site.path("two.toml")).unwrap();
    site.token.write("two.toml", &second.replace("[ledger]\n", est));
    // The last that is started, so that it is the one that devices ask.
    let two = pair.two();
    let station = site.identity("station", "line1/t1");
    let mut at_one = site.stream(&one, "line1/t1").await;
    site.create_order("o1", 20);
    for number in 0..3 {
        let (coded, device, other) = (format!("c{number}"), format!("d{number}"), format!("e{number}"));
        let codes = codes(site, &format!("codes-{number}.csv"), &[&coded], &[]);
        ask(site, "simpleenroll", &coded, &codes[&coded], &csr(&coded)).certificate(site);
        ask(site, "simpleenroll", &device, &codes[&coded], &csr(&device)).must_be(401, "no such code");

        let order = format!("of-{number}");
        site.create_order(&order, 10);
        let path = format!("device~{order}/simpleenroll");
        enroll(site, Some(&station), &path, &csr(&other), &[]).certificate(site);

        let key = KeyPair::generate().unwrap();
        let issued = at_one.ask(request(&device, "o1", csr_of(&key, &device))).await.issued().certificate;
        let identity = device_identity(site, &device, &issued, &key);
        let again = enroll(site, Some(&identity), "device/simplereenroll", &again_csr(&key, &device), &[]);
        assert_eq!(again.certificate(site), issued.to_vec());
    }
    drop(at_one);
    one.end();
    two.end();
}
