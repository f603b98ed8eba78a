//! Any octets as a CSR, a certificate or PEM: the parsers must neither panic nor hang, and what they take must be what
//! they say.
#![no_main]

use birthmark::{ca::CaChain, csr, pem};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|csr: &[u8]| {
    if let Ok(verified) = csr::verify(csr, &csr::RefusedKeys::default()) {
        assert!(csr.len() <= csr::MAX_LENGTH);
        assert!(!verified.public_key().spki.is_empty());
        let _ = (verified.common_name(), verified.serial_number());
    }
    let _ = pem::blocks(csr);
    let _ = CaChain::new(vec![csr.to_vec(), csr.to_vec()]);
});
