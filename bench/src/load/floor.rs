//! `birthmark bench floor`: what the cryptography of one certificate costs by itself, in a process of its own.
//!
//! The key is opened with the daemon's code and signs through the same function. It runs while no daemon does: SoftHSM
//! rewrites its token's file at each login.

use std::{
    hint::black_box,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, ensure};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey},
};
use birthmark::{
    hsm::{Key, KeyUri, Token},
    signer::{Signature, Verifier},
};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::console::print_json;

/// Measure the signatures of a site's issuer without the daemon
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The issuer's key
    #[arg(long, value_name = "URI")]
    key_uri: String,

    /// How many sessions sign at once for the raw rate
    #[arg(long)]
    sessions: usize,

    /// How long each part is measured
    #[arg(long)]
    milliseconds: u64,
}

/// The parts of one certificate that no implementation can leave out: a signature and two verifications.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Floor {
    /// Processor time of one C_SignInit and C_Sign.
    pub(super) sign_us: f64,
    /// Processor time of verifying the CSR's signature.
    pub(super) proof_of_possession_us: f64,
    /// Processor time of verifying the issuer's signature as any signature is verified.
    pub(super) self_check_us: f64,
    /// Processor time of verifying it as the daemon does, with what it has prepared for the issuer's key.
    pub(super) prepared_self_check_us: f64,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Measured {
    /// On one thread.
    pub(super) floor: Floor,
    /// On as many threads as there are processors: they share caches, clock and the module's locks.
    pub(super) floor_loaded: Floor,
    /// Signatures a second, with the number of sessions that was asked for.
    pub(super) raw_sign_per_second: f64,
}

impl Floor {
    /// A signature, and two verifications as the daemon makes them.
    pub(super) fn sum(&self) -> f64 {
        self.sign_us + self.proof_of_possession_us + self.prepared_self_check_us
    }

    /// A signature, and two verifications of which none is prepared.
    pub(super) fn sum_unprepared(&self) -> f64 {
        self.sign_us + self.proof_of_possession_us + self.self_check_us
    }

    /// Part by part what was less: a machine's other work only adds.
    pub(super) fn least(&self, other: &Floor) -> Floor {
        Floor {
            sign_us: self.sign_us.min(other.sign_us),
            proof_of_possession_us: self.proof_of_possession_us.min(other.proof_of_possession_us),
            self_check_us: self.self_check_us.min(other.self_check_us),
            prepared_self_check_us: self.prepared_self_check_us.min(other.prepared_self_check_us),
        }
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let uri = KeyUri::parse(&args.key_uri)?;
    let token = Token::open(&uri.token, Path::new("."))?;
    let span = Duration::from_millis(args.milliseconds);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let signers = |number| {
        let open = |_| {
            let key = Key::open(&token, &uri.key)?;
            Ok(move || {
                black_box(key.sign(MESSAGE)?);
                Ok(())
            })
        };
        (0..number).map(open).collect::<anyhow::Result<Vec<_>>>()
    };
    let possession = proof_of_possession()?;
    let key = Key::open(&token, &uri.key)?;
    let (self_check, prepared_self_check) = (self_check(&key)?, prepared_self_check(&key)?);
    let floor = |threads| {
        anyhow::Ok(Floor {
            sign_us: measure(signers(threads)?, span)?.cpu_us,
            proof_of_possession_us: measure(vec![&possession; threads], span / 2)?.cpu_us,
            self_check_us: measure(vec![&self_check; threads], span / 2)?.cpu_us,
            prepared_self_check_us: measure(vec![&prepared_self_check; threads], span / 2)?.cpu_us,
        })
    };
    let measured = Measured {
        floor: floor(1)?,
        floor_loaded: floor(processors)?,
        raw_sign_per_second: measure(signers(args.sessions)?, span)?.per_second,
    };
    print_json(&serde_json::to_value(measured)?)?;
    Ok(ExitCode::SUCCESS)
}

/// As long as what is signed of a certificate.
const MESSAGE: &[u8] = &[0x30; 400];

/// Verifies a device's signature as `csr.rs` does it.
fn proof_of_possession() -> anyhow::Result<impl Fn() -> anyhow::Result<()> + Sync> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
    let signature = key.sign(&SystemRandom::new(), MESSAGE)?;
    Ok(move || {
        let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, black_box(key.public_key().as_ref()))?;
        public.verify_sig(MESSAGE, signature.as_ref()).context("the device's signature does not verify")
    })
}

/// Verifies the issuer's signature with the public key alone.
fn self_check(key: &Key) -> anyhow::Result<impl Fn() -> anyhow::Result<()> + Sync + use<>> {
    let (public, algorithm, signature) = (key.public_key().clone(), key.algorithm(), key.sign(MESSAGE)?);
    Ok(move || {
        ensure!(black_box(&public).verifies(algorithm, MESSAGE, &signature), "the issuer's signature does not verify");
        Ok(())
    })
}

/// Verifies it as the pool does.
fn prepared_self_check(key: &Key) -> anyhow::Result<impl Fn() -> anyhow::Result<()> + Sync + use<>> {
    let verifier = Verifier::new(key.public_key(), key.algorithm()).context("the issuer's key is not valid")?;
    let signature = key.sign(MESSAGE)?;
    Ok(move || {
        let checked = Signature::check(black_box(&verifier), MESSAGE, signature.clone());
        checked.map(drop).context("the issuer's signature does not verify")
    })
}

struct Rate {
    /// Processor time of one.
    cpu_us: f64,
    per_second: f64,
}

/// Repeats each of these for this time, on a thread each.
fn measure<F: Fn() -> anyhow::Result<()> + Send>(parts: Vec<F>, span: Duration) -> anyhow::Result<Rate> {
    let (began, before) = (Instant::now(), processor_time());
    let again = |part: F| {
        let mut done: u64 = 0;
        while done == 0 || began.elapsed() < span {
            part()?;
            done += 1;
        }
        anyhow::Ok(done)
    };
    let done = thread::scope(|scope| {
        let threads: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || again(part))).collect();
        let results = threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?);
        results.sum::<anyhow::Result<u64>>()
    })?;
    let (took, used) = (began.elapsed(), processor_time() - before);
    Ok(Rate { cpu_us: used.as_secs_f64() * 1e6 / done as f64, per_second: done as f64 / took.as_secs_f64() })
}

/// User and system time of this process.
pub(super) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
