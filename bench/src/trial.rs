//! The site of `birthmark demo` and `birthmark bench`: on a SoftHSM token of its own, with numbered stations.

use std::path::PathBuf;

use anyhow::Context;
use birthmark_bench::{
    program,
    site::{Plan, Site},
    softhsm,
};

use crate::console::step;

/// The issuer's name in the configuration.
pub(crate) const ISSUER: &str = "demo";

/// A site whose issuing CA's key is of the type `issuing_key`, as ceremony files name it.
pub(crate) fn set_up(folder: PathBuf, issuing_key: &'static str) -> anyhow::Result<Site> {
    let program = program::beside_or_on_path("birthmark").context("cannot find the birthmark program")?;
    step("Making a SoftHSM token with PINs of its own");
    let token = softhsm::make_token(&folder)?;
    let issuing = match issuing_key {
        "p256" => "P-256",
        "p384" => "P-384",
        other => other,
    };
    step(&format!(
        "Holding the ceremony: root CA (P-384), issuing CA ({issuing}), station CA and audit key, keys in the token"
    ));
    let plan = Plan {
        organisation: "Birthmark Demo",
        issuer: ISSUER,
        root_key: "p384",
        issuing_key,
        other_key: "p256",
        profile: "",
        sections: "\n[destinations.aws]\nformat = \"aws-bulk\"\npolicy = \"device\"\n",
    };
    Site::set_up(folder, program, token, plan)
}

/// Makes the identity of the station `line1/<station>`.
pub(crate) fn enroll(site: &Site, station: u32) -> anyhow::Result<()> {
    site.enroll("station", &format!("line1/{station}"), &station_folder(station))
}

/// Where a station's identity is.
pub(crate) fn station_folder(station: u32) -> String {
    format!("stations/line1-{station}")
}
