//! `birthmark vend`

use std::{
    fmt::Write,
    io::ErrorKind,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context, anyhow, bail};
use birthmark::{
    client::Failure,
    ledger::{HashedCode, ListedDevice},
    proto::{
        CancelCodeRequest, CodeHash, CreateCodesRequest, GetOrderRequest, ListCodesRequest, VendingCode, VendingState,
        admin_client::AdminClient, rfc3339, timestamp, vending_client::VendingClient,
    },
    vending::{COST, Code, HashError, write_codes},
};
use clap::Subcommand;
use qrcodegen::{QrCode, QrCodeEcc};
use serde_json::json;

use super::{block_on, daemon::DaemonArgs, device_list, print, print_json, table};

/// Give devices one-time codes by which they get their certificates over EST
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a code for each device; the daemon gets their hashes alone
    #[command(after_long_help = CREATE_AFTER)]
    Create(CreateArgs),
    /// List codes and what became of them
    List(ListArgs),
    /// Let a device's code be used no more
    Cancel(CancelArgs),
}

const CREATE_AFTER: &str = "\
The file of codes (columns device_id, code, order, expires) is the only place where they are: it is written, for its owner \
alone, before the daemon gets their hashes. Of a run that was cut short some codes open nothing: vend list shows which are \
open; make the others anew.

A code opens one certificate, for the device and under the order that it was made for. docs/vending.md says where such a \
daemon may stand.";

/// How many codes go in one call.
const AT_ONCE: usize = 500;

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The order that the certificates are charged to, and whose profile they have
    #[arg(long, value_name = "ID")]
    order: String,

    /// A file with device ids, one on a line; what "order create --devices" reads will do
    #[arg(long, value_name = "FILE")]
    devices: PathBuf,

    /// The file of codes, CSV
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// How long the codes can be used, such as 12h or 14d
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = lifetime)]
    valid: jiff::SignedDuration,

    /// A folder for QR codes, <device-id>.svg, of the device id, a space and the code; created if it does not exist
    #[arg(long, value_name = "DIR")]
    qr: Option<PathBuf>,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only those of this order
    #[arg(long, value_name = "ID")]
    order: Option<String>,

    /// Print comma-separated values with a line of headings
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct CancelArgs {
    /// The device
    device: String,

    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        match args.command {
            Command::Create(args) => create(args).await,
            Command::List(args) => list(args).await,
            Command::Cancel(args) => {
                let mut vending = VendingClient::new(args.daemon.channel().await?);
                let request = CancelCodeRequest { device_id: args.device };
                let code = vending.cancel_code(request).await.map_err(Failure::from)?.into_inner();
                match args.daemon.json {
                    true => print_json(&to_json(&code)),
                    false => print(&format!("the code of {} is {}\n", code.device_id, state(&code))),
                }
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A device and its code.
struct Made {
    device: String,
    code: Code,
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let devices = device_list::read(&args.devices)?;
    let expires = jiff::Timestamp::now().checked_add(args.valid).context("--valid is too long")?;
    // Whoever names an order that there is not, or asks while the daemon is away, has no file of codes that open nothing.
    let channel = args.daemon.channel().await?;
    AdminClient::new(channel.clone())
        .get_order(GetOrderRequest { id: args.order.clone() })
        .await
        .map_err(Failure::from)?;
    let made = codes(&args, &devices, expires)?;
    if let Some(folder) = &args.qr {
        write_qr_codes(folder, &made)?;
    }
    let hashes = hashes(&made)?;
    let mut vending = VendingClient::new(channel);
    for some in hashes.chunks(AT_ONCE) {
        let codes = some.iter().map(|HashedCode { device, salt, hash }| CodeHash {
            device_id: device.clone(),
            salt: salt.to_vec().into(),
            hash: hash.to_vec().into(),
        });
        let request = CreateCodesRequest {
            order: args.order.clone(),
            expires_at: Some(timestamp(expires)),
            memory_kib: COST.memory_kib,
            passes: COST.passes,
            codes: codes.collect(),
        };
        vending
            .create_codes(request)
            .await
            .map_err(Failure::from)
            .context("not all codes were created; those that are in the file and not with the daemon open nothing")?;
    }
    let summary = json!({ "codes": made.len(), "order": args.order, "expires": expires.to_string(), "file": args.out });
    match args.daemon.json {
        true => print_json(&summary),
        false => print(&format!("{} codes until {expires}; {} holds them\n", made.len(), args.out.display())),
    }
}

/// The codes, made and on stable storage before anybody has their hashes.
fn codes(args: &CreateArgs, devices: &[ListedDevice], expires: jiff::Timestamp) -> anyhow::Result<Vec<Made>> {
    let made: Vec<_> = devices
        .iter()
        .map(|device| Ok(Made { device: device.id.clone(), code: Code::generate()? }))
        .collect::<Result<_, HashError>>()?;
    let mut text = table::csv(["device_id", "code", "order", "expires"]);
    for Made { device, code } in &made {
        text.push_str(&table::csv([device, &code.to_text(), &args.order, &expires.to_string()]));
    }
    write_codes(&args.out, &text).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            anyhow!("{} is there already: it may hold codes that are in use; choose another --out", args.out.display())
        }
        _ => anyhow!("cannot write {}: {error}", args.out.display()),
    })?;
    Ok(made)
}

/// The hashes of all codes, made by all processors.
fn hashes(made: &[Made]) -> anyhow::Result<Vec<HashedCode>> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(made.len());
    let next = AtomicUsize::new(0);
    let mut hashes = thread::scope(|scope| {
        let run = || -> Result<Vec<(usize, HashedCode)>, HashError> {
            let mut own = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(Made { device, code }) = made.get(index) else { return Ok(own) };
                own.push((index, code.hashed(device, COST)?));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let joined = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.collect::<Result<Vec<_>, HashError>>()
    })?
    .concat();
    hashes.sort_by_key(|(index, _)| *index);
    Ok(hashes.into_iter().map(|(_, hash)| hash).collect())
}

fn write_qr_codes(folder: &Path, made: &[Made]) -> anyhow::Result<()> {
    let failed = || format!("cannot write to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(failed)?;
    for Made { device, code } in made {
        // What a scanner types into the device's form: id and code.
        let text = format!("{device} {}", code.to_text().replace('-', ""));
        let Ok(qr) = QrCode::encode_text(&text, QrCodeEcc::Medium) else { bail!("{device} fits no QR code") };
        let path = folder.join(format!("{device}.svg"));
        write_codes(&path, &svg(&qr)).with_context(failed)?;
    }
    Ok(())
}

/// With the quiet zone of four modules that ISO/IEC 18004 demands.
fn svg(qr: &QrCode) -> String {
    let side = qr.size() + 8;
    let mut path = String::new();
    for y in 0..qr.size() {
        for x in (0..qr.size()).filter(|x| qr.get_module(*x, y)) {
            // Writing to a String cannot fail.
            let _ = write!(path, "M{},{}h1v1h-1z", x + 4, y + 4);
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\"><rect \
         width=\"100%\" height=\"100%\" fill=\"#fff\"/><path d=\"{path}\"/></svg>\n"
    )
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut vending = VendingClient::new(args.daemon.channel().await?);
    let (mut codes, mut after_batch) = (Vec::new(), 0);
    loop {
        let reply = vending.list_codes(ListCodesRequest { after_batch }).await.map_err(Failure::from)?.into_inner();
        if reply.batch == 0 {
            break;
        }
        after_batch = reply.batch;
        let wanted = |code: &VendingCode| args.order.as_ref().is_none_or(|order| code.order == *order);
        codes.extend(reply.codes.into_iter().filter(wanted));
    }
    if args.daemon.json {
        return print_json(&codes.iter().map(to_json).collect());
    }
    let rows: Vec<Vec<String>> = codes
        .iter()
        .map(|code| {
            let expires = code.expires_at.as_ref().and_then(rfc3339).unwrap_or_default();
            vec![code.device_id.clone(), state(code).to_owned(), code.order.clone(), expires]
        })
        .collect();
    if args.csv {
        let lines: String = rows.iter().map(table::csv).collect();
        return print(&(table::csv(["device_id", "state", "order", "expires"]) + &lines));
    }
    if rows.is_empty() {
        return print("there are no codes; \"birthmark vend create\" makes some\n");
    }
    print(&table::columns(&["DEVICE", "STATE", "ORDER", "EXPIRES"], &rows))
}

fn state(code: &VendingCode) -> &'static str {
    match code.state() {
        VendingState::Unspecified => "unknown",
        VendingState::Open => "open",
        VendingState::Used => "used",
        VendingState::Expired => "expired",
        VendingState::Cancelled => "cancelled",
    }
}

fn to_json(code: &VendingCode) -> serde_json::Value {
    json!({
        "device_id": code.device_id,
        "state": state(code),
        "order": code.order,
        "expires_at": code.expires_at.as_ref().and_then(rfc3339),
    })
}

fn lifetime(text: &str) -> anyhow::Result<jiff::SignedDuration> {
    let span = text.parse::<jiff::Span>().ok();
    let duration = span.and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok());
    duration.filter(|duration| duration.is_positive()).context("a duration is written as 12h or 14d")
}
