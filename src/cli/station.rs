//! `birthmark station`

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{self, ExitCode},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};
use birthmark::{
    client::Daemon,
    id::DeviceId,
    quote::quoted,
    serial::SerialNumber,
    station::{
        confirm::{self, Found, Named, Refused},
        input::Input,
        output::Report,
        progress::{Progress, plural},
        renew::{self, RenewError},
        sign::{self, End, Job, Stop},
    },
    text_file,
};
use clap::{Subcommand, value_parser};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    daemon::{ConnectionArgs, DaemonArgs},
    station_check, stations,
};

/// Enroll stations, sign devices' CSRs, and confirm that devices have installed their certificates
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key and a certificate for a station, an operator, an auditor or the daemon itself
    Enroll(Box<super::enroll::Args>),
    /// Make a station's key where it is used, and the request to certify it
    Request(stations::RequestArgs),
    /// Renew the certificate of an identity, with its key or a new one, over the connection that it makes
    Renew(stations::RenewArgs),
    /// Check all that a shift needs: clock, certificate, daemon, order, profile, round trip to the HSM
    #[command(after_long_help = station_check::AFTER)]
    Check(station_check::Args),
    /// List stations, operators and auditors: line, expiry, last seen, rate, who enrolled them
    List(stations::ListArgs),
    /// Show one station, operator or auditor with its certificates
    Show(stations::OneArgs),
    /// Cut off a station, an operator or an auditor, and refuse the certificates that it has
    Revoke(stations::RevokeArgs),
    /// Record what was enrolled where no daemon ran
    Import(stations::ImportArgs),
    /// Write an identity as a PKCS#12 file, for Windows, browsers and Java
    Pkcs12(stations::Pkcs12Args),
    /// Get a certificate for every CSR of a folder, a file or a pipe
    #[command(long_about = SIGN_ABOUT, after_long_help = SIGN_AFTER)]
    Sign(Box<SignArgs>),
    /// Confirm that devices have installed their certificates
    #[command(after_long_help = CONFIRM_AFTER)]
    Confirm(ConfirmArgs),
}

const SIGN_ABOUT: &str = "\
Get a certificate for every CSR of a folder, a file or a pipe.

It may be stopped and run again at any time: devices that have their certificate in DIR are skipped, and asking \
again for the others is free, since the daemon answers a retry with the same certificate (\"replayed\"). While the \
daemon is away it waits and connects again by itself.";

const SIGN_AFTER: &str = "\
Input:
  a folder        each <device-id>.csr, .pem, .der, .p10 or .req in it; other files are ignored
  a file          one CSR; the device id is the file's name without its ending
  a .jsonl file   one line per device: {\"device_id\": \"…\", \"csr\": \"<PEM, or base64 of DER>\"}; \"order\", \"profile\"
                  and \"reissue\" (true or false) in a line replace those of the command; any other name in it is an
                  error
  -               such lines on standard input, each signed as it comes
Text may be UTF-8, or UTF-16 with a byte order mark, as PowerShell and Excel write it.

Files written:
  DIR/<device-id>.pem         the certificate
  DIR/<device-id>.chain.pem   with --chain: the certificate and its CAs but the root, as the device presents them
  DIR/<device-id>.error.json  why a device was refused; removed when it succeeds. Of a second, different CSR of one
                              device: DIR/<file>.error.json
A folder that does not tell upper from lower case, as on a memory stick or a Windows share, holds the files of one \
of Dev-1 and dev-1; the other is refused.

With --watch, CSRs move to IN/done/ or, with their .error.json, to IN/failed/; one of the same name is replaced there. \
A CSR that is not whole, or cannot be read, is given the time of --settle. While the order as a whole is refused (used \
up, closed, not open yet, unknown), CSRs stay in IN and are tried again, and one line says why; so does a CSR whose \
certificate cannot be written.

With --json, standard output has an object per device as it completes, with device_id, status (issued, replayed, \
already_there, refused, or held with --watch), serial_number, certificate_id and file, or reason and message; and at the end {\"summary\": …}.
With --out -, it is the same without any file: certificate and, with --chain, chain (the CAs but the root) are PEM in the \
object, and every device is asked for, which is free for those that were asked for before.

Exit codes:
  0    every device has its certificate
  1    none has, there is no CSR, or something that concerns all devices is wrong
  2    wrong usage
  3    some devices were refused
  130  stopped by SIGINT (Ctrl-C); what was asked for has up to 5 s to come in, a second one half a second later or
       more stops at once
  143  stopped by SIGTERM, likewise";

const CONFIRM_AFTER: &str = "\
Confirming again is free: after a failure, run it again.

From a folder, every *.pem file that begins with a device's certificate is taken, whatever its name, and every \
certificate once. Files with a CA certificate, a key or something else are named and skipped.

With --read-back, a test stand proves what the device really stores: the certificate is confirmed only if it is octet for \
octet the one that was issued (otherwise CERTIFICATE_MISMATCH).

With --json, standard output has one object: confirmed, a number, and refused, an array of serial_number (none for a \
file that cannot be read), device_id (if it was named), reason and message.

Exit codes:
  0  every certificate is confirmed
  1  none is confirmed, there is none, or the daemon could not be asked
  2  wrong usage
  3  some were refused, or a file cannot be read";

#[derive(Debug, clap::Args)]
struct ConfirmArgs {
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

    /// The certificate that was read back from the device, PEM or DER: confirm it only if it is what was issued; with a
    /// DEVICE, only if it is this device's
    #[arg(long, value_name = "FILE", conflicts_with = "certificates")]
    read_back: Option<PathBuf>,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct SignArgs {
    /// The production order that devices are charged to; only some profiles can do without
    #[arg(long, value_name = "ID")]
    order: Option<String>,

    /// The profile of the certificates
    #[arg(long, value_name = "NAME")]
    profile: String,

    /// The devices' certificates were scrapped or revoked: give them new ones, for new keys
    #[arg(long)]
    reissue: bool,

    /// A folder of CSRs, a CSR, a file of JSON lines, or - for JSON lines on standard input
    #[arg(long = "in", value_name = "PATH")]
    input: PathBuf,

    /// The folder for the certificates, created if it does not exist; or - for JSON lines with them on standard output
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Also write <device-id>.chain.pem, what a device presents; with --out -, "chain" in each line
    #[arg(long)]
    chain: bool,

    /// Go on and sign whatever comes into the folder, until stopped
    #[arg(long)]
    watch: bool,

    /// The interval at which --watch looks into the folder
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration, requires = "watch")]
    poll: Duration,

    /// How long --watch waits for the rest of a file that is not whole
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, requires = "watch")]
    settle: Duration,

    /// How many requests may be unanswered
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u16).range(1..=4096))]
    window: u16,

    /// Give up when the daemon has been away or has answered nothing for this time, such as 90s or 10m [default: wait
    /// forever]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    give_up_after: Option<Duration>,

    /// Print a JSON object for each device
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Enroll(args) => super::enroll::run(*args),
        Command::Request(args) => stations::request(args),
        Command::Renew(args) => stations::renew(args),
        Command::Check(args) => station_check::run(args),
        Command::List(args) => stations::list(args),
        Command::Show(args) => stations::show(args),
        Command::Revoke(args) => stations::revoke(args),
        Command::Import(args) => stations::import(args),
        Command::Pkcs12(args) => stations::write_pkcs12(args),
        Command::Sign(args) => super::block_on(sign(args)),
        Command::Confirm(args) => super::block_on(confirm(args)),
    }
}

async fn sign(args: Box<SignArgs>) -> anyhow::Result<ExitCode> {
    let input = match Input::at(&args.input)? {
        Input::Folder(folder) if args.watch => Input::Watch { folder, poll: args.poll, settle: args.settle },
        _ if args.watch => bail!("--watch needs a folder, and {} is not one", args.input.display()),
        input => input,
    };
    let out = (args.out != Path::new("-")).then_some(args.out);
    if args.watch && out.is_none() {
        bail!(
            "--watch needs a folder for the certificates (--out DIR): a CSR moves away once its certificate is in a file"
        );
    }
    let daemon = args.connection.daemon()?;
    if daemon.is_default() {
        // It would wait there forever, or be refused.
        bail!("say which daemon: --server https://HOST:PORT --identity DIR (its Unix socket is for operators)");
    }
    let job = Job {
        order: args.order.unwrap_or_default(),
        profile: args.profile,
        reissue: args.reissue,
        input,
        out,
        chain: args.chain,
        window: args.window.into(),
        give_up_after: args.give_up_after,
    };
    let name = job.input.name();
    let from_folder = matches!(job.input, Input::Folder(_));
    let report = (args.json || job.out.is_none()).then(|| Box::new(std::io::stdout()) as Report);
    let progress = Arc::new(Progress::on_standard_error());
    let stop = stop_at_signals()?;
    keep_renewed(&daemon, &progress).await;
    let (summary, end) = sign::run(&daemon, job, progress, report, stop).await;

    let devices = summary.succeeded() + summary.refused;
    if devices + summary.held > 0 {
        eprintln!("birthmark: {summary}");
    }
    match end {
        End::Failed(message) => Err(anyhow!(message)),
        End::Stopped(Stop::Interrupt) => Ok(ExitCode::from(INTERRUPTED)),
        End::Stopped(Stop::Terminate) => Ok(ExitCode::from(TERMINATED)),
        // A program that writes lines may have none to write.
        End::Done if devices == 0 && from_folder => Err(anyhow!(
            "there is no CSR in {name}; it has {} that are named otherwise than *.csr, .pem, .der, .p10 or .req",
            plural(summary.ignored_files, "file")
        )),
        End::Done if summary.refused == 0 => Ok(ExitCode::SUCCESS),
        End::Done if summary.succeeded() == 0 => Ok(ExitCode::FAILURE),
        End::Done => Ok(ExitCode::from(3)),
    }
}

/// How often it is looked whether the station's certificate is to be renewed.
const RENEWAL_INTERVAL: Duration = Duration::from_hours(1);

/// Renews the station's own certificate when a third of its life is over, now and as long as the run takes: connections that
/// follow use the new one. Whatever is in the way is said, and the run goes on with what there is.
async fn keep_renewed(daemon: &Daemon, progress: &Arc<Progress>) {
    async fn renew(daemon: &Daemon, progress: &Progress) {
        match renew::renew_if_due(daemon).await {
            Ok(None) => {}
            Ok(Some(until)) => progress.say(&format!("this station's certificate is renewed; valid until {until}")),
            // The run itself waits for a daemon that is away.
            Err(RenewError::Connect(_)) => {}
            Err(error) => progress.say(&format!("this station's certificate is not renewed: {error}")),
        }
    }
    // A daemon that does not answer must not hold the run up.
    let _ = tokio::time::timeout(Duration::from_secs(10), renew(daemon, progress)).await;
    let (daemon, progress) = (daemon.clone(), Arc::clone(progress));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(RENEWAL_INTERVAL).await;
            renew(&daemon, &progress).await;
        }
    });
}

async fn confirm(args: ConfirmArgs) -> anyhow::Result<ExitCode> {
    let (certificates, unreadable) = match (&args.certificates, &args.read_back) {
        (Some(folder), _) => certificates_in(folder)?,
        (None, Some(file)) => (vec![read_back(file, &args.which)?], Vec::new()),
        (None, None) => (named(&args.which, args.device)?, Vec::new()),
    };
    let channel = args.daemon.channel().await?;
    let mut summary = confirm::confirm(channel, &certificates).await?;
    summary.refused.extend(unreadable);
    if args.daemon.json {
        super::print_json(&serde_json::to_value(&summary)?)?;
    } else {
        for Refused { serial_number, device_id, reason, message } in &summary.refused {
            let name = device_id.as_ref().or(serial_number.as_ref());
            let name = name.map(|name| format!("{name}: ")).unwrap_or_default();
            eprintln!("birthmark: {name}{message} ({reason})");
        }
        super::print(&format!("{} confirmed, {} refused\n", summary.confirmed, summary.refused.len()))?;
    }
    Ok(match (summary.confirmed, summary.refused.len()) {
        (_, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::FAILURE,
        _ => ExitCode::from(3),
    })
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

/// What a shell reports for a process that SIGINT or SIGTERM ended.
const INTERRUPTED: u8 = 128 + 2;
const TERMINATED: u8 = 128 + 15;

/// Signals that come together are one request to stop.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// The first signal stops the run in good order, the second one ends the process.
fn stop_at_signals() -> anyhow::Result<watch::Receiver<Option<Stop>>> {
    let (sender, stop) = watch::channel(None);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut first: Option<Instant> = None;
        loop {
            let (how, code) = tokio::select! {
                _ = interrupt.recv() => (Stop::Interrupt, INTERRUPTED),
                _ = terminate.recv() => (Stop::Terminate, TERMINATED),
            };
            match first {
                None => {
                    first = Some(Instant::now());
                    sender.send_replace(Some(how));
                }
                // Some supervisors signal the process and then its group: that is one request to stop.
                Some(first) if first.elapsed() < ONE_REQUEST => {}
                Some(_) => process::exit(code.into()),
            }
        }
    });
    Ok(stop)
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let duration = text.parse::<jiff::SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    duration.filter(|duration| !duration.is_zero()).context("a duration is written as 500ms, 90s, 10m or 2h")
}
