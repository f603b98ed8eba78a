//! `birthmark station enroll`

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use birthmark::{
    config::Config,
    enroll::{Request, StationCa, Subject},
    hsm::KeyUri,
    identity::{Identity, InvalidIdentity, Role},
};

use super::environment;

/// Make a key and a certificate of the site's station CA.
///
/// Writes cert.pem, key.pem and ca.pem (to verify the other side with) into a new folder. It runs where the HSM is and
/// uses the station CA that the configuration's [station_ca] names.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The name: <line>/<station>, such as line1/tester3; one word for the other roles
    name: String,
    /// What the certificate is for
    #[arg(long, value_enum, default_value_t = RoleName::Station)]
    role: RoleName,
    /// The daemon's configuration; its [station_ca] names the CA
    #[arg(long, value_name = "FILE", default_value = "birthmark.toml")]
    config: PathBuf,
    /// The station CA's certificate (PEM), if not as the configuration says
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    ca_certificate: Option<PathBuf>,
    /// The station CA's key, a PKCS#11 URI; relative paths in it start here
    #[arg(long, value_name = "URI", requires = "ca_certificate")]
    ca_key: Option<String>,
    /// A DNS name of the server; may be repeated
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An address of the server; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// How many days the certificate is valid [default: 365, for a server 825]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_525))]
    days: Option<u32>,
    /// The folder for the files [default: the name, with "-" for "/"]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RoleName {
    /// Asks for certificates and confirms them
    Station,
    /// Manages orders, exports and revocation
    Operator,
    /// Reads
    Auditor,
    /// The daemon's own TLS certificate
    Server,
}

impl RoleName {
    fn subject(self, name: &str) -> Result<Subject, InvalidIdentity> {
        let role = match self {
            RoleName::Station => Role::Station,
            RoleName::Operator => Role::Operator,
            RoleName::Auditor => Role::Auditor,
            RoleName::Server => return Subject::server(name),
        };
        Identity::new(role, name).map(Subject::Peer)
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let subject = args.role.subject(&args.name)?;
    let is_server = matches!(subject, Subject::Server(_));
    let days = args.days.unwrap_or(if is_server { 825 } else { 365 });
    let folder = args.out.clone().unwrap_or_else(|| subject.folder().into());

    let ca = station_ca(&args)?;
    let names: Vec<_> = args.dns.iter().cloned().chain(args.ip.iter().map(ToString::to_string)).collect();
    let enrolled = ca.enroll(&Request { subject, days, dns: args.dns, ip: args.ip }, &folder)?;
    if args.json {
        super::print_json(&serde_json::to_value(&enrolled)?)?;
    } else {
        let who = enrolled.uri.as_deref().unwrap_or(&enrolled.name);
        let text = match is_server {
            true => format!("server certificate for {}", names.join(", ")),
            false => format!("certificate of {who}"),
        };
        let mut text = format!("{text}; valid until {}; copy this folder to where it is used:\n", enrolled.not_after);
        for path in [&enrolled.certificate, &enrolled.key, &enrolled.ca] {
            text.push_str(&format!("{}\n", path.display()));
        }
        super::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn station_ca(args: &Args) -> anyhow::Result<StationCa> {
    if let (Some(certificate), Some(key)) = (&args.ca_certificate, &args.ca_key) {
        return Ok(StationCa::open(certificate, &KeyUri::parse(key).context("--ca-key")?, Path::new("."))?);
    }
    let config = Config::load(&args.config)?;
    environment::apply(&config.module_environment())?;
    let Some(ca) = &config.station_ca else {
        bail!("{} has no [station_ca]; add it, or use --ca-certificate and --ca-key", args.config.display());
    };
    let key = KeyUri::parse(ca.key_uri.get_ref())
        .map_err(|error| config.error_at(ca.key_uri.span(), "station_ca.key_uri", error))?;
    Ok(StationCa::open(&config.resolve(ca.certificate.get_ref()), &key, config.folder())?)
}
