//! The operations of EST (RFC 7030 section 3.2.2).

use axum::http::Method;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    CaCertificates,
    CsrAttributes,
    Enroll,
    Reenroll,
}

impl Operation {
    pub(super) const ALL: [Operation; 4] =
        [Operation::CaCertificates, Operation::CsrAttributes, Operation::Enroll, Operation::Reenroll];

    pub(super) fn of(name: &str) -> Option<Operation> {
        Some(match name {
            "cacerts" => Operation::CaCertificates,
            "csrattrs" => Operation::CsrAttributes,
            "simpleenroll" => Operation::Enroll,
            "simplereenroll" => Operation::Reenroll,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Operation::CaCertificates => "cacerts",
            Operation::CsrAttributes => "csrattrs",
            Operation::Enroll => "simpleenroll",
            Operation::Reenroll => "simplereenroll",
        }
    }

    pub(super) fn method(self) -> Method {
        match self {
            Operation::CaCertificates | Operation::CsrAttributes => Method::GET,
            Operation::Enroll | Operation::Reenroll => Method::POST,
        }
    }
}
