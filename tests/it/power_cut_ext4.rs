//! The power fails under a real file system: ext4 on a loop device, with the index open and busy.
//!
//! A process of its own issues, with an index so small that runs are written and merged all the time, and now and then
//! closes and opens the ledger. At a random moment the file system is shut down without a flush: nothing more reaches
//! the disk, as at a power cut. What the disk has then is copied block by block and mounted elsewhere. All that the
//! ledger had acknowledged must be found there, byte by byte, and no device may get a second certificate; in another
//! boot as after a power cut, and in the same one as when a disk went away and came back.
//!
//! `BIRTHMARK_POWER_CUTS` sets how many cuts there are, `BIRTHMARK_SEED` repeats their plan. It needs root, a loop
//! device and mkfs.ext4. Where it may not run it says so; with BIRTHMARK_MUST_MOUNT set that is a failure.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use birthmark::{
    hash::sha256,
    ledger::{
        Action, Holder, Ledger, LedgerError, Outcome, RecordState, Records, Refusal,
        embedded::{EmbeddedLedger, EmbeddedRecords, Settings},
        journal::Scan,
        verify::{VerifyOptions, verify},
    },
    serial::SerialNumber,
};
use jiff::Timestamp;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::ledger::{self, batches, cut, operation, terms};

const FOLDER: &str = "BIRTHMARK_EXT4_FOLDER";
const BOOT: &str = "BIRTHMARK_EXT4_BOOT";
const IMAGE_BYTES: u64 = 64 << 20;

fn settings(boot: &str) -> Settings {
    Settings { segment_size: 64 << 10, flush_at: 12, min_free: 0, mirror: None, boot_id: Some(boot.to_owned()) }
}

fn open(folder: &Path, boot: &str) -> Result<(EmbeddedLedger, EmbeddedRecords), LedgerError> {
    EmbeddedLedger::open(folder, Timestamp::now(), &settings(boot))
}

fn holder(device: &str, key: &str) -> Holder {
    ledger::holder(device, sha256(format!("{key} {device}").as_bytes()))
}

fn certificate(device: &str, serial_number: &SerialNumber) -> Vec<u8> {
    let seed = sha256(format!("{device} {serial_number}").as_bytes());
    seed.iter().copied().cycle().take(300).collect()
}

fn commit(ledger: &mut EmbeddedLedger, actions: Vec<Action>) -> Result<Vec<Outcome>, LedgerError> {
    ledger.commit(Timestamp::now(), &actions.into_iter().map(operation).collect::<Vec<_>>())
}

#[test]
#[ignore = "runs until the power fails, in the processes that the test below starts"]
fn workload() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let boot = std::env::var(BOOT).unwrap();
    let seed: u64 = std::env::var("BIRTHMARK_SEED").unwrap().parse().unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let mut out = std::io::stdout().lock();
    for session in 0u32.. {
        let (mut ledger, records) = open(&folder, &boot).unwrap();
        if records.order("o").unwrap().is_none() {
            commit(&mut ledger, vec![Action::CreateOrder(terms("o"))]).unwrap();
        }
        let mut issued: Vec<SerialNumber> = Vec::new();
        for batch in 0..random.random_range(20..200u32) {
            let devices: Vec<_> = (0..6).map(|n| format!("d{seed}-{session}-{batch}-{n}")).collect();
            let reserve = devices.iter().map(|device| Action::Reserve(holder(device, "key"))).collect();
            let reserved = commit(&mut ledger, reserve).unwrap();
            let serials: Vec<_> = reserved
                .into_iter()
                .map(|outcome| match outcome {
                    Outcome::Reserved(serial_number) => serial_number,
                    other => panic!("{other:?}"),
                })
                .collect();
            let record = |(device, serial): (&String, &SerialNumber)| Action::Record {
                serial_number: *serial,
                certificate: certificate(device, serial).into(),
            };
            let recorded = commit(&mut ledger, devices.iter().zip(&serials).map(record).collect()).unwrap();
            // What could not be decided was not acknowledged: the power is gone.
            if !recorded.iter().all(|outcome| matches!(outcome, Outcome::Recorded)) {
                return;
            }
            let lines: String =
                devices.iter().zip(&serials).map(|(device, serial)| format!("issued {serial} {device}\n")).collect();
            out.write_all(lines.as_bytes()).unwrap();
            // What became of some of those before; they may be in memory or in the index.
            let confirmed: Vec<_> = issued.drain(..issued.len().min(random.random_range(0..5))).collect();
            if !confirmed.is_empty() {
                let actions = confirmed
                    .iter()
                    .map(|serial| Action::Confirm { serial_number: *serial, device: None, profiles: None })
                    .collect();
                let changed = commit(&mut ledger, actions).unwrap();
                if !changed.iter().all(|outcome| matches!(outcome, Outcome::Changed { .. })) {
                    return;
                }
                let lines: String = confirmed.iter().map(|serial| format!("confirmed {serial}\n")).collect();
                out.write_all(lines.as_bytes()).unwrap();
            }
            issued.extend(serials);
            if batch % 50 == 30 {
                commit(&mut ledger, vec![Action::CreateBatch(cut(&records, "a"))]).unwrap();
            }
        }
        drop(records);
        if random.random_ratio(1, 2) {
            ledger.close().unwrap();
        }
    }
}

/// A file system in an image; gone when dropped.
pub(crate) struct Mounted {
    pub(crate) at: PathBuf,
}

impl Mounted {
    pub(crate) fn new(image: &Path, at: &Path) -> Result<Mounted, String> {
        fs::create_dir_all(at).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at))?;
        Ok(Mounted { at: at.to_owned() })
    }

    /// Nothing more reaches the disk: ext4's shutdown without a flush of its journal.
    fn cut_power(&self) {
        let program = "import fcntl, os, struct, sys\n\
                       fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))\n";
        run(Command::new("python3").args(["-c", program]).arg(&self.at)).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A process that another test starts has the file system's files for a moment, until it becomes that program.
        for _ in 0..100 {
            if run(Command::new("umount").arg(&self.at)).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        eprintln!("{} is still mounted", self.at.display());
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}")) }
}

pub(crate) fn make_image(image: &Path, bytes: u64) -> Result<(), String> {
    let _ = fs::remove_file(image);
    File::create(image).unwrap().set_len(bytes).unwrap();
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image))
}

#[test]
fn ledger_on_ext4_survives_power_cuts_with_its_index_busy() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let cuts = number("BIRTHMARK_POWER_CUTS").unwrap_or(20);
    let seed = number("BIRTHMARK_SEED").unwrap_or_else(rand::random);
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let possible =
        make_image(&image, IMAGE_BYTES).and_then(|()| Mounted::new(&image, &folder.path().join("mnt")).map(drop));
    if let Err(why) = possible {
        assert!(std::env::var_os("BIRTHMARK_MUST_MOUNT").is_none(), "{why}");
        // To the terminal, whatever the test harness keeps.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: no power cuts on ext4 here, which needs root and a loop device: {why}"
        );
        return;
    }
    println!("BIRTHMARK_POWER_CUTS={cuts} BIRTHMARK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut rebuilt, mut used, mut acknowledged) = (0, 0, 0);
    for cut in 0..cuts {
        let another_boot = random.random_ratio(1, 2);
        let about = format!("cut {cut} of seed {seed}, {} boot", if another_boot { "another" } else { "the same" });
        make_image(&image, IMAGE_BYTES).unwrap();
        let lines = work_until_the_cut(&image, folder.path(), &mut random, seed ^ cut);
        acknowledged += lines.len();
        // Block by block, and mounted elsewhere.
        let copy = folder.path().join("copy");
        // A new file: of one that is mounted in a namespace of another test still, mount would show what that one has.
        let _ = fs::remove_file(&copy);
        fs::copy(&image, &copy).unwrap();
        let mounted = Mounted::new(&copy, &folder.path().join("elsewhere")).unwrap();
        let boot = if another_boot { "second" } else { "first" };
        let data = mounted.at.join("data");
        let set_aside = check(&data, boot, &lines, &about);
        if another_boot && !lines.is_empty() {
            // Only one that was closed in order may be used again.
            used += u32::from(!set_aside);
        }
        rebuilt += u32::from(set_aside);
    }
    println!(
        "{acknowledged} acknowledgements; {rebuilt} of {cuts} indexes were rebuilt, {used} were used in another boot"
    );
    assert!(acknowledged as u64 > cuts * 20 && rebuilt > 0);
}

/// Runs [`workload`] on the image until its power is cut. Gives what it acknowledged before.
fn work_until_the_cut(image: &Path, folder: &Path, random: &mut StdRng, seed: u64) -> Vec<String> {
    let mounted = Mounted::new(image, &folder.join("mnt")).unwrap();
    // Dirty pages are written back at once, or hardly ever.
    let commit = if random.random_ratio(1, 2) { "remount,commit=1" } else { "remount,commit=300" };
    run(Command::new("mount").args(["-o", commit]).arg(&mounted.at)).unwrap();
    let mut worker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "power_cut_ext4::workload", "--ignored", "--nocapture"])
        .env(FOLDER, mounted.at.join("data"))
        .env(BOOT, "first")
        .env("BIRTHMARK_SEED", seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let said = BufReader::new(worker.stdout.take().unwrap());
    let reading = thread::spawn(move || {
        let lines = said.lines().map_while(Result::ok);
        lines.filter(|line| line.starts_with("issued ") || line.starts_with("confirmed ")).collect::<Vec<_>>()
    });
    let until = Instant::now() + Duration::from_millis(random.random_range(50..1500));
    while Instant::now() < until && worker.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(5));
    }
    if worker.try_wait().unwrap().is_none() {
        stop(&worker);
    }
    mounted.cut_power();
    let _ = worker.kill();
    worker.wait().unwrap();
    let lines = reading.join().unwrap();
    drop(mounted);
    lines
}

/// Stops all threads of the process, as a power cut does. One whose sync is under way acknowledges nothing afterwards:
/// ext4 that is shut down while two syncs wait for one transaction may return 0 to one of them although nothing is
/// durable.
fn stop(worker: &Child) {
    let pid = Pid::from_child(worker);
    if kill_process(pid, Signal::STOP).is_err() {
        return; // It has ended by itself.
    }
    let tasks = format!("/proc/{}/task", worker.id());
    let still = |task: io::Result<fs::DirEntry>| {
        let stat = task.and_then(|task| fs::read_to_string(task.path().join("stat"))).unwrap_or_default();
        // After the name in brackets: T is stopped, D a system call that cannot be interrupted, Z and X have ended.
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        state.is_none_or(|state| "TDZX".contains(state))
    };
    while !fs::read_dir(&tasks).is_ok_and(|tasks| tasks.into_iter().all(still)) {
        thread::yield_now();
    }
}

/// All that was acknowledged is there, and the rules hold. Gives whether the index was rebuilt.
fn check(data: &Path, boot: &str, lines: &[String], about: &str) -> bool {
    if lines.is_empty() && !data.exists() {
        return false;
    }
    let (mut ledger, records) = open(data, boot).unwrap_or_else(|error| panic!("{about}: {error}"));
    let set_aside = data.join("index.unusable").exists();
    let mut issued = 0;
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        let serial: SerialNumber = words[1].parse().unwrap();
        let record = records.by_serial_number(&serial).unwrap().unwrap_or_else(|| panic!("{about}: {line}: lost"));
        match words[..] {
            ["issued", _, device] => {
                issued += 1;
                assert_eq!(record.issued.as_ref().unwrap().certificate, certificate(device, &serial), "{about}");
                assert_eq!(records.by_device(device).unwrap().as_ref(), Some(&record), "{about}: {line}");
                if issued % 5 == 0 {
                    let actions = ["key", "another"].map(|key| Action::Reserve(holder(device, key)));
                    let outcomes = commit(&mut ledger, actions.into()).unwrap();
                    let [Outcome::Replay { .. }, Outcome::Refused(Refusal::DeviceHasCertificate { .. })] =
                        &outcomes[..]
                    else {
                        panic!("{about}: {line}: {outcomes:?}")
                    };
                }
            }
            _ => assert_eq!(record.state, RecordState::Confirmed, "{about}: {line}"),
        }
    }
    if issued > 0 {
        let order = records.order("o").unwrap().unwrap();
        assert!(order.issued >= issued, "{about}: {} issued, {issued} acknowledged", order.issued);
        let found = records.issued_under("o").unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(found.len() as u64, order.issued, "{about}");
        // Each is compared with what it counts.
        batches(&records).unwrap();
    }
    drop(records);
    ledger.close().unwrap();
    verify(Scan::open(data).unwrap(), &VerifyOptions::default(), &mut |_| {})
        .unwrap_or_else(|error| panic!("{about}: {error}"));
    set_aside
}
