//! Bundles read by software that is not ours: the platforms' own models and libraries, and an emulator of AWS IoT.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    bundle::{AuditKey, Device, TestCa, common_name, write},
    token::succeeded,
};

fn judges() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges")
}

fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.venv/bin/python");
    assert!(python.exists(), "{} is missing; `make test` makes it", python.display());
    python
}

/// What a judge of tests/judges/platforms.py has found in a bundle.
#[track_caller]
fn judged(format: &str, bundle: &Path, more: &[&Path]) -> Value {
    let mut command = Command::new(python());
    command.arg(judges().join("platforms.py")).arg(format).arg(bundle).args(more).env("PYTHONDONTWRITEBYTECODE", "1");
    serde_json::from_str(&succeeded(&command.output().unwrap())).unwrap()
}

/// Devices with these values of the order's attribute `hw`, by their ids.
fn devices(ca: &TestCa, hw: &[(&str, &str)]) -> Vec<Device> {
    let device = |(id, hw): &(&str, &str)| {
        let mut subject = common_name(id);
        for (oid, value) in [(1, "FFF1"), (2, "8000")] {
            subject.push(rcgen::DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 37244, 2, oid]), value);
        }
        let mut device = Device::of(ca, id, subject);
        device.attributes = BTreeMap::from([("hw".to_owned(), (*hw).to_owned())]);
        device
    };
    hw.iter().map(device).collect()
}

/// A bundle of these devices in a folder that lives as long as it.
fn bundle(settings: &str, ca: &TestCa, devices: &[Device], key: &AuditKey) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let pairs: Vec<_> = devices.iter().map(|device| (ca, device)).collect();
    let path = write(settings, folder.path(), key, &pairs);
    (folder, path)
}

const DEVICES: [(&str, &str); 3] = [("dev-1", "rev-C"), ("dev-2", "A1,B2"), ("dev-3", "[x]=y")];

/// A JOSE library verifies the signature, and finds the key under its thumbprint.
#[test]
fn jose_library_verifies_manifests() {
    let ca = TestCa::new("A");
    let made = devices(&ca, &DEVICES);
    for (key, algorithm) in [(AuditKey::new(), "ES256"), (AuditKey::rsa(), "RS256")] {
        let (folder, path) = bundle("format = 'jsonl'", &ca, &made, &key);
        let audit = folder.path().join("audit.pem");
        key.write(&audit);
        assert_eq!(judged("jws", &path, &[&audit])["alg"], algorithm);
    }
}

/// AWS' service model with its patterns and lengths, and the PEM that Thingpress reads.
#[test]
fn aws_models_take_every_value() {
    let (ca, key) = (TestCa::new("A"), AuditKey::new());
    let made = devices(&ca, &DEVICES);
    let settings = "format = 'aws-bulk'\nchunk = 2\nthing_name = 'acme:{device_id}'\nthing_type = 'sensor'\n\
                    thing_groups = ['line-1', 'all']\nattributes = { serialNumber = '{device_id}', lot = '{order}', \
                    hw = '{order.hw}', sn = '{serial_number}', 'a.b,c@d/e:f#g-h_i' = 'x' }";
    let (_folder, path) = bundle(settings, &ca, &made, &key);
    let things = judged("aws-bulk", &path, &[]);
    assert_eq!(things.as_object().unwrap().len(), 3);
    let first = &things["acme:dev-2"];
    assert_eq!([&first["hw"], &first["lot"], &first["serialNumber"]], ["A1,B2", "lot:42", "dev-2"]);

    let (_folder, path) = bundle("format = 'thingpress'\nchunk = 2", &ca, &made, &key);
    assert_eq!(judged("thingpress", &path, &[]), json!(["dev-1", "dev-2", "dev-3"]));
    let (_folder, path) = bundle("format = 'csv'\npreset = 'espressif'", &ca, &made, &key);
    assert_eq!(judged("espressif", &path, &[]), json!({ "dev-1": "dev-1", "dev-2": "dev-2", "dev-3": "dev-3" }));
}

/// Microsoft's SDK reads every enrolment and group, and writes the same again.
#[test]
fn azure_sdk_models_take_enrolments() {
    let (ca, key) = (TestCa::new("A"), AuditKey::new());
    let ids: Vec<String> = (0..23).map(|at| format!("dev-{at:02}")).collect();
    let made = devices(&ca, &ids.iter().map(|id| (id.as_str(), "")).collect::<Vec<_>>());
    let (_folder, path) = bundle("format = 'azure-dps'", &ca, &made, &key);
    let registrations = judged("azure-dps", &path, &[]);
    assert!(ids.iter().all(|id| registrations[id] == **id), "{registrations}");
    assert!(path.join("data-00003.json").exists() && !path.join("data-00004.json").exists());
}

/// Certificates are read by Python's cryptography as they lie in `jsonl` and in Matter's folders.
#[test]
fn python_reads_jsonl_and_matter() {
    let (ca, key) = (TestCa::new("A"), AuditKey::new());
    let made = devices(&ca, &[("dev-1", "zwölf \"x\"\n"), ("dev-2", "")]);
    let (_folder, path) = bundle("format = 'jsonl'", &ca, &made, &key);
    assert_eq!(judged("jsonl", &path, &[]), json!({ "dev-1": { "hw": "zwölf \"x\"\n" }, "dev-2": { "hw": "" } }));
    let (_folder, path) = bundle("format = 'matter'", &ca, &made, &key);
    assert_eq!(judged("matter", &path, &[]), json!(["dev-1", "dev-2"]));
    assert!(path.join("FFF1-8000/dev-1.der").exists());
}

/// Python's csv and PostgreSQL's COPY read the same values, which are those that went in.
#[test]
fn python_and_postgres_read_the_same_csv() {
    let (ca, key) = (TestCa::new("A"), AuditKey::new());
    let values =
        ["plain", "", "a,b", "say \"x\"", " spaces ", "zwölf €", "two\nlines", "back\\slash\\.", "NULL", "'quoted'"];
    let ids: Vec<String> = (0..values.len()).map(|at| format!("dev-{at}")).collect();
    let pairs: Vec<_> = ids.iter().map(String::as_str).zip(values).collect();
    let made = devices(&ca, &pairs);
    let settings =
        "format = 'csv'\ncolumns = ['device_id', 'hw={order.hw}', 'mit Raum=x{order.hw}', 'pem={certificate_pem}']";
    let (_folder, path) = bundle(settings, &ca, &made, &key);
    let expected: Vec<_> = made
        .iter()
        .zip(&values)
        .map(|(device, value)| {
            let pem = birthmark::pem::certificate_pem(&device.der);
            json!({ "device_id": device.id, "hw": value, "mit Raum": format!("x{value}"), "pem": pem })
        })
        .collect();
    assert_eq!(judged("csv", &path, &[]), Value::from(expected.clone()));
    let postgres = Command::new(judges().join("postgres.sh")).arg(path.join("data-00001.csv")).output().unwrap();
    let read: Value = serde_json::from_str(&succeeded(&postgres)).unwrap();
    assert_eq!(read, Value::from(expected));

    let (_folder, path) = bundle("format = 'csv'\npreset = 'thingsboard'", &ca, &made, &key);
    assert_eq!(judged("csv", &path, &[])[1]["NAME"], "dev-1");
}

/// Set where a skipped test would be a failure.
const REQUIRED: &str = "BIRTHMARK_AWS_NAMESPACE_REQUIRED";

/// The emulator takes the template, makes the thing and attaches the policy of each line, and registers its certificate; and
/// once more after each device got a new certificate and other attributes.
#[test]
fn aws_emulator_registers_every_line() {
    let unshare = |program: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).args(program);
        command.stdin(Stdio::null());
        command
    };
    let allowed = unshare(&["true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !allowed {
        assert!(std::env::var_os(REQUIRED).is_none(), "this system allows no network namespaces");
        let skipped =
            "\n*** SKIPPED: this system allows no network namespaces: no bundle was registered with the emulator ***\n";
        let _ = writeln!(std::io::stderr(), "{skipped}");
        return;
    }
    let (ca, key) = (TestCa::new("A"), AuditKey::new());
    let (old, new) = (devices(&ca, &DEVICES), devices(&ca, &[("dev-1", "rev-D"), ("dev-3", "rev-D")]));
    let settings = "format = 'aws-bulk'\nchunk = 2\npolicy = 'device-policy'\nthing_type = 'sensor'\nthing_groups = ['line-1']\n\
                    attributes = { serialNumber = '{device_id}', certificate = '{certificate_id}', hw = '{order.hw}' }";
    let (_first, first) = bundle(settings, &ca, &old, &key);
    let (_second, second) = bundle(settings, &ca, &new, &key);
    let paths = [python(), judges().join("aws_emulator.py"), first, second];
    let arguments: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
    let found: Value = serde_json::from_str(&succeeded(&unshare(&arguments).output().unwrap())).unwrap();
    let thing = |device: &Device, hw: &str| {
        json!({
            "attributes": { "certificate": device.certificate_id, "hw": hw, "serialNumber": device.id },
            "type": "sensor", "groups": ["line-1"], "policies": ["device-policy"],
        })
    };
    let all: serde_json::Map<_, _> =
        old.iter().zip(DEVICES).map(|(device, (id, hw))| (id.to_owned(), thing(device, hw))).collect();
    assert_eq!(found[0], Value::Object(all));
    assert_eq!(found[1], json!({ "dev-1": thing(&new[0], "rev-D"), "dev-3": thing(&new[1], "rev-D") }));
}
