//! What devices get: presets, signature algorithms, issuers that take over, orders' attributes, refused keys and
//! profiles.

use std::{fs, path::PathBuf, time::Duration};

use birthmark::{
    config::Config,
    configure,
    csr::{self, RefusedKeys},
    proto::IssueRequest,
};
use jiff::Timestamp;
use tonic::Code;

use crate::support::{
    fixtures::fixture,
    site::{Answer, Site, csr, judge_under, request},
    token::{refused, succeeded, text},
};

const JUDGES: [&str; 4] = ["openssl", "gnutls", "go", "python"];

/// A site with one more issuing CA for each of these: name, key type, further attributes of its subject.
fn site_with(issuers: &[(&str, &str, &str)]) -> Site {
    let site = Site::new();
    let mut ceremony = site.token.ceremony_head().replace("ca/record.json", "ca/record-2.json");
    for (name, key_type, attributes) in issuers {
        ceremony.push_str(&format!(
            "[[step]]\ndo = \"intermediate\"\nissuer = {{ certificate = \"ca/root.pem\", key = \"root\" }}\n\
             key = \"{name}\"\nkey_type = \"{key_type}\"\nsubject = [\"O=Acme\", \"CN=Acme {name}\"{attributes}]\n\
             days = 9000\ncertificate = \"ca/{name}.pem\"\n\n"
        ));
    }
    site.token.write("ceremony-2.toml", &ceremony);
    succeeded(&site.token.birthmark(&["ceremony", "ceremony-2.toml", "--yes"]));
    site
}

/// The configuration of an issuer that [`site_with`] made.
fn issuer(site: &Site, name: &str, key: &str, more: &str) -> String {
    let uri = site.token.uri(&format!(";object={key}"));
    format!("\n[issuers.{name}]\nchain = [\"ca/{key}.pem\", \"ca/root.pem\"]\nkey_uri = \"{uri}\"\n{more}\n")
}

fn for_profile(profile: &str, device: &str, order: &str, csr: Vec<u8>) -> IssueRequest {
    IssueRequest { profile: profile.into(), ..request(device, order, csr) }
}

fn write_pem(site: &Site, name: &str, certificate: &[u8]) -> PathBuf {
    let path = site.path(&format!("{name}.pem"));
    fs::write(&path, pem::encode(&pem::Pem::new("CERTIFICATE", certificate))).unwrap();
    path
}

/// Every preset under every signature algorithm is judged by four others.
#[tokio::test(flavor = "multi_thread")]
async fn preset_under_every_algorithm_is_judged_by_four_others() {
    let algorithms = [
        ("p256", "p256", ""),
        ("p384", "p384", ""),
        ("p521", "p521", ""),
        ("rsa-sha256", "rsa", ""),
        ("rsa-sha384", "rsa", "signature = \"rsa-sha384\""),
        ("rsa-sha512", "rsa", "signature = \"rsa-sha512\""),
        ("pss-sha256", "rsa", "signature = \"rsa-pss-sha256\""),
        ("pss-sha384", "rsa", "signature = \"rsa-pss-sha384\""),
        ("pss-sha512", "rsa", "signature = \"rsa-pss-sha512\""),
    ];
    let keys = [("p256", "p256", ""), ("p384", "p384", ""), ("p521", "p521", ""), ("rsa", "rsa2048", "")];
    let site = site_with(&[&keys[..], &[("pai", "p256", ", \"VID=FFF1\"")]].concat());
    let mut more = issuer(&site, "pai", "pai", "");
    // What a profile is called, and the file of its issuer.
    let mut profiles = vec![("matter-dac".to_owned(), "pai")];
    more.push_str(
        "[profiles.matter-dac]\npreset = \"matter-dac\"\nissuer = \"pai\"\n\
         subject = [\"CN={device_id}\", \"VID=FFF1\", \"PID={order.pid}\"]\n\n",
    );
    for (name, key, signature) in algorithms {
        more.push_str(&issuer(&site, name, key, signature));
        for (preset, settings) in [
            ("device", ""),
            ("idevid", "subject_alt_names = [\"hardware-module:1.3.6.1.4.1.99999.1:{device_id}\"]"),
            ("azure-dps", ""),
            ("tls-client", "subject_alt_names = [\"dns:{device_id}.example.com\", \"uri:urn:dev:{device_id}\"]"),
            (
                "device",
                "extended_key_usage = [\"client-auth\", \"server-auth\"]\nocsp = [\"http://o.example\"]\n\
                 ca_issuers = [\"http://c.example/ca.cer\"]\ncrl_distribution_points = [\"http://c.example/ca.crl\"]\n\
                 certificate_policies = [\"1.3.6.1.4.1.99999.4\"]\nvalidity_days = 30\n\
                 extensions = [{ oid = \"1.3.6.1.4.1.99999.5\", hex = \"0500\" }]",
            ),
        ] {
            let profile = format!("{preset}-{name}-{}", profiles.len());
            let name = format!("issuer = \"{name}\"");
            more.push_str(&format!("[profiles.{profile}]\npreset = \"{preset}\"\n{name}\n{settings}\n\n"));
            profiles.push((profile, key));
        }
    }
    site.configure(|usual| usual + &more);
    let daemon = site.start();
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let mut by_issuer = std::collections::BTreeMap::<&str, Vec<PathBuf>>::new();
    for (number, (profile, key)) in profiles.iter().enumerate() {
        let pid = if profile == "matter-dac" { &["--attribute", "pid=8000"][..] } else { &[] };
        let create = ["order", "create", profile, "--profile", profile, "--quantity", "1"];
        succeeded(&site.operator(&[&create[..], pid].concat()));
        let device = format!("dev-{number}");
        let issued = stream.ask(for_profile(profile, &device, profile, csr("any"))).await.issued();
        by_issuer.entry(*key).or_default().push(write_pem(&site, profile, &issued.certificate));
        if profile == "matter-dac" {
            assert!(issued.certificate.len() <= 600, "{}", issued.certificate.len());
        }
    }
    for (key, certificates) in by_issuer {
        for judge in JUDGES {
            judge_under(&site.path(""), judge, &format!("ca/{key}.pem"), &certificates);
        }
    }
    daemon.end();
}

/// A profile moves over to its next issuer without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn profile_moves_to_its_next_issuer_without_a_restart() {
    let site = site_with(&[("next", "p384", "")]);
    let from = Timestamp::now() + Duration::from_secs(15);
    let next = issuer(&site, "next", "next", "")
        + &format!(
            "[profiles.renewed]\nissuers = [{{ name = \"main\" }}, {{ name = \"next\", from = \"{from}\" }}]\n\
             order_requirement = \"optional\"\n"
        );
    site.configure(|usual| usual + &next);
    let daemon = site.start();
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let early = for_profile("renewed", "early", "", csr("early"));
    let first = stream.ask(early.clone()).await.issued();
    assert!(Timestamp::now() < from, "the machine is too slow for this test");
    assert_eq!(first.issuer, "main");
    crate::support::site::wait_until("the next issuer takes over", || Timestamp::now() >= from);
    let late = stream.ask(for_profile("renewed", "late", "", csr("late"))).await.issued();
    assert_eq!(late.issuer, "next");
    judge_under(&site.path(""), "openssl", "ca/next.pem", &[write_pem(&site, "late", &late.certificate)]);
    // A retry is the certificate of the day.
    assert_eq!(stream.ask(early).await.issued().certificate, first.certificate);

    let left = |name, labels: &[&str]| daemon.metric(name, labels) - Timestamp::now().as_second() as f64;
    let seconds = left("birthmark_issuer_not_after_timestamp_seconds", &["issuer=\"next\""]);
    assert!((8990.0 * 86400.0..=9000.0 * 86400.0).contains(&seconds), "{seconds}");
    let seconds = left("birthmark_station_ca_not_after_timestamp_seconds", &[]);
    assert!((3640.0 * 86400.0..=3650.0 * 86400.0).contains(&seconds), "{seconds}");
    daemon.end();
}

/// Orders are required unless the profile says otherwise, and lend their attributes.
#[tokio::test(flavor = "multi_thread")]
async fn order_is_required_by_default_and_lends_its_attributes() {
    let site = Site::new();
    site.configure(|usual| {
        usual
            + "\n[profiles.free]\nissuer = \"main\"\norder_requirement = \"optional\"\n\
               \n[profiles.batch]\nissuer = \"main\"\nsubject = [\"OU={order.batch}\", \"CN={device_id}\"]\n"
    });
    let mut daemon = site.start();
    let create = |id: &str, profile: &str, more: &[&str]| {
        site.operator(&[&["order", "create", id, "--profile", profile, "--quantity", "2"][..], more].concat())
    };
    succeeded(&create("free", "free", &[]));
    refused(
        &create("no-batch", "batch", &[]),
        &["the order \"no-batch\" has no attribute \"batch\", which the profile needs"],
    );
    refused(
        &create("bad", "batch", &["--attribute", "batch=1", "--attribute", "Batch=1"]),
        &["the attribute name \"Batch\""],
    );
    let long = format!("batch={}", "x".repeat(65));
    refused(&create("long", "batch", &["--attribute", &long]), &["OU \"xxx", "has 65 characters; 1 to 64 are allowed"]);
    let unused = ["--attribute", "batch=A{7}", "--attribute", "line=Süd"];
    refused(&create("unused", "batch", &unused), &["uses no attribute \"line\"; it uses batch"]);
    succeeded(&create("batch", "batch", &["--attribute", "batch=A{7}"]));

    let mut stream = site.stream(&daemon, "line1/t1").await;
    let without = for_profile("free", "d1", "", csr("d1"));
    let first = stream.ask(without.clone()).await.issued();
    stream.ask(for_profile("free", "d2", "free", csr("d2"))).await.issued();
    stream.ask(for_profile("device", "d3", "", csr("d3"))).await.must_be(Code::InvalidArgument, "REQUEST_INVALID");
    stream.ask(for_profile("free", "d1", "", csr("d1"))).await.must_be(Code::AlreadyExists, "DEVICE_HAS_CERTIFICATE");
    stream.ask(for_profile("batch", "d4", "none", csr("d4"))).await.must_be(Code::NotFound, "ORDER_UNKNOWN");
    let issued = stream.ask(for_profile("batch", "d4", "batch", csr("d4"))).await.issued();
    let path = write_pem(&site, "d4", &issued.certificate);
    let subject = site.token.openssl(&["x509", "-in", path.to_str().unwrap(), "-noout", "-subject"]);
    // A value that looks like a placeholder stays what it is.
    assert_eq!(subject.trim(), "subject=OU = A{7}, CN = d4");
    daemon.kill();

    // After a crash the counts are the same, and what was without an order is still found.
    let daemon = site.start();
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let again = stream.ask(without).await.issued();
    assert!(again.replay && again.certificate == first.certificate);
    for (order, issued, left) in [("free", 1, 1), ("batch", 1, 1)] {
        let order = site.order(order);
        assert_eq!((&order["issued"], &order["reserved"], &order["left"]), (&issued.into(), &0.into(), &left.into()));
    }
    assert_eq!(site.order("batch")["attributes"]["batch"], "A{7}");
    daemon.end();
    // Its rules know certificates without an order, and index and orders are rebuilt from the journal alone.
    succeeded(&site.token.birthmark(&["journal", "verify", "data"]));
    succeeded(&site.token.birthmark(&["journal", "reindex", "data"]));
    let daemon = site.start();
    assert_eq!(
        (&site.order("free")["issued"], &site.order("batch")["attributes"]["batch"]),
        (&1.into(), &"A{7}".into())
    );
    daemon.end();
}

/// Blocked keys and the CAs' own are refused.
#[tokio::test(flavor = "multi_thread")]
async fn key_blocked_or_of_a_ca_is_refused() {
    let site = Site::new();
    let blocked = fs::read(fixture("csr/openssl-p256.pem")).unwrap();
    let hash = csr::verify(&blocked, &RefusedKeys::default()).unwrap().public_key().hash();
    site.token.write("blocked.txt", &format!("# keys that leaked\n\n{}  # openssl-p256\n", hex::encode_upper(hash)));
    site.configure(|usual| usual + "\n[refused_keys]\nblock_list = \"blocked.txt\"\n");
    let daemon = site.start();
    site.create_order("o1", 5);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let answer = stream.ask(request("d1", "o1", blocked)).await;
    answer.must_be(Code::InvalidArgument, "KEY_WEAK");
    assert!(matches!(&answer, Answer::Refused { message, .. } if message.contains(&hex::encode(hash))), "{answer:?}");
    daemon.end();

    site.token.write("blocked.txt", "not-a-hash\n");
    assert!(site.refuse_to_start().contains("blocked.txt:1: \"not-a-hash\" is not a SHA-256 in 64 hex digits"));
}

/// Each change of the usual configuration that makes the daemon refuse to start, and what it says.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn profile_of_invalid_certificates_is_refused_by_file_and_key() {
    let site = site_with(&[("pai", "p256", ", \"VID=FFF1\""), ("p384", "p384", "")]);
    let issuers = issuer(&site, "pai", "pai", "") + &issuer(&site, "p384", "p384", "");
    let dac = "preset = \"matter-dac\"\nissuer = \"pai\"\nsubject = [\"CN={device_id}\", \"VID=FFF1\", \"PID=8000\"]";
    let cases: &[(String, &[&str])] = &[
        (
            format!("issuer = \"main\"\nsubject = [\"CN={}{{device_id}}\"]", "x".repeat(64)),
            &["subject", "65 characters; 1 to 64"],
        ),
        ("issuer = \"main\"\ndevice_id = \"[0-9]{65}\"".into(), &["subject", "65 characters; 1 to 64"]),
        (
            "issuer = \"main\"\nvalidity_days = 20000".into(),
            &["validity_days", "after its issuer \"main\"", "when_outliving_issuer"],
        ),
        (
            "issuer = \"main\"\nnot_after = \"99991231235959Z\"".into(),
            &["not_after", "9999-12-31T23:59:59Z, after its issuer"],
        ),
        ("issuer = \"main\"\nnot_after = \"2020-01-01T00:00:00Z\"".into(), &["not_after", "would have expired"]),
        ("issuer = \"main\"\nnot_after = \"2049\"".into(), &["not_after", "\"2049\" is none of"]),
        (
            "issuer = \"main\"\njitp = [\"SerialNumber\"]".into(),
            &["jitp", "SerialNumber is taken from serialNumber", "add \"serialNumber="],
        ),
        ("issuer = \"main\"\njitp = [\"Serial\"]".into(), &["jitp", "\"Serial\" is not a parameter"]),
        (
            "issuer = \"main\"\njitp = [\"CommonName\"]".into(),
            &["jitp", "no thing name has", "add device_id = \"aws-thing-name\""],
        ),
        ("issuer = \"none\"".into(), &["issuer", "there is no issuer \"none\"", "\"main\""]),
        ("key_types = [\"p256\"]".into(), &["checked.issuer: name either one issuer or several"]),
        ("issuer = \"main\"\nissuers = [{ name = \"main\" }]".into(), &["issuer", "either one issuer or several"]),
        ("issuers = [{ name = \"main\" }, { name = \"p384\" }]".into(), &["issuers", "say from when on"]),
        (
            "issuers = [{ name = \"main\" }, { name = \"p384\", from = \"2999-01-01T00:00:00Z\" }]".into(),
            &["issuers", "outside the lifetime of the issuer \"p384\""],
        ),
        ("issuer = \"main\"\nsubject = [\"O=Acme\"]".into(), &["subject", "must contain {device_id}"]),
        ("issuer = \"main\"\nsubject = [\"CN={device}\"]".into(), &["subject", "unknown placeholder {device}"]),
        (
            "issuer = \"main\"\norder_requirement = \"optional\"\nsubject = [\"CN={device_id}\", \"OU={order.x}\"]"
                .into(),
            &["subject", "order_requirement = \"required\""],
        ),
        ("issuer = \"main\"\ndevice_id = \"[\"".into(), &["device_id", "regular expression"]),
        (
            "issuer = \"main\"\nkey_types = [\"p256\"]\nkey_usage = [\"key-encipherment\"]".into(),
            &["key_usage", "does not fit p256 keys"],
        ),
        (
            "issuer = \"main\"\nextended_key_usage = [\"tls\"]".into(),
            &["extended_key_usage", "\"tls\" is none of client-auth"],
        ),
        (
            "issuer = \"main\"\ncrl_distribution_points = [\"ftp://x\"]".into(),
            &["crl_distribution_points", "not a URL"],
        ),
        (
            "issuer = \"main\"\nextensions = [{ oid = \"2.5.29.19\", hex = \"0500\" }]".into(),
            &["extensions", "2.5.29.19 has a key of its own"],
        ),
        (
            "issuer = \"main\"\nextensions = [{ oid = \"1.2.3.4\", hex = \"05\" }]".into(),
            &["extensions", "1.2.3.4 is not DER"],
        ),
        (
            "issuer = \"main\"\ncertificate_policies = [\"1.2.3.4\", \"1.2.3.4\"]".into(),
            &["certificate_policies", "1.2.3.4 is there twice"],
        ),
        (
            "issuer = \"main\"\nextended_key_usage = [\"client-auth\", \"1.3.6.1.5.5.7.3.2\"]".into(),
            &["extended_key_usage", "is there twice"],
        ),
        (
            "issuer = \"main\"\nsubject = [\"CN={device_id}\", \"emailAddress=not an address\"]".into(),
            &["subject", "must be an e-mail address"],
        ),
        (
            "issuer = \"main\"\nsubject = [\"CN={device_id}\", \"emailAddress=a@example.com\"]".into(),
            &["subject", "must be in subject_alt_names too", "4.1.2.6"],
        ),
        (
            "issuer = \"main\"\nsubject = [\"CN={device_id}\", \"DC=exa mple.com\"]".into(),
            &["subject", "one label of a DNS name"],
        ),
        (
            "issuer = \"main\"\nsubject_alt_names = [\"uri:https:///x\"]".into(),
            &["subject_alt_names", "its host is neither a DNS name nor an address"],
        ),
        (
            "issuer = \"main\"\nsubject_alt_names = [\"uri:urn:x:%zz\"]".into(),
            &["subject_alt_names", "a % is not followed by two hex digits"],
        ),
        (
            "issuer = \"main\"\nsubject_alt_names = [\"email:nobody\"]".into(),
            &["subject_alt_names", "not an e-mail address"],
        ),
        (
            "issuer = \"main\"\nextensions = [{ oid = \"2.5.29.30\", hex = \"3000\" }]".into(),
            &["extensions", "2.5.29.30 is for CAs alone"],
        ),
        (
            "issuer = \"main\"\nextensions = [{ oid = \"2.5.29.18\", hex = \"3000\", critical = true }]".into(),
            &["extensions", "2.5.29.18 must not be critical"],
        ),
        (
            "issuer = \"main\"\nkey_usage = [\"content-commitment\"]".into(),
            &["key_usage", "client-auth has no use with this keyUsage", "4.2.1.12"],
        ),
        (
            "issuer = \"main\"\nsubject_alt_names = [\"dns:a_b\"]".into(),
            &["subject_alt_names", "\"a_b\" is not a DNS name"],
        ),
        (
            "preset = \"idevid\"\nissuer = \"main\"\nsubject = [\"CN={device_id}\"]".into(),
            &["subject", "one serialNumber", "802.1AR"],
        ),
        (
            "preset = \"idevid\"\nissuer = \"main\"\nsubject_alt_names = [\"dns:{device_id}\"]".into(),
            &["subject_alt_names", "hardwareModuleName"],
        ),
        ("preset = \"matter-dac\"\nissuer = \"pai\"".into(), &["subject", "is missing", "VID=FFF1"]),
        (dac.replace("FFF1", "FFF2"), &["subject", "the PAI's VID is \"FFF1\", the DAC's \"FFF2\"", "Matter Core"]),
        (dac.replace("FFF1", "{order.vid}"), &["subject", "the PAI's VID is \"FFF1\", the DAC's \"0000\""]),
        (dac.replace("FFF1", "fff1"), &["subject", "4 upper-case hex digits"]),
        (dac.replace("\"pai\"", "\"p384\""), &["issuer", "ecdsa-sha256 by a P-256 key, not with ecdsa-sha384"]),
        (format!("{dac}\nkey_types = [\"p384\"]"), &["key_types", "a DAC has a P-256 key"]),
        (
            format!("{dac}\nextensions = [{{ oid = \"1.2.3.4\", hex = \"0481c8{}\" }}]", "00".repeat(200)),
            &["subject", "at most 600 are allowed"],
        ),
        (
            "preset = \"azure-dps\"\nissuer = \"main\"\nsubject = [\"CN=x{device_id}\"]".into(),
            &["subject", "must be the registration id"],
        ),
    ];
    for (profile, says) in cases {
        site.configure(|usual| usual + &issuers + "\n[profiles.checked]\n" + profile + "\n");
        let run = site.token.birthmark(&["profile", "check", "--config", "birthmark.toml", "checked"]);
        let said = text(&run.stderr) + &text(&run.stdout);
        assert_eq!(run.status.code(), Some(1), "{profile}: {said}");
        let started = site.refuse_to_start();
        assert!(started.contains("birthmark.toml:") && started.contains("profiles.checked."), "{profile}: {started}");
        for word in *says {
            assert!(started.contains(word), "{word:?} is not in: {started}");
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
    }
}

/// `profile check` shows the certificate of a device without the HSM.
#[test]
fn profile_check_shows_a_certificate_without_the_hsm() {
    let site = Site::new();
    // No token, no PIN: only the certificates.
    fs::remove_dir_all(site.path("tokens")).unwrap();
    // Ids of which none looks like the code of a platform.
    site.configure(|usual| usual + "device_id = \"d-[0-9]+\"\n");
    let check = ["profile", "check", "--config", "birthmark.toml", "device", "--device", "d-77"];
    let said = succeeded(&site.token.birthmark(&check));
    for line in ["subject CN", "d-77 (UTF8String)", "not a CA", "id-kp-clientAuth", "nothing is wrong with it"] {
        assert!(said.contains(line), "{line:?} is not in: {said}");
    }
    let json = succeeded(&site.token.birthmark(&[&check[..], &["--json"]].concat()));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["findings"], serde_json::json!([]));
    let fields = json[0]["certificate"].as_array().unwrap();
    assert!(fields.iter().any(|field| field["value"] == "d-77 (UTF8String)"), "{json}");
    // The issuer has 9000 days to live.
    site.configure(|usual| usual.replace("validity_days = 7300", "validity_days = 8900"));
    let said = succeeded(&site.token.birthmark(&check));
    let warning = "warning: validity_days: soon every request will be refused: a certificate made on ";
    assert!(said.contains(warning) && said.contains("after its issuer \"main\""), "{said}");
    refused(
        &site.token.birthmark(&["profile", "check", "--config", "birthmark.toml", "none"]),
        &["no profile \"none\""],
    );
}

/// The example that people start from must be right, but for the files that it names.
#[test]
fn configuration_of_the_example_is_read() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("ca")).unwrap();
    for name in ["ca/issuer.pem", "ca/root.pem"] {
        fs::copy(root.join(name.replace("ca/", "tests/golden/")), folder.path().join(name)).unwrap();
    }
    let example = folder.path().join("birthmark.toml");
    let text = fs::read_to_string(root.join("hsm-config/birthmark.toml")).unwrap();
    // As it is, and with the examples in comments taken up.
    let commented = [
        "subject_alt_names = ",
        "                     \"hardware-module",
        "key_usage = ",
        "crl_distribution_points = ",
        "ca_issuers = ",
        "ocsp = ",
        "certificate_policies = ",
        "extensions = ",
    ];
    let full: Vec<_> = text
        .lines()
        .map(|line| {
            let taken = line.strip_prefix("# ").filter(|rest| commented.iter().any(|start| rest.starts_with(start)));
            taken.unwrap_or(line)
        })
        .collect();
    let full = full.join("\n");
    assert_eq!(full.matches("# ").count(), text.matches("# ").count() - commented.len());
    for text in [text, full] {
        fs::write(&example, text).unwrap();
        let config = Config::load(&example).unwrap();
        let issuers = configure::issuers_without_keys(&config, Timestamp::now()).unwrap();
        configure::profiles(&config, &issuers, Timestamp::now()).unwrap();
    }
}

/// Device ids and CSR subjects are held to the profile's rules.
#[tokio::test(flavor = "multi_thread")]
async fn device_id_and_csr_subject_are_held_to_the_profile() {
    let site = Site::new();
    site.configure(|usual| {
        usual
            + "\n[profiles.aws]\nissuer = \"main\"\norder_requirement = \"optional\"\ndevice_id = \"aws-thing-name\"\n\
               \n[profiles.own]\nissuer = \"main\"\norder_requirement = \"optional\"\ndevice_id = \"SN[0-9]{4}\"\n\
               csr_subject = \"serial-number-is-device-id\"\n"
    });
    let daemon = site.start();
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let with_serial = |serial: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CustomDnType(vec![2, 5, 4, 5]), serial);
        params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    };
    for (profile, device, csr, says) in [
        ("aws", "a.b", csr("a.b"), "aws-thing-name"),
        ("own", "SN12345", with_serial("SN12345"), "SN[0-9]{4}"),
        (
            "own",
            "SN1234",
            csr("SN1234"),
            "serialNumber of the CSR's subject must be the device id \"SN1234\"; it has none",
        ),
        ("own", "SN1234", with_serial("SN9999"), "it is \"SN9999\""),
    ] {
        let answer = stream.ask(for_profile(profile, device, "", csr)).await;
        answer.must_be(Code::PermissionDenied, "SUBJECT_REFUSED");
        assert!(matches!(&answer, Answer::Refused { message, .. } if message.contains(says)), "{answer:?}");
    }
    stream.ask(for_profile("aws", "a:b_c-1", "", csr("x"))).await.issued();
    stream.ask(for_profile("own", "SN1234", "", with_serial("SN1234"))).await.issued();
    daemon.end();
}

/// Object identifiers as UUIDs (ITU-T X.667) and of GS1 have arcs that do not fit 32 bits, or a second one above 39.
#[test]
fn profile_with_large_oids_is_taken() {
    let site = Site::new();
    let uuid = "2.25.329800735698586629295641978511506172918";
    site.configure(|usual| {
        usual.replace("subject = [", &format!("subject = [\"{uuid}=x\", "))
            + &format!(
                "certificate_policies = [\"2.999.1\", \"2.51.1\"]\nextended_key_usage = [\"{uuid}\"]\n\
                 extensions = [{{ oid = \"{uuid}\", hex = \"0500\" }}]\n\
                 subject_alt_names = [\"email:a@example.com\"]\ndevice_id = \"d-[0-9]+\"\n"
            )
    });
    let said = succeeded(&site.token.birthmark(&["profile", "check", "--config", "birthmark.toml", "device"]));
    for part in [uuid, "2.999.1, 2.51.1", "email:a@example.com", "nothing is wrong with it"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

#[test]
fn rsa_client_has_no_key_encipherment_by_default() {
    let site = Site::new();
    for preset in ["device", "azure-dps", "tls-client", "idevid"] {
        site.configure(|usual| {
            usual + &format!("\n[profiles.rsa]\npreset = \"{preset}\"\nissuer = \"main\"\nkey_types = [\"rsa2048\"]\n")
        });
        let said = succeeded(&site.token.birthmark(&["profile", "check", "--config", "birthmark.toml", "rsa"]));
        assert!(said.contains("DigitalSignature") && !said.contains("KeyEncipherment"), "{preset}: {said}");
    }
    // Who wants it is told that no client uses it (RFC 5280 section 4.2.1.12).
    site.configure(|usual| {
        usual
            + "\n[profiles.rsa]\nissuer = \"main\"\nkey_types = [\"rsa2048\"]\n\
               key_usage = [\"digital-signature\", \"key-encipherment\"]\n"
    });
    let said = succeeded(&site.token.birthmark(&["profile", "check", "--config", "birthmark.toml", "rsa"]));
    assert!(said.contains("warning: key_usage") && said.contains("4.2.1.12"), "{said}");
}

#[test]
fn order_that_nobody_could_use_is_refused() {
    let site = Site::new();
    site.configure(|usual| usual + "stations = [\"line1/*\"]\n");
    let daemon = site.start();
    let create = |more: &[&str]| {
        site.operator(&[&["order", "create", "o1", "--profile", "device", "--quantity", "5"][..], more].concat())
    };
    refused(&create(&["--attribute", "foo=bar"]), &["uses no attribute \"foo\"; it uses none"]);
    refused(&create(&["--station", "line9/*"]), &["line1/*", "fits the order's \"line9/*\""]);
    refused(&create(&["--station", "line1"]), &["fits the order's \"line1\""]);
    refused(&create(&["--station", &"x".repeat(300)]), &["a pattern of stations must be 1 to 256 characters"]);
    refused(&create(&["--not-after", "2020-01-01T00:00:00Z"]), &["not_after 2020-01-01T00:00:00Z is past"]);
    succeeded(&create(&["--station", "*/t1"]));
    daemon.end();
}

#[test]
fn client_ca_above_a_device_issuer_is_refused() {
    let site = Site::new();
    for name in ["ca/root.pem", "ca/issuer.pem"] {
        site.configure(|usual| usual.replace("client_ca = \"ca/station-ca.pem\"", &format!("client_ca = \"{name}\"")));
        let said = site.refuse_to_start();
        for part in ["server.client_ca", "is a CA of the issuer \"main\"", "every device could connect"] {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
    }
    // Also if the chain does not go up to it.
    site.configure(|usual| {
        usual
            .replace("client_ca = \"ca/station-ca.pem\"", "client_ca = \"ca/root.pem\"")
            .replace(", \"ca/root.pem\"]", "]")
    });
    assert!(site.refuse_to_start().contains("is a CA of the issuer \"main\""));
}

/// Files of people and other programs, in the encodings of both, and without an end.
#[test]
fn chain_and_block_list_are_read_in_any_encoding() {
    let site = Site::new();
    let utf16 = |text: &str| format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let root = fs::read_to_string(site.path("ca/root.pem")).unwrap();
    fs::write(site.path("ca/root.pem"), utf16(&root)).unwrap();
    let issuer = fs::read_to_string(site.path("ca/issuer.pem")).unwrap();
    fs::write(site.path("ca/issuer.pem"), format!("\u{feff}0 comes first\n{}", issuer.replace('\n', "\n\n"))).unwrap();
    fs::write(site.path("blocked.txt"), utf16(&format!("# a list\r\n{}\r\n", "ab".repeat(32)))).unwrap();
    site.configure(|usual| usual + "\n[refused_keys]\nblock_list = \"blocked.txt\"\n");
    let check = || site.token.birthmark(&["profile", "check", "--config", "birthmark.toml"]);
    succeeded(&check());
    for (from, to, says) in [
        ("\"ca/root.pem\"", "\"/dev/zero\"", "/dev/zero: it is longer than"),
        ("\"blocked.txt\"", "\"/dev/zero\"", "cannot read /dev/zero: it is longer than"),
        ("\"ca/root.pem\"", "\"blocked.txt\"", "there is no PEM certificate in it"),
    ] {
        site.configure(|usual| {
            usual.replace(from, to) + "\n[refused_keys]\nblock_list = \"blocked.txt\"\n".replace(from, to).as_str()
        });
        refused(&check(), &[says]);
    }
}
