//! The protocol's limits: what `proto/birthmark/v1/` says of the length of its fields, each named after its field. The
//! daemon refuses what is beyond them, and our clients do not send it. (Those of ids and CSRs are beside what reads them.)

/// The largest message that is read, in bytes. A CSR beyond its own limit but within this is refused in its reply and
/// the stream goes on; a message beyond this ends the stream.
pub const MESSAGE: usize = 1 << 20;

/// `IssueRequest.request_id`, in bytes.
pub const REQUEST_ID: usize = 64;

/// `ConfirmRequest`: how many certificates.
pub const CONFIRM_SERIAL_NUMBERS: usize = 1000;

/// `CreateCodesRequest.codes`: how many.
pub const VENDING_CODES: usize = 500;

/// `OrderTerms.stations`: how many patterns.
pub const ORDER_STATIONS: usize = 1024;

/// One pattern of `OrderTerms.stations`, in characters: a station's name has up to 129.
pub const ORDER_STATION: usize = 256;

/// `OrderTerms.attributes`: how many.
pub const ORDER_ATTRIBUTES: usize = 32;

/// The name of one of `OrderTerms.attributes`, in characters.
pub const ORDER_ATTRIBUTE_NAME: usize = 32;

/// The value of one of `OrderTerms.attributes`, in characters.
pub const ORDER_ATTRIBUTE_VALUE: usize = 256;

/// `ScrapCertificateRequest.reason`, in characters.
pub const SCRAP_REASON: usize = 256;

/// `ChangeOrderRequest.reason` and `PauseOrderRequest.reason`, in characters.
pub const ORDER_REASON: usize = 256;

/// `RevokeStationRequest.reason`, in characters.
pub const STATION_REVOCATION_REASON: usize = 256;

/// `ImportRequest.lines`: how many.
pub const ENROLMENT_LINES: usize = 1000;

/// `AddOrderDevicesRequest.devices`: how many.
pub const ORDER_DEVICES: usize = 4096;
