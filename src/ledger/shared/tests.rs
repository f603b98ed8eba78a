//! The shared ledger on a real PostgreSQL: its invariants, one test each, and what else two daemons may not do to each other.

mod copies;
mod faults;
mod scene;
mod servers;

use std::{collections::BTreeSet, fs, path::Path, thread, time::Duration};

use birthmark_bench::postgres::{Server, psql};
use jiff::Timestamp;

use self::scene::{Scene, device, operation, order, reserve};
use super::{DatabaseSettings, SharedLedger};
use crate::{
    ledger::{
        Action, Ledger, LedgerError, Outcome, Records, Refusal,
        checkpoint::Checkpoint,
        embedded::{EmbeddedLedger, Guards},
        epoch::{tag, tag_of},
        journal::Scan,
        verify::{VerifyOptions, verify},
    },
    signer::PublicKey,
};

/// Invariant 1. A COMMIT whose wait for the standby was cancelled is reported as a success, with a warning: it is none.
#[test]
fn answer_stands_behind_an_acknowledged_commit() {
    let server = Server::start(&[]).unwrap();
    if server.port().is_none() {
        // Somebody else's server keeps its settings.
        return;
    }
    let scene = Scene::on(&server);
    // What is set for the role does not keep the warning back.
    server.sql(&format!("ALTER ROLE {} SET client_min_messages = error", scene.place.role)).unwrap();
    let mut one = scene.open_at(&scene.place.daemons, "one", tempfile::tempdir().unwrap(), 120);
    one.ask(order("lot", 10));
    server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").unwrap();
    server.sql("SELECT pg_reload_conf()").unwrap();
    // Until the server's checkpointer knows it.
    thread::sleep(Duration::from_secs(2));
    let answered = thread::spawn(move || {
        let outcome = one.ask(reserve(1, "lot"));
        (Timestamp::now(), outcome, one)
    });
    // The waits are cancelled, and each time it must not take that for an answer.
    let waiting =
        "SELECT count(*) FROM (SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep') AS w";
    let mut cancelled = 0;
    for _ in 0..200 {
        if cancelled > 2 {
            break;
        }
        cancelled += server.sql(waiting).unwrap().parse::<u32>().unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    assert!(cancelled > 1 && !answered.is_finished(), "{cancelled} waits were cancelled");
    let before = Timestamp::now();
    server.sql("ALTER SYSTEM SET synchronous_standby_names = ''").unwrap();
    server.sql("SELECT pg_reload_conf()").unwrap();
    let (when, outcome, one) = answered.join().unwrap();
    assert!(matches!(outcome, Outcome::Reserved(_)) && when > before, "{outcome:?}");
    // It happened once, however often it was asked for.
    assert_eq!(one.records.order("lot").unwrap().unwrap().reserved, 1);
    scene.check(vec![one]);
}

/// Invariant 2. What is signed for was reserved in an acknowledged batch of the daemon's own, open epoch; a daemon that was given
/// up has nothing to sign for, whatever its clock says, and goes on in a new epoch by itself.
#[test]
fn given_up_daemons_reservation_is_lost_and_it_goes_on() {
    let scene = Scene::new();
    let (mut one, mut two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 10));
    let serial_number = one.reserved(1, "lot");
    assert_eq!(tag_of(&serial_number), tag(one.ledger.life.epoch()));
    let kept = one.reserved(2, "lot");
    assert!(matches!(one.ask(scene::record(kept)), Outcome::Recorded));
    // Nothing is heard of it for its lease.
    two.follow_for(Duration::from_millis(4500));
    assert!(two.ledger.take_ended().contains(&serial_number));
    let lost = one.ask(scene::record(serial_number));
    assert!(matches!(lost, Outcome::Refused(Refusal::ReservationLost(_))), "{lost:?}");
    let again = one.issue(1, "lot");
    assert!(again > serial_number && tag_of(&again) != tag_of(&serial_number));
    scene.check(vec![one, two]);
}

/// Invariant 3. A reservation ends once, and after `Ended` of an epoch no entry of it exists: what an unsound daemon wrote stops
/// those who read it.
#[test]
fn entry_of_an_ended_epoch_is_refused() {
    let scene = Scene::new();
    let (mut one, mut two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 10));
    let epoch = one.ledger.life.epoch();
    one.close();
    two.ask(order("other", 10));
    // As if it had not noticed.
    psql(
        &scene.place.owner,
        &format!("UPDATE journal SET epoch = {epoch} WHERE batch = (SELECT max(batch) FROM journal)"),
    )
    .unwrap();
    // However often it starts.
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let refused = scene.try_open("three", &folder, 1).map(drop).unwrap_err().to_string();
        assert!(refused.contains(&format!("written in the epoch {epoch}, which is over")), "{refused}");
    }
}

/// Invariant 4. By the rules, and by `names`: a daemon that does not know what the table knows stops.
#[test]
fn key_and_device_are_bound_once_by_rules_and_by_names() {
    let scene = Scene::new();
    let (mut one, mut two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 10));
    one.issue(1, "lot");
    let stolen = two.ask(Action::Reserve(scene::holder("another", 1, "lot")));
    assert!(matches!(stolen, Outcome::Refused(Refusal::KeyReused { .. })), "{stolen:?}");
    let second = two.ask(Action::Reserve(scene::holder(&device(1), 2, "lot")));
    assert!(matches!(second, Outcome::Refused(Refusal::DeviceHasCertificate { .. })), "{second:?}");
    let insert = format!("INSERT INTO names VALUES (convert_to('d{}', 'UTF8'), '\\x00')", device(3));
    psql(&scene.place.owner, &insert).unwrap();
    let stopped = two.try_ask(reserve(3, "lot")).unwrap_err();
    assert!(stopped.is_fatal() && stopped.to_string().contains("table names"), "{stopped}");
    assert_eq!(scene.owner().status().unwrap().entries, one.records.head().sequence);
    drop(two);
    scene.owner().rebuild().unwrap();
    one.issue(3, "lot");
    scene.check(vec![one]);
}

/// Invariant 5. By the rules, and by the CHECK: of two daemons that race for the last units exactly as many are served.
#[test]
fn order_is_never_exceeded_by_rules_nor_by_its_check() {
    let scene = Scene::new();
    let (mut one, two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 20));
    let race = |mut daemon: scene::Daemon, from: u32| {
        thread::spawn(move || {
            let asked = (from..from + 20).map(|number| daemon.ask(reserve(number, "lot")));
            let reserved = asked.filter(|outcome| matches!(outcome, Outcome::Reserved(_))).count();
            (daemon, reserved)
        })
    };
    let (first, second) = (race(one, 0), race(two, 100));
    let ((one, first), (mut two, second)) = (first.join().unwrap(), second.join().unwrap());
    assert_eq!(first + second, 20);
    two.ask(order("second", 2));
    psql(&scene.place.owner, "UPDATE orders SET used = most WHERE id = 'second'").unwrap();
    let stopped = two.try_ask(reserve(300, "second")).unwrap_err();
    assert!(stopped.is_fatal() && stopped.to_string().contains("table orders"), "{stopped}");
    drop(two);
    scene.owner().rebuild().unwrap();
    scene.check(vec![one]);
}

/// Invariant 6. The copies are, file for file, the same bytes; and the audit finds nothing wrong with them.
#[test]
fn copy_is_a_prefix_of_the_journal_in_every_daemon() {
    let scene = Scene::new();
    let (mut one, mut two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 1000));
    for number in 0..40 {
        let daemon = if number % 3 == 0 { &mut one } else { &mut two };
        let serial_number = daemon.issue(number, "lot");
        if number % 7 == 0 {
            one.ask(Action::Scrap { serial_number, reason: "broken".into() });
            let outcome = two.ask(Action::Reissue(scene::holder(&device(number), number + 500, "lot")));
            let Outcome::Reserved(serial_number) = outcome else { panic!("{outcome:?}") };
            let ended = if number % 2 == 0 {
                scene::record(serial_number)
            } else {
                Action::Abandon { serial_number, reason: "no answer".into() }
            };
            two.ask(ended);
        }
    }
    let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal-0.1/ca/audit.pem");
    let key = PublicKey::from_spki(&crate::pem::read_public_key(&key).unwrap()).unwrap();
    let note = Checkpoint::new(&one.records.head(), Timestamp::now()).signed(&key, vec![1; 64]).to_string();
    one.ask(Action::Checkpoint { note: note.clone(), earlier_checkpoints_lost: false });
    // The third reads all of it from the database.
    let mut three = scene.daemon("three");
    three.ledger.follow(Timestamp::now()).unwrap();
    assert_eq!(three.records.followed_checkpoint().as_deref(), Some(&*note));
    scene.check(vec![one, two, three]);
}

/// Invariant 7. A retry at another daemon gets the same bytes, also while the first one is at it.
#[test]
fn same_request_gets_the_same_bytes_from_any_daemon() {
    let scene = Scene::new();
    let (mut one, mut two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 10));
    let serial_number = one.reserved(1, "lot");
    let meanwhile = two.ask(reserve(1, "lot"));
    assert!(matches!(meanwhile, Outcome::InProgress(same) if same == serial_number), "{meanwhile:?}");
    one.ask(scene::record(serial_number));
    two.ledger.follow(Timestamp::now()).unwrap();
    assert_eq!(two.ledger.take_ended(), [serial_number]);
    let replayed = two.ask(reserve(1, "lot"));
    let Outcome::Replay { serial_number: same, certificate, .. } = replayed else { panic!("{replayed:?}") };
    assert_eq!((same, &certificate[..]), (serial_number, scene::certificate(serial_number).as_bytes()));
    scene.check(vec![one, two]);
}

/// Invariant 8. A database that lost what it had acknowledged, or has something else in its place, is refused with the numbers, and
/// can be completed from a copy.
#[test]
fn database_that_lost_batches_is_refused_and_restored() {
    let scene = Scene::new();
    let mut one = scene.daemon("one");
    one.ask(order("lot", 100));
    for number in 0..5 {
        one.issue(number, "lot");
    }
    // It sees nothing of what is lost later.
    let mut two = scene.open_at(&scene.place.daemons, "two", tempfile::tempdir().unwrap(), 1);
    let old = scene.head();
    for number in 5..9 {
        one.issue(number, "lot");
    }
    let entries = one.records.head().sequence;
    scene.roll_back(&old);
    let lost = one.try_ask(reserve(50, "lot")).unwrap_err();
    assert!(
        lost.is_fatal() && lost.to_string().contains(&format!("({entries} entries), and it has {}", old.batch)),
        "{lost}"
    );
    let folder = one.crash();
    // The one that noticed it has closed the ledger, which the other one hears without being asked for anything.
    two.ledger.follow(Timestamp::now()).unwrap();
    assert!(two.records.healthy().unwrap_err().contains("its ledger is closed"));
    let other = two.try_ask(reserve(51, "lot")).unwrap_err();
    assert!(matches!(&other, LedgerError::Unavailable { .. }), "{other}");
    let why = two.records.healthy().unwrap_err();
    assert!(why.contains("has lost what it had acknowledged"), "{why}");
    psql(&scene.place.owner, "UPDATE head SET closed = NULL").unwrap();
    let lost = scene.try_open("one", &folder, 1).map(drop).unwrap_err();
    assert!(matches!(&lost, LedgerError::Lost { .. }), "{lost}");
    psql(
        &scene.place.owner,
        "UPDATE head SET closed = 'it has lost what it had acknowledged: birthmark ledger restore'",
    )
    .unwrap();
    let closed = scene.try_daemon("three").map(drop).unwrap_err().to_string();
    assert!(closed.contains("is closed") && closed.contains("birthmark ledger restore"), "{closed}");
    let restored = scene.owner().restore(folder.path()).unwrap();
    assert_eq!((restored.first, restored.entries), (old.sequence + 1, entries - restored.first + 1));
    let mut one = scene.open("one", folder);
    for number in 0..9 {
        assert!(matches!(one.ask(reserve(number, "lot")), Outcome::Replay { .. }));
    }
    one.issue(50, "lot");
    two.follow_for(Duration::from_millis(500));
    two.issue(51, "lot");
    scene.check(vec![one, two]);
}

/// Invariant 8. What a daemon only read, and was never acknowledged to it, is no loss: it begins again with what the database has,
/// and the others go on.
#[test]
fn batch_that_was_shown_and_never_acknowledged_is_put_aside() {
    let Some((scene, _server, _standby)) = Scene::with_standby() else { return };
    let (mut one, mut two) = (scene.daemon("one"), scene.daemon("two"));
    two.ask(order("lot", 100));
    one.ledger.follow(Timestamp::now()).unwrap();
    let head = scene.head();
    // A server that dies shows it to the other one, and its standby does not have it.
    one.reserved(1, "lot");
    let one = one.crash();
    two.ledger.look().unwrap();
    scene.roll_back(&head);
    scene.owner().rebuild().unwrap();
    let stopped = two.ledger.follow(Timestamp::now()).unwrap_err();
    assert!(stopped.is_fatal() && stopped.to_string().contains("never acknowledged to it"), "{stopped}");
    assert_eq!(scene.owner().status().unwrap().closed, None);
    let mut three = scene.daemon("three");
    three.issue(1, "lot");
    let mut two = scene.open("two", two.crash());
    assert!(two.folder().join("journal.unacknowledged.1").is_dir());
    assert!(matches!(two.ask(reserve(1, "lot")), Outcome::Replay { .. }));
    two.issue(2, "lot");
    // The one to which it was acknowledged knows that it is lost.
    let refused = scene.try_open("one", &one, 1).map(drop).unwrap_err().to_string();
    assert!(refused.contains("are others") || refused.contains("differ"), "{refused}");
    scene.check(vec![two, three]);
}

/// Invariant 8. What a daemon only read is made certain by its next heartbeat: it may be the one witness that is left.
#[test]
fn batch_that_was_only_read_is_lost_when_it_is_gone() {
    let Some((scene, _server, _standby)) = Scene::with_standby() else { return };
    let (mut one, mut two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 100));
    let head = scene.head();
    one.issue(1, "lot");
    let one = one.crash();
    two.follow_for(Duration::from_millis(2500));
    scene.roll_back(&head);
    let stopped = two.ledger.follow(Timestamp::now()).unwrap_err();
    assert!(stopped.is_fatal() && stopped.to_string().contains("has lost what it had acknowledged"), "{stopped}");
    assert!(scene.owner().status().unwrap().closed.is_some());
    scene.owner().restore(two.crash().path()).unwrap();
    let mut one = scene.open("one", one);
    assert!(matches!(one.ask(reserve(1, "lot")), Outcome::Replay { .. }));
    scene.check(vec![one]);
}

/// Invariant 1, with `copies = 2`. A server that is told to have no standby any more lets all go that wait for one, without a
/// warning: nothing of that is answered.
#[test]
fn answer_stands_behind_a_commit_with_a_standby() {
    let Some((scene, server, standby)) = Scene::with_standby() else { return };
    let settings = DatabaseSettings {
        copies: 2,
        patience: Duration::from_secs(6),
        ..scene.settings_at(&scene.place.daemons, "one")
    };
    let folder = tempfile::tempdir().unwrap();
    let opened = SharedLedger::open(folder.path(), Timestamp::now(), &scene::SETTINGS, &Guards::default(), &settings);
    let (mut ledger, _records) = opened.unwrap();
    let now = Timestamp::now;
    ledger.commit(now(), &[operation(order("lot", 10))]).unwrap();
    drop(standby);
    let asked = thread::spawn(move || (ledger.commit(now(), &[operation(reserve(1, "lot"))]), ledger));
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    while server.sql(waits).unwrap() == "0" {
        assert!(!asked.is_finished(), "it does not wait for the standby");
        thread::sleep(Duration::from_millis(20));
    }
    server.sql("ALTER SYSTEM SET synchronous_standby_names = ''").unwrap();
    server.sql("SELECT pg_reload_conf()").unwrap();
    let (answer, ledger) = asked.join().unwrap();
    assert!(matches!(&answer, Err(LedgerError::Unavailable { .. })), "{answer:?}");
    drop(ledger);
    // It has happened all the same, and is tidied up.
    let mut one = scene.open("one", folder);
    one.issue(1, "lot");
    scene.check(vec![one]);
}

/// Invariant 8. A copy that has more, and of something else, closes nothing: the ledger goes on without its daemon.
#[test]
fn diverged_copy_is_refused_and_closes_nothing() {
    let scene = Scene::new();
    let (mut one, two) = (scene.daemon("one"), scene.daemon("two").close());
    one.ask(order("lot", 100));
    let head = scene.head();
    let mut copy = scene.open("two", two);
    for number in 0..6 {
        copy.issue(number, "lot");
    }
    let copy = copy.crash();
    // An old backup takes the place of the database, and nobody notices for a while.
    scene.roll_back(&head);
    psql(&scene.place.owner, "DELETE FROM daemons WHERE epoch > 2").unwrap();
    scene.owner().rebuild().unwrap();
    one.issue(50, "lot");
    let refused = scene.try_open("two", &copy, 1).map(drop).unwrap_err();
    assert!(matches!(&refused, LedgerError::Storage(_)) && refused.to_string().contains("are others"), "{refused}");
    let refused = scene.owner().restore(copy.path()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("When two copies differ"), "{refused}");
    one.issue(51, "lot");
    scene.check(vec![one]);
}

/// Invariant 8. A row that was rewritten is noticed by whoever reads it, and the table's end by all.
#[test]
fn rewritten_journal_is_noticed() {
    let scene = Scene::new();
    let mut one = scene.daemon("one");
    one.ask(order("lot", 100));
    one.issue(1, "lot");
    let flip = "UPDATE journal SET frames = set_byte(frames, 60, 1 - sign(get_byte(frames, 60))::int) WHERE batch = 2";
    psql(&scene.place.owner, flip).unwrap();
    let refused = scene.try_daemon("two").map(drop).unwrap_err().to_string();
    assert!(refused.contains("the batch 2"), "{refused}");
    psql(&scene.place.owner, "UPDATE head SET chain = decode(repeat('ab', 32), 'hex')").unwrap();
    let stopped = one.try_ask(reserve(2, "lot")).unwrap_err();
    assert!(stopped.is_fatal() && stopped.to_string().contains("are others"), "{stopped}");
}

/// Invariant 8. A head that names batches which the journal does not have stops whoever meets it, at once.
#[test]
fn head_beyond_the_journal_stops_the_daemons() {
    let scene = Scene::new();
    let (mut one, mut two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 100));
    psql(&scene.place.owner, "UPDATE head SET batch = batch + 1").unwrap();
    let stopped = one.try_ask(reserve(2, "lot")).unwrap_err();
    assert!(stopped.is_fatal() && stopped.to_string().contains("rows were removed"), "{stopped}");
    let idle = two.ledger.follow(Timestamp::now()).unwrap_err();
    assert!(idle.is_fatal() && idle.to_string().contains("rows were removed"), "{idle}");
    let refused = scene.try_daemon("three").map(drop).unwrap_err().to_string();
    assert!(refused.contains("rows were removed"), "{refused}");
}

/// Invariant 9. With GRANTs, and a daemon does not start as somebody who could.
#[test]
fn daemons_role_cannot_change_the_journal() {
    let scene = Scene::new();
    let mut one = scene.daemon("one");
    one.ask(order("lot", 1));
    for change in [
        "UPDATE journal SET epoch = 0",
        "DELETE FROM journal",
        "TRUNCATE journal",
        "DROP TABLE journal",
        "DELETE FROM head",
        "INSERT INTO head SELECT * FROM head",
    ] {
        let refused = psql(&scene.place.daemons, change).unwrap_err().to_string();
        assert!(refused.contains("permission denied") || refused.contains("must be owner"), "{change}: {refused}");
    }
    let settings = scene.settings_at(&scene.place.owner, "two");
    let folder = tempfile::tempdir().unwrap();
    let opened = SharedLedger::open(folder.path(), Timestamp::now(), &scene::SETTINGS, &Guards::default(), &settings);
    let refused = opened.map(drop).unwrap_err().to_string();
    assert!(refused.contains("may change or delete rows of the journal"), "{refused}");
    scene.check(vec![one]);
}

/// A site moves from one machine to a database and back, and its chain is the same all the way.
#[test]
fn embedded_ledger_moves_into_a_database_and_back() {
    let scene = Scene::empty();
    let folder = tempfile::tempdir().unwrap();
    let open = || EmbeddedLedger::open(folder.path(), Timestamp::now(), &scene::SETTINGS);
    let (mut ledger, records) = open().unwrap();
    let mut ask = |action| ledger.commit(Timestamp::now(), &[operation(action)]).unwrap().remove(0);
    ask(order("lot", 100));
    let mut issued = BTreeSet::new();
    for number in 0..30 {
        let Outcome::Reserved(serial_number) = ask(reserve(number, "lot")) else { panic!() };
        ask(scene::record(serial_number));
        issued.insert(serial_number);
    }
    let before = records.head();
    ledger.close().unwrap();
    drop(records);
    let created = scene.owner().create(&scene.place.role, Some(folder.path())).unwrap();
    assert_eq!((created.ledger, created.entries), (before.ledger, before.sequence));
    let refused = open().map(drop).unwrap_err().to_string();
    assert!(refused.contains("ledger.database") && refused.contains("birthmark ledger leave"), "{refused}");
    let (mut one, mut two) = (scene.open("one", folder), scene.daemon("two"));
    assert!(matches!(two.ask(reserve(7, "lot")), Outcome::Replay { .. }));
    issued.insert(one.issue(30, "lot"));
    issued.insert(two.issue(31, "lot"));
    let folder = one.close();
    let entries = scene.owner().leave(folder.path()).map(drop).unwrap_err().to_string();
    assert!(entries.contains("ends at the entry") || entries.contains("have not ended: two"), "{entries}");
    two.close();
    let one = scene.open("one", folder);
    let folder = one.close();
    scene.owner().leave(folder.path()).unwrap();
    let closed = scene.try_daemon("three").map(drop).unwrap_err().to_string();
    assert!(closed.contains("is closed"), "{closed}");
    let (mut ledger, records) = EmbeddedLedger::open(folder.path(), Timestamp::now(), &scene::SETTINGS).unwrap();
    assert!(records.healthy().is_ok(), "{:?}", records.healthy());
    let outcome = ledger.commit(Timestamp::now(), &[operation(reserve(40, "lot"))]).unwrap().remove(0);
    assert!(matches!(outcome, Outcome::Reserved(serial) if serial > *issued.last().unwrap()), "{outcome:?}");
    assert_eq!(records.head().ledger, before.ledger);
    ledger.close().unwrap();
    let verified = verify(Scan::open(folder.path()).unwrap(), &VerifyOptions::default(), &mut |_| {}).unwrap();
    assert_eq!(verified.counts.issued, issued.len() as u64);
}

/// A daemon that crashed is known by the journal, whatever the table `daemons` has; another one gives it up, and then the ledger can
/// leave.
#[test]
fn ledger_leaves_when_the_journal_says_that_all_have_ended() {
    let scene = Scene::new();
    let (mut one, two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 100));
    let serial_number = one.reserved(1, "lot");
    let (folder, _two) = (one.crash(), two.crash());
    psql(&scene.place.owner, "DELETE FROM daemons").unwrap();
    let refused = scene.owner().leave(folder.path()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("have not ended: one, two"), "{refused}");
    let mut three = scene.daemon("three");
    three.follow_for(Duration::from_millis(4500));
    assert!(three.ledger.take_ended().contains(&serial_number));
    let reserved = three.reserved(1, "lot");
    assert!(reserved > serial_number);
    let left = three.close();
    scene.owner().leave(left.path()).unwrap();
    let refused = scene.owner().restore(folder.path()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("is closed"), "{refused}");
    // A folder from which nobody ended the epochs is a ledger as well, once it is one of its own.
    fs::remove_file(folder.path().join("shared")).unwrap();
    for folder in [left, folder] {
        let (mut ledger, records) = EmbeddedLedger::open(folder.path(), Timestamp::now(), &scene::SETTINGS).unwrap();
        let outcome = ledger.commit(Timestamp::now(), &[operation(reserve(1, "lot"))]).unwrap().remove(0);
        assert!(matches!(outcome, Outcome::Reserved(_)), "{outcome:?}");
        assert_eq!(records.healthy(), Ok(()));
        ledger.close().unwrap();
        verify(Scan::open(folder.path()).unwrap(), &VerifyOptions::default(), &mut |_| {}).unwrap();
    }
}

/// What is not fit for a ledger is refused with a sentence that says what would be.
#[test]
fn unfit_database_or_folder_is_refused_with_a_sentence() {
    let scene = Scene::empty();
    let says = |refused: Result<scene::Daemon, LedgerError>, what: &str| {
        let refused = refused.map(drop).unwrap_err().to_string();
        assert!(refused.contains(what), "{what}: {refused}");
    };
    says(scene.try_daemon("one"), "birthmark ledger create");
    let create = |role: &str, from: Option<&str>| {
        scene.owner().create(role, from.map(std::path::Path::new)).unwrap_err().to_string()
    };
    let refused = create("nobody-of-this-name", None);
    assert!(refused.contains("does not exist") && refused.contains("CREATE ROLE"), "{refused}");
    assert!(create(&scene.place.role, Some("/none/here")).contains("no ledger in /none/here"));
    scene.owner().create(&scene.place.role, None).unwrap();
    says(scene.try_open("one", &tempfile::tempdir().unwrap(), 2), "synchronous_standby_names is empty");
    let own = tempfile::tempdir().unwrap();
    let (mut ledger, _) = EmbeddedLedger::open(own.path(), Timestamp::now(), &scene::SETTINGS).unwrap();
    ledger.commit(Timestamp::now(), &[operation(order("lot", 1))]).unwrap();
    ledger.close().unwrap();
    says(scene.try_open("one", &own, 1), "holds a ledger of its own");
    let mut one = scene.daemon("one");
    let lives = thread::spawn(move || {
        one.follow_for(Duration::from_secs(4));
        one
    });
    says(scene.try_daemon("one"), "runs already, with another data folder");
    let folder = lives.join().unwrap().crash();
    let other = Scene::new();
    says(other.try_open("one", &folder, 1), "the database holds the ledger");
    psql(&scene.place.owner, "UPDATE head SET format = 7").unwrap();
    says(scene.try_open("one", &folder, 1), "have the format 7");
    psql(&scene.place.owner, "UPDATE head SET format = 1").unwrap();
    // A copy that is gone is read again.
    fs::remove_dir_all(folder.path().join("journal")).unwrap();
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let mut one = scene.open("one", folder);
    one.ask(order("lot", 1));
    let folder = one.close();
    let refused = scene.owner().restore(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("nothing to restore"), "{refused}");
    scene.check(vec![scene.open("one", folder)]);
    let lossy = Server::start(&["fsync=off"]).unwrap();
    if lossy.port().is_some() {
        let scene = Scene::on(&lossy);
        says(scene.try_daemon("one"), "fsync is off");
    }
}

/// The owner sees what there is, and who writes it.
#[test]
fn status_names_the_daemons() {
    let scene = Scene::new();
    let (mut one, two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 1));
    let status = scene.owner().status().unwrap();
    assert_eq!((status.ledger, status.entries), (one.records.head().ledger, one.records.head().sequence));
    let names: Vec<_> = status.daemons.iter().map(|daemon| daemon.name.as_str()).collect();
    assert_eq!((names, status.closed), (vec!["one", "two"], None));
    two.close();
    assert_eq!(scene.owner().status().unwrap().daemons.len(), 1);
    assert_eq!(scene.owner().upgrade().unwrap(), 1);
}
