use super::*;
use crate::{hsm::generate, signer::KeyKind};
use std::{env, fs, os::unix::fs::PermissionsExt, process::Command};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const FOLDER: &str = "BIRTHMARK_TEST_FOLDER";

/// Runs one of the ignored tests below in a process of its own with a new SoftHSM token: the module reads its
/// environment once, and a process has one PKCS#11 context.
fn with_token(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tokens")).unwrap();
    let configuration = folder.path().join("softhsm2.conf");
    let tokens = folder.path().join("tokens");
    fs::write(&configuration, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display())).unwrap();
    let pin = folder.path().join("pin");
    fs::write(&pin, "123456\n").unwrap();
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "t", "--pin", "123456", "--so-pin", "87654321"])
        .env("SOFTHSM2_CONF", &configuration)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let run = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("hsm::pool::tests::{test}"), "--ignored", "--nocapture"])
        .env("SOFTHSM2_CONF", &configuration)
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&run.stdout);
    eprint!("{}", String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && output.contains("1 passed"), "{output}{}", String::from_utf8_lossy(&run.stderr));
}

/// The folder that [`with_token`] made, and the URI of the key in it.
fn place(label: &str) -> (std::path::PathBuf, KeyUri) {
    let uri = format!("pkcs11:token=t;object={label}?module-path={MODULE}&pin-source=file:pin");
    (env::var_os(FOLDER).unwrap().into(), KeyUri::parse(&uri).unwrap())
}

fn open(uri: &KeyUri, sessions: usize, expected: &PublicKey, folder: &Path) -> Result<Pool, Error> {
    let sessions = Sessions::Number(sessions);
    let settings = PoolSettings { sessions, wait: Duration::from_millis(500), ..PoolSettings::default() };
    Pool::open("test", std::slice::from_ref(uri), &settings, expected, folder)
}

async fn must_sign(pool: &Pool, key: &PublicKey, message: &[u8]) {
    let signature = pool.sign(message.to_vec()).await.unwrap();
    assert!(key.verifies(pool.algorithm(), message, signature.as_bytes()));
}

/// Every key type signs.
#[test]
fn key_of_every_type_signs() {
    with_token("sign_with_every_key_type");
}

#[tokio::test]
#[ignore = "runs in the process that key_of_every_type_signs starts"]
async fn sign_with_every_key_type() {
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Rsa { bits: 2048 }] {
        let label = kind.to_string();
        let (folder, uri) = place(&label);
        let token = Token::open(&uri.token, &folder).unwrap();
        let public = generate(&token, &label, kind).unwrap().public_key().clone();
        assert_eq!(public.kind, kind);
        let pool = open(&uri, 2, &public, &folder).unwrap();
        for number in 0..50u8 {
            must_sign(&pool, &public, &[number]).await;
        }
        assert!(matches!(generate(&token, &label, kind), Err(Error::LabelTaken { .. })));
        let other = generate(&token, &format!("{label} other"), kind).unwrap();
        let mismatch = open(&uri, 1, other.public_key(), &folder).unwrap_err().to_string();
        for hash in [public.hash(), other.public_key().hash()] {
            assert!(mismatch.contains(&hex::encode(hash)), "{mismatch}");
        }
        for name in ["rsa-sha384", "rsa-sha512", "rsa-pss-sha256", "rsa-pss-sha384", "rsa-pss-sha512"] {
            let mut uri = uri.clone();
            uri.key.algorithm = Some(name.parse().unwrap());
            let pool = open(&uri, 1, &public, &folder);
            if !matches!(kind, KeyKind::Rsa { .. }) {
                assert!(pool.unwrap_err().to_string().contains("use ecdsa-sha"));
                continue;
            }
            let pool = pool.unwrap();
            assert_eq!(pool.algorithm().to_string(), name);
            must_sign(&pool, &public, b"message").await;
        }
    }
}

/// A lost login costs no signature.
#[test]
fn login_that_was_lost_costs_no_signature() {
    with_token("sign_after_a_logout");
}

#[tokio::test]
#[ignore = "runs in the process that login_that_was_lost_costs_no_signature starts"]
async fn sign_after_a_logout() {
    let (folder, uri) = place("k");
    let token = Token::open(&uri.token, &folder).unwrap();
    let public = generate(&token, "k", KeyKind::P256).unwrap().public_key().clone();
    let pool = open(&uri, 3, &public, &folder).unwrap();
    for round in 0..5u8 {
        token.log_out();
        for number in 0..20 {
            must_sign(&pool, &public, &[round, number]).await;
        }
    }
    assert_eq!(pool.healthy(), Ok(()));
}

/// A refused PIN is never tried again.
#[test]
fn pin_that_was_refused_is_never_tried_again() {
    with_token("refuse_after_a_changed_pin");
}

#[tokio::test]
#[ignore = "runs in the process that pin_that_was_refused_is_never_tried_again starts"]
async fn refuse_after_a_changed_pin() {
    let (folder, uri) = place("k");
    let token = Token::open(&uri.token, &folder).unwrap();
    let public = generate(&token, "k", KeyKind::P256).unwrap().public_key().clone();
    let pool = open(&uri, 3, &public, &folder).unwrap();
    token.change_pin("654321");
    token.log_out();
    for _ in 0..20 {
        let SignError::Unavailable { reason, retry_after } = pool.sign(vec![1]).await.unwrap_err();
        assert!(reason.contains("refused the PIN") && retry_after == Duration::from_secs(1), "{reason}");
        // Until each thread has found out for itself.
        tokio::task::yield_now().await;
    }
    assert_eq!(token.login_attempts(), 2, "one at the start, one after the logout");
    // And the threads that wait for a session end with the pool.
    pool.close();
}

/// A key that is not fit is refused.
#[test]
fn key_that_is_not_fit_is_refused() {
    with_token("refuse_unfit_keys");
}

#[test]
#[ignore = "runs in the process that key_that_is_not_fit_is_refused starts"]
fn refuse_unfit_keys() {
    use cryptoki::{mechanism::Mechanism, object::Attribute};
    use der::Encode;
    let (folder, uri) = place("any");
    let token = Token::open(&uri.token, &folder).unwrap();
    let session = token.read_write_session().unwrap();
    let curve = const_oid::db::rfc5912::SECP_256_R_1.to_der().unwrap();
    let make = |label: &str, id: u8, attributes: &[Attribute]| {
        let name = [Attribute::Token(true), Attribute::Label(label.into()), Attribute::Id(vec![id])];
        let public = [&name[..], &[Attribute::EcParams(curve.clone()), Attribute::Private(false)]].concat();
        let private = [&name[..], &[Attribute::Private(true)], attributes].concat();
        session
            .call("making a key", |session| session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private))
            .unwrap();
    };
    let good = [Attribute::Sensitive(true), Attribute::Extractable(false), Attribute::Sign(true)];
    for (label, place, bad, says) in [
        ("readable", 0, Attribute::Sensitive(false), "CKA_SENSITIVE"),
        ("movable", 1, Attribute::Extractable(true), "CKA_EXTRACTABLE"),
        ("mute", 2, Attribute::Sign(false), "CKA_SIGN is false"),
    ] {
        let mut attributes = good.clone();
        attributes[place] = bad;
        make(label, 1, &attributes);
        let message = Key::open(&token, &self::place(label).1.key).unwrap_err().to_string();
        assert!(message.contains(says) && message.contains(label), "{message}");
    }
    make("each", 2, &[&good[..], &[Attribute::AlwaysAuthenticate(true)]].concat());
    let message = Key::open(&token, &self::place("each").1.key).unwrap_err().to_string();
    assert!(message.contains("CKA_ALWAYS_AUTHENTICATE"), "{message}");

    make("twin", 3, &good);
    make("twin", 4, &good);
    let message = Key::open(&token, &self::place("twin").1.key).unwrap_err().to_string();
    assert!(message.contains("2 private keys with label \"twin\"") && message.contains("03, 04"), "{message}");
    let query = crate::hsm::KeyQuery { label: None, id: Some(vec![4]), algorithm: None };
    assert_eq!(Key::open(&token, &query).unwrap().label(), "twin");
}

/// Closing signs what waits.
#[test]
fn pool_that_closes_signs_what_waits() {
    with_token("sign_what_waits");
}

#[tokio::test]
#[ignore = "runs in the process that pool_that_closes_signs_what_waits starts"]
async fn sign_what_waits() {
    let (folder, uri) = place("k");
    let token = Token::open(&uri.token, &folder).unwrap();
    let public = generate(&token, "k", KeyKind::P256).unwrap().public_key().clone();
    let pool = open(&uri, 1, &public, &folder).unwrap();
    let waiting: Vec<_> = (0..QUEUE_PER_THREAD).map(|number| pool.sign(vec![number as u8])).collect();
    let answers = futures_util::future::join_all(waiting);
    let (answers, ()) = tokio::join!(answers, async { pool.close() });
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(pool.sign(vec![1]).await.is_err());
}

/// Not a test: the figures of benches/RESULTS.md.
/// `cargo test --release --lib pool_figures_are_printed -- --ignored --nocapture`
#[test]
#[ignore = "measures; run it alone and in release"]
fn pool_figures_are_printed() {
    with_token("measure_the_pool");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in the process that pool_figures_are_printed starts"]
async fn measure_the_pool() {
    const TIME: Duration = Duration::from_secs(3);
    let (folder, uri) = place("k");
    let token = Token::open(&uri.token, &folder).unwrap();
    let public = generate(&token, "k", KeyKind::P256).unwrap().public_key().clone();
    let bare = |sessions: usize, algorithm: SignatureAlgorithm| {
        let keys: Vec<_> = (0..sessions).map(|_| Key::open(&token, &uri.key).unwrap()).collect();
        let input = SigningInput::new(algorithm, b"message");
        let began = Instant::now();
        let sign = |key: Key| {
            let mut signed = 0;
            while began.elapsed() < TIME {
                key.sign_input(&input).unwrap();
                signed += 1;
            }
            signed
        };
        let signed: usize = thread::scope(|scope| {
            let threads: Vec<_> = keys.into_iter().map(|key| scope.spawn(|| sign(key))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        signed as f64 / began.elapsed().as_secs_f64()
    };
    async fn through(pool: &Pool, checked: bool) -> f64 {
        let began = Instant::now();
        let task = || async {
            let mut signed = 0;
            while began.elapsed() < TIME {
                if checked {
                    pool.sign_verified(b"message").await.unwrap();
                } else {
                    let (reply, answer) = oneshot::channel();
                    let permit = pool.context.queue.permit().await.unwrap();
                    let input = SigningInput::new(pool.algorithm, b"message");
                    pool.context.queue.push(Job { input, reply, failed_at: None, permit, queued_at: Instant::now() });
                    answer.await.unwrap().unwrap();
                }
                signed += 1;
            }
            signed
        };
        let signed: usize = futures_util::future::join_all((0..16).map(|_| task())).await.into_iter().sum();
        signed as f64 / began.elapsed().as_secs_f64()
    }
    for sessions in [1, 2, 1, 2, 1, 2] {
        let signer = open(&uri, sessions, &public, &folder).unwrap();
        let (bare, pool, checked) =
            (bare(sessions, signer.algorithm), through(&signer, false).await, through(&signer, true).await);
        signer.close();
        eprintln!(
            "sessions {sessions}: bare {bare:.0}/s, pool {pool:.0}/s ({:.1} %), with the check {checked:.0}/s ({:.1} %)",
            pool / bare * 100.0,
            checked / bare * 100.0
        );
    }
}

#[test]
fn public_half_is_found_whatever_shares_its_id() {
    with_token("find_public_halves");
}

#[test]
#[ignore = "runs in the process that public_half_is_found_whatever_shares_its_id starts"]
fn find_public_halves() {
    use cryptoki::{
        mechanism::Mechanism,
        object::{Attribute, CertificateType, ObjectClass},
    };
    use der::Encode;
    let (folder, uri) = place("any");
    let token = Token::open(&uri.token, &folder).unwrap();
    let session = token.read_write_session().unwrap();
    let make = |label: &str, id: &[u8], curve: const_oid::ObjectIdentifier| {
        let mut name = vec![Attribute::Token(true), Attribute::Label(label.into())];
        name.extend((!id.is_empty()).then(|| Attribute::Id(id.to_vec())));
        let curve = Attribute::EcParams(curve.to_der().unwrap());
        let public = [&name[..], &[curve, Attribute::Private(false)]].concat();
        let fit = [Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false)];
        let private = [&name[..], &fit, &[Attribute::Sign(true)]].concat();
        let mechanism = Mechanism::EccKeyPairGen;
        session.call("making", |session| session.generate_key_pair(&mechanism, &public, &private)).unwrap().0
    };
    let open = |label: &str| Key::open(&token, &place(label).1.key);
    use const_oid::db::rfc5912::{SECP_256_R_1 as P256, SECP_384_R_1 as P384};
    // Many pairs with one id, of one curve and of two.
    for (label, curve) in [("a", P256), ("b", P256), ("c", P384), ("d", P384), ("e", P256)] {
        make(label, &[1], curve);
    }
    let keys: Vec<_> = ["a", "b", "c", "d", "e"].map(|label| open(label).unwrap()).into();
    for (number, key) in keys.iter().enumerate() {
        key.test().unwrap();
        assert!(keys[..number].iter().all(|other| other.public_key() != key.public_key()), "{key:?}");
    }
    // A label that is also another key's, and no id.
    make("f", &[], P256);
    make("f", &[7], P384);
    let query = crate::hsm::KeyQuery { label: Some("f".into()), id: Some(vec![7]), algorithm: None };
    Key::open(&token, &query).unwrap().test().unwrap();
    // Neither label nor id tells which.
    make("g", &[8], P256);
    make("g", &[8], P256);
    let message = open("g").unwrap_err().to_string();
    assert!(message.contains("2 private keys") && message.contains("neither label nor id tells"), "{message}");
    let by_id = crate::hsm::KeyQuery { label: None, id: Some(vec![1]), algorithm: None };
    let message = Key::open(&token, &by_id).unwrap_err().to_string();
    assert!(message.contains("object=…") && message.contains("\"a\", \"b\""), "{message}");

    // Without its public key object a key is found by a certificate, and not by another pair's public key.
    let public = make("h", &[9], P256);
    let key = open("h").unwrap();
    let remove = |handle| session.call("removing", |session| session.destroy_object(handle)).unwrap();
    remove(public);
    let message = open("h").unwrap_err().to_string();
    assert!(message.contains("is not in token") && message.contains("0 public keys"), "{message}");
    let signer = crate::hsm::RcgenKey::new(&key).unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&signer).unwrap();
    let attributes = [
        Attribute::Class(ObjectClass::CERTIFICATE),
        Attribute::CertificateType(CertificateType::X_509),
        Attribute::Token(true),
        Attribute::Id(vec![9]),
        Attribute::Subject(vec![0x30, 0]),
        Attribute::Value(certificate.der().to_vec()),
    ];
    session.call("writing", |session| session.create_object(&attributes)).unwrap();
    let found = open("h").unwrap();
    found.test().unwrap();
    assert_eq!(found.public_key(), key.public_key());
    let (i, _) = (make("i", &[10], P256), make("j", &[10], P256));
    make("k", &[10], P256);
    remove(i);
    let message = open("i").unwrap_err().to_string();
    assert!(message.contains("2 public keys and certificates") && message.contains("none verifies"), "{message}");
}
