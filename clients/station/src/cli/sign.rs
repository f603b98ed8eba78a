//! `birthmark station sign`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{anyhow, bail};
use birthmark_client::Daemon;
use clap::value_parser;

use super::{
    connection::ConnectionArgs,
    shared::duration,
    signals::{INTERRUPTED, TERMINATED, stop_at_signals},
    watching::WatchArgs,
};
use crate::{
    input::Input,
    output::Report,
    progress::{Progress, plural},
    renew::{self, RenewError},
    sign::{self, End, Job, Stop},
};

pub(super) const ABOUT: &str = "\
Get a certificate for every CSR of a folder, a file or a pipe.

It may be stopped and run again at any time: devices that have their certificate in DIR are skipped, and asking \
again for the others is free, since the daemon answers a retry with the same certificate (\"replayed\"). While the \
daemon is away it waits and connects again by itself.";

pub(super) const AFTER: &str = "\
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
A hot folder (--watch), and any DIR that does not tell upper from lower case, as on a memory stick or a Windows share, \
holds the files of one of Dev-1 and dev-1; the other is refused, and so is what can be no file name on Windows, as CON and \
a:b.

With --watch, CSRs move to IN/done/ or, with their .error.json, to IN/failed/; one of the same name is replaced there. \
What came on earlier days lies in a folder of its day there, such as IN/done/2026-01-31/; certificates are never removed. \
A CSR that is not whole, or cannot be read, is given the time of --settle. While the order as a whole is refused (used \
up, closed, not open yet, unknown), CSRs stay in IN and are tried again, and one line says why; so does a CSR whose \
certificate cannot be written.

With --json, standard output has an object per device as it completes, with device_id, status (issued, replayed, \
already_there, refused, or held with --watch), serial_number, certificate_id and file, or reason and message; and at the \
end {\"summary\": …}. \"replayed\": the daemon returned the certificate of an earlier request again; \"already there\": it \
was in DIR, and nobody was asked.
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

#[doc(hidden)]
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The production order that devices are charged to; only some profiles can do without
    #[arg(long, value_name = "ID")]
    order: Option<String>,

    /// The profile of the certificates [default: that of each device's order]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,

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

    #[command(flatten)]
    watching: WatchArgs,

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

pub(super) async fn run(args: Box<Args>) -> anyhow::Result<ExitCode> {
    let input = match Input::at(&args.input)? {
        Input::Folder(folder) if args.watch => {
            let WatchArgs { poll, settle, keep_days } = args.watching;
            Input::Watch { folder, poll, settle, keep_days }
        }
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
        profile: args.profile.unwrap_or_default(),
        reissue: args.reissue,
        input,
        out,
        chain: args.chain,
        window: args.window.into(),
        give_up_after: args.give_up_after,
    };
    let name = job.input.name();
    let from_folder = matches!(job.input, Input::Folder(_));
    let from_lines = matches!(job.input, Input::Lines(_));
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
        End::Done if devices == 0 && from_lines => Err(anyhow!("there is no line in {name}")),
        End::Done if devices == 0 && from_folder => Err(anyhow!(
            "there is no CSR in {name}, where files of the names *.csr, .pem, .der, .p10 or .req are taken{}",
            match summary.ignored_files {
                0 => "; it is empty".to_owned(),
                others => format!("; it has {} of other names", plural(others, "file")),
            }
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
