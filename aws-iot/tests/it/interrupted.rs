//! `birthmark-aws register` and `activate`, cut off anywhere: by a kill, by AWS, by an emulator that forgets.

use std::{
    fs,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use birthmark_bench::{
    assertions::{succeeded, text, wait_until},
    process::Process,
};

use crate::{
    emulator::ACCOUNT,
    maker::Device,
    namespace,
    proxy::{Act, Proxy},
    support::{QUICK, Site, program},
};

fn all(devices: &[Device]) -> Vec<&Device> {
    devices.iter().collect()
}

/// Everything is in place for this device, once.
fn is_whole(site: &Site, device: &Device) -> bool {
    let emulator = &site.emulator;
    let id = &device.certificate_id;
    emulator.status(id).as_deref() == Some("ACTIVE")
        && emulator.certificates_of(&device.id) == std::slice::from_ref(id)
        && emulator.policies_of(id) == ["device"]
}

/// Killed before or after any of its calls, it leaves nothing that the next run does not finish.
#[test]
fn registration_killed_at_any_call_is_finished() {
    namespace::run("interrupted::registration_killed_at_any_call_is_finished", || {
        let site = Site::ready(&[]);
        let mut round = 0;
        for after in [false, true] {
            // Each round kills one call later, until a run makes fewer.
            for call in 1.. {
                round += 1;
                let name = format!("kill{round}");
                let device = site.maker.device(&name);
                site.maker.bundle((&name, 1), &[&device], &[]);
                let reached = Arc::new(AtomicUsize::new(0));
                let mark = reached.clone();
                let proxy = Proxy::start(move |number, _| match (number == call, after) {
                    (false, _) => Act::Pass,
                    (true, after) => {
                        mark.store(1, Ordering::SeqCst);
                        if after { Act::PassAndDrop } else { Act::Drop }
                    }
                });
                let bundle = format!("{name}.0001");
                let mut command = program(&site.maker.folder, ACCOUNT, &site.register(&[&bundle]));
                command.env("AWS_ENDPOINT_URL", &proxy.url).stdout(Stdio::null()).stderr(Stdio::null());
                let mut process = Process::spawn(&mut command).unwrap();
                wait_until("the call, or the end", || {
                    reached.load(Ordering::SeqCst) == 1 || !process.is_running().unwrap()
                });
                let ended = reached.load(Ordering::SeqCst) == 0;
                if after {
                    // The emulator answers the proxy before the connection is dropped.
                    thread::sleep(Duration::from_millis(30));
                }
                process.kill().unwrap();
                site.registered(&[&bundle]);
                assert!(is_whole(&site, &device), "killed at call {call}");
                assert_eq!(site.results(&bundle).len(), 1);
                if ended {
                    assert!(call > 6, "{call} calls");
                    break;
                }
            }
        }
    });
}

/// Throttling, errors of AWS and lost answers cost time, and nothing else.
#[test]
fn registration_goes_on_through_throttling_and_errors() {
    namespace::run("interrupted::registration_goes_on_through_throttling_and_errors", || {
        let site = Site::ready(&[]);
        let devices = site.maker.devices(20);
        site.maker.bundle(("aws", 1), &all(&devices), &[]);
        let proxy = Proxy::start(|number, _| match number % 29 {
            3 => Act::Refuse(429, "ThrottlingException"),
            5 => Act::Refuse(400, "ThrottlingException"),
            7 => Act::Refuse(500, "InternalFailureException"),
            8 => Act::Refuse(503, "ServiceUnavailableException"),
            9 => Act::PassAndDrop,
            10 => Act::Drop,
            _ => Act::Pass,
        });
        let mut command = program(&site.maker.folder, ACCOUNT, &site.register(&["aws.0001"]));
        let run = command.env("AWS_ENDPOINT_URL", &proxy.url).output().unwrap();
        succeeded(&run);
        let results = site.results("aws.0001");
        assert_eq!(results.len(), 20);
        assert!(
            results.values().all(|line| line["state"] == "registered" || line["state"] == "already"),
            "{results:?}"
        );
        assert!(devices.iter().all(|device| is_whole(&site, device)));
        // What AWS does not allow ends the run at once, and says what is lacking.
        let proxy = Proxy::start(|_, line| match line.contains("/certificate/register") {
            true => Act::Refuse(403, "AccessDeniedException"),
            false => Act::Pass,
        });
        let more = site.maker.device("more");
        site.maker.bundle(("aws", 2), &[&more], &[]);
        let mut command = program(&site.maker.folder, ACCOUNT, &site.register(&["aws.0002"]));
        let run = command.env("AWS_ENDPOINT_URL", &proxy.url).output().unwrap();
        assert_eq!(run.status.code(), Some(1));
        assert!(
            text(&run.stderr).contains("RegisterCertificate") && text(&run.stderr).contains("AccessDenied"),
            "{}",
            text(&run.stderr)
        );
        assert!(!site.maker.folder.join("aws.0002.results.jsonl").exists());
    });
}

/// A thousand certificates: killed, started again, the emulator killed with all it knew, started again: each once in the
/// results, and everything in place.
#[test]
fn thousand_certificates_survive_kills_of_both_sides() {
    namespace::run("interrupted::thousand_certificates_survive_kills_of_both_sides", || {
        let mut site = Site::ready(&[]);
        let devices = site.maker.devices(1000);
        site.maker.bundle(("aws", 1), &all(&devices), &[]);
        let state = site.maker.folder.join("birthmark-aws-state");
        let lines = || {
            let files = fs::read_dir(&state).into_iter().flatten().flatten();
            let file = files.map(|file| file.path()).find(|path| path.to_string_lossy().ends_with(".state.jsonl"));
            file.and_then(|path| fs::read_to_string(path).ok()).map_or(0, |text| text.lines().count())
        };
        let start = |site: &Site| {
            let arguments = [&["register", "--trusted-key", "audit.pem"], &QUICK[..], &["aws.0001"]].concat();
            let mut command = program(&site.maker.folder, ACCOUNT, &arguments);
            let log =
                fs::File::options().create(true).append(true).open(site.maker.folder.join("register.log")).unwrap();
            Process::spawn(command.stdout(Stdio::null()).stderr(log)).unwrap()
        };
        let mut process = start(&site);
        wait_until("some are registered", || lines() > 150);
        process.kill().unwrap();
        // The emulator goes away, and comes back without anything it knew.
        let mut process = start(&site);
        wait_until("more are registered", || lines() > 350);
        site.emulator.kill();
        thread::sleep(Duration::from_secs(1));
        assert!(process.is_running().unwrap(), "it waits for AWS");
        site.emulator.start_again();
        let exit = process.wait().unwrap();
        assert!(!exit.success(), "the CA and the policy are gone");
        site.prepare(&[]);
        let said = site.registered(&["aws.0001"]);
        assert_eq!(said[0]["failed"], 0, "{said}");
        let results = site.results("aws.0001");
        assert_eq!(results.len(), 1000);
        for device in &devices {
            assert!(results.contains_key(&device.certificate_id), "{}", device.id);
        }
        assert!(devices.iter().step_by(50).all(|device| is_whole(&site, device)));
        assert!(site.run(&["status"]).status.success(), "{}", text(&site.run(&["status"]).stdout));
        // Once more: nothing is registered again.
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let proxy = Proxy::start(move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            Act::Pass
        });
        let mut command = program(&site.maker.folder, ACCOUNT, &site.register(&["aws.0001"]));
        succeeded(&command.env("AWS_ENDPOINT_URL", &proxy.url).output().unwrap());
        assert!(calls.load(Ordering::SeqCst) < 20, "{} calls", calls.load(Ordering::SeqCst));
        assert_eq!(site.results("aws.0001"), results);
        let told = fs::read_to_string(site.maker.folder.join("register.log")).unwrap();
        assert!(told.contains("AWS does not take calls; will keep trying"), "{told}");
    });
}

/// An activator that is killed at any call leaves a device that the next one activates; it is never active before all else
/// is in place.
#[test]
fn activation_killed_at_any_call_is_finished() {
    namespace::run("interrupted::activation_killed_at_any_call_is_finished", || {
        let site = Site::ready(&["--auto-registration"]);
        fs::create_dir(site.maker.folder.join("inbox")).unwrap();
        for call in 1.. {
            let name = format!("kill{call}");
            let device = site.maker.device(&name);
            assert!(!site.maker.works(&name));
            site.maker.bundle_in(&site.maker.folder.join("inbox"), (&name, 1), &[&device], &[], "");
            let reached = Arc::new(AtomicUsize::new(0));
            let mark = reached.clone();
            let proxy = Proxy::start(move |number, _| {
                if number == call {
                    mark.store(1, Ordering::SeqCst);
                    return Act::PassAndDrop;
                }
                Act::Pass
            });
            let arguments = [
                "activate",
                "--bundles",
                "inbox",
                "--trusted-key",
                "audit.pem",
                "--listen",
                "",
                "--interval",
                "1s",
                "--limit",
                "all=2000",
            ];
            let start = |endpoint: &str| {
                let mut command = program(&site.maker.folder, ACCOUNT, &arguments);
                command.env("AWS_ENDPOINT_URL", endpoint).stdout(Stdio::null()).stderr(Stdio::null());
                Process::spawn(&mut command).unwrap()
            };
            let mut process = start(&proxy.url);
            wait_until("the call, or the activation", || {
                reached.load(Ordering::SeqCst) == 1
                    || site.emulator.status(&device.certificate_id).as_deref() == Some("ACTIVE")
            });
            thread::sleep(Duration::from_millis(30));
            process.kill().unwrap();
            if site.emulator.status(&device.certificate_id).as_deref() == Some("ACTIVE") {
                assert!(is_whole(&site, &device), "active before all else was in place, at call {call}");
                if reached.load(Ordering::SeqCst) == 0 {
                    assert!(call > 6, "{call} calls");
                    break;
                }
            }
            let mut process = start(crate::emulator::API);
            wait_until("the activation", || site.emulator.status(&device.certificate_id).as_deref() == Some("ACTIVE"));
            assert!(is_whole(&site, &device));
            process.kill().unwrap();
        }
    });
}
