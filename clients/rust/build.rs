//! Compiles the protocol definitions, without a system `protoc`.

use std::{env, error::Error};

fn main() -> Result<(), Box<dyn Error>> {
    let proto = "../../proto";
    println!("cargo:rerun-if-changed={proto}");
    let services = ["issuance", "admin", "stations", "approvals", "audit", "vending"];
    let protocol = protox::compile(services.map(|name| format!("birthmark/v1/{name}.proto")), [proto])?;
    tonic_prost_build::configure()
        .btree_map(".birthmark")
        .bytes(".birthmark")
        .extern_path(".google.rpc", "::tonic_types::pb")
        .build_server(env::var_os("CARGO_FEATURE_SERVER").is_some())
        .compile_fds(protocol)?;
    Ok(())
}
