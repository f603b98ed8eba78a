//! What is measured of the HSM. A pool's handles are made when it is opened.

use std::{collections::BTreeSet, time::Duration};

use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::Mutex;

use super::{
    list,
    path::{Step, step},
};

/// What the audit key's sessions are called where others have an issuer's name.
pub(crate) const AUDIT: &str = "audit";

/// The metrics of one pool.
pub(crate) struct HsmPool {
    /// What it signs are steps of requests.
    of_requests: bool,
}

impl HsmPool {
    pub(crate) fn new(issuer: &str) -> Self {
        HsmPool { of_requests: issuer != AUDIT }
    }

    /// A message took so long from step to step.
    pub(crate) fn step(&self, done: Step, took: Duration) {
        if self.of_requests {
            step(done, took);
        }
    }
}

/// How many codes of a vendor have a name of their own, and what the others are called.
const VENDOR_CODES: usize = 16;
const OTHER_CODE: &str = "CKR_VENDOR_DEFINED (other)";

/// The codes of a vendor that were seen first.
#[derive(Default)]
struct VendorCodes(BTreeSet<String>);

impl VendorCodes {
    /// Whether this one has a name of its own.
    fn admit(&mut self, code: &str) -> bool {
        self.0.contains(code) || self.0.len() < VENDOR_CODES && self.0.insert(code.to_owned())
    }
}

/// The metrics of one token of a pool. The recorder must be installed before.
pub(crate) struct HsmToken {
    labels: [(&'static str, String); 2],
    /// Those that are there from the start.
    codes: Vec<&'static str>,
    vendors: Mutex<VendorCodes>,
    sign_duration: Histogram,
    call_timeouts: Counter,
    wrong_signatures: Counter,
}

impl HsmToken {
    /// Errors are counted by code, from 0 for each of `codes`.
    pub(crate) fn new(issuer: &str, token: &str, codes: impl Iterator<Item = &'static str>) -> Self {
        let labels = [("issuer", issuer.to_owned()), ("token", token.to_owned())];
        let codes: Vec<_> = codes.collect();
        let token = HsmToken {
            codes,
            vendors: Mutex::default(),
            sign_duration: histogram!(list::HSM_SIGN_DURATION, &labels),
            call_timeouts: counter!(list::HSM_CALL_TIMEOUTS, &labels),
            wrong_signatures: counter!(list::HSM_WRONG_SIGNATURES, &labels),
            labels,
        };
        token.codes.iter().copied().chain([OTHER_CODE]).for_each(|code| drop(token.errors(code)));
        token
    }

    pub(crate) fn signed(&self, took: Duration) {
        self.sign_duration.record(took);
    }

    pub(crate) fn call_timeout(&self) {
        self.call_timeouts.increment(1);
    }

    pub(crate) fn wrong_signature(&self) {
        self.wrong_signatures.increment(1);
    }

    /// Counts an error by its code. The codes that no standard knows are a vendor's: a few of them have a name of their own.
    pub(crate) fn error(&self, code: &str) {
        let known = self.codes.contains(&code);
        let code = if known || self.vendors.lock().admit(code) { code } else { OTHER_CODE };
        self.errors(code).increment(1);
    }

    fn errors(&self, code: &str) -> Counter {
        let [issuer, token] = self.labels.clone();
        counter!(list::HSM_ERRORS, &[issuer, token, ("code", code.to_owned())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module that returns a new code each time makes no more series than a few.
    #[test]
    fn vendor_codes_have_a_bounded_number_of_names() {
        let mut vendors = VendorCodes::default();
        let admitted = (0..1000).filter(|code| vendors.admit(&format!("CKR_VENDOR_DEFINED (0x{code:08x})"))).count();
        assert_eq!(admitted, VENDOR_CODES);
        assert!(vendors.admit("CKR_VENDOR_DEFINED (0x00000003)"), "one that has a name keeps it");
    }
}
