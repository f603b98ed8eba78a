//! How long lists take. Not part of `make test`:
//! `BIRTHMARK_REVOKED=1000000 cargo test --release --lib -- --ignored --nocapture crl_publisher::figures`

use std::{fs, io::Write, path::Path, time::Instant};

use jiff::{SignedDuration, Timestamp};

use super::listed;
use crate::{
    asn1::{INTEGER, SEQUENCE, explicit, primitive, tlv},
    crl::{self, Revoked, Shards, Terms},
    ledger::{
        Action, Actor, CaId, Holder, Ledger, Operation, Outcome, Records, RevocationReason,
        embedded::{EmbeddedLedger, EmbeddedRecords, Settings},
    },
    serial::SerialNumber,
    signer::SignatureAlgorithm,
    x509_time::Time,
};

const NAME: &[u8] = &[0x30, 0];

/// As much of a certificate as the ledger reads.
fn certificate(serial_number: &SerialNumber, not_after: Time) -> Vec<u8> {
    let mut der = Vec::new();
    tlv(&mut der, SEQUENCE, |out| {
        tlv(out, SEQUENCE, |out| {
            tlv(out, explicit(0), |out| primitive(out, INTEGER, &[2]));
            primitive(out, INTEGER, serial_number.as_bytes());
            out.extend_from_slice(SignatureAlgorithm::EcdsaP256Sha256.identifier());
            out.extend_from_slice(NAME);
            tlv(out, SEQUENCE, |out| [not_after; 2].iter().for_each(|time| time.encode(out)));
        });
    });
    der
}

fn commit(ledger: &mut EmbeddedLedger, actions: impl Iterator<Item = Action>) -> Vec<Outcome> {
    let operations: Vec<_> = actions.map(|action| Operation { actor: Actor::daemon(), action }).collect();
    ledger.commit(Timestamp::now(), &operations).unwrap()
}

/// Issues and revokes so many certificates.
fn fill(folder: &Path, count: u32) {
    let (mut ledger, _) = EmbeddedLedger::open(folder, Timestamp::now(), &Settings::default()).unwrap();
    let not_after = Time::from(Timestamp::now()).plus(SignedDuration::from_hours(24 * 3650));
    let numbers: Vec<_> = (0..count).collect();
    for batch in numbers.chunks(4096) {
        let reserve = batch.iter().map(|number| {
            Action::Reserve(Holder {
                device: format!("d{number}"),
                key_hash: crate::hash::sha256(&number.to_be_bytes()),
                order: String::new(),
                profile: "p".into(),
                issuer: "i".into(),
                issuer_id: 0,
            })
        });
        let given = commit(&mut ledger, reserve).into_iter().filter_map(|outcome| outcome.reserved());
        let given: Vec<_> = given.collect();
        commit(
            &mut ledger,
            given.iter().map(|serial_number| Action::Record {
                serial_number: *serial_number,
                certificate: certificate(serial_number, not_after).into(),
            }),
        );
        let reason = RevocationReason::KeyCompromise;
        let revoke = given.iter().map(|serial_number| Action::Revoke { serial_number: *serial_number, reason });
        assert!(commit(&mut ledger, revoke).iter().all(|outcome| matches!(outcome, Outcome::Changed { .. })));
    }
    ledger.close().unwrap();
}

/// A list that is not signed; gives how many certificates are on it, and its octets.
fn list(records: &EmbeddedRecords, shards: Shards, shard: u16) -> (usize, usize) {
    let revoked = records.revoked(&CaId::new(NAME), shards.hashes(shard)).unwrap();
    let entries: Vec<Revoked> = revoked.iter().filter_map(|found| listed(found, None, true)).collect();
    let now = Time::from(Timestamp::now());
    let terms = Terms {
        algorithm: SignatureAlgorithm::EcdsaP256Sha256.identifier(),
        issuer: NAME,
        authority_key_identifier: &[0x30, 0],
        number: 1,
        this_update: now,
        next_update: now,
        distribution_points: &[],
    };
    (entries.len(), crl::to_be_signed(&terms, entries.into_iter()).len())
}

fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
#[ignore = "a measurement"]
fn list_of_many_revoked_certificates_takes_so_long() {
    let count = std::env::var("BIRTHMARK_REVOKED").map_or(100_000, |count| count.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), count);
    let begun = Instant::now();
    let (ledger, records) = EmbeddedLedger::open(folder.path(), Timestamp::now(), &Settings::default()).unwrap();
    println!("start with {count} revoked: {:?}", begun.elapsed());
    for shards in [1, 64] {
        // The peak is that of the process since it was last reset.
        let reset = fs::OpenOptions::new().write(true).open("/proc/self/clear_refs");
        reset.and_then(|mut file| file.write_all(b"5")).unwrap();
        let (shards, before, begun) = (Shards::new(shards).unwrap(), peak_memory(), Instant::now());
        let (mut entries, mut longest) = (0, 0);
        for shard in 0..shards.count() {
            let (of_shard, octets) = list(&records, shards, shard);
            (entries, longest) = (entries + of_shard, longest.max(octets));
        }
        assert_eq!(entries, count as usize);
        let (took, memory) = (begun.elapsed(), peak_memory().saturating_sub(before) >> 10);
        println!("{} lists: {took:?}, at most {longest} octets, {memory} MiB", shards.count());
    }
    drop(ledger);
}
