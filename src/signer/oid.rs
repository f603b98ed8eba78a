//! Names of OIDs for messages.

use const_oid::{ObjectIdentifier, db};

use crate::asn1::Oid;

/// An OID as messages show it.
pub(super) fn name_of(oid: &[u8]) -> String {
    let known = ObjectIdentifier::from_bytes(oid).ok().and_then(|oid| db::DB.by_oid(&oid).map(|name| (name, oid)));
    match (known, Oid::from_content(oid)) {
        (Some((name, oid)), _) => format!("{name} ({oid})"),
        (None, Ok(oid)) => crate::quote::shortened(&oid.to_string()).to_string(),
        (None, Err(_)) => "with a malformed OID".into(),
    }
}
