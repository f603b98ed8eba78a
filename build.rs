//! Compiles the journal's definitions, and those of the protocol for reflection, without a system `protoc`. The protocol's
//! types are made by the client's crate.

use prost::Message;
use std::{env, error::Error, fs, path::PathBuf, time::SystemTime};

#[expect(clippy::disallowed_methods, reason = "a build that crashes is built again")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    // The clock cannot be right before that. Builds that are to be the same byte for byte set it.
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let built = env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or_else(now);
    println!("cargo:rustc-env=BIRTHMARK_BUILT={built}");
    let services = ["issuance", "admin", "stations", "approvals", "audit", "vending"];
    let services = services.map(|name| format!("birthmark/v1/{name}.proto"));
    let journal = protox::compile(["birthmark/v1/journal.proto"], ["proto"])?;

    // Served by gRPC reflection; nothing imports the details of errors, and clients print them by their definitions.
    let reflected =
        protox::compile(services.into_iter().chain(["google/rpc/error_details.proto".to_owned()]), ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("protocol.binpb"), reflected.encode_to_vec())?;

    tonic_prost_build::configure()
        // Sorted, so that an entry has one encoding.
        .btree_map(".birthmark.journal.v1")
        .bytes(".birthmark.journal.v1.Issued.certificate")
        .bytes(".birthmark.journal.v1.ProofIssued.certificate")
        .bytes(".birthmark.journal.v1.Recovered.certificate")
        .bytes(".birthmark.journal.v1.IssuerAdded.chain")
        .build_client(false)
        .build_server(false)
        .compile_fds(journal)?;
    Ok(())
}
