//! `birthmark record`

use std::process::ExitCode;

use anyhow::{Context, anyhow};
use birthmark::{
    client::{Connection, Failure, certificate_pem, rfc3339},
    proto::{GetRecordRequest, Record, RecordState, admin_client::AdminClient, get_record_request::By},
};
use clap::Subcommand;
use serde_json::json;

use super::{block_on, print, print_json, table};

/// Look up what was issued
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the ledger holds about a serial number or a device
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// A serial number (40 hex digits, with or without colons) or a device id, whose newest record it is
    #[arg(value_name = "SERIAL|DEVICE")]
    of: String,

    /// It is a serial number, of whatever length
    #[arg(long, conflicts_with = "device")]
    serial: bool,

    /// It is a device id, even if it looks like a serial number
    #[arg(long)]
    device: bool,

    /// Print the certificate alone, as PEM
    #[arg(long, conflicts_with = "json")]
    pem: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connection: Connection,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Command::Show(args) = args.command;
    block_on(show(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let by = by(&args)?;
    let mut admin = AdminClient::new(args.connection.daemon()?.connect().await?);
    let record = admin.get_record(GetRecordRequest { by: Some(by) }).await.map_err(Failure::from)?.into_inner();
    if args.json {
        return print_json(&to_json(&record));
    }
    if args.pem {
        if record.certificate.is_empty() {
            return Err(anyhow!("no certificate: the record is {}", state(&record)));
        }
        return print(&certificate_pem(&record.certificate));
    }
    let text = table::fields(&[
        ("device", Some(record.device_id.clone())),
        ("state", Some(state(&record).to_owned())),
        ("serial number", Some(hex::encode(&record.serial_number))),
        ("certificate id", issued(&record.certificate_id)),
        ("order", Some(record.order.clone())),
        ("profile", Some(record.profile.clone())),
        ("issuer", Some(record.issuer.clone())),
        ("station", Some(record.station.clone())),
        ("key SHA-256", Some(hex::encode(&record.key_hash))),
        ("reserved", record.reserved_at.as_ref().and_then(rfc3339)),
        ("issued", record.issued_at.as_ref().and_then(rfc3339)),
    ]);
    print(&text)
}

fn by(args: &ShowArgs) -> anyhow::Result<By> {
    let digits = args.of.replace(':', "");
    let looks_like_serial = digits.len() == 40 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if args.serial || (looks_like_serial && !args.device) {
        let serial = hex::decode(&digits).with_context(|| format!("\"{}\" is not a serial number in hex", args.of))?;
        return Ok(By::SerialNumber(serial.into()));
    }
    Ok(By::DeviceId(args.of.clone()))
}

fn state(record: &Record) -> &'static str {
    match record.state() {
        RecordState::Unspecified => "of a state that this version does not know",
        RecordState::Reserved => "reserved",
        RecordState::Issued => "issued",
        RecordState::Abandoned => "abandoned",
    }
}

/// What only an issued certificate has.
fn issued(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn to_json(record: &Record) -> serde_json::Value {
    json!({
        "serial_number": hex::encode(&record.serial_number),
        "state": state(record),
        "device_id": record.device_id,
        "order": record.order,
        "profile": record.profile,
        "issuer": record.issuer,
        "station": record.station,
        "key_sha256": hex::encode(&record.key_hash),
        "reserved_at": record.reserved_at.as_ref().and_then(rfc3339),
        "issued_at": record.issued_at.as_ref().and_then(rfc3339),
        "certificate_id": issued(&record.certificate_id),
        "certificate_pem": (!record.certificate.is_empty()).then(|| certificate_pem(&record.certificate)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_of(of: &str, serial: bool, device: bool) -> Option<By> {
        let connection = Connection::default();
        by(&ShowArgs { of: of.to_owned(), serial, device, pem: false, json: false, connection }).ok()
    }

    #[test]
    fn forty_hex_digits_are_a_serial_number_unless_told_otherwise() {
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
