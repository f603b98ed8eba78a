#![allow(missing_docs, clippy::expect_used, clippy::disallowed_methods)] // A bench ends by panicking.
//! What each step of the way of one CSR costs by itself, on one thread: `cargo bench --bench steps`.
//!
//! The ledger's steps (Reserve, Record) are in `ledger.rs`; what C_Sign and the whole daemon cost, `birthmark bench` says.

use std::{collections::BTreeMap, fs, hint::black_box, sync::Arc};

use birthmark::{
    ca::{CaChain, IssuingCa},
    cert,
    config::Config,
    csr::{self, RefusedKeys},
    pem::certificate_pem,
    policy,
    profile::{Applicant, Profile, Values},
    serial::SerialNumber,
    signer::{Absent, PublicKey, Signature, SignatureAlgorithm, Signer, Verifier, sha256},
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SigningKey,
};

const CONFIGURATION: &str = r#"
[server]
listen = "127.0.0.1:0"
certificate = "none"
key = "none"
client_ca = "none"

[ledger]
path = "none"

[issuers.main]
chain = ["none"]
key = "pkcs11:token=none;object=none?module-path=none"

[profiles.device]
issuer = "main"
subject = ["O=Birthmark", "CN={device_id}"]
validity_days = 7300
"#;

/// A P-256 CA whose key is in memory, and its certificate.
fn ca() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Bench CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).expect("a certificate");
    (key, certificate.der().to_vec())
}

fn profile(certificate: Vec<u8>, algorithm: SignatureAlgorithm) -> Profile {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("birthmark.toml");
    fs::write(&path, CONFIGURATION).expect("a file");
    let config = Config::load(&path).expect("a configuration");
    let chain = CaChain::new(vec![certificate]).expect("a chain");
    let signer: Arc<dyn Signer> = Arc::new(Absent(algorithm));
    let issuers = BTreeMap::from([("main".to_owned(), Arc::new(IssuingCa::new("main", chain, signer)))]);
    let mut profiles = policy::profiles(&config, &issuers, Timestamp::now()).expect("profiles");
    profiles.pop().expect("one profile")
}

fn steps(criterion: &mut Criterion) {
    let (ca_key, ca_certificate) = ca();
    let ca_public = PublicKey::from_spki(&ca_key.subject_public_key_info()).expect("a public key");
    let algorithm = SignatureAlgorithm::for_key(&ca_public).expect("an algorithm");
    let profile = profile(ca_certificate, algorithm);

    let device_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "device-0001");
    let request = params.serialize_request(&device_key).expect("a CSR");
    let (der, pem) = (request.der().to_vec(), request.pem().expect("PEM"));
    let refused = RefusedKeys::default();
    let verified = || csr::verify(&der, &refused).expect("a good CSR");
    let attributes = BTreeMap::new();
    let values = Values { device: "device-0001", order: "order-1", station: "line1/1", attributes: &attributes };
    let applicant = Applicant { values, now: Timestamp::now() };
    let approved = profile.approve(verified(), &applicant).expect("approval");
    let serial_number = SerialNumber::sample();
    let tbs = cert::to_be_signed(&serial_number, &approved);
    let signature = ca_key.sign(&tbs).expect("a signature");
    let certificate = cert::join(&tbs, algorithm, &signature);

    let mut group = criterion.benchmark_group("steps");
    group.throughput(Throughput::Elements(1));
    group.bench_function("1 csr DER: parse, proof of possession", |bencher| bencher.iter(verified));
    group.bench_function("1 csr PEM: the same", |bencher| bencher.iter(|| csr::verify(pem.as_bytes(), &refused)));
    group.bench_function("1 of it the verification", |bencher| {
        let key = PublicKey::from_spki(&device_key.subject_public_key_info()).expect("a public key");
        let signature = device_key.sign(&der).expect("a signature");
        bencher.iter(|| black_box(&key).verifies(algorithm, &der, &signature));
    });
    group.bench_function("2 profile: approve, encode", |bencher| {
        bencher.iter_batched(verified, |csr| profile.approve(csr, &applicant), BatchSize::SmallInput);
    });
    group.bench_function("3 cert: TBSCertificate", |bencher| {
        bencher.iter(|| cert::to_be_signed(black_box(&serial_number), &approved));
    });
    group.bench_function("4 sign: hash of the TBSCertificate", |bencher| bencher.iter(|| sha256(black_box(&tbs))));
    group.bench_function("5 check: own signature", |bencher| {
        let verifier = Verifier::new(&ca_public, algorithm).expect("a valid key");
        bencher.iter(|| Signature::check(black_box(&verifier), &tbs, signature.clone()));
    });
    group.bench_function("6 cert: Certificate", |bencher| {
        bencher.iter(|| cert::join(black_box(&tbs), algorithm, &signature));
    });
    group.bench_function("7 reply: certificate id", |bencher| {
        bencher.iter(|| hex::encode(sha256(black_box(&certificate))));
    });
    group.bench_function("station: certificate as PEM", |bencher| {
        bencher.iter(|| certificate_pem(black_box(&certificate)));
    });
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
