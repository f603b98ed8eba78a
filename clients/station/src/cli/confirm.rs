//! `birthmark station confirm`

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};
use birthmark_base::{id::DeviceId, quote::quoted, serial::SerialNumber, text_file};
use birthmark_client::{Client, Named};

use super::{
    connection::DaemonArgs,
    shared::{print, print_json},
    signals::{INTERRUPTED, TERMINATED, stop_at_signals},
    watching::WatchArgs,
};
use crate::{
    confirm::{self, Found, Refused},
    confirm_folder::{self, Watch},
    output::Report,
    progress::Progress,
    sign::{End, Stop},
};

pub(super) const AFTER: &str = "\
Confirming again is free: after a failure, run it again.

From a folder, every *.pem file that begins with a device's certificate is taken, whatever its name, and every \
certificate once. Files with a CA certificate, a key or something else are named and skipped.

With --watch, the line puts a device's certificate (*.pem, .crt, .cer or .der) into DIR once the device has it. It is \
confirmed if it is octet for octet what was issued, and moves to DIR/done/, or with why not in a .error.json to \
DIR/failed/; what came on earlier days lies in a folder of its day there. While the daemon is away files stay. Let DIR be \
another folder than that of \"birthmark station sign --out\", which knows by its files who has a certificate.

With --read-back, a test stand proves what the device really stores: the certificate is confirmed only if it is octet for \
octet the one that was issued (otherwise CERTIFICATE_MISMATCH).

With --json, standard output has one object: confirmed, a number, and refused, an array of serial_number (none for a \
file that cannot be read), device_id (if it was named), reason and message. With --watch it has an object per file, with \
file, status (confirmed or refused), serial_number, and reason and message of one that is refused.

Exit codes:
  0  every certificate is confirmed
  1  none is confirmed, there is none, or the daemon could not be asked
  2  wrong usage
  3  some were refused, or a file cannot be read
  130, 143  with --watch: stopped by SIGINT (Ctrl-C), by SIGTERM";

#[doc(hidden)]
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Serial numbers (40 hex digits, with or without colons) or device ids, for the device's newest certificate; or - for
    /// one per line on standard input, until it ends
    #[arg(value_name = "SERIAL|DEVICE", required_unless_present_any = ["certificates", "read_back"])]
    which: Vec<String>,

    /// Take what is given as device ids, also what looks like a serial number
    #[arg(long)]
    device: bool,

    /// A certificate, or every certificate in a folder, as "birthmark station sign" writes them
    #[arg(long, value_name = "PATH", conflicts_with_all = ["which", "device"])]
    certificates: Option<PathBuf>,

    /// Go on and confirm whatever comes into the folder of --certificates, until stopped
    #[arg(long, requires = "certificates")]
    watch: bool,

    #[command(flatten)]
    watching: WatchArgs,

    /// The certificate that was read back from the device, PEM or DER: confirm it only if it is what was issued; with a
    /// DEVICE, only if it is this device's
    #[arg(long, value_name = "FILE", conflicts_with = "certificates")]
    read_back: Option<PathBuf>,

    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(folder) = args.certificates.clone().filter(|_| args.watch) {
        return watch(folder, args).await;
    }
    let (certificates, unreadable) = match (&args.certificates, &args.read_back) {
        (Some(folder), _) => certificates_in(folder)?,
        (None, Some(file)) => (vec![read_back(file, &args.which)?], Vec::new()),
        (None, None) => (named(&args.which, args.device)?, Vec::new()),
    };
    // What ends without a line may be a program that failed.
    ensure!(!certificates.is_empty() || !unreadable.is_empty(), "standard input names no certificate");
    // Whoever starts it sees at once if the daemon is away.
    let client = Client::from(args.daemon.connection.daemon()?).patience(Duration::ZERO);
    let mut summary = confirm::confirm(&client, &certificates).await?;
    summary.refused.extend(unreadable);
    if args.daemon.json {
        print_json(&serde_json::to_value(&summary)?)?;
    } else {
        for Refused { serial_number, device_id, reason, message } in &summary.refused {
            let name = device_id.as_ref().or(serial_number.as_ref());
            let name = name.map(|name| format!("{name}: ")).unwrap_or_default();
            eprintln!("birthmark: {name}{message} ({reason})");
        }
        print(&format!("{} confirmed, {} refused\n", summary.confirmed, summary.refused.len()))?;
    }
    Ok(match (summary.confirmed, summary.refused.len()) {
        (_, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::FAILURE,
        _ => ExitCode::from(3),
    })
}

async fn watch(folder: PathBuf, args: Args) -> anyhow::Result<ExitCode> {
    ensure!(folder.is_dir(), "--watch needs a folder, and {} is not one", folder.display());
    let WatchArgs { poll, settle, keep_days } = args.watching;
    let watch = Watch { folder, poll, settle, keep_days };
    // A file stays while the daemon is away, so nothing is waited for inside a call.
    let client = Client::from(args.daemon.connection.daemon()?).patience(Duration::ZERO);
    let report = args.daemon.json.then(|| Box::new(std::io::stdout()) as Report);
    let progress = Arc::new(Progress::on_standard_error());
    match confirm_folder::run(&client, watch, progress, report, stop_at_signals()?).await {
        End::Failed(message) => Err(anyhow!(message)),
        End::Stopped(Stop::Terminate) => Ok(ExitCode::from(TERMINATED)),
        End::Stopped(Stop::Interrupt) | End::Done => Ok(ExitCode::from(INTERRUPTED)),
    }
}

/// The certificates of a folder or file, and what of it cannot be read.
fn certificates_in(folder: &Path) -> anyhow::Result<(Vec<Named>, Vec<Refused>)> {
    let Found { serial_numbers, skipped, unreadable } = confirm::serial_numbers_in(folder)?;
    for file in &skipped {
        eprintln!("birthmark: skipped: {file}");
    }
    if serial_numbers.is_empty() && unreadable.is_empty() {
        bail!("there is no certificate of a device in {}", folder.display());
    }
    Ok((serial_numbers.into_iter().map(Named::Serial).collect(), unreadable))
}

fn read_back(file: &Path, which: &[String]) -> anyhow::Result<Named> {
    let device_id = match which {
        [] => String::new(),
        [device] => device.clone(),
        _ => bail!("--read-back is about one device, and {} are named", which.len()),
    };
    Ok(Named::ReadBack { certificate: confirm::read_back(file)?, device_id })
}

/// What looks like a serial number is one, unless all are device ids.
fn named(texts: &[String], devices: bool) -> anyhow::Result<Vec<Named>> {
    let looks_like_one = |text: &str| text.bytes().filter(|byte| *byte != b':').all(|byte| byte.is_ascii_hexdigit());
    let parse = |text: &str| match text.parse::<SerialNumber>() {
        Ok(serial_number) if !devices => Ok(Named::Serial(serial_number)),
        Err(error) if !devices && text.len() >= 40 && looks_like_one(text) => Err(error).with_context(|| quoted(text)),
        _ if DeviceId::check(text).is_ok() => Ok(Named::Device(text.to_owned())),
        _ => Err(anyhow!("{} is neither a serial number (40 hex digits) nor a device id", quoted(text))),
    };
    match texts {
        [text] if text == "-" => {
            let mut octets = Vec::new();
            std::io::stdin().take(text_file::LONGEST + 1).read_to_end(&mut octets).context("standard input")?;
            ensure!(octets.len() as u64 <= text_file::LONGEST, "standard input is longer than serial numbers can be");
            let lines = text_file::decode(&octets).context("standard input")?;
            lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(parse).collect()
        }
        texts => texts.iter().map(|text| parse(text)).collect(),
    }
}
