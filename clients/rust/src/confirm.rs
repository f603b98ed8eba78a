//! Confirms that devices have taken their certificates.

use std::time::Duration;

use birthmark_base::serial::SerialNumber;
use bytes::Bytes;

use crate::{
    Failure,
    limits::CONFIRM_SERIAL_NUMBERS,
    proto::{ConfirmReply, ConfirmRequest, ReadBack},
    request::mismatched,
};

/// How many go in one call: as many certificates as are allowed would be too large a message.
const AT_ONCE: usize = CONFIRM_SERIAL_NUMBERS / 4;

/// How a certificate is named.
#[derive(Clone, Debug)]
pub enum Named {
    /// By its serial number.
    Serial(SerialNumber),
    /// By its device, whose newest it is.
    Device(String),
    /// By itself, as a device stores it: it must be what was issued.
    ReadBack {
        /// DER.
        certificate: Vec<u8>,
        /// The device that it was read from; empty if that is not known.
        device_id: String,
    },
}

/// What became of one certificate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Confirmation {
    /// Its serial number, big-endian; empty if there is none.
    pub serial_number: Bytes,
    /// The device, if it was named by it.
    pub device_id: String,
    /// Why it is not confirmed; none: it is, now or since before.
    pub error: Option<Failure>,
}

/// Certificates that are being confirmed.
pub(crate) struct Confirming<'a> {
    certificates: &'a [Named],
    results: Vec<Option<Confirmation>>,
    /// The indexes of those that are to be asked for now.
    due: Vec<usize>,
    /// Those of the call that is under way.
    asked: Vec<usize>,
}

impl<'a> Confirming<'a> {
    pub(crate) fn new(certificates: &'a [Named]) -> Self {
        let (results, due) = (vec![None; certificates.len()], (0..certificates.len()).rev().collect());
        Confirming { certificates, results, due, asked: Vec::new() }
    }

    /// The next call, if one is due. It asks for serial numbers, devices and read-backs in the order of the replies.
    pub(crate) fn request(&mut self) -> Option<ConfirmRequest> {
        let some = self.due.split_off(self.due.len().saturating_sub(AT_ONCE));
        let mut request = ConfirmRequest::default();
        let (mut serials, mut devices, mut read_back) = (Vec::new(), Vec::new(), Vec::new());
        for index in some.into_iter().rev() {
            match self.certificates.get(index)? {
                Named::Serial(serial_number) => {
                    request.serial_numbers.push(serial_number.as_bytes().to_vec().into());
                    serials.push(index);
                }
                Named::Device(device) => {
                    request.device_ids.push(device.clone());
                    devices.push(index);
                }
                Named::ReadBack { certificate, device_id } => {
                    let (certificate, device_id) = (certificate.clone().into(), device_id.clone());
                    request.read_back.push(ReadBack { certificate, device_id });
                    read_back.push(index);
                }
            }
        }
        self.asked = [serials, devices, read_back].concat();
        (!self.asked.is_empty()).then_some(request)
    }

    pub(crate) fn answered(&mut self, reply: ConfirmReply) {
        let mut results = reply.results.into_iter();
        for index in std::mem::take(&mut self.asked) {
            let confirmation = match results.next() {
                Some(result) => Confirmation {
                    error: result.error.as_ref().map(Failure::from),
                    serial_number: result.serial_number,
                    device_id: result.device_id,
                },
                None => Confirmation {
                    serial_number: Bytes::new(),
                    device_id: String::new(),
                    error: Some(mismatched("the daemon's reply does not answer all of the call".to_owned())),
                },
            };
            if let Some(result) = self.results.get_mut(index) {
                *result = Some(confirmation);
            }
        }
    }

    /// The longest that the daemon asks to wait for those that it refuses for now; none if it refuses none so.
    pub(crate) fn pause(&self) -> Option<Duration> {
        self.passing().map(|(_, pause)| pause).max()
    }

    /// Those that were refused for now are due once more.
    pub(crate) fn again(&mut self) {
        self.due = self.passing().map(|(index, _)| index).collect();
        self.due.reverse();
    }

    fn passing(&self) -> impl Iterator<Item = (usize, Duration)> {
        self.results.iter().enumerate().filter_map(|(index, result)| {
            let pause = result.as_ref()?.error.as_ref()?.retry_after?;
            Some((index, pause))
        })
    }

    pub(crate) fn results(self) -> Vec<Confirmation> {
        self.results.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ConfirmResult;

    /// However certificates are named and split into calls, each result stands at its certificate's place.
    #[test]
    fn results_stand_in_the_order_of_the_certificates() {
        let named: Vec<_> = (0..1001_u64)
            .map(|n| match n % 3 {
                0 => Named::Serial(SerialNumber::assembled(n + (1 << 56), [0; 4], [0; 8])),
                1 => Named::Device(format!("d{n}")),
                _ => Named::ReadBack { certificate: vec![0], device_id: format!("d{n}") },
            })
            .collect();
        let mut confirming = Confirming::new(&named);
        let mut calls = 0;
        while let Some(request) = confirming.request() {
            let serials = request.serial_numbers.into_iter().map(|serial_number| (serial_number, String::new()));
            let devices = request.device_ids.into_iter().map(|device| (Bytes::new(), device));
            let read_back = request.read_back.into_iter().map(|read| (Bytes::new(), read.device_id));
            let results = serials.chain(devices).chain(read_back).map(|(serial_number, device_id)| ConfirmResult {
                serial_number,
                device_id,
                ..ConfirmResult::default()
            });
            confirming.answered(ConfirmReply { results: results.collect() });
            calls += 1;
        }
        assert_eq!((calls, confirming.pause()), (5, None));
        for (named, result) in named.iter().zip(confirming.results()) {
            match named {
                Named::Serial(serial_number) => assert_eq!(result.serial_number, serial_number.as_bytes().as_slice()),
                Named::Device(device) | Named::ReadBack { device_id: device, .. } => {
                    assert_eq!(result.device_id, *device)
                }
            }
        }
    }
}
