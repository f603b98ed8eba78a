//! Which record is meant on the command line.

use anyhow::Context;
use birthmark::proto::get_record_request::By;

/// A serial number, or a device's newest record.
pub(super) fn by(of: &str, serial: bool, device: bool) -> anyhow::Result<By> {
    let digits = of.replace(':', "");
    let looks_like_serial = digits.len() == 40 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if serial || (looks_like_serial && !device) {
        let serial = hex::decode(&digits).with_context(|| format!("\"{of}\" is not a serial number in hex"))?;
        return Ok(By::SerialNumber(serial.into()));
    }
    Ok(By::DeviceId(of.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_of(of: &str, serial: bool, device: bool) -> Option<By> {
        by(of, serial, device).ok()
    }

    #[test]
    fn forty_hex_digits_are_a_serial_number_by_default() {
        let digits = "0A".repeat(20);
        let colons = vec!["0a"; 20].join(":");
        let serial = Some(By::SerialNumber(vec![10; 20].into()));
        assert_eq!(by_of(&digits, false, false), serial);
        assert_eq!(by_of(&colons, false, false), serial);
        assert_eq!(by_of(&digits, false, true), Some(By::DeviceId(digits.clone())));
        assert_eq!(by_of("dev-1", false, false), Some(By::DeviceId("dev-1".into())));
        assert_eq!(by_of("0a0b", true, false), Some(By::SerialNumber(vec![10, 11].into())));
        assert_eq!(by_of("dev-1", true, false), None);
    }
}
