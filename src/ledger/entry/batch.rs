//! The encoding of what happens to batches.

use super::invalid::InvalidEntry;
use crate::{
    ledger::{
        batch::{BatchId, BatchTerms, FailedCertificate, Filter, Moment, Place, Results, Seal, UnfitDevice},
        wire,
    },
    pattern::Pattern,
    serial::SerialNumber,
};

impl From<&BatchTerms> for wire::BatchCreated {
    fn from(terms: &BatchTerms) -> Self {
        let BatchTerms { id, filter, unfit, .. } = terms;
        let texts = |patterns: &[Pattern]| patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect();
        let unfit = unfit.iter().map(|UnfitDevice { serial_number, device, reason }| wire::UnfitDevice {
            serial_number: serial_number.as_bytes().to_vec(),
            device_id: device.clone(),
            reason: reason.clone(),
        });
        wire::BatchCreated {
            destination: id.destination.clone(),
            number: id.number,
            first: terms.first,
            end: terms.end,
            end_place: terms.end_place.to_number(),
            profiles: texts(&filter.profiles),
            orders: texts(&filter.orders),
            confirmed: filter.moment == Moment::Confirmed,
            settings: terms.settings.clone(),
            unfit: unfit.collect(),
            again: terms.again.iter().map(|serial| serial.as_bytes().to_vec()).collect(),
            certificates: terms.certificates,
            withdrawn: terms.withdrawn,
            chain_hash: terms.chain.to_vec(),
        }
    }
}

impl TryFrom<wire::BatchCreated> for BatchTerms {
    type Error = InvalidEntry;

    fn try_from(created: wire::BatchCreated) -> Result<Self, InvalidEntry> {
        let patterns = |texts: Vec<String>| texts.into_iter().map(Pattern::new).collect();
        let unfit = created.unfit.into_iter().map(|unfit| {
            let serial_number = SerialNumber::try_from(&*unfit.serial_number)?;
            Ok(UnfitDevice { serial_number, device: unfit.device_id, reason: unfit.reason })
        });
        let again = created.again.iter().map(|octets| Ok(SerialNumber::try_from(&**octets)?));
        Ok(BatchTerms {
            id: batch_id(created.destination, created.number)?,
            first: created.first,
            end: created.end,
            end_place: Place::from_number(created.end_place),
            filter: Filter {
                profiles: patterns(created.profiles),
                orders: patterns(created.orders),
                moment: if created.confirmed { Moment::Confirmed } else { Moment::Issued },
            },
            settings: created.settings,
            unfit: unfit.collect::<Result<_, InvalidEntry>>()?,
            again: again.collect::<Result<_, InvalidEntry>>()?,
            certificates: created.certificates,
            withdrawn: created.withdrawn,
            chain: hash(&created.chain_hash)?,
        })
    }
}

impl From<(&BatchId, &Seal)> for wire::BatchSealed {
    fn from((id, seal): (&BatchId, &Seal)) -> Self {
        let (destination, number) = (id.destination.clone(), id.number);
        wire::BatchSealed { destination, number, manifest_sha256: seal.manifest_sha256.to_vec(), jws: seal.jws.clone() }
    }
}

impl TryFrom<wire::BatchSealed> for (BatchId, Seal) {
    type Error = InvalidEntry;

    fn try_from(sealed: wire::BatchSealed) -> Result<Self, InvalidEntry> {
        let seal = Seal { manifest_sha256: hash(&sealed.manifest_sha256)?, jws: sealed.jws };
        Ok((batch_id(sealed.destination, sealed.number)?, seal))
    }
}

impl From<(&BatchId, Option<&Results>)> for wire::BatchAcknowledged {
    fn from((id, results): (&BatchId, Option<&Results>)) -> Self {
        let (destination, number) = (id.destination.clone(), id.number);
        let empty = wire::BatchAcknowledged { destination, number, ..wire::BatchAcknowledged::default() };
        let Some(Results { sha256, registered, already, withdrawn, failed }) = results else { return empty };
        let failed = failed.iter().map(|FailedCertificate { serial_number, code, message }| wire::FailedCertificate {
            serial_number: serial_number.as_bytes().to_vec(),
            code: code.clone(),
            message: message.clone(),
        });
        wire::BatchAcknowledged {
            results_sha256: sha256.to_vec(),
            registered: *registered,
            already: *already,
            withdrawn: *withdrawn,
            failed: failed.collect(),
            ..empty
        }
    }
}

impl TryFrom<wire::BatchAcknowledged> for (BatchId, Option<Results>) {
    type Error = InvalidEntry;

    fn try_from(said: wire::BatchAcknowledged) -> Result<Self, InvalidEntry> {
        let id = batch_id(said.destination, said.number)?;
        if said.results_sha256.is_empty() {
            return Ok((id, None));
        }
        let failed = said.failed.into_iter().map(|failed| {
            let serial_number = SerialNumber::try_from(&*failed.serial_number)?;
            Ok(FailedCertificate { serial_number, code: failed.code, message: failed.message })
        });
        let results = Results {
            sha256: hash(&said.results_sha256)?,
            registered: said.registered,
            already: said.already,
            withdrawn: said.withdrawn,
            failed: failed.collect::<Result<_, InvalidEntry>>()?,
        };
        Ok((id, Some(results)))
    }
}

fn batch_id(destination: String, number: u32) -> Result<BatchId, InvalidEntry> {
    let id = BatchId { destination, number };
    // What is shown must be what is meant.
    id.to_string().parse::<BatchId>().map_err(|_| InvalidEntry::Batch("name or number"))
}

fn hash(octets: &[u8]) -> Result<[u8; 32], InvalidEntry> {
    octets.try_into().map_err(|_| InvalidEntry::Batch("hash"))
}
