//! `birthmark record`

use std::process::ExitCode;

use anyhow::anyhow;
use birthmark::client::MarkedChannel;
use birthmark::{
    client::Failure,
    ledger::RevocationReason,
    pem::certificate_pem,
    proto::{
        GetRecordRequest, HistoryRequest, ListRecordsRequest, Record, RecordState, RevokeCertificateRequest,
        ScrapCertificateRequest, admin_client::AdminClient, audit_client::AuditClient, get_record_request::By,
        history_request, rfc3339,
    },
};
use bytes::Bytes;
use clap::Subcommand;
use serde_json::json;

use super::{
    audit, block_on,
    daemon::{ConnectionArgs, DaemonArgs},
    print, print_json,
    revoke::{self, RevokeArgs},
    table, which,
};

/// Look up what was issued, and change its state
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the ledger holds about a serial number or a device
    Show(ShowArgs),
    /// List every certificate of an order with its state
    List(ListArgs),
    /// Show all that has happened to a certificate, or to each certificate of a device, and in which batches it went out
    History(HistoryArgs),
    /// Record that a device is scrap: its order may make another one, and the device may be given a new certificate
    Scrap(ScrapArgs),
    /// Record that a certificate is no longer to be trusted, also one that was scrapped, or of many; devices may be
    /// given new ones
    Revoke(RevokeArgs),
}

/// Which record it is.
#[derive(Debug, clap::Args)]
struct Which {
    /// A serial number (40 hex digits, with or without colons), or a device id for the device's newest record
    #[arg(value_name = "SERIAL|DEVICE")]
    of: String,

    /// Take it as a serial number, of whatever length
    #[arg(long, conflicts_with = "device")]
    serial: bool,

    /// Take it as a device id, even if it looks like a serial number
    #[arg(long)]
    device: bool,
}

#[derive(Debug, clap::Args)]
struct HistoryArgs {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// The production order
    #[arg(long, value_name = "ID", required_unless_present = "without_order")]
    order: Option<String>,

    /// The certificates that were issued without an order
    #[arg(long, conflicts_with = "order")]
    without_order: bool,

    /// Print a JSON object for each record, one per line
    #[arg(long)]
    json: bool,

    /// Print comma-separated values with a line of headings, as label software and spreadsheets read them
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, clap::Args)]
struct ScrapArgs {
    #[command(flatten)]
    which: Which,

    /// Why, for people: 1 to 256 characters
    #[arg(long, value_name = "TEXT")]
    reason: String,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    which: Which,

    /// Print the certificate alone, as PEM
    #[arg(long, conflicts_with = "json")]
    pem: bool,

    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        match args.command {
            Command::Show(args) => show(args).await,
            Command::History(args) => history(args).await,
            Command::List(args) => list(args).await,
            Command::Scrap(args) => scrap(args).await,
            Command::Revoke(args) => revoke(args).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let by = by(&args.which)?;
    let mut admin = args.daemon.admin().await?;
    let record = admin.get_record(GetRecordRequest { by: Some(by) }).await.map_err(Failure::from)?.into_inner();
    if args.pem {
        if record.certificate.is_empty() {
            return Err(anyhow!("no certificate: the record is {}", record.state()));
        }
        return print(&certificate_pem(&record.certificate));
    }
    print_one(&record, args.daemon.json)
}

async fn history(args: HistoryArgs) -> anyhow::Result<()> {
    let by = match by(&args.which)? {
        By::SerialNumber(serial_number) => history_request::By::SerialNumber(serial_number),
        By::DeviceId(device_id) => history_request::By::DeviceId(device_id),
    };
    let mut audit = AuditClient::new(args.daemon.channel().await?);
    let found = audit.history(HistoryRequest { by: Some(by) }).await.map_err(Failure::from)?;
    let mut entries = found.into_inner();
    let mut begun = false;
    while let Some(entry) = entries.message().await.map_err(Failure::from)? {
        if args.daemon.json {
            print(&format!("{}\n", entry.json))?;
            continue;
        }
        if !std::mem::replace(&mut begun, true) {
            print(&audit::heading())?;
        }
        print(&audit::row(&entry))?;
    }
    Ok(())
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut admin = AdminClient::new(args.connection.daemon()?.connect().await?);
    let request = ListRecordsRequest { order: args.order.unwrap_or_default() };
    let mut records = admin.list_records(request).await.map_err(Failure::from)?.into_inner();
    // An order may have millions: each is printed as it comes, so only the last column may be of any width.
    if args.csv {
        print(&table::csv(CSV_COLUMNS))?;
    } else if !args.json {
        print(&row(["SERIAL NUMBER", "STATE", "ISSUED", "CHANGED", "DEVICE"]))?;
    }
    while let Some(record) = records.message().await.map_err(Failure::from)? {
        if args.json {
            print(&format!("{}\n", to_json(&record)))?;
            continue;
        }
        let time = |time: &Option<prost_types::Timestamp>| time.as_ref().and_then(rfc3339).unwrap_or_default();
        if args.csv {
            let serial = hex::encode(&record.serial_number);
            let (state, issued, changed) =
                (record.state().to_string(), time(&record.issued_at), time(&record.changed_at));
            let Record { device_id, order, profile, issuer, station, certificate_id, key_sha256, .. } = record;
            let key = hex::encode(key_sha256);
            let cells =
                [device_id, serial, state, order, profile, issuer, station, issued, changed, certificate_id, key];
            print(&table::csv(cells))?;
            continue;
        }
        let (serial, issued, changed) =
            (hex::encode(&record.serial_number), time(&record.issued_at), time(&record.changed_at));
        print(&row([&serial, &record.state().to_string(), &issued, &changed, &record.device_id]))?;
    }
    Ok(())
}

/// The columns of `--csv`.
const CSV_COLUMNS: [&str; 11] = [
    "device_id",
    "serial_number",
    "state",
    "order",
    "profile",
    "issuer",
    "station",
    "issued_at",
    "changed_at",
    "certificate_id",
    "key_sha256",
];

/// A line of a table whose rows are not known beforehand.
fn row([serial, state, issued, changed, device]: [&str; 5]) -> String {
    format!("{serial:<40}  {state:<9}  {issued:<20}  {changed:<20}  {device}\n")
}

async fn scrap(args: ScrapArgs) -> anyhow::Result<()> {
    let mut admin = args.daemon.admin().await?;
    let serial_number = serial_number(&mut admin, &args.which).await?;
    let request = ScrapCertificateRequest { serial_number, reason: args.reason };
    let record = admin.scrap_certificate(request).await.map_err(Failure::from)?.into_inner();
    print_one(&record, args.daemon.json)
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    let RevokeArgs { of: Some(of), serial, device, .. } = &args else { return revoke::many(args).await };
    let which = Which { of: of.clone(), serial: *serial, device: *device };
    let mut admin = args.daemon.admin().await?;
    let serial_number = serial_number(&mut admin, &which).await?;
    // The protocol has the RFC's numbers.
    let request = RevokeCertificateRequest { serial_number, reason: args.reason.code() as i32 };
    let record = admin.revoke_certificate(request).await.map_err(Failure::from)?.into_inner();
    print_one(&record, args.daemon.json)
}

/// The serial number, or that of the device's newest record.
async fn serial_number(admin: &mut AdminClient<MarkedChannel>, which: &Which) -> anyhow::Result<Bytes> {
    match by(which)? {
        By::SerialNumber(serial_number) => Ok(serial_number),
        by => {
            let found = admin.get_record(GetRecordRequest { by: Some(by) }).await.map_err(Failure::from)?;
            Ok(found.into_inner().serial_number)
        }
    }
}

fn print_one(record: &Record, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&to_json(record));
    }
    let text = table::fields(&[
        ("device", Some(record.device_id.clone())),
        ("state", Some(record.state().to_string())),
        ("serial number", Some(hex::encode(&record.serial_number))),
        ("certificate id", present(&record.certificate_id)),
        ("order", Some(record.order.clone())),
        ("profile", Some(record.profile.clone())),
        ("issuer", Some(issuer(record))),
        ("station", Some(record.station.clone())),
        ("key SHA-256", Some(hex::encode(&record.key_sha256))),
        ("replaces", present(&hex::encode(&record.replaces))),
        ("reserved", record.reserved_at.as_ref().and_then(rfc3339)),
        ("issued", record.issued_at.as_ref().and_then(rfc3339)),
        ("changed", record.changed_at.as_ref().and_then(rfc3339)),
        ("changed by", present(&record.changed_by)),
        ("scrap reason", present(&record.scrap_reason)),
        ("revocation reason", revocation_reason(record).map(|reason| reason.to_string())),
    ]);
    print(&text)
}

fn by(which: &Which) -> anyhow::Result<By> {
    which::by(&which.of, which.serial, which.device)
}

/// The issuer's name, and which of that name it was.
fn issuer(record: &Record) -> String {
    match record.issuer_generation {
        0 => record.issuer.clone(),
        generation => format!("{}, generation {generation}", record.issuer),
    }
}

/// What only some records have.
fn present(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn revocation_reason(record: &Record) -> Option<RevocationReason> {
    let code = u32::try_from(record.revocation_reason).ok().filter(|_| record.state() == RecordState::Revoked)?;
    RevocationReason::try_from(code).ok()
}

fn to_json(record: &Record) -> serde_json::Value {
    json!({
        "serial_number": hex::encode(&record.serial_number),
        "state": record.state().to_string(),
        "device_id": record.device_id,
        "order": record.order,
        "profile": record.profile,
        "issuer": record.issuer,
        "issuer_generation": (record.issuer_generation != 0).then_some(record.issuer_generation),
        "issuer_id": (record.issuer_id != 0).then_some(record.issuer_id),
        "station": record.station,
        "key_sha256": hex::encode(&record.key_sha256),
        "reserved_at": record.reserved_at.as_ref().and_then(rfc3339),
        "issued_at": record.issued_at.as_ref().and_then(rfc3339),
        "changed_at": record.changed_at.as_ref().and_then(rfc3339),
        "changed_by": present(&record.changed_by),
        "scrap_reason": present(&record.scrap_reason),
        "revocation_reason": revocation_reason(record).map(RevocationReason::name),
        "replaces": present(&hex::encode(&record.replaces)),
        "certificate_id": present(&record.certificate_id),
        "certificate_pem": (!record.certificate.is_empty()).then(|| certificate_pem(&record.certificate)),
    })
}
