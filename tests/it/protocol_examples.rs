//! The examples of the protocol's manual, run as they stand there: by grpcurl, which knows the protocol by reflection.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::support::{
    site::{Daemon, Site, csr},
    token::text,
};

/// In the order in which they are run.
const SERVICES: [&str; 6] = ["admin", "issuance", "approvals", "audit", "stations", "vending"];

/// Those that this site's daemon answers with a reason: it has no destination, no order lot-43 and no such devices, and the
/// operator at its socket has no certificate.
const REFUSED: [(&str, &str); 16] = [
    ("Admin/AcknowledgeBatch", "BATCH_UNKNOWN"),
    ("Admin/AddOrderDevices", "ORDER_UNKNOWN"),
    ("Admin/CreateBatch", "DESTINATION_UNKNOWN"),
    ("Admin/GetBundle", "BATCH_UNKNOWN"),
    ("Admin/GetExport", "EXPORT_UNKNOWN"),
    ("Admin/ListBatches", "DESTINATION_UNKNOWN"),
    ("Admin/ListOrderDevices", "ORDER_UNKNOWN"),
    ("Admin/PlanBatch", "DESTINATION_UNKNOWN"),
    ("Admin/RevokeCertificate", "RECORD_UNKNOWN"),
    ("Admin/ScrapCertificate", "RECORD_UNKNOWN"),
    ("Approvals/Grant", "APPROVAL_UNKNOWN"),
    ("Stations/Import", "REQUEST_INVALID"),
    ("Stations/Renew", "REQUEST_INVALID"),
    ("Stations/Supersede", "REQUEST_INVALID"),
    ("Vending/CancelCode", "CODE_UNKNOWN"),
    ("Vending/CreateCodes", "CODE_REFUSED"),
];

/// An example: the call, and the JSON that it is given.
struct Example {
    call: String,
    data: Option<String>,
}

/// The examples of a file, in its order: the lines of a comment that begin with `grpcurl`, and what is indented below.
fn examples(file: &Path) -> Vec<Example> {
    let manual = fs::read_to_string(file).unwrap();
    let mut commands: Vec<String> = Vec::new();
    let mut within = false;
    for line in manual.lines().map(str::trim) {
        let comment = line.strip_prefix("//").unwrap_or_default();
        let begins = comment.starts_with("   grpcurl ");
        let goes_on = within && comment.starts_with("     ");
        if begins {
            commands.push(comment.trim().to_owned());
        } else if let (true, Some(last)) = (goes_on, commands.last_mut()) {
            *last = format!("{last} {}", comment.trim());
        }
        within = begins || goes_on;
    }
    let example = |command: String| {
        let (_, call) = command.rsplit_once("birthmark.v1.").unwrap();
        let data = command.split_once("-d '").map(|(_, rest)| rest.split_once('\'').unwrap().0.to_owned());
        Example { call: call.to_owned(), data }
    };
    commands.into_iter().map(example).collect()
}

fn run(site: &Site, daemon: &Daemon, Example { call, data }: &Example) -> Result<String, String> {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/grpcurl");
    assert!(program.exists(), "{} is missing; `make test` makes it", program.display());
    let mut command = Command::new(program);
    // What the manual leaves out.
    let short = BASE64_STANDARD.encode([1; 20]);
    let request = BASE64_STANDARD.encode(csr("d1"));
    let data = data.as_ref().map(|data| {
        data.replace("MIH…", &request)
            .replace("AZq…", &short)
            .replace("eyJj…", &BASE64_STANDARD.encode("{}\n"))
            .replace("\"salt\": \"…\"", &format!("\"salt\": \"{}\"", BASE64_STANDARD.encode([2; 16])))
            .replace("\"hash\": \"…\"", &format!("\"hash\": \"{}\"", BASE64_STANDARD.encode([3; 32])))
    });
    let service = format!("birthmark.v1.{call}");
    command.args(["-max-time", if call == "Admin/Watch" { "1" } else { "30" }]);
    command.args(data.iter().flat_map(|data| ["-d", data]));
    if call.starts_with("Issuance/") {
        command.current_dir(site.identity("station", "line1/t1"));
        command.args(["-cacert", "ca.pem", "-cert", "cert.pem", "-key", "key.pem"]);
        command.arg(format!("localhost:{}", daemon.grpc.port()));
    } else {
        command.args(["-plaintext", "-authority", "localhost", "-unix"]).arg(site.path("run/admin.sock"));
    }
    let output = command.arg(service).output().unwrap();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

/// Whoever copies an example gets what it says: each is understood, and does what the manual says or is refused for what
/// this site lacks.
#[test]
fn example_of_every_call_works_as_it_stands() {
    let site = Site::new();
    let daemon = site.start();
    let refused: BTreeMap<_, _> = REFUSED.into();
    let proto = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proto/birthmark/v1");
    let mut faults = Vec::new();
    let mut tried = 0;
    // What ends an order comes after those that use it.
    let all: Vec<_> = SERVICES.iter().flat_map(|service| examples(&proto.join(format!("{service}.proto")))).collect();
    let (closing, mut rest): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|example| ["Admin/CloseOrder", "Admin/PauseOrder"].contains(&example.call.as_str()));
    // A closed order cannot be paused.
    rest.extend(closing.into_iter().rev());
    let later = |call: &str| call.starts_with("Admin/") && !call.contains("CreateOrder");
    rest.sort_by_key(|example| later(&example.call));
    for example in &rest {
        tried += 1;
        let call = example.call.as_str();
        match (run(&site, &daemon, example), refused.get(call)) {
            (Ok(_), None) => {}
            (Err(said), Some(reason)) if said.contains(reason) => {}
            (Err(said), None) if call == "Admin/Watch" && said.contains("DeadlineExceeded") => {}
            (told, expected) => faults.push(format!("{call} is not {expected:?}: {told:?}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(tried >= 39, "{tried}");
    daemon.end();
}
