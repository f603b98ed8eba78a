//! A certificate that was found, before anything of it is believed.

use bytes::Bytes;

/// A certificate that was found, and what its place says about it.
#[derive(Clone, Debug)]
pub struct Found {
    /// DER.
    pub certificate: Bytes,
    /// The device, if the file's name or the line has it.
    pub(super) device: Option<String>,
    /// The order and the profile, if the line has them.
    pub(super) charge: Option<Charge>,
    /// The file, and the line in it.
    pub source: String,
}

/// What a certificate is charged to.
#[derive(Clone, Debug)]
pub struct Charge {
    /// The order; empty if there is none.
    pub order: String,
    /// The profile.
    pub profile: String,
}
