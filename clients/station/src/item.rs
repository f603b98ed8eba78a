//! What flows through a run: devices, and what is known about each without the daemon.

use std::path::PathBuf;

use bytes::Bytes;

/// One device, as far as it can be known without the daemon.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// It wants a certificate.
    Wanted(Wanted),
    /// It has its certificate from an earlier run.
    AlreadyThere {
        /// The device.
        device_id: String,
        /// The DER certificate that was found.
        certificate: Vec<u8>,
        /// The file that the CSR came from.
        file: Option<PathBuf>,
    },
    /// There is nothing that the daemon could be asked.
    Refused(Refused),
}

/// A device that wants a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The device, an id by the protocol's rule ([`birthmark_base::id::DeviceId`]).
    pub(crate) device_id: String,
    /// The CSR, DER.
    pub(crate) csr: Bytes,
    /// The file that the CSR came from; none for JSON lines.
    pub(crate) file: Option<PathBuf>,
    /// Where its line differs from the run.
    pub(crate) terms: Terms,
}

/// Under which terms a certificate is wanted, where they are not the run's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The production order.
    pub(crate) order: Option<String>,
    /// The profile.
    pub(crate) profile: Option<String>,
    /// Whether it is a new certificate in place of one that was scrapped or revoked.
    pub(crate) reissue: Option<bool>,
}

impl Terms {
    /// Whether order and profile are the run's.
    pub(crate) fn are_of_the_run(&self) -> bool {
        self.order.is_none() && self.profile.is_none()
    }
}

/// A device that gets no certificate, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The device as the input named it; it need not be a valid id.
    pub(crate) device_id: String,
    /// The file that the CSR came from; none for JSON lines.
    pub(crate) file: Option<PathBuf>,
    /// Where its line differs from the run.
    pub(crate) terms: Terms,
    /// The daemon's reason, or one of `CSR_UNREADABLE`, `CSR_MALFORMED`, `REQUEST_INVALID`, `NAME_REFUSED`,
    /// `DUPLICATE_DEVICE`, `REPLY_MISMATCH`, `NOT_WRITTEN` if it was found out here.
    pub(crate) reason: String,
    /// One sentence.
    pub(crate) message: String,
}
