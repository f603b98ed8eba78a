//! What a device presents after its own certificate.

use birthmark_base::{fields, pem::certificate_pem};
use bytes::Bytes;

/// The CA certificates that a device presents after its own, as PEM: the issuing CA, and those above it but for a
/// root, which the verifier has. The issuing CA is there even if it is a root, since AWS IoT wants it presented.
pub(crate) fn presented_chain(chain: &[Bytes]) -> String {
    let presented = chain.iter().enumerate().filter(|(index, ca)| *index == 0 || !fields::is_self_issued(ca));
    presented.map(|(_, ca)| certificate_pem(ca)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The issuing CA is there always, a root above it never.
    #[test]
    fn presented_chain_keeps_the_issuer_and_drops_a_root() -> Result<(), Box<dyn std::error::Error>> {
        let root = Bytes::from(rcgen::generate_simple_self_signed(vec![])?.cert.der().to_vec());
        assert_eq!(presented_chain(&[root.clone(), root.clone()]).matches("BEGIN").count(), 1);
        assert_eq!(presented_chain(&[root]).matches("BEGIN").count(), 1);
        Ok(())
    }
}
