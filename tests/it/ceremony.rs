//! `birthmark ceremony`

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::token::{Hsm, LABEL, Token, module, refused, succeeded, text};

const ROOT: &str = r#"
[[step]]
do = "root"
key = "root"
key_type = "p384"
subject = ["C=DE", "O=Acme", "CN=Acme Root"]
days = 3650
certificate = "ca/root.pem"
"#;

const ISSUER: &str = r#"
[[step]]
do = "intermediate"
issuer = { certificate = "ca/root.pem", key = "root" }
key = "issuing"
key_type = "p256"
subject = ["O=Acme", "CN=Acme Issuing"]
days = 3000
certificate = "ca/issuer.pem"
"#;

fn ceremony(token: &Token, steps: &str) -> std::process::Output {
    token.write("ceremony.toml", &(token.ceremony_head() + steps));
    token.birthmark(&["ceremony", "ceremony.toml", "--yes"])
}

/// A self-signed CA made by openssl, with its key in `<name>.key`.
pub(crate) fn openssl_root(token: &Token, name: &str, subject: &str, algorithm: &[&str], days: &str) {
    let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
    let mut arguments = vec!["genpkey", "-out", &key, "-algorithm"];
    arguments.extend(algorithm);
    token.openssl(&arguments);
    token.set_mode(&key, 0o600);
    let usage = "keyUsage=critical,keyCertSign,cRLSign";
    token.openssl(&[
        "req",
        "-x509",
        "-new",
        "-key",
        &key,
        "-subj",
        subject,
        "-days",
        days,
        "-out",
        &certificate,
        "-addext",
        usage,
    ]);
}

/// OpenSSL accepts every certificate in strict mode.
#[test]
fn certificates_of_a_ceremony_pass_openssl_strict_mode() {
    let token = Token::new();
    let steps = [
        ROOT,
        ISSUER,
        &ISSUER.replace("issuing", "rsa").replace("p256", "rsa2048").replace("issuer.pem", "rsa.pem"),
        &ROOT.replace("\"root\"", "\"station-ca\"").replace("root.pem", "station-ca.pem").replace("p384", "p256"),
        &ROOT
            .replace("key = \"root\"", "key = \"rsa-root\"")
            .replace("root.pem", "rsa-root.pem")
            .replace("p384", "rsa3072"),
        &ISSUER.replace("issuing", "below-rsa").replace("issuer.pem", "below-rsa.pem").replace("root", "rsa-root"),
    ]
    .concat();
    let run = ceremony(&token, &steps);
    let printed = succeeded(&run);
    assert_eq!(printed.matches("SHA-256 of the certificate").count(), 6, "{printed}");
    for (root, certificate) in [
        ("root", "issuer"),
        ("root", "rsa"),
        ("rsa-root", "below-rsa"),
        ("root", "root"),
        ("rsa-root", "rsa-root"),
        ("station-ca", "station-ca"),
    ] {
        let (root, certificate) = (format!("ca/{root}.pem"), format!("ca/{certificate}.pem"));
        token.openssl(&["verify", "-x509_strict", "-check_ss_sig", "-CAfile", &root, &certificate]);
    }
    let shown = token.openssl(&["x509", "-in", "ca/issuer.pem", "-noout", "-text"]);
    for part in [
        "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign",
        "X509v3 Authority Key Identifier",
        "ecdsa-with-SHA384",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }

    let record: serde_json::Value = serde_json::from_slice(&fs::read(token.path("ca/record.json")).unwrap()).unwrap();
    assert_eq!(record["tokens"][0]["label"], LABEL);
    let made = &record["steps"][1];
    assert_eq!(made["key"]["label"], "issuing");
    assert_eq!(made["key"]["id"].as_str().unwrap().len(), 32);
    let serial = token.openssl(&["x509", "-in", "ca/issuer.pem", "-noout", "-serial"]);
    let recorded = made["certificate"]["serial_number"].as_str().unwrap();
    assert_eq!(serial.trim(), format!("serial={}", recorded.to_uppercase()));
    assert_eq!(recorded.len(), 40);
    let hash = token.openssl(&["dgst", "-sha256", "-r", "ca/issuer.pem"]);
    assert_eq!(hash.split(' ').next(), made["certificate"]["sha256"].as_str());
}

/// A dry run and a missing yes make nothing.
#[test]
fn ceremony_as_dry_run_or_without_yes_makes_nothing() {
    let token = Token::new();
    token.write("ceremony.toml", &(token.ceremony_head() + ROOT + ISSUER));
    let dry = token.birthmark(&["ceremony", "ceremony.toml", "--dry-run"]);
    succeeded(&dry);
    assert_eq!(text(&dry.stderr).trim(), "Everything was checked; nothing was made.");
    let plan = text(&dry.stdout);
    for part in [
        "P-384 key \"root\"",
        "C=DE, O=Acme, CN=Acme Root",
        "ca/issuer.pem",
        "Script     none named",
        "Operator   none named",
        "Witness    none named",
    ] {
        assert!(plan.contains(part), "{part} is not in {plan}");
    }
    refused(&token.birthmark(&["ceremony", "ceremony.toml"]), &["no terminal", "--yes"]);
    assert!(!token.path("ca").exists());
    // The labels are still free.
    succeeded(&token.birthmark(&["ceremony", "ceremony.toml", "--yes"]));
}

/// Ctrl-C, `kill` and a closed terminal end it after the step that runs, with the list that a step prints which failed.
#[test]
fn ceremony_stopped_by_a_signal_ends_after_its_step_and_names_what_it_made() {
    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM"), (Signal::HUP, "SIGHUP")] {
        let token = Token::new();
        let step = |name: &str, kind: &str| {
            let step = ROOT.replace("\"root\"\nkey_type", &format!("\"{name}\"\nkey_type"));
            step.replace("root.pem", &format!("{name}.pem")).replace("p384", kind)
        };
        // Time enough for the signal to come before the last step.
        let slow = (2..8).map(|number| step(&format!("root{number}"), "rsa3072")).collect::<String>();
        token.write("ceremony.toml", &(token.ceremony_head() + &step("root1", "p384") + &slow));
        let mut command = token.command(&["ceremony", "ceremony.toml", "--yes"]);
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stderr.take().unwrap()).lines().map(Result::unwrap);
        let first = said.find(|line| line.starts_with("done 1/7")).unwrap();
        kill_process(Pid::from_child(&process), signal).unwrap();
        let said = said.collect::<Vec<_>>().join("\n");
        let status = process.wait().unwrap();
        assert_eq!(status.code(), Some(1), "{first}\n{said}");
        for part in [
            format!("stopped by {name}, with ").as_str(),
            "of 7 steps done",
            "No record was written",
            "ca/root1.pem",
            "--type privkey --label \"root1\"",
        ] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
        assert!(token.path("ca/root1.pem").exists() && !token.path("ca/root7.pem").exists());
        assert!(!token.path("ca/record.json").exists());
    }
}

/// A ceremony replaces neither keys nor files.
#[test]
fn ceremony_replaces_neither_keys_nor_files() {
    let token = Token::new();
    succeeded(&ceremony(&token, ROOT));
    let before = fs::read(token.path("ca/root.pem")).unwrap();
    refused(&ceremony(&token, ROOT), &["ceremony.record", "record.json exists"]);
    fs::remove_file(token.path("ca/record.json")).unwrap();
    refused(
        &ceremony(&token, ROOT),
        &[
            "already has an object with the label \"root\"; if a ceremony that was broken off left it",
            "--type privkey, then --type pubkey",
            "if it is in use, choose another label",
        ],
    );
    refused(&ceremony(&token, &ROOT.replace("key = \"root\"", "key = \"other\"")), &["root.pem exists"]);
    refused(&ceremony(&token, &[ISSUER, ISSUER].concat()), &["two steps make a key \"issuing\""]);
    let same_file = ISSUER.replace("issuing", "another");
    refused(&ceremony(&token, &[ISSUER, &same_file].concat()), &["ca/issuer.pem is written twice"]);
    assert_eq!(fs::read(token.path("ca/root.pem")).unwrap(), before);
    assert!(!token.path("ca/record.json").exists());
    // What was refused made no key: the same labels can be used now.
    succeeded(&ceremony(&token, ISSUER));
}

/// An issuer must outlive its intermediate and allow it.
#[test]
fn issuer_that_does_not_outlive_or_allow_its_ca_is_refused() {
    let token = Token::new();
    let long = ISSUER.replace("3000", "3651");
    refused(&ceremony(&token, &[ROOT, &long].concat()), &[":25: step.days", "after its issuer"]);
    let below =
        ISSUER.replace("issuing", "below").replace("ca/root.pem", "ca/issuer.pem").replace("\"root\"", "\"issuing\"");
    let below = below.replace("certificate = \"ca/issuer.pem\"\n", "certificate = \"ca/below.pem\"\n");
    refused(&ceremony(&token, &[ROOT, ISSUER, &below].concat()), &["path length is 0"]);
    refused(&ceremony(&token, &[ROOT, &ISSUER.replace("key = \"root\"", "key = \"rot\"")].concat()), &["is \"root\""]);
    refused(&ceremony(&token, ISSUER), &["cannot read", "root.pem"]);
    assert!(!token.path("ca").exists());
}

/// As IEEE 802.1AR wants it of the CAs of IDevIDs.
#[test]
fn ca_without_expiry_is_made_and_accepted() {
    let token = Token::new();
    let never = |step: &str| step.replace("days = 3650", NEVER).replace("days = 3000", NEVER);
    const NEVER: &str = "not_after = \"99991231235959Z\"";
    refused(
        &ceremony(&token, &[ROOT, &never(ISSUER)].concat()),
        &[":25: step.not_after", "9999-12-31, after its issuer"],
    );
    let station_ca = never(ROOT).replace("\"root\"", "\"station-ca\"");
    refused(&ceremony(&token, &station_ca), &[":16: step.not_after: has no meaning"]);
    let made = ceremony(&token, &[never(ROOT), never(ISSUER)].concat());
    succeeded(&made);
    let plan = text(&made.stdout);
    assert_eq!(plan.matches("until 9999-12-31").count(), 2, "{plan}");
    for name in ["ca/root.pem", "ca/issuer.pem"] {
        let end = token.openssl(&["x509", "-in", name, "-noout", "-enddate"]);
        assert_eq!(end.trim(), "notAfter=Dec 31 23:59:59 9999 GMT");
        assert!(token.openssl(&["asn1parse", "-in", name]).contains("GENERALIZEDTIME   :99991231235959Z"));
    }
    token.openssl(&["verify", "-x509_strict", "-CAfile", "ca/root.pem", "ca/issuer.pem"]);
}

/// An offline root signs from a key file.
#[test]
fn offline_root_signs_from_a_key_file() {
    let token = Token::new();
    for (name, algorithm) in [
        ("ec", &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"][..]),
        ("rsa", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ] {
        openssl_root(&token, name, "/O=Acme/CN=Offline", algorithm, "3650");
        let issuer = format!("{{ certificate = \"{name}.pem\", key_file = \"{name}.key\" }}");
        let output = format!("ca/below-{name}.pem");
        let step = ISSUER
            .replace("{ certificate = \"ca/root.pem\", key = \"root\" }", &issuer)
            .replace("issuing", name)
            .replace("ca/issuer.pem", &output);
        token.set_mode(&format!("{name}.key"), 0o640);
        refused(&ceremony(&token, &step), &["chmod 600"]);
        token.set_mode(&format!("{name}.key"), 0o600);
        succeeded(&ceremony(&token, &step));
        token.openssl(&["verify", "-x509_strict", "-CAfile", &format!("{name}.pem"), &output]);
        fs::remove_file(token.path("ca/record.json")).unwrap();
    }
    let wrong = ISSUER.replace(
        "{ certificate = \"ca/root.pem\", key = \"root\" }",
        "{ certificate = \"ec.pem\", key_file = \"rsa.key\" }",
    );
    refused(&ceremony(&token, &wrong), &["rsa.key does not belong"]);
}

/// What an offline root may write into the certificate, rightly and wrongly.
fn write_extensions(token: &Token) {
    let identifier = "subjectKeyIdentifier=hash\n";
    let ca = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n";
    token.write("ca.ext", &format!("{ca}{identifier}"));
    token.write("bare.ext", &format!("{ca}subjectKeyIdentifier=none\n"));
    token.write("loose.ext", &format!("{identifier}{}", ca.replace("critical,CA:TRUE", "CA:TRUE")));
    token.write("odd.ext", &format!("{ca}{identifier}1.2.3.4=critical,DER:0500\n"));
    token.write("authority.ext", &format!("{ca}{identifier}2.5.29.35=DER:30168014{}\n", "99".repeat(20)));
    let other = ca.replace(",pathlen:0", "").replace(",cRLSign", "");
    token.write("other.ext", &format!("{other}{identifier}"));
    token.write("signature.ext", &format!("{ca}{identifier}authorityKeyIdentifier=none\n"));
    token.write("usage.ext", "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,digitalSignature\n");
    token.write("leaf.ext", "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,keyCertSign\n");
}

/// The offline root's own program signs the request into `incoming/issuer.pem`.
fn sign_request(token: &Token, root: &str, extensions: &str, days: &str, hash: &str) {
    let (certificate, key) = (format!("{root}.pem"), format!("{root}.key"));
    token.openssl(&[
        "x509",
        "-req",
        "-in",
        "ca/issuer.csr.pem",
        "-CA",
        &certificate,
        "-CAkey",
        &key,
        "-CAcreateserial",
        "-extfile",
        extensions,
        "-days",
        days,
        hash,
        "-out",
        "incoming/issuer.pem",
    ]);
}

/// An offline root signs a request which is imported.
#[test]
fn offline_root_signs_a_request_which_is_imported() {
    let token = Token::new();
    let request = r#"
[[step]]
do = "request"
key = "issuing"
key_type = "p256"
subject = ["O=Acme", "CN=Acme Issuing"]
request = "ca/issuer.csr.pem"
"#;
    let import = r#"
[[step]]
do = "import"
key = "issuing"
signed = "incoming/issuer.pem"
root = "incoming/root.pem"
certificate = "ca/issuer.pem"
"#;
    succeeded(&ceremony(&token, request));
    fs::remove_file(token.path("ca/record.json")).unwrap();
    let shown = token.openssl(&["req", "-in", "ca/issuer.csr.pem", "-noout", "-verify", "-subject"]);
    assert!(shown.contains("CN = Acme Issuing") || shown.contains("CN=Acme Issuing"), "{shown}");

    openssl_root(&token, "root", "/O=Acme/CN=Offline", &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "3650");
    openssl_root(&token, "other", "/O=Acme/CN=Offline", &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "3650");
    write_extensions(&token);
    fs::create_dir(token.path("incoming")).unwrap();
    fs::copy(token.path("root.pem"), token.path("incoming/root.pem")).unwrap();
    let sign = |root: &str, extensions: &str, days: &str, hash: &str| {
        sign_request(&token, root, extensions, days, hash);
    };
    refused(&ceremony(&token, import), &["cannot read", "incoming/issuer.pem"]);
    for (root, extensions, days, says) in [
        ("root", "leaf.ext", "900", "it is not a CA's: its basicConstraints do not say CA:TRUE"),
        ("root", "bare.ext", "900", "no subjectKeyIdentifier"),
        ("root", "loose.ext", "900", "basicConstraints are not critical"),
        ("root", "odd.ext", "900", "critical extension 1.2.3.4"),
        ("root", "authority.ext", "900", "authorityKeyIdentifier is not the subjectKeyIdentifier"),
        ("root", "usage.ext", "900", "does not have keyCertSign"),
        ("other", "ca.ext", "900", "authorityKeyIdentifier is not the subjectKeyIdentifier"),
        ("other", "signature.ext", "900", "signature was not made by the key"),
        ("root", "ca.ext", "4000", "after its root"),
    ] {
        sign(root, extensions, days, "-sha384");
        refused(&ceremony(&token, import), &[says]);
    }
    fs::copy(token.path("root.pem"), token.path("incoming/issuer.pem")).unwrap();
    refused(&ceremony(&token, import), &["does not belong to key \"issuing\"", "SHA-256"]);
    let unknown = import.replace("key = \"issuing\"", "key = \"isuing\"");
    refused(&ceremony(&token, &unknown), &["no private key with label \"isuing\"", "its private keys are \"issuing\""]);
    refused(
        &ceremony(&token, &[request.replace("issuing", "new"), import.replace("issuing", "new")].concat()),
        &["csr.pem exists"],
    );

    // What differs from the request is said, and is for people to decide.
    let told = format!("{import}request = \"ca/issuer.csr.pem\"\ndays = 3650\nroot_certificate = \"ca/root.pem\"\n");
    token.write("ceremony.toml", &(token.ceremony_head() + &told));
    sign("root", "other.ext", "900", "-sha256");
    let plan = token.birthmark(&["ceremony", "ceremony.toml", "--dry-run"]);
    let plan = text(&plan.stdout);
    for part in [
        "subject     \"O=Acme, CN=Acme Issuing\"",
        "DIFFERS     path length: requested 0, signed no limit",
        "DIFFERS     key usage: requested keyCertSign and cRLSign, signed keyCertSign",
        "DIFFERS     validity: requested 3650 days, signed 900 days",
    ] {
        assert!(plan.contains(part), "{part} is not in {plan}");
    }

    // A hash that Birthmark itself does not sign with.
    sign("root", "ca.ext", "900", "-sha256");
    succeeded(&ceremony(&token, &told.replace("days = 3650", "days = 900")));
    let record = fs::read_to_string(token.path("ca/record.json")).unwrap();
    assert!(record.contains("root_certificate") && !record.contains("differences"), "{record}");
    assert_eq!(
        pem_body(&fs::read(token.path("incoming/root.pem")).unwrap()),
        pem_body(&fs::read(token.path("ca/root.pem")).unwrap())
    );
    let both = [fs::read(token.path("incoming/issuer.pem")).unwrap(), fs::read(token.path("ca/issuer.pem")).unwrap()];
    assert_eq!(pem_body(&both[0]), pem_body(&both[1]));
    token.openssl(&["verify", "-x509_strict", "-CAfile", "incoming/root.pem", "ca/issuer.pem"]);
}

fn pem_body(file: &[u8]) -> String {
    text(file).split_whitespace().collect()
}

/// A step that fails says what exists now.
#[test]
fn step_that_fails_says_what_exists_now() {
    let token = Token::new();
    // The second file's folder is a file by the time it is written: the first certificate takes its name.
    let inside = ISSUER.replace("\"ca/issuer.pem\"", "\"ca/root.pem/issuer.pem\"");
    let run = ceremony(&token, &[ROOT, &inside].concat());
    refused(
        &run,
        &[
            "step 2 (intermediate, key \"issuing\") failed: cannot write",
            &format!("rm {}", token.path("ca/root.pem").display()),
            "--delete-object --type privkey --label \"root\"",
            "--delete-object --type privkey --label \"issuing\"",
        ],
    );
    assert!(!token.path("ca/record.json").exists());
}

/// A token that cannot be used is refused with the reason.
#[test]
fn token_that_cannot_be_used_is_refused_with_the_reason() {
    let token = Token::new();
    let with = |from: &str, to: &str| {
        let head = token.ceremony_head();
        assert!(head.contains(from), "{from}");
        token.write("ceremony.toml", &(head.replace(from, to) + ROOT));
        token.birthmark(&["ceremony", "ceremony.toml", "--yes"])
    };
    let module = module().display().to_string();
    refused(&with("token=birthmark", "token=birthmurk"), &["no token with label \"birthmurk\"", "\"birthmark\""]);
    refused(&with(&module, "/nowhere/module.so"), &["no PKCS#11 module /nowhere/module.so", "module-path"]);
    refused(&with(&module, "pin"), &["pin cannot be used"]);
    refused(&with("&pin-source=file:pin", ""), &["pin-source=file:", "BIRTHMARK_PIN"]);
    refused(&with("pin-source=file:pin", "pin-value=123456"), &["ceremony.toml:5: token.uri", "pin-source"]);
    refused(&with("pin-source=file:pin", "pin-source=file:nopin"), &["nopin cannot be read"]);
    token.set_mode("pin", 0o644);
    refused(&ceremony(&token, ROOT), &["mode 0644", "chmod 600"]);
    token.write_secret("pin", "999999");
    refused(&ceremony(&token, ROOT), &["refused the PIN", "tried once"]);
    token.write_secret("pin", "123456");
    if Hsm::under_test() != Hsm::SoftHsm {
        return; // It has one token.
    }
    token.init_token(LABEL);
    refused(&ceremony(&token, ROOT), &["2 tokens with label \"birthmark\"", "serial="]);
}

/// The PIN may come from the environment.
#[test]
fn pin_from_the_environment_is_used() {
    let token = Token::new();
    token.write("ceremony.toml", &(token.ceremony_head().replace("&pin-source=file:pin", "") + ROOT));
    fs::remove_file(token.path("pin")).unwrap();
    let mut command = token.command(&["ceremony", "ceremony.toml", "--yes"]);
    succeeded(&command.env("BIRTHMARK_PIN", "123456").output().unwrap());
}
