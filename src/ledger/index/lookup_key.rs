//! How the index knows public keys, devices, and the devices of orders' lists.

use crate::ledger::{overlay::DeviceHash, record::KeyHash};

/// How a run knows a public key or a device: 127 bits of its hash, and which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LookupKey([u8; LookupKey::LENGTH]);

impl LookupKey {
    pub(super) const LENGTH: usize = 16;

    pub(crate) fn from_key(hash: &KeyHash) -> Self {
        let mut name = [0; Self::LENGTH];
        name.copy_from_slice(&hash[..Self::LENGTH]);
        name[0] &= 0x7f;
        LookupKey(name)
    }

    pub(crate) fn from_device(hash: &DeviceHash) -> Self {
        let mut name = *hash;
        name[0] |= 0x80;
        LookupKey(name)
    }

    /// A device of an order's list. Its hash is over other octets than that of any device, so that both may share the form.
    pub(crate) fn from_listed(hash: &DeviceHash) -> Self {
        LookupKey::from_device(hash)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
