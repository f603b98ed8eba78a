//! `birthmark record revoke`

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context, bail};
use birthmark::client::MarkedChannel;
use birthmark::{
    client::Failure,
    ledger::RevocationReason,
    proto::{
        GetRecordRequest, ListRecordsRequest, RecordState, RevokeCertificatesReply, RevokeCertificatesRequest,
        admin_client::AdminClient, get_record_request::By,
    },
    text_file,
};
use bytes::Bytes;
use serde_json::json;

use super::{daemon::DaemonArgs, print, print_json, which};

/// How many serial numbers are sent at once.
const PIECE: usize = 4096;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --file or --order all certificates are revoked for one reason. Where the configuration lets one operator \
    revoke only so many alone ([approval] revocations_above), a second one agrees to the whole list (\"birthmark approval grant\"); \
    then the same command does it."
)]
pub(crate) struct RevokeArgs {
    /// A serial number (40 hex digits, with or without colons), or a device id for the device's newest record
    #[arg(value_name = "SERIAL|DEVICE", required_unless_present_any = ["file", "order"])]
    pub(super) of: Option<String>,

    /// Take it as a serial number, of whatever length
    #[arg(long, conflicts_with = "device")]
    pub(super) serial: bool,

    /// Take it as a device id, even if it looks like a serial number
    #[arg(long)]
    pub(super) device: bool,

    /// All that this file names: a serial number or a device id a line; # begins a comment
    #[arg(long, value_name = "FILE", conflicts_with = "of")]
    pub(super) file: Option<PathBuf>,

    /// All certificates of this order, scrapped ones too
    #[arg(long, value_name = "ID", conflicts_with_all = ["of", "file"])]
    pub(super) order: Option<String>,

    /// Why: unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation or privilegeWithdrawn
    #[arg(long, value_name = "REASON", default_value_t = RevocationReason::Unspecified)]
    pub(super) reason: RevocationReason,

    #[command(flatten)]
    pub(super) daemon: DaemonArgs,
}

/// Revokes all that a file or an order names.
pub(super) async fn many(args: RevokeArgs) -> anyhow::Result<()> {
    let mut admin = args.daemon.admin().await?;
    let list = match (&args.file, &args.order) {
        (Some(file), _) => of_file(&mut admin, file, &args).await?,
        (None, Some(order)) => of_order(&mut admin, order).await?,
        (None, None) => BTreeSet::new(),
    };
    if list.is_empty() {
        bail!("there is no certificate to revoke");
    }
    // The protocol has the RFC's numbers.
    let reason = args.reason.code() as i32;
    let list: Vec<Bytes> = list.into_iter().collect();
    let pieces: Vec<_> = list.chunks(PIECE).map(<[Bytes]>::to_vec).collect();
    let requests = pieces.into_iter().map(move |serial_numbers| RevokeCertificatesRequest { reason, serial_numbers });
    let replies = admin.revoke_certificates(tokio_stream::iter(requests)).await.map_err(Failure::from)?;
    let mut replies = replies.into_inner();
    let mut told = RevokeCertificatesReply::default();
    while let Some(reply) = replies.message().await.map_err(Failure::from)? {
        told = reply;
    }
    if told.done != told.of || told.of == 0 {
        bail!("the daemon did not say how it ended; ask again: what is revoked stays so");
    }
    tell(&told, args.daemon.json)
}

fn tell(told: &RevokeCertificatesReply, json: bool) -> anyhow::Result<()> {
    let RevokeCertificatesReply { revoked, refused, refusals, .. } = told;
    if json {
        let refusals: Vec<_> = refusals
            .iter()
            .map(|refusal| json!({ "serial_number": hex::encode(&refusal.serial_number), "message": refusal.message }))
            .collect();
        print_json(&json!({ "revoked": revoked, "refused": refused, "refusals": refusals }))?;
    } else {
        print(&format!("{revoked} certificates are revoked\n"))?;
        for refusal in refusals {
            eprintln!("birthmark: {}: {}", hex::encode(&refusal.serial_number), refusal.message);
        }
    }
    if *refused > 0 {
        bail!("{refused} of {} certificates cannot be revoked", told.of);
    }
    Ok(())
}

/// What a file names.
async fn of_file(
    admin: &mut AdminClient<MarkedChannel>,
    file: &std::path::Path,
    args: &RevokeArgs,
) -> anyhow::Result<BTreeSet<Bytes>> {
    let read = || -> anyhow::Result<String> {
        let octets = std::fs::read(file)?;
        Ok(text_file::decode(&octets)?.into_owned())
    };
    let text = read().with_context(|| format!("cannot read {}", file.display()))?;
    let mut list = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let name = line.split('#').next().unwrap_or_default().trim();
        if name.is_empty() {
            continue;
        }
        let found = match which::by(name, args.serial, args.device)? {
            By::SerialNumber(serial_number) => Ok(serial_number),
            by => {
                let record = admin.get_record(GetRecordRequest { by: Some(by) }).await;
                record.map(|record| record.into_inner().serial_number).map_err(Failure::from)
            }
        };
        list.insert(found.with_context(|| format!("{}, line {}: {name}", file.display(), number + 1))?);
    }
    Ok(list)
}

/// What an order has that is not revoked.
async fn of_order(admin: &mut AdminClient<MarkedChannel>, order: &str) -> anyhow::Result<BTreeSet<Bytes>> {
    let request = ListRecordsRequest { order: order.to_owned() };
    let mut records = admin.list_records(request).await.map_err(Failure::from)?.into_inner();
    let mut list = BTreeSet::new();
    while let Some(record) = records.message().await.map_err(Failure::from)? {
        if record.state() != RecordState::Revoked {
            list.insert(record.serial_number);
        }
    }
    Ok(list)
}
