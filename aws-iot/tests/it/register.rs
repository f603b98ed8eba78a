//! `birthmark-aws register`

use birthmark_bench::assertions::{refused, text};

use crate::{
    maker::{Device, Gone},
    namespace,
    support::Site,
};

fn all(devices: &[Device]) -> Vec<&Device> {
    devices.iter().collect()
}

/// A device that was registered connects at its first try; a replaced one is revoked; nothing asleep is woken.
#[test]
fn device_that_is_registered_connects_at_once() {
    namespace::run("register::device_that_is_registered_connects_at_once", || {
        let site = Site::ready(&["--auto-registration"]);
        let (emulator, maker) = (&site.emulator, &site.maker);
        let devices = maker.devices(4);
        maker.bundle(("aws", 1), &all(&devices), &[]);
        let said = site.registered(&["aws.0001"]);
        assert_eq!((&said[0]["registered"], &said[0]["failed"]), (&4.into(), &0.into()), "{said}");
        assert!(maker.works("dev-0001"), "the first connection of a registered device");
        let id = &devices[0].certificate_id;
        assert_eq!(emulator.status(id).as_deref(), Some("ACTIVE"));
        assert_eq!(emulator.certificates_of("dev-0001"), std::slice::from_ref(id));
        assert_eq!(emulator.policies_of(id), ["device"]);
        // Again: nothing changes, and the results are the same lines.
        let results = site.results("aws.0001");
        assert_eq!(results.len(), 4);
        site.registered(&["aws.0001"]);
        assert_eq!(site.results("aws.0001"), results);

        // dev-0002 gets another certificate, dev-0003 is scrapped, dev-0004 switched off by somebody; one connects too early.
        let again = maker.device_in("dev-0002", "dev-0002-again");
        let early = maker.device("dev-early");
        assert!(!maker.works("dev-early"), "an unknown certificate is registered as pending and dropped");
        let asleep = &devices[3].certificate_id;
        let inactive = aws_sdk_iot::types::CertificateStatus::Inactive;
        emulator
            .ask(emulator.client().update_certificate().certificate_id(asleep).new_status(inactive).send())
            .unwrap();
        let gone = [
            Gone { device: &devices[1], reason: "revoked", replaced_by: Some(&again) },
            Gone { device: &devices[2], reason: "scrapped", replaced_by: None },
        ];
        maker.bundle(("aws", 2), &[&again, &early], &gone);
        // The older bundle is given once more, after the newer: what is withdrawn stays withdrawn.
        let said = site.run(&site.register(&["aws.0002", "aws.0001"]));
        assert_eq!(said.status.code(), Some(3), "{}", text(&said.stderr));
        let (first, second) = (site.results("aws.0001"), site.results("aws.0002"));
        let state = |results: &std::collections::BTreeMap<String, serde_json::Value>, device: &Device| {
            results[&device.certificate_id]["state"].as_str().unwrap().to_owned()
        };
        assert_eq!(
            ["registered", "withdrawn", "withdrawn", "failed"].map(str::to_owned),
            [0, 1, 2, 3].map(|n| state(&first, &devices[n]))
        );
        assert_eq!(first[asleep]["code"], "CERTIFICATE_INACTIVE");
        assert_eq!(state(&second, &again), "registered");
        assert_eq!(state(&second, &early), "registered");
        for device in &devices[1..3] {
            assert_eq!(state(&second, device), "withdrawn");
            assert_eq!(emulator.status(&device.certificate_id).as_deref(), Some("REVOKED"));
        }
        assert_eq!(emulator.status(asleep).as_deref(), Some("INACTIVE"));
        assert_eq!(emulator.certificates_of("dev-0002"), std::slice::from_ref(&again.certificate_id));
        assert!(maker.works("dev-early"), "it connected before it was registered, and was made active");
        assert!(!maker.works("dev-0003"), "scrapped");
        assert!(maker.publish("dev-0002-again", "chain.pem", "dev-0002", "devices/dev-0002/up").success());

        // A thing that has another certificate, which no bundle withdraws: that one is told, and left alone.
        let second = maker.device_in("dev-0001", "dev-0001-again");
        maker.bundle(("aws", 3), &[&second], &[]);
        let said = site.run(&site.register(&["aws.0003"]));
        assert!(said.status.success(), "{}", text(&said.stderr));
        let warned = format!("dev-0001 also has the certificate {id}, which no bundle withdraws");
        assert!(text(&said.stderr).contains(&warned), "{}", text(&said.stderr));
        assert_eq!(emulator.status(id).as_deref(), Some("ACTIVE"));

        // A bundle of somebody else, or one that was changed, registers nothing.
        let data = maker.folder.join("aws.0002/data-00001.jsonl");
        let mut changed = std::fs::read(&data).unwrap();
        changed[20] ^= 1;
        std::fs::write(&data, changed).unwrap();
        refused(&site.run(&site.register(&["aws.0002"])), &["data-00001.jsonl", "changed"]);
    });
}

/// What all devices need is asked for before the first is registered.
#[test]
fn account_that_lacks_what_all_need_registers_nothing() {
    namespace::run("register::account_that_lacks_what_all_need_registers_nothing", || {
        let site = Site::new();
        let devices = site.maker.devices(1);
        let keys = "thing_type = \"sensor\"\nthing_groups = [\"north\"]\n[attributes]\nmodel = \"{order.model}\"";
        site.maker.bundle_in(&site.maker.folder, ("aws", 1), &all(&devices), &[], keys);
        let register = site.register(&["aws.0001"]);
        refused(&site.run(&register), &["nothing was registered", "no policy \"device\""]);
        let (emulator, client) = (&site.emulator, site.emulator.client());
        emulator.make_policy("device", &site.succeed(&["policy"]));
        refused(&site.run(&register), &["thing type \"sensor\""]);
        emulator.ask(client.create_thing_type().thing_type_name("sensor").send()).unwrap();
        refused(&site.run(&register), &["thing group \"north\""]);
        emulator.ask(client.create_thing_group().thing_group_name("north").send()).unwrap();
        refused(&site.run(&register), &["Test Issuing CA", "register-ca"]);
        // Without its CA it goes, and the thing is what the bundle says, beside what it had.
        let kept = aws_sdk_iot::types::AttributePayload::builder().attributes("site", "hall-3").build();
        emulator.ask(client.create_thing().thing_name("dev-0001").attribute_payload(kept).send()).unwrap();
        site.succeed(&[&register[..], &["--without-ca"]].concat());
        let thing = emulator.ask(client.describe_thing().thing_name("dev-0001").send()).unwrap();
        assert_eq!(thing.thing_type_name(), Some("sensor"));
        let attributes = thing.attributes().unwrap();
        assert_eq!((attributes["model"].as_str(), attributes["site"].as_str()), ("M1", "hall-3"));
        let groups = emulator.ask(client.list_thing_groups_for_thing().thing_name("dev-0001").send()).unwrap();
        assert_eq!(groups.thing_groups()[0].group_name(), Some("north"));
        assert!(site.maker.works("dev-0001"));
    });
}
