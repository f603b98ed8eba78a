//! Any octets as a CSR: the parser must neither panic nor hang, and what it takes must be what it says.
#![no_main]

use birthmark::csr;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|csr: &[u8]| {
    if let Ok(verified) = csr::verify(csr, &csr::RefusedKeys::default()) {
        assert!(csr.len() <= csr::MAX_LENGTH);
        assert!(!verified.public_key().spki.is_empty());
    }
});
