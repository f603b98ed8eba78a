//! The files of a batch, made from its entry and the journal.

use std::{collections::HashSet, sync::Arc};

use tokio::runtime::Handle;

use super::{
    describe::Describer,
    destination::{Destinations, ManifestSigner},
    error::BatchError,
};
use crate::{
    export::{
        bundle::{Bundle, Header},
        certificate::{Replacement, Withdrawn},
        jws::{compact, signing_input},
        manifest::{Filter, Unfit},
        sink::Sink,
    },
    hash::sha256,
    ledger::{BatchContent, BatchId, BatchTerms, FoundBatch, LedgerError, Moment, RecordState, Seal, Withdrawal},
};

/// Writes a batch's files to a sink, and gives the sink back: certificates, withdrawals, then what says and signs what they
/// are. They are the same each time, or refused. Blocks; `runtime` is where the HSM is asked.
///
/// # Errors
/// There is no such batch, the ledger cannot be read, the sink takes nothing, or the files are not what was signed.
pub(crate) fn render<S: Sink>(
    destinations: &Destinations,
    id: &BatchId,
    sink: S,
    runtime: &Handle,
    progress: &dyn Fn(u64),
) -> Result<S, BatchError> {
    let unknown = || BatchError::BatchUnknown(id.clone());
    let FoundBatch { terms, batch, mut content } = destinations.records.batch_content(id)?.ok_or_else(unknown)?;
    let header = header(&terms, batch.created_at, batch.created_by.to_string());
    let mut bundle = Bundle::new(header, sink)?;
    let mut describer = Describer::new(&destinations.records);
    let left_out: HashSet<_> = terms.unfit.iter().map(|unfit| unfit.serial_number).collect();
    while let Some(members) = content.page()? {
        for member in members.into_iter().filter(|member| !left_out.contains(&member.record.serial_number)) {
            bundle.certificate(&describer.describe(member)?.certificate())?;
        }
        progress(content.end().end - content.end().first);
    }
    check_range(&terms, &*content)?;
    for serial in &terms.again {
        let what = || format!("the certificate {serial} was not live where it was cut");
        let member = content.member(serial)?.ok_or_else(|| changed(id, what()))?;
        bundle.certificate(&describer.describe(member)?.certificate())?;
    }
    for serial in content.withdrawals()? {
        write_withdrawal(&mut bundle, id, &content.withdrawal(&serial)?)?;
    }
    let unsealed = bundle.finish()?;
    let jws = match &batch.seal {
        Some(seal) if seal.manifest_sha256 == unsealed.manifest_sha256() => join(&seal.jws, unsealed.manifest()),
        Some(_) => return Err(changed(id, "its manifest has another digest".into())),
        None => {
            let signer = destinations.signer.clone().ok_or_else(|| BatchError::NoAuditKey(id.clone()))?;
            let signed = runtime.block_on(sign(&signer, unsealed.manifest()))?;
            let seal = Seal { manifest_sha256: unsealed.manifest_sha256(), jws: without_payload(&signed) };
            let recorded = runtime.block_on(destinations.committer.seal_batch(id.clone(), seal))?;
            if recorded.manifest_sha256 != unsealed.manifest_sha256() {
                return Err(changed(id, "its manifest has another digest".into()));
            }
            // Whoever was first has signed it.
            join(&recorded.jws, unsealed.manifest())
        }
    };
    Ok(unsealed.seal(&jws)?)
}

fn changed(id: &BatchId, what: String) -> BatchError {
    BatchError::Changed { id: id.clone(), what }
}

/// What was read is what was looked at when the batch was cut.
fn check_range(terms: &BatchTerms, content: &dyn BatchContent) -> Result<(), BatchError> {
    let read = content.end();
    match (read.first, read.end, read.chain) == (terms.first, terms.end, terms.chain) {
        true => Ok(()),
        false => Err(changed(&terms.id, format!("the journal has other entries up to number {}", terms.end))),
    }
}

fn header(terms: &Arc<BatchTerms>, created_at: jiff::Timestamp, created_by: String) -> Header {
    let texts =
        |patterns: &[crate::pattern::Pattern]| patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect();
    let unfit = terms.unfit.iter().map(|unfit| Unfit {
        device_id: unfit.device.clone(),
        serial_number: unfit.serial_number.to_string(),
        reason: unfit.reason.clone(),
    });
    let only = match terms.filter.moment {
        Moment::Issued => "issued",
        Moment::Confirmed => "confirmed",
    };
    Header {
        destination: terms.id.destination.clone(),
        number: terms.id.number,
        first: terms.first,
        end: terms.end,
        chain_hash: terms.chain,
        created_at,
        created_by,
        unfit: unfit.collect(),
        certificates: terms.certificates,
        withdrawn: terms.withdrawn,
        filter: Filter {
            profiles: texts(&terms.filter.profiles),
            orders: texts(&terms.filter.orders),
            only: only.to_owned(),
        },
        settings: terms.settings.clone(),
    }
}

fn write_withdrawal<S: Sink>(bundle: &mut Bundle<S>, id: &BatchId, withdrawal: &Withdrawal) -> Result<(), BatchError> {
    let Withdrawal { record, change, batch, replaced_by } = withdrawal;
    let certificate_id = |der: &[u8]| hex::encode(sha256(der));
    let replacement = replaced_by.as_ref().map(|(serial, der)| (serial, certificate_id(der)));
    let out = BatchId { destination: id.destination.clone(), number: *batch }.to_string();
    let lost = || LedgerError::Corrupt(format!("the certificate {} is not recorded", record.serial_number).into());
    let issued = record.issued.as_ref().ok_or_else(lost)?;
    bundle.withdrawn(&Withdrawn {
        serial_number: record.serial_number.as_bytes(),
        certificate_id: &certificate_id(&issued.certificate),
        device_id: &record.holder.device,
        reason: if record.state == RecordState::Revoked { "revoked" } else { "scrapped" },
        code: change.revocation_reason.map_or("", |reason| reason.name()),
        text: &change.scrap_reason,
        at: change.at,
        batch: &out,
        replaced_by: replacement
            .as_ref()
            .map(|(serial, id)| Replacement { certificate_id: id, serial_number: serial.as_bytes() }),
    })?;
    Ok(())
}

/// The manifest's JWS (RFC 7515), signed by the audit key.
async fn sign(signer: &ManifestSigner, manifest: &[u8]) -> Result<String, BatchError> {
    let input = signing_input(&signer.key, manifest)?;
    let signature = signer.signer.sign(input.clone().into_bytes()).await?;
    Ok(compact(&signer.key, input, signature.as_bytes())?)
}

/// A compact JWS without its payload (RFC 7515 appendix F): that is the manifest, which the journal need not have.
fn without_payload(jws: &str) -> String {
    let mut parts = jws.split('.');
    let (header, signature) = (parts.next().unwrap_or_default(), parts.next_back().unwrap_or_default());
    format!("{header}..{signature}")
}

/// The whole JWS again.
fn join(without_payload: &str, manifest: &[u8]) -> String {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    without_payload.replacen("..", &format!(".{}.", BASE64_URL_SAFE_NO_PAD.encode(manifest)), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jws_without_its_payload_is_joined_again() {
        // "abc" in base64url.
        let jws = "aGVhZGVy.YWJj.c2lnbmF0dXJl";
        assert_eq!(without_payload(jws), "aGVhZGVy..c2lnbmF0dXJl");
        assert_eq!(join(&without_payload(jws), b"abc"), jws);
    }
}
