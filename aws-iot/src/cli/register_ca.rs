//! `birthmark-aws register-ca`

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail, ensure};
use birthmark::{
    client::{Connection, Failure},
    pem::certificate_pem,
    proto::{ListIssuersRequest, ProvePossessionRequest, admin_client::AdminClient},
};
use birthmark_aws::{
    documents::jitp,
    issuing_ca::IssuingCa,
    platform::{Mode, Platform, Provisioning},
    register_ca::{self, Stand, Wanted},
};
use clap::ValueEnum;
use serde_json::json;

use super::{AwsArgs, LogFormat, SOME, block_on, log, print, print_json};

/// Register the issuing CA, with the factory's proof that its key is held
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The CA is the one that signs devices, alone in its file (ca/issuer.pem). The proof comes from the daemon; where that is out \
of reach, --offline prints the command to run at the factory, and --verification FILE goes on with what it made.

Exit codes:
  0  it is registered as asked for
  1  it failed
  2  wrong usage
  3  it is registered otherwise (--update mends that), or the proof is to be made first (--offline)")]
pub(crate) struct Args {
    /// The CA that signs devices: a PEM file with its certificate alone
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,

    /// default: with a proof of possession, for one account of a region. sni-only: without, for any number of accounts; devices
    /// must then send SNI
    #[arg(long, value_enum, default_value_t = ModeArg::Default)]
    mode: ModeArg,

    /// Let devices that are not registered yet be registered when they first connect; "birthmark-aws activate" then makes those
    /// active that the factory knows
    #[arg(long)]
    auto_registration: bool,

    /// Let AWS IoT itself provision them by this template (JITP): everything that the CA ever signed; needs --role
    #[arg(long, value_name = "TEMPLATE", requires = "role")]
    jitp: Option<PathBuf>,

    /// The role in which AWS IoT provisions, with --jitp
    #[arg(long, value_name = "ARN", requires = "jitp")]
    role: Option<String>,

    /// Change a CA that is registered otherwise
    #[arg(long)]
    update: bool,

    /// Do not ask the daemon: print the command that makes the proof at the factory
    #[arg(long, conflicts_with_all = ["server", "identity", "socket"])]
    offline: bool,

    /// The verification certificate that "birthmark ca prove" made
    #[arg(long, value_name = "FILE", conflicts_with_all = ["offline", "server", "identity", "socket"])]
    verification: Option<PathBuf>,

    /// The issuer's name in the daemon's configuration [default: the one that has this certificate]
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,

    #[command(flatten)]
    daemon: DaemonArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    aws: AwsArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    Default,
    SniOnly,
}

/// Which daemon to speak with and as whom, as `birthmark` has it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "The factory's daemon")]
struct DaemonArgs {
    /// The daemon's address, as https://HOST:PORT; needs --identity [env: BIRTHMARK_SERVER]
    #[arg(long, value_name = "URL", conflicts_with = "socket")]
    server: Option<String>,

    /// A folder with cert.pem, key.pem and ca.pem of an operator [env: BIRTHMARK_IDENTITY]
    #[arg(long, value_name = "DIR", conflicts_with = "socket")]
    identity: Option<PathBuf>,

    /// The daemon's Unix socket [env: BIRTHMARK_SOCKET]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    log(LogFormat::Messages)?;
    block_on(register(args))
}

async fn register(args: Args) -> anyhow::Result<ExitCode> {
    let ca = IssuingCa::read(&args.ca)?;
    let wanted = wanted(&args)?;
    if wanted.provisioning.is_some() {
        eprintln!(
            "birthmark-aws: JITP makes everything active that this CA has ever signed, scrapped, revoked and stolen certificates \
             included: nobody asks the factory. \"birthmark-aws activate\" does ask it"
        );
    }
    let platform = Platform::connect(&args.aws.settings()).await?;
    let stand = register_ca::stand(&platform, &ca, &wanted).await?;
    match stand {
        Stand::AsWanted => return tell(&args, &ca, &platform, "as_wanted", &[]),
        Stand::Differs(differences, mendable) => {
            if !args.update || !mendable {
                tell(&args, &ca, &platform, "differs", &differences)?;
                return Ok(ExitCode::from(SOME));
            }
            register_ca::mend(&platform, &ca, &wanted).await?;
            return confirm(&args, &ca, &platform, &wanted, "updated").await;
        }
        Stand::Absent => {}
    }
    let verification = match wanted.mode {
        Mode::SniOnly => None,
        Mode::Default => match verification(&args, &ca, &platform).await? {
            Some(pem) => Some(pem),
            None => return Ok(ExitCode::from(SOME)),
        },
    };
    register_ca::register(&platform, &ca, &wanted, verification.as_deref()).await?;
    confirm(&args, &ca, &platform, &wanted, "registered").await
}

fn wanted(args: &Args) -> anyhow::Result<Wanted> {
    let mode = match args.mode {
        ModeArg::Default => Mode::Default,
        ModeArg::SniOnly => Mode::SniOnly,
    };
    if mode == Mode::SniOnly {
        ensure!(!args.offline && args.verification.is_none(), "--mode sni-only takes no proof of possession");
    }
    let provisioning = match (&args.jitp, &args.role) {
        (Some(path), Some(role)) => {
            let template = std::fs::read_to_string(path).with_context(|| format!("the template {}", path.display()))?;
            jitp::check(&template).with_context(|| format!("the template {}", path.display()))?;
            ensure!(role.starts_with("arn:"), "--role is the role's ARN, such as arn:aws:iam::123456789012:role/NAME");
            Some(Provisioning { template, role: role.clone() })
        }
        _ => None,
    };
    Ok(Wanted { mode, auto_registration: args.auto_registration || provisioning.is_some(), provisioning })
}

/// The verification certificate in PEM; none if it is to be made first.
async fn verification(args: &Args, ca: &IssuingCa, platform: &Platform) -> anyhow::Result<Option<String>> {
    let code = platform.registration_code().await?;
    if let Some(path) = &args.verification {
        return Ok(Some(ca.read_verification(path, &code)?));
    }
    if args.offline {
        let issuer = args.issuer.as_deref().unwrap_or("NAME");
        let prove = format!("birthmark ca prove {code} --issuer {issuer} --out verification.pem");
        if args.json {
            print_json(&json!({ "state": "proof_needed", "registration_code": code, "command": prove }))?;
            return Ok(None);
        }
        print(&format!(
            "At the factory, within a day of going on here:\n\n  {prove}\n\nThen here, the same command with \
             --verification verification.pem instead of --offline.\n"
        ))?;
        return Ok(None);
    }
    let DaemonArgs { server, identity, socket } = args.daemon.clone();
    let channel = Connection { server, identity, socket }.daemon()?.connect().await;
    let channel = channel.context("without the daemon, --offline prints the command to run at the factory")?;
    let mut admin = AdminClient::new(channel);
    let issuer = match &args.issuer {
        Some(name) => name.clone(),
        None => {
            let known = admin.list_issuers(ListIssuersRequest {}).await.map_err(Failure::from)?.into_inner().issuers;
            let mut issuers = known.into_iter().filter_map(|recorded| recorded.issuer);
            let found = issuers.find(|issuer| issuer.chain.first().is_some_and(|first| *first == ca.der));
            match found {
                Some(issuer) => issuer.name,
                None => bail!(
                    "the daemon has no issuer with the certificate {} in {}; \"birthmark issuer list\" shows those that it has",
                    ca.subject,
                    args.ca.display()
                ),
            }
        }
    };
    let request = ProvePossessionRequest { code, issuer };
    let reply = admin.prove_possession(request).await.map_err(Failure::from)?.into_inner();
    Ok(Some(certificate_pem(&reply.certificate)))
}

/// Looks at what AWS has made of it.
async fn confirm(
    args: &Args,
    ca: &IssuingCa,
    platform: &Platform,
    wanted: &Wanted,
    state: &str,
) -> anyhow::Result<ExitCode> {
    match register_ca::stand(platform, ca, wanted).await? {
        Stand::AsWanted => tell(args, ca, platform, state, &[]),
        Stand::Differs(differences, _) => {
            tell(args, ca, platform, "differs", &differences)?;
            Ok(ExitCode::from(SOME))
        }
        Stand::Absent => bail!("AWS took the CA and does not know it; try again"),
    }
}

fn tell(
    args: &Args,
    ca: &IssuingCa,
    platform: &Platform,
    state: &str,
    differences: &[String],
) -> anyhow::Result<ExitCode> {
    if args.json {
        print_json(&json!({
            "ca_certificate_id": ca.id.to_string(),
            "subject": ca.subject,
            "region": platform.region(),
            "state": state,
            "differences": differences,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let told = match state {
        "as_wanted" => "is registered already, as asked for",
        "updated" => "is changed, and registered as asked for",
        "differs" => "is registered, but not as asked for",
        _ => "is registered and active",
    };
    let mut text = format!("the CA {} {told} in {}\n  id  {}\n", ca.subject, platform.region(), ca.id);
    for difference in differences {
        text.push_str(&format!("  - {difference}\n"));
    }
    if state == "differs" && !args.update {
        text.push_str("The same command with --update changes what can be changed.\n");
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
