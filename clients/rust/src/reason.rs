//! The daemon's reasons, for programs that tell them apart.

use crate::Failure;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why the daemon gave no certificate, or did not do what it was asked for: the `reason` of google.rpc.ErrorInfo.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All that are known.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// As the protocol writes it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => $text,)*
                }
            }

            /// The reason of this name; none of a name that a newer daemon has.
            pub fn from_name(name: &str) -> Option<Reason> {
                match name {
                    $($text => Some(Reason::$name),)*
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// The CSR is no PKCS#10 request.
    CsrMalformed = "CSR_MALFORMED",
    /// The CSR's signature is not by its own key.
    PopInvalid = "POP_INVALID",
    /// The CSR's key is weak.
    KeyWeak = "KEY_WEAK",
    /// The CSR's key is of a kind that the daemon or the profile does not take.
    KeyUnsupported = "KEY_UNSUPPORTED",
    /// The CSR's signature is of an unknown algorithm.
    CsrSignatureUnsupported = "CSR_SIGNATURE_UNSUPPORTED",
    /// A field of the request is not what it must be.
    RequestInvalid = "REQUEST_INVALID",
    /// There is no such profile.
    ProfileUnknown = "PROFILE_UNKNOWN",
    /// There is no such order.
    OrderUnknown = "ORDER_UNKNOWN",
    /// Device id, subject or an attribute of the order does not fit the profile.
    SubjectRefused = "SUBJECT_REFUSED",
    /// The order or the profile does not allow this station.
    StationRefused = "STATION_REFUSED",
    /// The order is for another profile.
    ProfileRefused = "PROFILE_REFUSED",
    /// The certificate's name would be the code of a platform.
    DeviceIdLikeCode = "DEVICE_ID_LIKE_CODE",
    /// The key is another device's.
    KeyReused = "KEY_REUSED",
    /// The device has a live certificate for another key.
    DeviceHasCertificate = "DEVICE_HAS_CERTIFICATE",
    /// The key's certificate was scrapped or revoked.
    KeyBlocked = "KEY_BLOCKED",
    /// The order is used up.
    OrderExhausted = "ORDER_EXHAUSTED",
    /// The order is used up for today.
    OrderDayExhausted = "ORDER_DAY_EXHAUSTED",
    /// The order's list does not have the device, or has another key for it.
    DeviceNotOnOrder = "DEVICE_NOT_ON_ORDER",
    /// The order's list is still being taken in.
    OrderListIncomplete = "ORDER_LIST_INCOMPLETE",
    /// The order is closed.
    OrderClosed = "ORDER_CLOSED",
    /// The order is not open yet, or not any more.
    OrderOutsideWindow = "ORDER_OUTSIDE_WINDOW",
    /// The order is paused.
    OrderPaused = "ORDER_PAUSED",
    /// A certificate that is made now would outlive its CA.
    IssuerExpiring = "ISSUER_EXPIRING",
    /// The device had a certificate that was scrapped or revoked: ask with `reissue`.
    ReissueRequired = "REISSUE_REQUIRED",
    /// The device never had a certificate.
    ReissueRefused = "REISSUE_REFUSED",
    /// The HSM cannot sign now.
    HsmUnavailable = "HSM_UNAVAILABLE",
    /// The daemon is shutting down.
    Draining = "DRAINING",
    /// There is too little space on the daemon's disk.
    StorageLow = "STORAGE_LOW",
    /// The daemon's disk or index fails for now.
    StorageUnavailable = "STORAGE_UNAVAILABLE",
    /// The ledger is a copy, and an operator has not said yet that it lacks nothing.
    LedgerRestored = "LEDGER_RESTORED",
    /// The other daemons of the ledger had given up this one, and its reservations with it.
    ReservationLost = "RESERVATION_LOST",
    /// The daemon's clock is before the ledger's newest entry.
    ClockBackwards = "CLOCK_BACKWARDS",
    /// The daemon's clock cannot be right.
    ClockImplausible = "CLOCK_IMPLAUSIBLE",
    /// What is recorded cannot be read.
    StorageDamaged = "STORAGE_DAMAGED",
    /// It was issued before, and no recorded issuer fits it.
    IssuerMismatch = "ISSUER_MISMATCH",
    /// There is no such issuer.
    IssuerUnknown = "ISSUER_UNKNOWN",
    /// Something in the daemon is not as it should be.
    Internal = "INTERNAL",
    /// There is no such record.
    RecordUnknown = "RECORD_UNKNOWN",
    /// What was read back is not what was issued.
    CertificateMismatch = "CERTIFICATE_MISMATCH",
    /// There is no certificate, or it is scrapped or revoked.
    StateRefused = "STATE_REFUSED",
    /// The call is for another role.
    RoleRequired = "ROLE_REQUIRED",
    /// The station's own certificate has expired.
    CertificateExpired = "CERTIFICATE_EXPIRED",
    /// The station was revoked.
    CertificateRevoked = "CERTIFICATE_REVOKED",
    /// A message is over 1 MiB.
    MessageTooLarge = "MESSAGE_TOO_LARGE",
    /// The station has too many connections.
    TooManyConnections = "TOO_MANY_CONNECTIONS",
    /// The station has too many streams open.
    TooManyStreams = "TOO_MANY_STREAMS",
    /// The station has too many calls open.
    TooManyRequests = "TOO_MANY_REQUESTS",
    /// The station took no reply for a minute.
    StreamStalled = "STREAM_STALLED",
    /// The request did not arrive, or was not answered, in time.
    RequestTooSlow = "REQUEST_TOO_SLOW",
    /// The reply does not answer its request; found by this crate.
    ReplyMismatch = "REPLY_MISMATCH",
}

impl Failure {
    /// The daemon's reason; none if none came from there, or one that a newer daemon has.
    pub fn kind(&self) -> Option<Reason> {
        self.reason.as_deref().and_then(Reason::from_name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Whatever issuance.proto names as a reason is one here, so that programs can match it.
    #[test]
    fn reason_of_the_protocol_has_its_variant() {
        let proto = include_str!("../../../proto/birthmark/v1/issuance.proto");
        let comments = proto.lines().filter_map(|line| line.split_once("//")).map(|(_, comment)| comment);
        let words = comments.flat_map(|comment| comment.split(|c: char| !(c.is_ascii_uppercase() || c == '_')));
        let upper = words.filter(|word| word.contains('_') && word.len() > 4 && !word.starts_with('_'));
        let codes = [
            "INVALID_ARGUMENT",
            "NOT_FOUND",
            "PERMISSION_DENIED",
            "ALREADY_EXISTS",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "DATA_LOSS",
            "OUT_OF_RANGE",
            "DEADLINE_EXCEEDED",
        ];
        let missing: BTreeSet<_> =
            upper.filter(|word| !codes.contains(word) && Reason::from_name(word).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert!(Reason::ALL.iter().all(|reason| Reason::from_name(reason.as_str()) == Some(*reason)));
    }
}
