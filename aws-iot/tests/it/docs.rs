//! docs/aws-iot.md, run as it stands: every `sh` block, in order, at a factory of the daemon's own kind and an emulator of AWS.
//!
//! What stands in: `mosquitto_pub` and `mosquitto_sub` connect to localhost, because the emulator's endpoint has a name that
//! nothing resolves; `curl` of AWS's root certificate gives the emulator's; `aws sqs` is told the emulator's address, which
//! version 1 of the AWS CLI does not take from the environment; `birthmark-aws` may call more often.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use birthmark_bench::{
    pages::{Block, blocks},
    process::{PATIENCE, Process},
    site::{self, Plan},
    softhsm,
};

use crate::{
    emulator::{ACCOUNT, Emulator},
    namespace,
};

/// The destination that the page has, and what its profile needs.
const PLAN: Plan = Plan {
    organisation: "Acme",
    issuer: "device",
    root_key: "p384",
    issuing_key: "p256",
    other_key: "p256",
    profile: "device_id = \"aws-thing-name\"\njitp = [\"CommonName\"]\n",
    sections: "",
};

/// The `birthmark` program, which `make aws-test` builds.
pub(crate) fn daemon_program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_birthmark-aws")).with_file_name("birthmark");
    assert!(program.exists(), "{} is missing; `make aws-test` builds it", program.display());
    program
}

fn executable(folder: &Path, name: &str, script: &str) {
    birthmark_bench::program::install(&folder.join(name), format!("#!/bin/bash\n{script}\n").as_bytes()).unwrap();
}

/// The programs that stand in, first on PATH.
fn stand_ins(folder: &Path) -> PathBuf {
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["mosquitto_pub", "mosquitto_sub"] {
        let script = format!("shift 2\nexec timeout 60 /usr/bin/{name} -h localhost \"$@\"");
        executable(&bin, name, &script);
    }
    let root = "case \"$*\" in *AmazonRootCA1*) exec cp broker.pem AmazonRootCA1.pem;; esac\nexec /usr/bin/curl \"$@\"";
    executable(&bin, "curl", root);
    let aws = Emulator::tools().join("aws");
    let script = "[ $1 = sqs ] && exec AWS \"$@\" --endpoint-url \"$AWS_ENDPOINT_URL\"\nexec AWS \"$@\"";
    executable(&bin, "aws", &script.replace("AWS \"", &format!("{} \"", aws.display())));
    let program = env!("CARGO_BIN_EXE_birthmark-aws");
    let script = format!(
        "case $1 in register|activate|status|doctor) exec {program} \"$@\" --limit all=2000;; esac\nexec {program} \"$@\""
    );
    executable(&bin, "birthmark-aws", &script);
    std::os::unix::fs::symlink(daemon_program(), bin.join("birthmark")).unwrap();
    bin
}

/// The page works from the first line to the last, at a factory as its README sets one up.
#[test]
fn page_about_aws_works_as_it_stands() {
    namespace::run("docs::page_about_aws_works_as_it_stands", || {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().to_owned();
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/aws-iot.md");
        let page = fs::read_to_string(page).unwrap();
        let token = softhsm::make_token(&folder).unwrap();
        let factory = site::Site::set_up(folder.clone(), daemon_program(), token, PLAN).unwrap();
        let blocks = blocks(&page);
        let of_kind = |kind: &'static str| blocks.iter().filter(move |block| block.language.as_deref() == Some(kind));
        let destinations: Vec<_> = of_kind("toml").map(Block::text).collect();
        assert_eq!(destinations.len(), 1);
        let configuration = factory.configuration(site::ANY_ADDRESSES) + "\n" + &destinations.concat();
        factory.write(site::CONFIGURATION, &configuration).unwrap();
        factory.enroll("station", "line1/tester1", "line1-tester1").unwrap();
        let daemon = factory.start(|command| command).unwrap();
        let _emulator = Emulator::start(&folder);

        let bin = stand_ins(&folder);
        let script: String = of_kind("sh").map(Block::text).collect();
        let mut command = Command::new("bash");
        Emulator::environment(&mut command, ACCOUNT);
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let log = fs::File::create(folder.join("page.log")).unwrap();
        command
            .args(["-exu", "-o", "pipefail", "-c", &script])
            .env("PATH", path)
            .env("BIRTHMARK_SOCKET", factory.path("run/admin.sock"))
            .env("STATION_SERVER", daemon.url())
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let begun = std::time::Instant::now();
        let mut process = Process::spawn(&mut command).unwrap();
        let exit = process.wait();
        let log = fs::read_to_string(folder.join("page.log")).unwrap();
        assert!(exit.is_ok_and(|exit| exit.success()), "after {:?} of {PATIENCE:?}: {log}", begun.elapsed());
        // What the page promises on its way.
        assert!(log.contains("\"thingName\": \"thermo-1\""), "{log}");
        assert!(log.contains("thermo-4 is active"), "{log}");
        assert!(log.contains("of thermo-2: scrapped"), "{log}");
        assert!(fs::read_to_string(folder.join("shadow.json")).unwrap().contains("21.5"));
    });
}
