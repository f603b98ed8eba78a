//! `birthmark hsm`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use birthmark::{
    ca::CaChain,
    client::Failure,
    config::Config,
    hsm::{KeyUri, Outcome, check},
    pem,
    proto::{HsmToken, RetryHsmRequest, admin_client::AdminClient},
};
use clap::Subcommand;
use serde_json::json;

use super::{block_on, daemon::ConnectionArgs, environment, print, print_json, table};

/// Try out an HSM
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the checks that the daemon makes at its start, and show what was found
    ///
    /// A few test signatures are made; nothing is changed. The PIN is tried once. Exit code 1 if the daemon would not
    /// start with this key.
    Check(CheckArgs),
    /// Have a running daemon try the tokens that are out once more
    ///
    /// For a token whose PIN was refused, was locked or has expired, after somebody has seen to it: the daemon reads
    /// the PIN again and tries it once. A PIN that was called wrong and is still the same is not tried, for each wrong
    /// try counts. Tokens that sign are left alone. Exit code 1 if some still do not sign.
    Retry(RetryArgs),
}

#[derive(Debug, clap::Args)]
struct RetryArgs {
    /// Only the tokens of this issuer, or of "audit"
    #[arg(value_name = "ISSUER")]
    signer: Option<String>,

    /// The token was changed so that the PIN which it refused is right now
    #[arg(long)]
    same_pin: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// The key as a PKCS#11 URI, e.g. "pkcs11:token=T;object=K?module-path=/usr/lib/module.so&pin-source=file:pin"
    #[arg(value_name = "URI")]
    uri: String,

    /// The issuing CA's certificate (PEM), to compare its public key
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,

    /// The daemon's configuration: its [environment] is set, and relative paths of the URI start at its folder [default:
    /// birthmark.toml here, or /etc/birthmark/birthmark.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Check(args) => run_check(args),
        Command::Retry(args) => block_on(retry(args)),
    }
}

async fn retry(args: RetryArgs) -> anyhow::Result<ExitCode> {
    let mut admin = AdminClient::new(args.connection.daemon()?.connect().await?);
    let request = RetryHsmRequest { signer: args.signer.unwrap_or_default(), same_pin: args.same_pin };
    let tokens = admin.retry_hsm(request).await.map_err(Failure::from)?.into_inner().tokens;
    let sign = tokens.iter().all(|token| token.reason.is_empty());
    if args.json {
        let tokens = tokens.iter().map(|token| {
            let HsmToken { signer, token, sessions, reason } = token;
            json!({ "issuer": signer, "token": token, "sessions": sessions, "reason": reason })
        });
        print_json(&json!({ "ok": sign, "tokens": tokens.collect::<Vec<_>>() }))?;
    } else {
        let rows: Vec<_> = tokens
            .into_iter()
            .map(|HsmToken { signer, token, sessions, reason }| {
                let found = if reason.is_empty() { "signs".to_owned() } else { reason };
                vec![signer, token, sessions.to_string(), found]
            })
            .collect();
        print(&table::columns(&["ISSUER", "TOKEN", "SESSIONS", "FOUND"], &rows))?;
    }
    Ok(if sign { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_check(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let usual = Some(super::usual_configuration()).filter(|file| file.exists());
    let config = args.config.or(usual).as_deref().map(Config::load).transpose()?;
    if let Some(config) = &config {
        environment::apply(&config.module_environment())?;
    }
    let base_dir = config.as_ref().map_or(Path::new("."), Config::folder);
    let uri = KeyUri::parse(&args.uri)?;
    let certificate = args.certificate.as_deref().map(read).transpose()?;
    let checks = check(&uri, certificate.as_ref().map(CaChain::public_key), base_dir);
    let failed = checks.iter().any(|check| check.outcome == Outcome::Failed);
    if args.json {
        print_json(&json!({ "ok": !failed, "checks": checks }))?;
    } else {
        let outcome = |outcome| match outcome {
            Outcome::Ok => "ok",
            Outcome::Note => "note",
            Outcome::Failed => "FAILED",
        };
        let rows: Vec<_> = checks
            .into_iter()
            .map(|check| vec![check.what.to_owned(), outcome(check.outcome).to_owned(), check.found])
            .collect();
        print(&table::columns(&["CHECK", "", "FOUND"], &rows))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(path: &Path) -> anyhow::Result<CaChain> {
    let certificate = pem::read_certificates(path).with_context(|| format!("cannot read {}", path.display()))?;
    // Of a whole chain the first is the issuing CA.
    let certificate = certificate.into_iter().take(1).collect();
    CaChain::new(certificate).with_context(|| path.display().to_string())
}
