//! Vending codes: a device without a certificate says by HTTP Basic who it is, and shows its code (RFC 7030 section 3.2.3).
//!
//! A code has 128 bits, so that nobody guesses one; what is limited here is the work that guesses make, for each address and
//! for each device, and each is counted. A guess is charged before it is looked at, so that it does not matter how many come
//! at once; a right code is given back what it was charged.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, header};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::answer::EstError;
use crate::{
    hash::sha256,
    issuer::IssueError,
    ledger::{self, Cost, HashedCode, LedgerError, Records, VendingCode},
    metrics, security,
    vending::{self, Code},
};

/// How many wrong codes one address may send at once, and how long it takes until it may send one more.
const ADDRESS: Limit = Limit { most: 30, again: Duration::from_secs(2) };

/// The same for the codes of one device.
const DEVICE: Limit = Limit { most: 10, again: Duration::from_secs(30) };

/// How many addresses and devices are remembered.
const REMEMBERED: usize = 65_536;

/// How many codes are hashed at once.
const HASHES: usize = 2;

/// How often it is logged that guesses are refused.
const LOG_EVERY: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
struct Limit {
    most: u32,
    again: Duration,
}

/// Who is limited.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Guesser {
    Address(IpAddr),
    Device([u8; 16]),
}

impl Guesser {
    fn of_device(device: &str) -> Guesser {
        Guesser::Device(sha256(device.as_bytes()).first_chunk().copied().unwrap_or_default())
    }

    fn limit(self) -> Limit {
        match self {
            Guesser::Address(_) => ADDRESS,
            Guesser::Device(_) => DEVICE,
        }
    }
}

/// What codes are checked with.
pub(super) struct Codes {
    /// When each guesser has nothing charged any more.
    charged: Mutex<HashMap<Guesser, Instant>>,
    hashing: Arc<Semaphore>,
    logged: Mutex<Option<Instant>>,
}

impl Codes {
    pub(super) fn new() -> Self {
        let hashing = Arc::new(Semaphore::new(HASHES));
        Codes { charged: Mutex::default(), hashing, logged: Mutex::default() }
    }

    /// The code that a request shows, if it is the device's and can be used; none if it shows none.
    pub(super) async fn check(
        &self,
        records: &Arc<dyn Records>,
        address: IpAddr,
        headers: &HeaderMap,
    ) -> Result<Option<VendingCode>, EstError> {
        let Some(header) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let shown = header.to_str().ok().and_then(basic);
        let guessers = [Guesser::Address(address)];
        let Some((device, code)) = shown else {
            self.charge(&guessers, address)?;
            metrics::vending_guess("malformed");
            return Err(EstError::Unauthenticated("HTTP Basic is expected, with device id and code".into()));
        };
        let code = match Code::parse(&code) {
            Ok(code) => Arc::new(code),
            Err(error) => {
                self.charge(&guessers, address)?;
                metrics::vending_guess("malformed");
                return Err(EstError::Unauthenticated(error.to_string()));
            }
        };
        let guessers = [Guesser::Address(address), Guesser::of_device(&device)];
        self.charge(&guessers, address)?;
        // Another daemon may have recorded it just now.
        let look = || self.fitting(records, &device, &code);
        let Some(known) = ledger::found(&**records, look, EstError::from).await? else {
            metrics::vending_guess("wrong");
            tracing::warn!(target: security::TARGET, %address, device = crate::quote::shortened(&device), "a wrong vending code");
            return Err(EstError::Unauthenticated("the device has no such code".into()));
        };
        self.give_back(&guessers);
        metrics::vending_guess("right");
        match known.obstacle(Timestamp::now()) {
            Some(why) => Err(EstError::Unauthenticated(format!("the code cannot be used any more: {why}"))),
            None => Ok(Some(known)),
        }
    }

    /// The code of the device, if it is this one.
    async fn fitting(
        &self,
        records: &Arc<dyn Records>,
        device: &str,
        code: &Arc<Code>,
    ) -> Result<Option<VendingCode>, EstError> {
        let Ok(permit) = Arc::clone(&self.hashing).acquire_owned().await else {
            return Err(IssueError::Internal.into());
        };
        let (records, id, code) = (Arc::clone(records), device.to_owned(), Arc::clone(code));
        let checked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let known = records.vending_code(&id)?;
            // A device without a code takes as long as one with another code.
            let stand_in = || (HashedCode { device: id, salt: [0; 16], hash: [0; 32] }, vending::COST);
            let (hashed, cost): (HashedCode, Cost) =
                known.as_ref().map_or_else(stand_in, |known| (known.code.clone(), known.cost));
            Ok((known, code.fits(&hashed, cost)))
        });
        let checked = checked.await.map_err(|_| EstError::from(IssueError::Internal))?;
        let (known, fits) = checked.map_err(|error: LedgerError| {
            tracing::error!(%error, "a vending code could not be read");
            EstError::from(error)
        })?;
        let fits = fits.map_err(|error| {
            tracing::error!(%error, device, "a vending code could not be checked");
            EstError::from(IssueError::Internal)
        })?;
        Ok(known.filter(|_| fits))
    }

    /// Charges a guess to all of them, or to none.
    fn charge(&self, guessers: &[Guesser], address: IpAddr) -> Result<(), EstError> {
        let now = Instant::now();
        let mut charged = self.charged.lock();
        if charged.len() >= REMEMBERED {
            charged.retain(|_, free| *free > now);
        }
        let full = charged.len() >= REMEMBERED;
        let until = guessers.iter().filter_map(|guesser| {
            let Limit { most, again } = guesser.limit();
            let known = charged.get(guesser);
            if full && known.is_none() {
                return Some(again);
            }
            let left = known.map_or(Duration::ZERO, |free| free.saturating_duration_since(now));
            (left + again).checked_sub(again * most).filter(|over| !over.is_zero())
        });
        if let Some(wait) = until.max() {
            drop(charged);
            metrics::vending_guess("limited");
            self.log_limit(address);
            return Err(EstError::Guesses(wait));
        }
        for guesser in guessers {
            let free = charged.entry(*guesser).or_insert(now);
            *free = (*free).max(now) + guesser.limit().again;
        }
        Ok(())
    }

    fn give_back(&self, guessers: &[Guesser]) {
        let mut charged = self.charged.lock();
        for guesser in guessers {
            if let Some(free) = charged.get_mut(guesser) {
                *free = free.checked_sub(guesser.limit().again).unwrap_or(*free);
            }
        }
    }

    fn log_limit(&self, address: IpAddr) {
        let mut logged = self.logged.lock();
        if logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            *logged = Some(Instant::now());
            tracing::error!(target: security::TARGET, %address, "vending codes are being guessed; more guesses are refused for now");
        }
    }
}

/// Device id and code of `Basic` credentials (RFC 7617). A device id may have colons, a code has none.
fn basic(header: &str) -> Option<(String, Zeroizing<String>)> {
    let (scheme, credentials) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = Zeroizing::new(String::from_utf8(BASE64_STANDARD.decode(credentials.trim()).ok()?).ok()?);
    let (device, code) = text.rsplit_once(':')?;
    Some((device.to_owned(), Zeroizing::new(code.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_limited_for_each_address_and_device() {
        let codes = Codes::new();
        let [one, two]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let guess = |address, device: &str| {
            codes.charge(&[Guesser::Address(address), Guesser::of_device(device)], address).is_ok()
        };
        let taken = (0..100).filter(|_| guess(one, "d1")).count();
        assert_eq!(taken, DEVICE.most as usize);
        assert!(!guess(two, "d1") && guess(two, "d2"));
        let taken = (0..100).filter(|number| guess(one, &format!("e{number}"))).count();
        assert_eq!(taken, (ADDRESS.most - DEVICE.most) as usize);
        // What a right code was charged is free again.
        codes.give_back(&[Guesser::Address(one), Guesser::of_device("d1")]);
        assert!(guess(one, "d1") && !guess(one, "d1"));
    }

    #[test]
    fn basic_credentials_are_split_at_the_last_colon() {
        let header = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        let (device, code) = basic(&header("a:b:C0DE")).unwrap();
        assert_eq!((device.as_str(), code.as_str()), ("a:b", "C0DE"));
        for bad in [header("none"), "Basic %".into(), "Bearer x".into(), "Basic".into()] {
            assert!(basic(&bad).is_none(), "{bad}");
        }
    }
}
