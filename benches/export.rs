#![expect(clippy::expect_used, clippy::panic, reason = "a bench ends by panicking")]
//! What a bundle of the format aws-bulk costs: `cargo bench --bench export`.
//!
//! It makes a million certificates (BIRTHMARK_BENCH_RECORDS), which takes longer than all that follows, and renders and verifies them
//! in processes of their own, so that the memory is theirs alone. The folder is temporary, or BIRTHMARK_BENCH_FOLDER; it
//! needs 2.5 GB.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{BufReader, BufWriter, Read, Write},
    path::Path,
    process::Command,
    time::Instant,
};

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use birthmark::{
    export::{
        bundle::{Bundle, Header},
        certificate::{Certificate, Issuer},
        jws,
        manifest::Filter,
        settings::Settings,
        sink::FolderSink,
        verify::verify,
    },
    hash::sha256,
    signer::PublicKey,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, SerialNumber,
};

/// As the daemon's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How devices are called; the digits are theirs.
const DEVICE: &str = "device-00000000";

const SERIAL_NUMBER: [u8; 20] = [0x5a; 20];

fn main() {
    let arguments: Vec<String> = env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, "render", folder, records] => render(Path::new(folder), records.parse().expect("a number")),
        [_, "verify", folder, _] => check(Path::new(folder)),
        [program, ..] => {
            let records =
                env::var("BIRTHMARK_BENCH_RECORDS").map_or(1_000_000, |number| number.parse().expect("a number"));
            let temporary = tempfile::tempdir().expect("a temporary folder");
            let folder = env::var_os("BIRTHMARK_BENCH_FOLDER").map_or(temporary.path().to_owned(), Into::into);
            make(&folder, records);
            for step in ["render", "verify"] {
                let mut command = Command::new(program);
                let status = command.arg(step).arg(&folder).arg(records.to_string()).status();
                assert!(status.expect("a process").success(), "{step} failed");
            }
        }
        [] => panic!("a program has a name"),
    }
}

/// A CA certificate, and one of a device below it.
fn patterns() -> (Vec<u8>, Vec<u8>, EcdsaKeyPair) {
    let name = |name: &str| {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, "Birthmark");
        subject.push(DnType::CommonName, name);
        subject
    };
    let mut ca = CertificateParams::default();
    ca.distinguished_name = name("Bench CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.serialize_der()).expect("the key");
    let ca_der = ca.self_signed(&key).expect("a certificate").der().to_vec();
    let mut device = CertificateParams::default();
    device.distinguished_name = name(DEVICE);
    device.serial_number = Some(SerialNumber::from_slice(&SERIAL_NUMBER));
    device.use_authority_key_identifier_extension = true;
    device.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let device = device.signed_by(&KeyPair::generate().expect("a key"), &rcgen::Issuer::new(ca, key));
    (ca_der, device.expect("a certificate").der().to_vec(), pair)
}

fn find(octets: &[u8], part: &[u8]) -> usize {
    octets.windows(part.len()).position(|window| window == part).expect("it is in the certificate")
}

/// Writes the CA, the audit key, and the certificates one after another, each with its length before.
#[expect(clippy::disallowed_methods, reason = "a bench ends before its files matter")]
fn make(folder: &Path, records: usize) {
    let (ca, pattern, key) = patterns();
    fs::write(folder.join("ca.der"), &ca).expect("a file");
    let audit = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    fs::write(folder.join("audit"), audit.to_pkcs8v1().expect("the key").as_ref()).expect("a file");
    // SEQUENCE { TBSCertificate, AlgorithmIdentifier, BIT STRING }: all lengths have two octets.
    let tbs_length = 4 + usize::from(u16::from_be_bytes([pattern[6], pattern[7]]));
    let (tbs, algorithm) = (&pattern[4..4 + tbs_length], &pattern[4 + tbs_length..4 + tbs_length + 12]);
    let (serial_at, name_at) = (find(tbs, &SERIAL_NUMBER), find(tbs, DEVICE.as_bytes()));
    let one = |number: usize| {
        let mut tbs = tbs.to_vec();
        tbs[serial_at + 12..serial_at + 20].copy_from_slice(&(number as u64).to_be_bytes());
        tbs[name_at + 7..name_at + 15].copy_from_slice(format!("{number:08}").as_bytes());
        let signature = key.sign(&SystemRandom::new(), &tbs).expect("a signature");
        let signature = signature.as_ref();
        let length = tbs.len() + algorithm.len() + 3 + signature.len();
        let mut der = vec![0x30, 0x82];
        der.extend_from_slice(&(length as u16).to_be_bytes());
        der.extend_from_slice(&tbs);
        der.extend_from_slice(algorithm);
        der.extend_from_slice(&[3, signature.len() as u8 + 1, 0]);
        der.extend_from_slice(signature);
        der
    };
    let mut out = BufWriter::new(File::create(folder.join("certificates")).expect("a file"));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let each = 10_000;
    for first in (0..records).step_by(each * threads) {
        let parts = std::thread::scope(|scope| {
            let starts = (0..threads).map(|thread| first + thread * each);
            let part = |start: usize| (start..(start + each).min(records)).map(one).collect::<Vec<_>>();
            let workers: Vec<_> = starts.map(|start| scope.spawn(move || part(start))).collect();
            workers.into_iter().map(|worker| worker.join().expect("a part")).collect::<Vec<_>>()
        });
        for der in parts.iter().flatten() {
            out.write_all(&(der.len() as u16).to_be_bytes()).expect("written");
            out.write_all(der).expect("written");
        }
    }
    out.into_inner().expect("written").sync_all().expect("synced");
}

fn audit_key(folder: &Path) -> (EcdsaKeyPair, PublicKey) {
    let octets = fs::read(folder.join("audit")).expect("a file");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &octets).expect("a key");
    let spki = pair.public_key().as_der().expect("its public half");
    let public = PublicKey::from_spki(spki.as_ref()).expect("a public key");
    (pair, public)
}

fn render(folder: &Path, records: usize) {
    let settings =
        "format = 'aws-bulk'\nattributes = { serialNumber = '{device_id}', lot = '{order}', hw = '{order.hw}' }";
    let settings = Settings::parse(&settings.parse().expect("TOML")).expect("settings").to_json();
    let issuer = Issuer::new("main", &[fs::read(folder.join("ca.der")).expect("a file")]).expect("an issuer");
    let attributes = BTreeMap::from([("hw".to_owned(), "rev-C".to_owned())]);
    let (pair, public) = audit_key(folder);
    let mut source = BufReader::with_capacity(1 << 20, File::open(folder.join("certificates")).expect("a file"));

    let started = Instant::now();
    let header = Header {
        destination: "bench".into(),
        number: 1,
        first: 0,
        end: 2 * records as u64,
        chain_hash: [0; 32],
        created_at: jiff::Timestamp::UNIX_EPOCH,
        created_by: "bench".into(),
        unfit: Vec::new(),
        certificates: records as u64,
        withdrawn: 0,
        filter: Filter { profiles: Vec::new(), orders: Vec::new(), only: "issued".into() },
        settings,
    };
    let sink = FolderSink::create(&folder.join("bench.0001")).expect("a folder");
    let mut bundle = Bundle::new(header, sink).expect("a bundle");
    let mut der = Vec::new();
    for number in 0..records {
        let mut length = [0; 2];
        source.read_exact(&mut length).expect("a length");
        der.resize(usize::from(u16::from_be_bytes(length)), 0);
        source.read_exact(&mut der).expect("a certificate");
        let certificate = Certificate {
            serial_number: &SERIAL_NUMBER,
            der: &der,
            certificate_id: &hex::encode(sha256(&der)),
            device_id: &format!("device-{number:08}"),
            order: "lot-42",
            profile: "device",
            station: "line1/tester3",
            issuer: &issuer,
            key_sha256: &[0; 32],
            issued_at: jiff::Timestamp::UNIX_EPOCH,
            confirmed_at: None,
            replaces: None,
            order_attributes: &attributes,
        };
        bundle.certificate(&certificate).expect("a fit certificate");
    }
    let unsealed = bundle.finish().expect("a bundle");
    let input = jws::signing_input(&public, unsealed.manifest()).expect("a key that signs");
    let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).expect("a signature");
    let jws = jws::compact(&public, input, signature.as_ref()).expect("a signature");
    unsealed.seal(&jws).expect("the manifest").finish().expect("a folder");
    tell("rendered and synced", records, started);
}

fn check(folder: &Path) {
    let (_, public) = audit_key(folder);
    let started = Instant::now();
    let verified = verify(&folder.join("bench.0001"), &[public], &|_| {}).expect("a whole bundle");
    tell("verified, leaf signatures included", verified.manifest().certificates as usize, started);
}

fn tell(what: &str, records: usize, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default().trim();
    println!(
        "{records} certificates as aws-bulk {what}: {seconds:.2} s, {:.0}/s, peak {peak}",
        records as f64 / seconds
    );
}
