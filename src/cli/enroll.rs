//! `birthmark station enroll`

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::IpAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, anyhow, bail};
use birthmark::{
    client::{Daemon, Failure},
    config::Config,
    enroll::{Listed, Request, StationCa, Subject},
    hsm::KeyUri,
    identity::{Duties, Identity, Role},
    ledger::{Actor, EnrolmentMethod},
    local_user,
    proto::{EnrollRequest, moment, stations_client::StationsClient},
    text_file,
};
use birthmark_station::identity::{Files, NewKey, check_free};
use serde_json::json;

use super::{block_on, daemon::ConnectionArgs, environment};

/// Make a certificate of the site's station CA, and the key for it unless a CSR comes with it.
///
/// Writes cert.pem, key.pem and ca.pem (to verify the other side with) into a new folder. The daemon makes and records the
/// certificate: the one that --server or --socket names, or the one of the configuration if it runs on this machine.
/// Where there is none, this command uses the station CA's key itself, as the configuration's [station_ca] names it, and
/// writes a line into a list that "birthmark station import" has a daemon record later.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The name: <line>/<station>, such as line1/tester3; one word for the other roles
    name: String,
    /// What the certificate is for
    #[arg(long, value_enum, default_value_t = RoleName::Station)]
    role: RoleName,
    /// Limit an operator to duties: planner, quality, export, security, joined by "+"
    #[arg(long, value_name = "DUTIES")]
    duties: Option<Duties>,
    /// A certificate signing request, as "birthmark station request" makes it; the key stays where it is
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    /// The daemon's configuration; its [station_ca] names the CA;
    /// birthmark.toml in the current folder, where there is one, goes before the default
    #[arg(long, value_name = "FILE", default_value_os_t = super::usual_configuration())]
    config: PathBuf,
    /// Use the station CA's key here, although a daemon runs
    #[arg(long)]
    offline: bool,
    /// The list for what no daemon records now [default: enrolments.jsonl beside the configuration]
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
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

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
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
    fn subject(self, name: &str, duties: Option<Duties>) -> anyhow::Result<Subject> {
        let role = match self {
            RoleName::Station => Role::Station,
            RoleName::Operator => Role::Operator,
            RoleName::Auditor => Role::Auditor,
            RoleName::Server => return Ok(Subject::server(name)?),
        };
        let identity = Identity::new(role, name)?;
        Ok(Subject::peer(match duties {
            Some(duties) => identity.limited_to(duties)?,
            None => identity,
        })?)
    }
}

/// What was made, and who has recorded it.
struct Made {
    certificate: Vec<u8>,
    ca: Vec<u8>,
    serial: String,
    not_after: String,
    recorded: Recorded,
}

enum Recorded {
    Daemon,
    List(PathBuf),
    /// A server is no peer.
    Nowhere,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let subject = args.role.subject(&args.name, args.duties)?;
    let is_server = args.role == RoleName::Server;
    let folder = args.out.clone().unwrap_or_else(|| subject.folder().into());
    let days = args.days.unwrap_or(if is_server { 825 } else { 365 });
    let request = Request { subject, days, dns: args.dns.clone(), ip: args.ip.clone() };

    let (key, csr) = match &args.csr {
        None => {
            check_free(&folder, &["cert.pem", "key.pem", "ca.pem"])?;
            let key = NewKey::generate(request.subject.name())?;
            let csr = key.csr().as_bytes().to_vec();
            (Some(key), csr)
        }
        Some(path) => {
            check_free(&folder, &["cert.pem", "ca.pem"])?;
            let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            // A file that was edited on Windows may be UTF-16; DER is none at all.
            (None, text_file::decode(&text).map_or_else(|_| text.clone(), |text| text.into_owned().into_bytes()))
        }
    };
    let daemon = if is_server { None } else { daemon(&args)? };
    let made = match daemon {
        Some(daemon) => block_on(ask(&daemon, &request, csr, key.is_some()))?,
        None => make(&args, &request, &csr, key.is_some())?,
    };
    let files = Files::write(&folder, key.as_ref(), [&made.certificate, &made.ca])?;
    print(&args, &request, &made, &files, key.is_some())?;
    Ok(ExitCode::SUCCESS)
}

/// The daemon that records the certificate: the one that is named, or that of the configuration if it runs here.
fn daemon(args: &Args) -> anyhow::Result<Option<Daemon>> {
    if args.offline || args.ca_key.is_some() {
        return Ok(None);
    }
    let daemon = args.connection.daemon()?;
    if !daemon.is_default() {
        return Ok(Some(daemon));
    }
    let Ok(config) = Config::load(&args.config) else { return Ok(None) };
    let socket = config.server.socket.as_ref().map(|socket| config.resolve(socket.get_ref()));
    match socket.filter(|socket| UnixStream::connect(socket).is_ok()) {
        Some(socket) => {
            let connection = birthmark::client::Connection { socket: Some(socket), ..Default::default() };
            Ok(Some(connection.daemon()?))
        }
        None => Ok(None),
    }
}

async fn ask(daemon: &Daemon, request: &Request, csr: Vec<u8>, key_made_here: bool) -> anyhow::Result<Made> {
    let Subject::Peer(identity) = &request.subject else { bail!("a server is no peer of the daemon") };
    let (identity, days) = (identity.to_string(), request.days);
    let mut stations = StationsClient::new(daemon.connect().await?);
    let asked = EnrollRequest { identity, csr: csr.into(), days, key_made_here };
    let reply = stations.enroll(asked).await.map_err(Failure::from)?.into_inner();
    let not_after = reply.not_after.as_ref().and_then(|time| moment(time).ok());
    Ok(Made {
        serial: hex::encode(&reply.serial_number),
        not_after: not_after.map_or_else(String::new, |time| time.strftime("%F").to_string()),
        certificate: reply.certificate.to_vec(),
        ca: reply.ca.to_vec(),
        recorded: Recorded::Daemon,
    })
}

/// Uses the station CA's key here.
fn make(args: &Args, request: &Request, csr: &[u8], key_made_here: bool) -> anyhow::Result<Made> {
    let (ca, folder) = station_ca(args)?;
    let certified = ca.certify(request, csr)?;
    let recorded = match &request.subject {
        Subject::Server(_) => Recorded::Nowhere,
        Subject::Peer(identity) => {
            let method = if key_made_here { EnrolmentMethod::Key } else { EnrolmentMethod::Csr };
            let by = Actor(format!("operator:{}", local_user::own_name()).into());
            let line = Listed::line(&ca, &certified, identity, method, &by)?;
            let list = args.list.clone().unwrap_or_else(|| folder.join("enrolments.jsonl"));
            append(&list, &line).with_context(|| format!("cannot write {}", list.display()))?;
            Recorded::List(list)
        }
    };
    Ok(Made {
        serial: hex::encode(certified.serial_number()),
        not_after: certified.not_after(),
        certificate: certified.der().to_vec(),
        ca: certified.ca().to_vec(),
        recorded,
    })
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    // In one write, so that two commands at the same time do not mix.
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_all()
}

/// The CA, and the folder where its list is.
fn station_ca(args: &Args) -> anyhow::Result<(StationCa, PathBuf)> {
    if let (Some(certificate), Some(key)) = (&args.ca_certificate, &args.ca_key) {
        let ca = StationCa::open(certificate, &KeyUri::parse(key).context("--ca-key")?, Path::new("."))?;
        return Ok((ca, PathBuf::from(".")));
    }
    let config = Config::load(&args.config)?;
    environment::apply(&config.module_environment())?;
    let Some(ca) = &config.station_ca else {
        bail!("{} has no [station_ca]; add it, or use --ca-certificate and --ca-key", args.config.display());
    };
    let key = KeyUri::parse(ca.key_uri.get_ref())
        .map_err(|error| config.error_at(ca.key_uri.span(), "station_ca.key_uri", error))?;
    let opened = StationCa::open(&config.resolve(ca.certificate.get_ref()), &key, config.folder())?;
    Ok((opened, config.folder().to_owned()))
}

fn print(args: &Args, request: &Request, made: &Made, files: &Files, has_key: bool) -> anyhow::Result<()> {
    let name = request.subject.name();
    let recorded = match &made.recorded {
        Recorded::Daemon => Some("the daemon has recorded it".to_owned()),
        Recorded::List(list) => Some(format!(
            "no daemon has recorded it yet: {} has a line for \"birthmark station import\"",
            list.display()
        )),
        Recorded::Nowhere => None,
    };
    if args.json {
        let list = match &made.recorded {
            Recorded::List(list) => Some(list),
            _ => None,
        };
        let mut object = json!({
            "name": name,
            "uri": request.subject.urn(),
            "serial_number": made.serial,
            "not_after": made.not_after,
            "certificate": files.certificate,
            "key": has_key.then_some(&files.key),
            "ca": files.ca,
            "recorded": matches!(made.recorded, Recorded::Daemon),
            "list": list,
        });
        object.as_object_mut().ok_or_else(|| anyhow!("no object"))?.retain(|_, value| !value.is_null());
        return super::print_json(&object);
    }
    let who = match request.subject.urn() {
        Some(urn) => format!("certificate of {urn}"),
        None => {
            let addresses = request.ip.iter().map(ToString::to_string);
            let names: Vec<_> = request.dns.iter().cloned().chain(addresses).collect();
            format!("server certificate for {}", names.join(", "))
        }
    };
    let mut text = format!("{who}; valid until {}; ", made.not_after);
    text.push_str(if has_key {
        "copy this folder to where it is used:\n"
    } else {
        "copy these files to where the key is:\n"
    });
    let key = has_key.then_some(&files.key);
    for path in [Some(&files.certificate), key, Some(&files.ca)].into_iter().flatten() {
        text.push_str(&format!("{}\n", path.display()));
    }
    if let Some(recorded) = recorded {
        text.push_str(&format!("{recorded}\n"));
    }
    super::print(&text)
}
