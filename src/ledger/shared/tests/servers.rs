//! The failure table: what is the matter with the server itself, with the way to it, or with those who write beside this daemon.
#![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use birthmark_bench::postgres::{Server, psql};
use jiff::Timestamp;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::{
    super::{DatabaseSettings, SharedLedger},
    scene::{self, Scene, order, reserve},
};
use crate::ledger::{LedgerError, Records, embedded::Guards, wire};

/// SQLSTATE 53300: nothing has happened, the reason is told, and it goes on by itself.
#[test]
fn too_many_connections_are_said_and_outlived() {
    let server = Server::start(&[]).unwrap();
    if server.port().is_none() {
        return;
    }
    let scene = Scene::on(&server);
    let mut one = scene.open_at(&scene.place.daemons, "one", tempfile::tempdir().unwrap(), 1);
    one.ask(order("lot", 10_000));
    server.sql(&format!("ALTER ROLE {} CONNECTION LIMIT 0", scene.place.role)).unwrap();
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", scene.place.role);
    server.sql(&end).unwrap();
    assert!(matches!(one.try_ask(reserve(2000, "lot")), Err(LedgerError::Unavailable { .. })));
    let said = one.records.healthy().unwrap_err();
    assert!(said.contains("53300") && said.contains("too many connections"), "{said}");
    server.sql(&format!("ALTER ROLE {} CONNECTION LIMIT -1", scene.place.role)).unwrap();
    one.issue(2000, "lot");
    scene.check(vec![one]);
}

/// A file system in memory; gone when dropped.
struct Mounted<'a>(&'a Path);

impl Mounted<'_> {
    fn new(at: &Path) -> Result<Mounted<'_>, String> {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(at).output();
        let mount = mount.map_err(|error| error.to_string())?;
        if mount.status.success() { Ok(Mounted(at)) } else { Err(String::from_utf8_lossy(&mount.stderr).into_owned()) }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

/// SQLSTATE 53100: what there was no room for has not happened, the reason is told, and it goes on by itself when there is room.
#[test]
fn full_disk_is_said_and_outlived() {
    let server = Server::start(&[]).unwrap();
    if server.port().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // The server's user must get there.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let small = folder.path().join("small");
    fs::create_dir(&small).unwrap();
    let disk = match Mounted::new(&small) {
        Ok(disk) => disk,
        Err(why) => {
            assert!(std::env::var_os("BIRTHMARK_MUST_MOUNT").is_none(), "{why}");
            eprintln!("SKIPPED: no full disk of a database here, which needs root: {why}");
            return;
        }
    };
    assert!(Command::new("chown").arg("postgres:postgres").arg(&small).status().unwrap().success());
    server.sql(&format!("CREATE TABLESPACE small LOCATION '{}'", small.display())).unwrap();
    let scene = Scene::on(&server);
    server.sql(&format!("ALTER TABLE {}.journal SET TABLESPACE small", scene.place.schema)).unwrap();
    let mut one = scene.open_at(&scene.place.daemons, "one", tempfile::tempdir().unwrap(), 1);
    one.ask(order("lot", 10_000));
    let filling = disk.0.join("filling");
    let filled = Command::new("dd").args(["if=/dev/zero", "bs=4096"]).arg(format!("of={}", filling.display())).output();
    assert!(!filled.unwrap().status.success());
    // The table's last page has room for some.
    let mut issued = 0;
    let refused = loop {
        match one.try_ask(reserve(issued, "lot")) {
            Ok(_) => issued += 1,
            Err(error) => break error,
        }
        assert!(issued < 1000, "a full disk takes everything");
    };
    assert!(matches!(refused, LedgerError::Unavailable { .. }), "{refused:?}");
    let said = one.records.healthy().unwrap_err();
    assert!(said.contains("53100") && said.contains("No space left on device"), "{said}");
    fs::remove_file(&filling).unwrap();
    assert_eq!(server.sql(&format!("SELECT used FROM {}.orders", scene.place.schema)).unwrap(), issued.to_string());
    one.issue(issued, "lot");
    scene.check(vec![one]);
    drop(server);
}

/// A file of the server's, as it wants its keys.
fn give(server_data: &str, name: &str, text: &str) {
    let path = Path::new(server_data).join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let given = Command::new("chown").arg(format!("--reference={server_data}")).arg(&path).status().unwrap();
    assert!(given.success());
}

fn knows_tls(server: &Server) -> bool {
    let knows = !server.sql("SHOW ssl_library").unwrap().is_empty();
    if !knows {
        eprintln!("SKIPPED: this PostgreSQL was built without TLS");
    }
    knows
}

/// With TLS on both sides; a server of another name, or of another CA, is given nothing.
#[test]
fn database_is_reached_by_tls_and_by_its_name_alone() {
    let server = Server::start(&[]).unwrap();
    let Some(port) = server.port().filter(|_| knows_tls(&server)) else { return };
    let ca = |name: &str| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), Issuer::new(params, key))
    };
    let ((ca_pem, ca), (other_pem, _)) = (ca("site"), ca("other"));
    let leaf = |name: &str, alternative: Vec<String>| {
        let mut params = CertificateParams::new(alternative).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &ca).unwrap().pem(), key.serialize_pem())
    };
    let (server_pem, server_key) = leaf("pg1", vec!["localhost".into()]);
    let (daemon_pem, daemon_key) = leaf("birthmark", Vec::new());
    let scene = Scene::on(&server);
    let data = server.sql("SHOW data_directory").unwrap();
    for (name, text) in [("server.crt", &server_pem), ("server.key", &server_key), ("ca.crt", &ca_pem)] {
        give(&data, name, text);
    }
    // The daemons by their certificates alone, the owner as before.
    give(
        &data,
        "pg_hba.conf",
        "hostssl all birthmark 127.0.0.1/32 cert\nhostnossl all birthmark all reject\nhost all all 127.0.0.1/32 trust\n",
    );
    for setting in ["ssl_ca_file = 'ca.crt'", "ssl = on"] {
        server.sql(&format!("ALTER SYSTEM SET {setting}")).unwrap();
    }
    server.sql("SELECT pg_reload_conf()").unwrap();
    let own = tempfile::tempdir().unwrap();
    let files =
        [("ca.pem", &ca_pem), ("other.pem", &other_pem), ("daemon.pem", &daemon_pem), ("daemon.key", &daemon_key)];
    for (name, text) in files {
        fs::write(own.path().join(name), text).unwrap();
    }
    let try_open = |host: &str, root: &str, name: &str| {
        let schema = &scene.place.schema;
        let url = format!(
            "postgresql://birthmark@{host}:{port}/postgres?options=-csearch_path%3D{schema}&sslmode=verify-full&sslrootcert={root}\
             &sslcert=daemon.pem&sslkey=daemon.key"
        );
        let settings = DatabaseSettings {
            folder: own.path().to_owned(),
            patience: Duration::from_secs(5),
            ..scene.settings_at(&url, name)
        };
        let folder = tempfile::tempdir().unwrap();
        let opened =
            SharedLedger::open(folder.path(), Timestamp::now(), &scene::SETTINGS, &Guards::default(), &settings);
        (opened.map_err(|error| error.to_string()), folder)
    };
    let (open_to_all, _) = try_open("localhost", "ca.pem", "one");
    assert!(open_to_all.unwrap_err().contains("chmod 600"));
    fs::set_permissions(own.path().join("daemon.key"), fs::Permissions::from_mode(0o600)).unwrap();
    // What was told to reload has not done so yet.
    let mut tls = String::new();
    for _ in 0..100 {
        tls = server.sql("SHOW ssl").unwrap();
        if tls == "on" {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(tls, "on");
    let (one, folder) = try_open("localhost", "ca.pem", "one");
    let (ledger, records) = one.unwrap();
    let encrypted = "SELECT bool_and(ssl) AND bool_and(client_dn = '/CN=birthmark') FROM pg_stat_ssl JOIN pg_stat_activity \
                     USING (pid) WHERE usename = 'birthmark'";
    assert_eq!(server.sql(encrypted).unwrap(), "t");
    drop((ledger, records, folder));
    let (wrong_name, _) = try_open("127.0.0.1", "ca.pem", "two");
    let said = wrong_name.map(drop).unwrap_err();
    assert!(said.contains("not valid for name") && said.contains("127.0.0.1"), "{said}");
    let (wrong_ca, _) = try_open("localhost", "other.pem", "two");
    let said = wrong_ca.map(drop).unwrap_err();
    assert!(said.contains("UnknownIssuer"), "{said}");
    let (plain, _) = (scene.try_daemon("two").map(drop).unwrap_err().to_string(), ());
    assert!(plain.contains("pg_hba.conf rejects"), "{plain}");
}

/// A frame, by the table of bytes alone.
fn frame(before: &[u8], payload: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let chain = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[before, payload].concat());
    let length = (payload.len() as u32).to_le_bytes();
    let rest = [&[0; 4][..], chain.as_ref(), payload].concat();
    let sum = crc32c::crc32c_append(crc32c::crc32c(&length), &rest).to_le_bytes();
    ([&length[..], &sum, &rest].concat(), chain.as_ref().to_vec())
}

/// An entry of a kind that this version does not know stops it, whatever else it could still read: it cannot tell what that
/// entry forbids. It starts no more either, and those who know the entry go on.
#[test]
fn entry_of_a_newer_version_stops_the_older_daemon() {
    let scene = Scene::new();
    let (mut one, mut two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 10));
    two.ask(order("other", 10));
    let known = one.records.head();
    let newest = psql(
        &scene.place.owner,
        "SELECT head.batch || ' ' || head.sequence || ' ' || encode(chain, 'hex') || ' ' || place + length(frames) || ' ' || epoch \
         FROM head JOIN journal USING (batch)",
    )
    .unwrap();
    let newest: Vec<_> = newest.split(' ').collect();
    let [batch, sequence, place] = [newest[0], newest[1], newest[3]].map(|text| text.parse::<u64>().unwrap());
    let entry = wire::Entry { time: wire::to_micros(Timestamp::now()), actor: "operator:anna".into(), event: None };
    // The field 200 with two octets in it.
    let payload = [&entry.encode_to_vec()[..], &[0xC2, 0x0C, 0x02, 0x08, 0x01]].concat();
    let (frames, chain) = frame(&hex::decode(newest[2]).unwrap(), &payload);
    let append = format!(
        "INSERT INTO journal (batch, epoch, first, place, frames) VALUES ({}, {}, {}, {place}, '\\x{}'); \
         UPDATE head SET batch = {}, sequence = {}, chain = '\\x{}'",
        batch + 1,
        newest[4],
        sequence + 1,
        hex::encode(frames),
        batch + 1,
        sequence + 1,
        hex::encode(chain)
    );
    psql(&scene.place.owner, &append).unwrap();
    let stopped = one.try_ask(reserve(1, "lot")).unwrap_err();
    assert!(stopped.is_fatal() && stopped.to_string().contains("that this daemon does not know"), "{stopped}");
    let refused = scene.try_open("one", &one.crash(), 1).map(drop).unwrap_err().to_string();
    assert!(refused.contains("that this daemon does not know"), "{refused}");
    // Nothing was reserved behind it.
    assert_eq!(scene.owner().status().unwrap().entries, sequence + 1);
    assert!(known.sequence <= sequence);
    drop(two);
}
