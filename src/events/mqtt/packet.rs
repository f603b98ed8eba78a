//! Control packets (MQTT 3.1.1, sections 2 and 3).

use bytes::{Buf, BytesMut};

use super::error::MqttError;
use crate::events::outbox::Message;

pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// What the broker publishes when the connection is lost.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub(crate) message: Message,
    pub(crate) retain: bool,
}

/// The beginning of a session.
pub(crate) struct Connect<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) keep_alive: u16,
    pub(crate) will: &'a Will,
    pub(crate) login: Option<(&'a str, &'a str)>,
}

/// What a broker sends to who only publishes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// CONNACK with its return code.
    Connected(u8),
    /// PUBACK.
    Published(u16),
    /// PINGRESP.
    Pong,
}

impl Connect<'_> {
    /// Section 3.1.
    pub(super) fn encode(&self) -> Vec<u8> {
        // Clean session, will with quality of service 1.
        let mut flags = 0b0000_1110 | u8::from(self.will.retain) << 5;
        let mut payload = field(self.client_id.as_bytes());
        payload.extend(field(self.will.message.topic.as_bytes()));
        payload.extend(field(&self.will.message.payload));
        if let Some((name, password)) = self.login {
            flags |= 0b1000_0000;
            payload.extend(field(name.as_bytes()));
            if !password.is_empty() {
                flags |= 0b0100_0000;
                payload.extend(field(password.as_bytes()));
            }
        }
        let mut body = field(b"MQTT");
        body.extend([4, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(payload);
        packet(0x10, &body)
    }
}

/// Section 3.3, with quality of service 1.
pub(super) fn publish(id: u16, message: &Message, again: bool) -> Vec<u8> {
    let mut body = field(message.topic.as_bytes());
    body.extend(id.to_be_bytes());
    body.extend(&message.payload);
    packet(0x32 | u8::from(again) << 3, &body)
}

fn field(octets: &[u8]) -> Vec<u8> {
    // Topics and names are far shorter.
    let octets = &octets[..octets.len().min(usize::from(u16::MAX))];
    [&(octets.len() as u16).to_be_bytes()[..], octets].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![first];
    // Section 2.2.3.
    let mut left = body.len();
    loop {
        let more = left > 0x7f;
        octets.push((left & 0x7f) as u8 | u8::from(more) << 7);
        left >>= 7;
        if !more {
            break;
        }
    }
    octets.extend_from_slice(body);
    octets
}

/// Takes the next whole packet off the buffer; none if it is not whole yet.
pub(super) fn decode(buffer: &mut BytesMut, longest: usize) -> Result<Option<Incoming>, MqttError> {
    let (mut length, mut header) = (0_usize, 1);
    let Some(first) = buffer.first().copied() else { return Ok(None) };
    loop {
        let Some(octet) = buffer.get(header).copied() else { return Ok(None) };
        length |= usize::from(octet & 0x7f) << (7 * (header - 1));
        header += 1;
        if octet & 0x80 == 0 {
            break;
        }
        if header > 4 {
            return Err(MqttError::Malformed("a length of more than four octets"));
        }
    }
    if length > longest {
        return Err(MqttError::Malformed("a packet that is too long"));
    }
    if buffer.len() < header + length {
        return Ok(None);
    }
    buffer.advance(header);
    let body = buffer.split_to(length);
    match (first, &body[..]) {
        (0x20, [_, code]) => Ok(Some(Incoming::Connected(*code))),
        (0x40, [high, low]) => Ok(Some(Incoming::Published(u16::from_be_bytes([*high, *low])))),
        (0xd0, []) => Ok(Some(Incoming::Pong)),
        _ => Err(MqttError::Malformed("a packet that a publisher is not sent")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Packets come in pieces of any size; what is no packet is an error, never a panic.
    #[test]
    fn packets_in_pieces_are_read_whole() {
        let stream = [0x20, 2, 0, 0, 0x40, 2, 0x12, 0x34, 0xd0, 0];
        let mut buffer = BytesMut::new();
        let mut found = Vec::new();
        for octet in stream {
            buffer.extend_from_slice(&[octet]);
            found.extend(decode(&mut buffer, 256).unwrap());
        }
        assert_eq!(found, [Incoming::Connected(0), Incoming::Published(0x1234), Incoming::Pong]);
        for bad in [&[0x20, 0x80, 0x80, 0x80, 0x80, 1][..], &[0x20, 0xff, 0x7f], &[0x30, 0], &[0x40, 1, 0], &[0, 0]] {
            assert!(decode(&mut BytesMut::from(bad), 256).is_err(), "{bad:?}");
        }
    }

    /// The lengths of section 2.2.3's table.
    #[test]
    fn packet_length_is_encoded_as_the_standard_has_it() {
        for (length, expected) in [(0, vec![0]), (127, vec![0x7f]), (128, vec![0x80, 1]), (16_383, vec![0xff, 0x7f])] {
            let packet = packet(0x32, &vec![0; length]);
            assert_eq!(packet[1..packet.len() - length], expected);
        }
        let message = Message { topic: "a".into(), payload: Bytes::from_static(b"xy") };
        assert_eq!(publish(7, &message, true), [0x3a, 7, 0, 1, b'a', 0, 7, b'x', b'y']);
    }
}
