//! The protocol's rules for the terms of an order.

use std::collections::BTreeMap;

use super::{request_error::RequestError, text::check_text};
use crate::{
    ledger::DeviceList,
    limits::{ORDER_ATTRIBUTE_NAME, ORDER_ATTRIBUTE_VALUE, ORDER_ATTRIBUTES, ORDER_STATION, ORDER_STATIONS},
};

/// The list that an order is to have.
pub(super) fn device_list(devices: u64, sha256: &[u8]) -> Result<Option<DeviceList>, RequestError> {
    let invalid = || RequestError::Invalid("devices and devices_sha256 (32 octets) belong together".to_owned());
    match (devices, sha256) {
        (0, []) => Ok(None),
        (1.., octets) => {
            let sha256 = octets.try_into().map_err(|_| invalid())?;
            Ok(Some(DeviceList { devices, sha256 }))
        }
        (0, _) => Err(invalid()),
    }
}

/// The protocol's rules for an order's stations.
pub(super) fn check_stations(stations: &[String]) -> Result<(), RequestError> {
    if stations.len() > ORDER_STATIONS {
        let message =
            format!("an order may name {ORDER_STATIONS} patterns of stations; this one has {}", stations.len());
        return Err(RequestError::Invalid(message));
    }
    stations.iter().try_for_each(|pattern| check_text("a pattern of stations", pattern, ORDER_STATION))
}

/// The protocol's rules for an order's attributes.
pub(super) fn check_attributes(attributes: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, RequestError> {
    let invalid = |message: String| Err(RequestError::Invalid(message));
    if attributes.len() > ORDER_ATTRIBUTES {
        return invalid(format!("an order may have {ORDER_ATTRIBUTES} attributes; this one has {}", attributes.len()));
    }
    for (name, value) in &attributes {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if !first || name.len() > ORDER_ATTRIBUTE_NAME || !name.bytes().all(allowed) {
            let shown: String = name.chars().take(40).collect();
            return invalid(format!(
                "the attribute name {shown:?} must be 1 to {ORDER_ATTRIBUTE_NAME} of the characters a-z 0-9 _ - and \
                 begin with a letter"
            ));
        }
        check_text(&format!("the attribute {name}"), value, ORDER_ATTRIBUTE_VALUE)?;
    }
    Ok(attributes)
}
