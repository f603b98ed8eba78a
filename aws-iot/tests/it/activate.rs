//! `birthmark-aws activate`: just-in-time registration with the factory's word.

use std::{fs, process::Stdio};

use birthmark_bench::{assertions::wait_until, process::Process};

use crate::{
    emulator::{ACCOUNT, Emulator},
    maker::{Device, Gone},
    namespace,
    support::{QUICK, Site, program},
};

/// An activator that looks every second, and whose folder of bundles is `inbox`.
fn activator(site: &Site, further: &[&str]) -> Process {
    let inbox = site.maker.folder.join("inbox");
    fs::create_dir_all(&inbox).unwrap();
    let usual = ["activate", "--bundles", "inbox", "--trusted-key", "audit.pem"];
    let interval: &[&str] = if further.contains(&"--interval") { &[] } else { &["--interval", "1s"] };
    let mut command = program(&site.maker.folder, ACCOUNT, &[&usual[..], interval, &QUICK, further].concat());
    let log = fs::File::options().create(true).append(true).open(site.maker.folder.join("activate.log")).unwrap();
    Process::spawn(command.stdout(Stdio::null()).stderr(log)).unwrap()
}

fn log(site: &Site) -> String {
    fs::read_to_string(site.maker.folder.join("activate.log")).unwrap_or_default()
}

fn fetch(path: &str) -> String {
    let url = format!("http://127.0.0.1:9465{path}");
    let output = std::process::Command::new("curl").args(["-s", &url]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn metric(name: &str) -> f64 {
    let text = fetch("/metrics");
    let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(f64::NAN)
}

fn bundle(site: &Site, batch: (&str, u32), devices: &[&Device], gone: &[Gone<'_>]) {
    site.maker.bundle_in(&site.maker.folder.join("inbox"), batch, devices, gone, "");
}

/// First connection dropped, activated, second one publishes; with a chain file, and with the leaf alone. What the factory
/// does not know, or has withdrawn, never gets in; what is known later gets in then. No event ever arrives.
#[test]
fn first_connection_of_a_known_device_activates_it() {
    namespace::run("activate::first_connection_of_a_known_device_activates_it", || {
        let site = Site::ready(&["--auto-registration"]);
        let (emulator, maker) = (&site.emulator, &site.maker);
        let [known, leaf, scrapped, old, stranger, late] =
            ["known", "leaf", "scrapped", "renewed", "stranger", "late"].map(|id| maker.device(id));
        let new = maker.device_in("renewed", "renewed-again");
        let status = |device: &Device| emulator.status(&device.certificate_id);
        let mut activator = activator(&site, &[]);
        bundle(&site, ("aws", 1), &[&known, &leaf, &scrapped, &old], &[]);

        assert_eq!(maker.publish("known", "chain.pem", "known", "devices/known/up").code(), Some(7), "dropped");
        wait_until("the known device works", || maker.works("known"));
        assert!(!maker.publish("leaf", "pem", "leaf", "devices/leaf/up").success());
        wait_until("the device with its leaf alone", || {
            maker.publish("leaf", "pem", "leaf", "devices/leaf/up").success()
        });
        assert!(!maker.works("renewed"));
        wait_until("the device works before it is renewed", || maker.works("renewed"));
        assert_eq!(emulator.policies_of(&known.certificate_id), ["device"]);

        // Nobody told the factory's bundles of these.
        for device in ["stranger", "late"] {
            assert!(!maker.works(device));
        }
        wait_until("both are told of", || log(&site).matches("no bundle names waits").count() == 2);
        assert!(!maker.works("stranger"));

        // Scrapped after it went out, and before it ever connected; replaced after it connected.
        let gone = [
            Gone { device: &scrapped, reason: "scrapped", replaced_by: None },
            Gone { device: &old, reason: "revoked", replaced_by: Some(&new) },
        ];
        bundle(&site, ("aws", 2), &[&new, &late], &gone);
        wait_until("the late one works with its bundle", || maker.works("late"));
        assert!(!maker.works("scrapped"));
        wait_until("the scrapped one is revoked", || status(&scrapped).as_deref() == Some("REVOKED"));
        wait_until("the replaced one is revoked", || status(&old).as_deref() == Some("REVOKED"));
        assert!(!maker.publish("renewed-again", "chain.pem", "renewed", "devices/renewed/up").success());
        wait_until("the new one works", || {
            maker.publish("renewed-again", "chain.pem", "renewed", "devices/renewed/up").success()
        });
        assert_eq!(emulator.certificates_of("renewed"), std::slice::from_ref(&new.certificate_id));

        // A bundle that is taken away takes no withdrawal with it; one of somebody else is refused.
        fs::rename(maker.folder.join("inbox/aws.0002"), maker.folder.join("away")).unwrap();
        fs::rename(maker.folder.join("audit.pem"), maker.folder.join("trusted.pem")).unwrap();
        let other = crate::maker::Maker::new(&maker.folder.join("other"));
        other.bundle_in(&maker.folder.join("inbox"), ("other", 1), &[&other.device("evil")], &[], "");
        wait_until("the stranger's bundle is refused", || log(&site).contains("key that is not trusted"));
        wait_until("the activator says so", || fetch("/readyz").contains("degraded"));
        assert!(!maker.works("scrapped") && !maker.works("stranger"));
        assert_eq!(status(&stranger).as_deref(), Some("PENDING_ACTIVATION"));
        assert_eq!(log(&site).matches("no bundle names waits").count(), 2, "told of once each: {}", log(&site));
        assert_eq!(metric("birthmark_aws_certificates_activated_total"), 5.0);
        assert_eq!(metric("birthmark_aws_unknown_pending_certificates"), 1.0);
        assert_eq!(metric("birthmark_aws_certificates_revoked_total{reason=\"withdrawn\"}"), 2.0);

        // Another one finds all of it on disk.
        activator.signal(rustix::process::Signal::TERM).unwrap();
        assert!(activator.wait().unwrap().success());
        fs::rename(maker.folder.join("trusted.pem"), maker.folder.join("audit.pem")).unwrap();
        fs::remove_dir_all(maker.folder.join("inbox")).unwrap();
        let told = site.run(&["status"]);
        assert_eq!(told.status.code(), Some(3), "a stranger waits");
        let mut again = self::activator(&site, &["--revoke-unknown"]);
        wait_until("the stranger is revoked", || status(&stranger).as_deref() == Some("REVOKED"));
        again.kill().unwrap();
    });
}

/// A queue that a topic rule feeds only makes it quicker: with a sweep an hour the device gets in at once.
#[test]
fn queue_makes_activation_quick() {
    namespace::run("activate::queue_makes_activation_quick", || {
        let site = Site::ready(&["--auto-registration"]);
        let (emulator, maker) = (&site.emulator, &site.maker);
        let queue = emulator.aws(&[
            "--endpoint-url",
            crate::emulator::API,
            "sqs",
            "create-queue",
            "--queue-name",
            "jitr",
            "--query",
            "QueueUrl",
            "--output",
            "text",
        ]);
        let queue = birthmark_bench::assertions::succeeded(&queue).trim().to_owned();
        let role = "arn:aws:iam::000000000000:role/queue";
        let rule = serde_json::json!({
            "sql": "SELECT * FROM '$aws/events/certificates/registered/+'",
            "actions": [{ "sqs": { "queueUrl": queue, "roleArn": role, "useBase64": false } }],
        });
        let made = emulator.aws(&[
            "iot",
            "create-topic-rule",
            "--rule-name",
            "jitr",
            "--topic-rule-payload",
            &rule.to_string(),
        ]);
        birthmark_bench::assertions::succeeded(&made);
        let device = maker.device("quick");
        fs::create_dir_all(maker.folder.join("inbox")).unwrap();
        bundle(&site, ("aws", 1), &[&device], &[]);
        let _activator = activator(&site, &["--interval", "1h", "--queue", &queue]);
        wait_until("the first sweep is done", || {
            fetch("/readyz").contains("ready\n") && !fetch("/readyz").contains("first")
        });
        assert!(!maker.works("quick"));
        wait_until("the event activates it", || maker.works("quick"));
        assert!(metric("birthmark_aws_events_total") >= 1.0);
    });
}

/// With authorization that counts, a device cannot touch another's topics nor pose as it, and the printed IAM policies are
/// enough for each command, and too little for the others.
#[test]
fn printed_policies_are_enough_and_no_more() {
    namespace::run("activate::printed_policies_are_enough_and_no_more", || {
        let site = Site::with(Emulator::start_with_authorization);
        site.prepare(&["--auto-registration"]);
        let (emulator, maker) = (&site.emulator, &site.maker);
        let devices = ["one", "two", "three"].map(|id| maker.device(id));
        let [one, two, three] = &devices;
        maker.bundle(("aws", 1), &[one], &[]);
        let user = |name: &str| {
            birthmark_bench::assertions::succeeded(&emulator.aws(&["iam", "create-user", "--user-name", name]));
            let policy = site.succeed(&["iam", name, "--account", ACCOUNT, "--region", "us-east-1"]);
            let policy = for_the_emulator(&policy);
            let put =
                ["iam", "put-user-policy", "--user-name", name, "--policy-name", "p", "--policy-document", &policy];
            birthmark_bench::assertions::succeeded(&emulator.aws(&put));
            let key = emulator.aws(&["iam", "create-access-key", "--user-name", name, "--output", "json"]);
            let key: serde_json::Value = serde_json::from_slice(&key.stdout).unwrap();
            let part = |name: &str| key["AccessKey"][name].as_str().unwrap().to_owned();
            (part("AccessKeyId"), part("SecretAccessKey"))
        };
        let run = |(key, secret): &(String, String), arguments: &[&str]| {
            let mut command = program(&maker.folder, ACCOUNT, arguments);
            command.env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", secret).output().unwrap()
        };
        let [registrar, activator, status, doctor, authority] =
            ["register", "activate", "status", "doctor", "register-ca"].map(user);
        birthmark_bench::assertions::succeeded(&run(&registrar, &site.register(&["aws.0001"])));
        birthmark_bench::assertions::succeeded(&run(
            &authority,
            &["register-ca", "--ca", "issuer.pem", "--auto-registration"],
        ));
        assert!(maker.works("one"));
        birthmark_bench::assertions::succeeded(&run(&status, &["status", "aws.0001", "--trusted-key", "audit.pem"]));
        let denied = run(&status, &site.register(&["aws.0001"]));
        assert_eq!(denied.status.code(), Some(1), "status may not register");
        let examined = run(&doctor, &["doctor", "--ca", "issuer.pem", "--policy", "device", "--jitr"]);
        let told = birthmark_bench::assertions::text(&examined.stdout);
        assert_eq!(examined.status.code(), Some(3), "{told}");
        assert!(told.contains("lack iot:") && told.contains("iam register\"") && !told.contains("BAD"), "{told}");

        // The activator's user activates.
        bundle_for_activator(&site, two);
        let mut command = program(
            &maker.folder,
            ACCOUNT,
            &[
                "activate",
                "--bundles",
                "inbox",
                "--trusted-key",
                "audit.pem",
                "--interval",
                "1s",
                "--limit",
                "all=2000",
            ],
        );
        command.env("AWS_ACCESS_KEY_ID", &activator.0).env("AWS_SECRET_ACCESS_KEY", &activator.1);
        let log = fs::File::create(maker.folder.join("activate.log")).unwrap();
        let _process = Process::spawn(command.stdout(Stdio::null()).stderr(log)).unwrap();
        assert!(!maker.works("two"));
        wait_until("the activator's own policy is enough", || maker.works("two"));
        // A certificate of the same CA that no bundle names stays out.
        assert!(!maker.works("three"));
        assert_eq!(emulator.status(&three.certificate_id).as_deref(), Some("PENDING_ACTIVATION"));

        // Another's topic, another's name, everybody's events.
        assert!(maker.may_publish("one", "one", "devices/one/down"));
        assert!(!maker.may_publish("one", "one", "devices/two/up"));
        assert!(!maker.may_publish("one", "two", "devices/two/up"));
        assert!(!maker.may_publish("one", "one", "$aws/things/two/shadow/update"));
        assert!(maker.may_publish("one", "one", "$aws/things/one/shadow/update"));
    });
}

/// The emulator knows no resource for calls about CAs and for AttachPolicy, which AWS does know: there only the action is
/// tested.
fn for_the_emulator(policy: &str) -> String {
    let mut policy: serde_json::Value = serde_json::from_str(policy).unwrap();
    for statement in policy["Statement"].as_array_mut().unwrap() {
        let unknown = |action: &serde_json::Value| {
            let action = action.as_str().unwrap();
            action.ends_with("CACertificate") || action == "iot:AttachPolicy"
        };
        if statement["Action"].as_array().unwrap().iter().all(unknown) {
            statement["Resource"] = "*".into();
        }
    }
    policy.to_string()
}

fn bundle_for_activator(site: &Site, device: &Device) {
    fs::create_dir_all(site.maker.folder.join("inbox")).unwrap();
    bundle(site, ("jitr", 1), &[device], &[]);
}
