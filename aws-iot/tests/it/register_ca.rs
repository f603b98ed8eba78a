//! `birthmark-aws register-ca`

use birthmark_bench::assertions::{refused, succeeded, text};

use crate::{
    emulator::{ACCOUNT, Emulator},
    namespace,
    support::{Site, program},
};

fn described(
    site: &Site,
    account: &str,
) -> aws_sdk_iot::operation::describe_ca_certificate::DescribeCaCertificateOutput {
    let key = if account == ACCOUNT { "test" } else { account };
    let listed = site.emulator.ask(site.emulator.client_of(key, "test").list_ca_certificates().send()).unwrap();
    let [ca] = listed.certificates() else { panic!("{} CAs", listed.certificates().len()) };
    let id = ca.certificate_id().unwrap();
    site.emulator.ask(site.emulator.client_of(key, "test").describe_ca_certificate().certificate_id(id).send()).unwrap()
}

/// The CA is registered once by its proof; what is registered otherwise is told, and mended when that is asked for.
#[test]
fn ca_is_registered_by_its_proof_and_mended() {
    namespace::run("register_ca::ca_is_registered_by_its_proof_and_mended", || {
        let site = Site::new();
        let ca = ["register-ca", "--ca", "issuer.pem"];
        refused(&site.run(&["register-ca", "--ca", "root.pem", "--offline"]), &["root", "issued itself"]);
        let chain = [
            std::fs::read("issuer.pem".replace("issuer", &site.maker.path("issuer"))).unwrap(),
            std::fs::read(site.maker.path("root.pem")).unwrap(),
        ]
        .concat();
        std::fs::write(site.maker.path("chain.pem"), chain).unwrap();
        refused(&site.run(&["register-ca", "--ca", "chain.pem", "--offline"]), &["2 certificates", "alone"]);
        let offline = site.run(&[&ca[..], &["--offline", "--issuer", "device"]].concat());
        assert_eq!(offline.status.code(), Some(3));
        assert!(text(&offline.stdout).contains("birthmark ca prove"), "{}", text(&offline.stdout));
        site.maker.verification(&"ab".repeat(32));
        refused(&site.run(&[&ca[..], &["--verification", "verification.pem"]].concat()), &["another code"]);

        site.register_ca(&[]);
        let there = described(&site, ACCOUNT);
        let description = there.certificate_description().unwrap();
        assert_eq!(description.certificate_mode().unwrap().as_str(), "DEFAULT");
        assert_eq!(description.auto_registration_status().unwrap().as_str(), "DISABLE");
        // Again: nothing to do, and no proof needed.
        assert!(site.succeed(&ca).contains("as asked for"));

        let wanted = [&ca[..], &["--auto-registration"]].concat();
        let differs = site.run(&wanted);
        assert_eq!(differs.status.code(), Some(3));
        assert!(text(&differs.stdout).contains("auto-registration is off, not on"), "{}", text(&differs.stdout));
        site.succeed(&[&wanted[..], &["--update"]].concat());
        assert_eq!(
            described(&site, ACCOUNT).certificate_description().unwrap().auto_registration_status().unwrap().as_str(),
            "ENABLE"
        );
        let other_mode = site.run(&[&wanted[..], &["--mode", "sni-only", "--update"]].concat());
        assert_eq!(other_mode.status.code(), Some(3));
        assert!(text(&other_mode.stdout).contains("AWS changes no mode"), "{}", text(&other_mode.stdout));

        // A template that AWS would refuse is refused before, one that is good is registered with its role.
        std::fs::write(site.maker.path("jitp.json"), "{}").unwrap();
        let role = "arn:aws:iam::000000000000:role/provisioning";
        let jitp = [&wanted[..], &["--jitp", "jitp.json", "--role", role, "--update"]].concat();
        refused(&site.run(&jitp), &["AWS::IoT::Certificate"]);
        std::fs::write(site.maker.path("jitp.json"), site.succeed(&["template", "jitp"])).unwrap();
        let run = site.run(&jitp);
        succeeded(&run);
        assert!(text(&run.stderr).contains("ever signed"), "{}", text(&run.stderr));
        assert_eq!(described(&site, ACCOUNT).registration_config().unwrap().role_arn(), Some(role));
        succeeded(&site.run(&jitp));
    });
}

/// With SNI_ONLY one CA serves two accounts, and neither needs a proof.
#[test]
fn ca_serves_two_accounts_with_sni_only() {
    namespace::run("register_ca::ca_serves_two_accounts_with_sni_only", || {
        let site = Site::with(Emulator::start);
        for account in ["111111111111", "222222222222"] {
            let arguments = ["register-ca", "--ca", "issuer.pem", "--mode", "sni-only", "--auto-registration"];
            succeeded(&program(&site.maker.folder, account, &arguments).output().unwrap());
            let there = described(&site, account);
            assert_eq!(there.certificate_description().unwrap().certificate_mode().unwrap().as_str(), "SNI_ONLY");
        }
        // A device with its leaf alone: the name that it connects to says which account it is.
        let device = site.maker.device("roaming");
        let client = |account: &str| site.emulator.client_of(account, "test");
        let endpoint = |account: &str| {
            let described = client(account).describe_endpoint().endpoint_type("iot:Data-ATS").send();
            let address = site.emulator.ask(described).unwrap().endpoint_address.unwrap();
            address.split(':').next().unwrap().to_owned()
        };
        let [first, second] = ["111111111111", "222222222222"].map(endpoint);
        site.emulator.resolve(&[&first, &second]);
        let status = |account: &str| {
            let described = client(account).describe_certificate().certificate_id(&device.certificate_id).send();
            let description = site.emulator.ask(described).ok()?.certificate_description?;
            description.status.map(|status| status.as_str().to_owned())
        };
        let connect = |host: &str| site.maker.publish_to(host, "roaming", "pem", "roaming", "devices/roaming/up");
        assert!(!connect("localhost").success());
        assert_eq!((status("111111111111"), status("222222222222")), (None, None), "no account is named");
        assert!(!connect(&second).success());
        assert_eq!((status("111111111111"), status("222222222222")), (None, Some("PENDING_ACTIVATION".to_owned())));
    });
}

/// Without credentials, a region or an answer, the program says what is missing.
#[test]
fn account_that_is_not_set_up_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let site = crate::maker::Maker::new(folder.path());
    let run = |remove: &[&str]| {
        let mut command = program(
            &site.folder,
            ACCOUNT,
            &["register-ca", "--ca", "issuer.pem", "--offline", "--give-up-after", "1s"],
        );
        command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").env("HOME", folder.path());
        for name in remove {
            command.env_remove(name);
        }
        command.output().unwrap()
    };
    refused(&run(&["AWS_REGION", "AWS_DEFAULT_REGION"]), &["no region", "--region"]);
    refused(&run(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]), &["no AWS credentials"]);
    refused(&run(&[]), &["NO_ANSWER"]);
}
