//! Where the broker is.

use std::{net::IpAddr, str::FromStr};

use tonic::transport::Uri;

use super::error::EventsError;

/// The address of an MQTT broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

impl FromStr for Broker {
    type Err = EventsError;

    fn from_str(text: &str) -> Result<Self, EventsError> {
        let unusable = || EventsError::Address(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| unusable())?;
        let tls = match uri.scheme_str() {
            Some("mqtts") => true,
            Some("mqtt") => false,
            _ => return Err(unusable()),
        };
        let authority = uri.authority().ok_or_else(unusable)?;
        // A password on a command line is for everybody to read.
        if authority.as_str().contains('@') || uri.path().len() > 1 || uri.query().is_some() {
            return Err(unusable());
        }
        if authority.port().is_none() && authority.as_str() != authority.host() {
            return Err(unusable());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(unusable());
        }
        let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !tls && !local {
            return Err(EventsError::Plain(text.to_owned()));
        }
        Ok(Broker { host, port: authority.port_u16().unwrap_or(if tls { 8883 } else { 1883 }), tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without TLS nothing leaves the machine, and no address has a password.
    #[test]
    fn address_of_a_broker_is_read_strictly() {
        let read = |text: &str| text.parse::<Broker>().map(|broker| (broker.host, broker.port, broker.tls));
        assert_eq!(read("mqtts://mes.example").unwrap(), ("mes.example".into(), 8883, true));
        assert_eq!(read("mqtts://[::1]:8884").unwrap(), ("::1".into(), 8884, true));
        assert_eq!(read("mqtt://localhost").unwrap(), ("localhost".into(), 1883, false));
        assert!(matches!(read("mqtt://mes.example"), Err(EventsError::Plain(_))));
        for bad in
            ["mes.example", "https://mes.example", "mqtts://", "mqtts://u:p@mes", "mqtts://mes/topic", "mqtts://mes:x"]
        {
            assert!(matches!(read(bad), Err(EventsError::Address(_))), "{bad}");
        }
    }
}
