//! Bundles: what is in them, and that nothing but the whole of one is verified.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use birthmark::export::verify::{Fault, Verified, VerifyError, verify};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;

use crate::support::{
    bundle::{AuditKey, Device, TestCa, files_of, write, write_tar},
    token::text,
};

/// The settings of every format.
const FORMATS: [&str; 6] = [
    "format = 'jsonl'\nchunk = 3",
    "format = 'aws-bulk'\nchunk = 3\nattributes = { serialNumber = '{device_id}', lot = '{order}', hw = '{order.hw}' }",
    "format = 'csv'\nchunk = 3",
    "format = 'thingpress'\nchunk = 3",
    "format = 'azure-dps'\nchunk = 3",
    "format = 'matter'",
];

fn check(path: &Path, key: &AuditKey) -> Result<Verified, VerifyError> {
    verify(path, &[key.public()], &|_| {})
}

/// Devices that every format takes, half of them of another issuer.
fn devices(cas: &[TestCa; 2], count: usize) -> Vec<(&TestCa, Device)> {
    let device = |at: usize| {
        let id = format!("dev-{at:04}");
        let mut subject = crate::support::bundle::common_name(&id);
        for (oid, value) in [(1, "FFF1"), (2, "8000")] {
            subject.push(rcgen::DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 37244, 2, oid]), value);
        }
        let ca = &cas[at % 2];
        (ca, Device::of(ca, &id, subject))
    };
    (0..count).map(device).collect()
}

fn borrowed<'d>(devices: &'d [(&'d TestCa, Device)]) -> Vec<(&'d TestCa, &'d Device)> {
    devices.iter().map(|(ca, device)| (*ca, device)).collect()
}

/// A bundle of every format has what its manifest states, and is verified as a folder, as our tar and as GNU's.
#[test]
fn bundle_of_every_format_is_verified() {
    let (cas, key) = ([TestCa::new("Issuing A"), TestCa::new("Issuing B")], AuditKey::new());
    let made = devices(&cas, 8);
    for settings in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let bundle = write(settings, folder.path(), &key, &borrowed(&made));
        let verified = check(&bundle, &key).unwrap_or_else(|error| panic!("{settings}: {error}"));
        let manifest = verified.manifest();
        assert_eq!((manifest.certificates, manifest.withdrawn, manifest.issuers.len()), (8, 1, 2), "{settings}");
        assert_eq!(verified.withdrawn().unwrap().next().unwrap().unwrap().batch, "cloud.0001");
        let files = files_of(&bundle);
        assert_eq!(files.len(), manifest.files.len() + 2);
        for name in files.keys() {
            let fits = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
            assert!(name.chars().all(fits), "{name}");
        }
        let tar = write_tar(settings, folder.path(), &key, &borrowed(&made));
        let from_tar = check(&tar, &key).unwrap_or_else(|error| panic!("{settings}: {error}"));
        assert_eq!(from_tar.manifest(), manifest);
        let unpacked = folder.path().join("unpacked");
        fs::create_dir(&unpacked).unwrap();
        let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{settings}");
        run(Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&unpacked));
        assert_eq!(files_of(&unpacked.join("cloud.0003")).len(), files.len());
        check(&unpacked.join("cloud.0003"), &key).unwrap();
        run(Command::new("tar").args(["--format=ustar", "-cf"]).arg(&tar).arg("-C").arg(&unpacked).arg("cloud.0003"));
        check(&tar, &key).unwrap_or_else(|error| panic!("{settings}: {error}"));
    }
}

/// The same batch gives the same octets, but for ECDSA's signature.
#[test]
fn bundle_rendered_twice_is_the_same() {
    let (cas, key) = ([TestCa::new("A"), TestCa::new("B")], AuditKey::rsa());
    let made = devices(&cas, 5);
    for settings in FORMATS {
        let [one, two] = [(); 2].map(|()| {
            let folder = tempfile::tempdir().unwrap();
            let files = files_of(&write(settings, folder.path(), &key, &borrowed(&made)));
            let tar = fs::read(write_tar(settings, folder.path(), &key, &borrowed(&made))).unwrap();
            (files, tar)
        });
        assert!(one == two, "{settings}");
    }
}

/// How often a flipped octet is tried in each file, besides its first and last.
const FLIPS: usize = 12;

/// One flipped bit anywhere, a file missing or one more: refused, with the file's name.
#[test]
fn changed_bundle_is_refused_with_the_files_name() {
    let seed = std::env::var("BIRTHMARK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("BIRTHMARK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (cas, key) = ([TestCa::new("A"), TestCa::new("B")], AuditKey::new());
    let made = devices(&cas, 5);
    for settings in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let bundle = write(settings, folder.path(), &key, &borrowed(&made));
        let refused = |name: &str, what: &str| {
            let error = check(&bundle, &key).expect_err(&format!("{settings}: {name} {what}"));
            assert_eq!(error.file, name, "{settings}: {name} {what}: {error}");
        };
        for (name, content) in files_of(&bundle) {
            let path = bundle.join(&name);
            let anywhere = (0..FLIPS).map(|_| random.random_range(0..content.len()));
            for at in anywhere.chain([0, content.len() - 1]).collect::<Vec<_>>() {
                let mut changed = content.clone();
                changed[at] ^= 1 << random.random_range(0..8);
                fs::write(&path, changed).unwrap();
                refused(&name, &format!("octet {at}"));
            }
            fs::write(&path, &content[1..]).unwrap();
            refused(&name, "shorter");
            fs::write(&path, [&content[..], b"\n"].concat()).unwrap();
            refused(&name, "longer");
            fs::remove_file(&path).unwrap();
            refused(&name, "missing");
            fs::create_dir(&path).unwrap();
            refused(&name, "a folder");
            fs::remove_dir(&path).unwrap();
            std::os::unix::fs::symlink("/dev/null", &path).unwrap();
            refused(&name, "a link");
            fs::remove_file(&path).unwrap();
            fs::write(&path, content).unwrap();
            check(&bundle, &key).unwrap();
        }
        for more in ["more", "issuers/more.pem", "data-00099.jsonl", ".hidden"] {
            fs::write(bundle.join(more), "").unwrap();
            refused(more, "more");
            fs::remove_file(bundle.join(more)).unwrap();
        }
    }
}

/// The manifest of another bundle, with its signature or without, fits nothing.
#[test]
fn swapped_manifest_is_refused_with_its_name() {
    let (cas, key) = ([TestCa::new("A"), TestCa::new("B")], AuditKey::new());
    let (made, others) = (devices(&cas, 5), devices(&cas, 4));
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let bundle = write(FORMATS[1], folders[0].path(), &key, &borrowed(&made));
    let other = write(FORMATS[1], folders[1].path(), &key, &borrowed(&others));
    fs::copy(other.join("manifest.json"), bundle.join("manifest.json")).unwrap();
    let error = check(&bundle, &key).unwrap_err();
    assert!(matches!(error.fault, Fault::OtherManifest) && error.file == "manifest.json", "{error}");
    fs::copy(other.join("manifest.jws"), bundle.join("manifest.jws")).unwrap();
    // The first file of another length, or else of another content.
    let file = check(&bundle, &key).unwrap_err().file;
    assert!(["data-00001.jsonl", "data-00002.jsonl"].contains(&file.as_str()), "{file}");

    let error = check(&other, &AuditKey::new()).unwrap_err();
    assert!(error.file == "manifest.jws" && error.to_string().contains("not trusted"), "{error}");
}

/// A tar has nothing that a bundle has not: every octet of it counts.
#[test]
fn changed_tar_is_refused() {
    let (cas, key) = ([TestCa::new("A"), TestCa::new("B")], AuditKey::new());
    let made = devices(&cas, 2);
    let folder = tempfile::tempdir().unwrap();
    let tar = write_tar(FORMATS[0], folder.path(), &key, &borrowed(&made));
    let content = fs::read(&tar).unwrap();
    check(&tar, &key).unwrap();
    for at in (0..content.len()).step_by(97).chain(0..512) {
        let mut changed = content.clone();
        changed[at] ^= 0x20;
        fs::write(&tar, &changed).unwrap();
        assert!(check(&tar, &key).is_err(), "octet {at}");
    }
    for length in (0..content.len()).step_by(509) {
        fs::write(&tar, &content[..length]).unwrap();
        assert!(check(&tar, &key).is_err(), "{length} octets");
    }
}

/// A certificate that is in the signed files but was issued by somebody else is found.
#[test]
fn certificate_of_a_stranger_is_refused() {
    let (ca, stranger, key) = (TestCa::new("Same name"), TestCa::new("Same name"), AuditKey::new());
    let good: Vec<_> = (0..3).map(|at| Device::new(&ca, &format!("dev-{at}"))).collect();
    let bad = Device::new(&stranger, "dev-x");
    for settings in &FORMATS[..5] {
        let folder = tempfile::tempdir().unwrap();
        // The stranger's certificate goes under the name of the good issuer.
        let mut all: Vec<_> = good.iter().map(|device| (&ca, device)).collect();
        all.insert(1, (&ca, &bad));
        let error = check(&write(settings, folder.path(), &key, &all), &key).expect_err(settings);
        let Fault::Certificate { position: 2, reason } = &error.fault else { panic!("{settings}: {error}") };
        assert!(reason.contains("signed"), "{settings}: {error}");
        assert!(error.file.starts_with("data-00001."), "{error}");
    }
}

/// What is read after the verification is what was verified.
#[test]
fn file_changed_after_the_verification_is_not_read() {
    let (cas, key) = ([TestCa::new("A"), TestCa::new("B")], AuditKey::new());
    let made = devices(&cas, 8);
    let folder = tempfile::tempdir().unwrap();
    let bundle = write(FORMATS[1], folder.path(), &key, &borrowed(&made));
    let verified = check(&bundle, &key).unwrap();
    let lines: Vec<_> = verified.lines().map(Result::unwrap).collect();
    assert_eq!(lines.len(), 8);
    let names = lines.iter().map(|line| serde_json::from_str::<Value>(&line.text).unwrap()["ThingName"].to_string());
    assert!(names.eq((0..8).map(|at| format!("\"dev-{at:04}\""))));
    let path = bundle.join("data-00002.jsonl");
    let mut content = fs::read(&path).unwrap();
    content[20] ^= 1;
    fs::write(&path, content).unwrap();
    let read: BTreeMap<bool, usize> = verified.lines().fold(BTreeMap::new(), |mut counts, line| {
        *counts.entry(line.is_ok()).or_default() += 1;
        counts
    });
    assert_eq!(read, BTreeMap::from([(false, 1), (true, 5)]));
}

/// The command says what it has verified, and what is wrong with which file.
#[test]
fn verify_command_names_what_is_wrong() {
    let (cas, key) = ([TestCa::new("A"), TestCa::new("B")], AuditKey::new());
    let made = devices(&cas, 4);
    let folder = tempfile::tempdir().unwrap();
    let bundle = write(FORMATS[0], folder.path(), &key, &borrowed(&made));
    key.write(&folder.path().join("audit.pem"));
    let run = |json: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_birthmark"));
        command.current_dir(folder.path()).args(["export", "verify", "cloud.0003", "--trusted-key", "audit.pem"]);
        command.args(json.then_some("--json")).output().unwrap()
    };
    let told = run(false);
    assert!(told.status.success() && text(&told.stdout).contains("cloud.0003"), "{}", text(&told.stderr));
    let told: Value = serde_json::from_slice(&run(true).stdout).unwrap();
    assert_eq!((&told["certificates"], &told["signatures_verified"]), (&Value::from(4), &Value::from(true)));
    fs::remove_file(bundle.join("withdrawn.jsonl")).unwrap();
    let refused = run(false);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(said.contains("cloud.0003 is not to be used: withdrawn.jsonl: it is missing"), "{said}");
}
