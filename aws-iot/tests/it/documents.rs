//! `birthmark-aws template`, `status`, `doctor`: judged by the emulator, which has AWS's own checks of templates.

use std::{fs, process::Command};

use aws_sdk_iot::types::{CertificateStatus, TemplateType};
use birthmark_bench::assertions::{refused, succeeded, text};
use serde_json::{Value, json};

use crate::{maker::Gone, namespace, support::Site};

/// A profile that fits the template below.
const CONFIGURATION: &str = r#"
[server]
listen = "127.0.0.1:0"
certificate = "tls/cert.pem"
key = "tls/key.pem"
client_ca = "ca/station-ca.pem"
[ledger]
path = "data"
[issuers.device]
chain = ["ca/issuer.pem"]
key_uri = "pkcs11:token=x;object=issuing"
[profiles.device]
issuer = "device"
subject = ["O=Acme", "CN={device_id}"]
device_id = "aws-thing-name"
jitp = ["CommonName", "Organization"]
[profiles.bare]
issuer = "device"
"#;

/// One request and its answer, over MQTT in one connection, as a device makes it.
fn request(site: &Site, topic: &str, payload: &str) -> Value {
    let output = Command::new("timeout")
        .args(["30", "mosquitto_rr", "-h", "localhost", "-p", "8883", "--cafile", "broker.pem"])
        .args(["--cert", "claim.chain.pem", "--key", "claim.key", "-i", "claim", "-q", "1", "-W", "10"])
        .args(["-t", topic, "-e", &format!("{topic}/accepted"), "-m", payload])
        .current_dir(&site.maker.folder)
        .output()
        .unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{topic}: {error}: {answer}{}", text(&output.stderr)))
}

/// The JITP template is one that AWS takes, and its parts make thing, certificate and policy when they are run by fleet
/// provisioning, which the emulator has. (That JITP itself fills it in is tested nowhere here.)
#[test]
fn jitp_template_is_taken_and_makes_what_it_says() {
    namespace::run("documents::jitp_template_is_taken_and_makes_what_it_says", || {
        let site = Site::ready(&[]);
        let (emulator, client) = (&site.emulator, site.emulator.client());
        fs::write(site.maker.path("birthmark.toml"), CONFIGURATION).unwrap();
        let profile = ["--config", "birthmark.toml", "--profile", "device"];
        let jitp = ["template", "jitp", "--attribute", "maker=Organization"];
        let template = site.succeed(&[&jitp[..], &profile].concat());
        let bare = [&jitp[..], &["--config", "birthmark.toml", "--profile", "bare"]].concat();
        refused(&site.run(&bare), &["no O in their subject", "aws-thing-name"]);
        refused(&site.run(&["template", "jitp", "--thing-name", "Colour"]), &["Colour", "CommonName"]);

        let role = format!("arn:aws:iam::{}:role/provisioning", crate::emulator::ACCOUNT);
        let create = |name: &str, kind, body: &str| {
            let request = client.create_provisioning_template().template_name(name).provisioning_role_arn(&role);
            emulator.ask(request.template_body(body).enabled(true).r#type(kind).send())
        };
        create("jitp", TemplateType::Jitp, &template).unwrap();
        let wrong = template.replace("\"ACTIVE\"", "\"PENDING\"");
        fs::write(site.maker.path("wrong.json"), &wrong).unwrap();
        refused(&site.run(&["template", "check", "wrong.json"]), &["Status"]);
        assert!(create("wrong", TemplateType::Jitp, &wrong).is_err(), "AWS refuses it as well");

        // The same parts, with parameters that a device may give.
        let parts = template
            .replace("AWS::IoT::Certificate::CommonName", "CommonName")
            .replace("AWS::IoT::Certificate::Organization", "Organization");
        create("fleet", TemplateType::FleetProvisioning, &parts).unwrap();
        let claim = site.maker.device("claim");
        site.maker.bundle(("claims", 1), &[&claim], &[]);
        site.registered(&["claims.0001"]);
        let made = request(&site, "$aws/certificates/create/json", "{}");
        let provision = json!({
            "certificateOwnershipToken": made["certificateOwnershipToken"],
            "parameters": { "CommonName": "fleet-1", "Organization": "Acme" },
        });
        let provisioned = request(&site, "$aws/provisioning-templates/fleet/provision/json", &provision.to_string());
        assert_eq!(provisioned["thingName"], "fleet-1", "{provisioned}");
        let id = made["certificateId"].as_str().unwrap();
        assert_eq!(emulator.status(id).as_deref(), Some("ACTIVE"));
        assert_eq!(emulator.certificates_of("fleet-1"), [id]);
        assert_eq!(emulator.policies_of(id), ["device"]);
        let thing = emulator.ask(client.describe_thing().thing_name("fleet-1").send()).unwrap();
        assert_eq!(thing.attributes().unwrap()["maker"], "Acme");
    });
}

/// What differs between the bundles and AWS is counted and named; what is missing in the account is told with what to do.
#[test]
fn status_and_doctor_tell_what_is_to_be_done() {
    namespace::run("documents::status_and_doctor_tell_what_is_to_be_done", || {
        let site = Site::new();
        let (emulator, maker) = (&site.emulator, &site.maker);
        let examine =
            ["doctor", "--ca", "issuer.pem", "--policy", "device", "--thing-type", "sensor", "--jitr", "--json"];
        let told = || -> (Option<i32>, Value) {
            let run = site.run(&[&examine[..], &["--role", "arn:aws:iam::000000000000:role/r"]].concat());
            (run.status.code(), serde_json::from_slice(&run.stdout).unwrap())
        };
        let verdicts = |checks: &Value| -> Vec<String> {
            let verdict = |check: &Value| check["verdict"].as_str().unwrap().to_owned();
            checks.as_array().unwrap().iter().map(verdict).collect()
        };
        let (code, checks) = told();
        assert_eq!(code, Some(3));
        assert_eq!(verdicts(&checks).iter().filter(|verdict| *verdict == "bad").count(), 3, "{checks:#}");
        let to_do = |checks: &Value| {
            checks.as_array().unwrap().iter().map(|check| check["to_do"].to_string()).collect::<String>()
        };
        for command in ["register-ca", "create-policy", "create-thing-type"] {
            assert!(to_do(&checks).contains(command), "{command}");
        }
        // Nothing was made by looking.
        assert!(emulator.ask(emulator.client().list_things().send()).unwrap().things().is_empty());
        emulator.ask(emulator.client().create_thing_type().thing_type_name("sensor").send()).unwrap();
        emulator.make_policy(
            "wide",
            r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#,
        );
        site.prepare(&["--auto-registration"]);
        let (code, checks) = told();
        assert_eq!(code, Some(0), "{checks:#}");
        let wide = site.run(&["doctor", "--policy", "wide"]);
        assert_eq!(wide.status.code(), Some(3));
        assert!(text(&wide.stdout).contains("every device may iot:*"), "{}", text(&wide.stdout));

        let devices = maker.devices(6);
        let [active, missing, pending, revoked, gone, foreign] = &devices[..] else { panic!() };
        maker.bundle(("aws", 1), &[active, gone], &[]);
        site.registered(&["aws.0001"]);
        assert!(!maker.works(&pending.id) && !maker.works(&foreign.id));
        maker.bundle(
            ("aws", 2),
            &[missing, pending, revoked],
            &[Gone { device: gone, reason: "scrapped", replaced_by: None }],
        );
        let register = emulator
            .client()
            .register_certificate()
            .certificate_pem(fs::read_to_string(maker.path("dev-0004.pem")).unwrap());
        emulator.ask(register.status(CertificateStatus::Revoked).send()).unwrap();
        let run = site.run(&["status", "aws.0001", "aws.0002", "--trusted-key", "audit.pem", "--json"]);
        assert_eq!(run.status.code(), Some(3));
        let report: Value = serde_json::from_slice(&run.stdout).unwrap();
        let second = &report["bundles"][1];
        assert_eq!((&second["missing"], &second["withdrawn_not_revoked"]), (&1.into(), &1.into()), "{report:#}");
        assert_eq!((&second["found"]["PENDING_ACTIVATION"], &second["found"]["REVOKED"]), (&1.into(), &1.into()));
        let ca = &report["authorities"][0];
        assert_eq!((&ca["unknown_pending"], &ca["unknown_active"]), (&1.into(), &0.into()), "{report:#}");
        let named = report["notable"].to_string();
        assert!(named.contains(&gone.certificate_id) && named.contains(&foreign.certificate_id), "{named}");
        let table = text(&site.run(&["status", "aws.0001", "aws.0002", "--trusted-key", "audit.pem"]).stdout);
        assert!(table.contains("NOT REVOKED") && table.contains("Test Issuing CA"), "{table}");

        // Once all of it is registered, nothing is to be done but for the stranger and the revoked one.
        let run = site.run(&site.register(&["aws.0002"]));
        assert_eq!(run.status.code(), Some(3), "the revoked one failed");
        assert_eq!(site.results("aws.0002")[&revoked.certificate_id]["code"], "CERTIFICATE_REVOKED");
        let report: Value = serde_json::from_slice(&site.run(&["status", "--json"]).stdout).unwrap();
        assert_eq!(report["bundles"][1]["withdrawn_not_revoked"], 0, "{report:#}");
        assert_eq!(report["bundles"][0]["missing"], 0, "{report:#}");
        succeeded(&site.run(&["template", "bulk", "aws.0001", "--trusted-key", "audit.pem"]));
    });
}
