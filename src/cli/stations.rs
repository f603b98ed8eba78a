//! `birthmark station list`, `show`, `revoke` and `import`

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, anyhow, ensure};
use birthmark::client::MarkedChannel;
use birthmark::{
    client::Failure,
    proto::{
        ImportRequest, ListStationsRequest, RevokeStationRequest, Station, StationCertificate, rfc3339,
        stations_client::StationsClient,
    },
    text_file,
};
use serde_json::json;

use super::{block_on, daemon::DaemonArgs, print, print_json, table};

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Print CSV, with all times in UTC
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneArgs {
    /// A station, such as line1/tester1; of others the role as well: operator:anna, auditor:eve
    name: String,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// A station, such as line1/tester1; of others the role as well: operator:anna, auditor:eve
    name: String,

    /// Why, for people: 1 to 256 characters
    #[arg(long, value_name = "TEXT")]
    reason: String,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The list that "birthmark station enroll" has written; importing it again changes nothing
    file: PathBuf,

    #[command(flatten)]
    daemon: DaemonArgs,
}

/// The most lines that a daemon takes at once.
const LINES: usize = 1000;

async fn client(daemon: &DaemonArgs) -> anyhow::Result<StationsClient<MarkedChannel>> {
    Ok(StationsClient::new(daemon.channel().await?))
}

/// As the daemon names it: a name without a role is a station's.
fn full_name(name: &str) -> String {
    if name.contains(':') { name.to_owned() } else { format!("station:{name}") }
}

pub(crate) fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let request = ListStationsRequest::default();
        let reply = client(&args.daemon).await?.list(request).await.map_err(Failure::from)?;
        let stations = reply.into_inner().stations;
        if args.daemon.json {
            return print_json(&stations.iter().map(to_json).collect());
        }
        if stations.is_empty() && !args.csv {
            return print("nobody is enrolled; \"birthmark station enroll\" makes a certificate\n");
        }
        let headings = ["NAME", "LINE", "STATE", "EXPIRES", "LAST SEEN", ">ISSUED", ">RATE", "ENROLLED BY", "METHOD"];
        let rows: Vec<_> = stations.iter().map(row).collect();
        print(&table::rendered(args.csv, &headings, &rows))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn newest(station: &Station) -> Option<&StationCertificate> {
    station.certificates.last()
}

fn state(station: &Station) -> &'static str {
    let now = jiff::Timestamp::now().as_second();
    let ended = |certificate: &StationCertificate| certificate.not_after.is_some_and(|end| end.seconds < now);
    match station {
        station if station.revoked => "revoked",
        station if station.certificates.is_empty() => "not recorded",
        station if newest(station).is_some_and(ended) => "expired",
        station if station.connected => "connected",
        _ => "enrolled",
    }
}

fn row(station: &Station) -> Vec<String> {
    let time = |time: &Option<prost_types::Timestamp>| time.as_ref().and_then(rfc3339).unwrap_or_default();
    let certificate = newest(station).cloned().unwrap_or_default();
    let line = station.name.strip_prefix("station:").and_then(|name| name.split_once('/'));
    vec![
        station.name.clone(),
        line.map(|(line, _)| line.to_owned()).unwrap_or_default(),
        state(station).to_owned(),
        time(&certificate.not_after),
        time(&station.last_seen),
        station.issued.to_string(),
        format!("{:.1}", station.rate),
        certificate.enrolled_by,
        certificate.method,
    ]
}

pub(crate) fn show(args: OneArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let name = full_name(&args.name);
        let request = ListStationsRequest { name: name.clone() };
        let reply = client(&args.daemon).await?.list(request).await.map_err(Failure::from)?;
        match reply.into_inner().stations.first() {
            Some(station) => print_one(station, args.daemon.json),
            None => Err(anyhow!("nobody of the name {name} was ever enrolled or seen")),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn print_one(station: &Station, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&to_json(station));
    }
    let time = |time: &Option<prost_types::Timestamp>| time.as_ref().and_then(rfc3339);
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let mut text = table::fields(&[
        ("name", Some(station.name.clone())),
        ("state", Some(state(station).to_owned())),
        ("connected", Some(if station.connected { "yes" } else { "no" }.to_owned())),
        ("last seen", time(&station.last_seen)),
        ("issued", Some(format!("{} since the daemon was started, {:.1}/s now", station.issued, station.rate))),
        ("revoked", time(&station.revoked_at)),
        ("revoked by", some(&station.revoked_by)),
        ("reason", some(&station.revocation_reason)),
    ]);
    for certificate in station.certificates.iter().rev() {
        text.push('\n');
        text.push_str(&table::fields(&[
            ("certificate", Some(hex::encode(&certificate.serial_number))),
            ("state", certificate.revoked.then(|| "revoked".to_owned())),
            (
                "valid",
                Some(
                    [&certificate.not_before, &certificate.not_after]
                        .map(|at| time(at).unwrap_or_default())
                        .join(" to "),
                ),
            ),
            ("enrolled", time(&certificate.enrolled_at)),
            ("enrolled by", some(&certificate.enrolled_by)),
            ("method", some(&certificate.method)),
        ]));
    }
    print(&text)
}

fn to_json(station: &Station) -> serde_json::Value {
    let time = |time: &Option<prost_types::Timestamp>| time.as_ref().and_then(rfc3339);
    let certificates = station.certificates.iter().map(|certificate| {
        json!({
            "serial_number": hex::encode(&certificate.serial_number),
            "sha256": hex::encode(&certificate.sha256),
            "not_before": time(&certificate.not_before),
            "not_after": time(&certificate.not_after),
            "enrolled_at": time(&certificate.enrolled_at),
            "enrolled_by": certificate.enrolled_by,
            "method": certificate.method,
            "revoked": certificate.revoked,
        })
    });
    json!({
        "name": station.name,
        "state": state(station),
        "connected": station.connected,
        "last_seen": time(&station.last_seen),
        "issued": station.issued,
        "rate": station.rate,
        "revoked": station.revoked,
        "revoked_at": time(&station.revoked_at),
        "revoked_by": station.revoked_by,
        "revocation_reason": station.revocation_reason,
        "certificates": certificates.collect::<Vec<_>>(),
    })
}

pub(crate) fn revoke(args: RevokeArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let request = RevokeStationRequest { name: full_name(&args.name), reason: args.reason };
        let station = client(&args.daemon).await?.revoke(request).await.map_err(Failure::from)?.into_inner();
        print_one(&station, args.daemon.json)?;
        // A certificate that was never recorded can be stolen too; most often the name is mistyped.
        if station.certificates.is_empty() && station.last_seen.is_none() {
            eprintln!(
                "birthmark: warning: nobody of the name {} was ever enrolled or seen; is it the right one?",
                station.name
            );
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn import(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let octets = fs::read(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let text = text_file::decode(&octets).with_context(|| args.file.display().to_string())?;
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    ensure!(!lines.is_empty(), "there is no enrolment in {}", args.file.display());
    block_on(async {
        let mut client = client(&args.daemon).await?;
        let mut recorded = 0;
        for lines in lines.chunks(LINES) {
            let request = ImportRequest { lines: lines.to_vec() };
            recorded += client.import(request).await.map_err(Failure::from)?.into_inner().recorded;
        }
        if args.daemon.json {
            return print_json(&json!({ "recorded": recorded }));
        }
        print(&format!("{recorded} enrolments are recorded\n"))
    })?;
    Ok(ExitCode::SUCCESS)
}
