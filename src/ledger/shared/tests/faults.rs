//! The failure table: what may happen to daemons, connections and servers, and what must not come of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use birthmark_bench::{
    postgres::{Server, psql},
    proxy::Proxy,
};
use jiff::Timestamp;

use super::scene::{self, Daemon, Scene, order, record, reserve};
use crate::ledger::{
    Action, Ledger, LedgerError, Outcome, Records, Refusal,
    shared::{database::Database, error::Failure},
};

fn port() -> Option<u16> {
    Server::shared().port()
}

/// Its next life ends the epoch by itself; what was reserved is free, what was issued is given again.
#[test]
fn killed_daemon_ends_its_former_epoch_itself() {
    let scene = Scene::new();
    let mut one = scene.daemon("one");
    one.ask(order("lot", 2));
    let issued = one.issue(1, "lot");
    let open = one.reserved(2, "lot");
    let begun = Instant::now();
    let mut one = scene.open("one", one.crash());
    assert!(matches!(one.ask(reserve(1, "lot")), Outcome::Replay { serial_number, .. } if serial_number == issued));
    let again = one.issue(2, "lot");
    // There is no other daemon, which would end it when its lease is over.
    assert!(again > open && begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    scene.check(vec![one]);
}

/// Epochs count on from the newest, whichever is over: the one that begins is nobody else's.
#[test]
fn epochs_count_on_when_an_older_daemon_begins_again() {
    let scene = Scene::new();
    let (one, mut two) = (scene.daemon("one"), scene.daemon("two"));
    let before = [one.ledger.life.epoch(), two.ledger.life.epoch()];
    two.ask(order("lot", 3));
    let mut one = scene.open("one", one.crash());
    assert_eq!((before, one.ledger.life.epoch()), ([1, 2], 3));
    one.issue(1, "lot");
    two.issue(2, "lot");
    // The same when the newest is over, too.
    let (one, two) = (one.crash(), two.close());
    let (mut one, two) = (scene.open("one", one), scene.open("two", two));
    assert_eq!((one.ledger.life.epoch(), two.ledger.life.epoch()), (4, 5));
    one.issue(3, "lot");
    scene.check(vec![one, two]);
}

/// A daemon that has nothing to do takes in all that others write, however much that is.
#[test]
fn idle_daemon_keeps_up_with_a_busy_one() {
    let scene = Scene::new();
    let (mut one, mut two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 100));
    // Two batches each, and more of them than are read at once.
    for number in 0..80 {
        one.issue(number, "lot");
    }
    two.ledger.follow(Timestamp::now()).unwrap();
    assert_eq!(two.records.head(), one.records.head());
    scene.check(vec![one, two]);
}

/// A host that takes connections and says nothing keeps no daemon from the one that answers.
#[test]
fn silent_host_keeps_nobody_from_the_next_one() {
    let Some(port) = port() else { return };
    let scene = Scene::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let both = format!("127.0.0.1:{},127.0.0.1:{port}/", silent.local_addr().unwrap().port());
    let url = scene.place.daemons.replace(&format!("127.0.0.1:{port}/"), &both);
    let mut one = scene.open_at(&url, "one", tempfile::tempdir().unwrap(), 20);
    one.ask(order("lot", 10));
    one.issue(1, "lot");
    scene.check(vec![one]);
}

/// A copy of a running daemon's folder is no second life of it.
#[test]
fn copied_folder_of_a_running_daemon_is_refused() {
    let scene = Scene::new();
    let mut one = scene.daemon("one");
    one.ask(order("lot", 10));
    let copied = tempfile::tempdir().unwrap();
    let from = format!("{}/.", one.folder().display());
    let copy = std::process::Command::new("cp").arg("-a").arg(from).arg(copied.path()).status();
    assert!(copy.unwrap().success());
    let refused = thread::scope(|scope| {
        let beating = scope.spawn(|| one.follow_for(Duration::from_secs(6)));
        let refused = scene.try_open("one", &copied, 1).map(drop).unwrap_err().to_string();
        beating.join().unwrap();
        refused
    });
    assert!(refused.contains("runs already"), "{refused}");
    one.issue(1, "lot");
    scene.check(vec![one]);
}

/// The file that names a folder's epochs has no more of them than may be open, and a row that was deleted is there again.
#[test]
fn restarts_leave_no_trace_in_the_folder() {
    let scene = Scene::new();
    let mut one = scene.daemon("one");
    one.ask(order("lot", 10));
    for number in 0..6 {
        one.issue(number, "lot");
        one = scene.open("one", if number % 2 == 0 { one.crash() } else { one.close() });
    }
    let epochs = std::fs::read_to_string(one.folder().join("shared")).unwrap();
    assert!(epochs.lines().last().unwrap().split_whitespace().count() <= 3, "{epochs}");
    psql(&scene.place.owner, "DELETE FROM daemons").unwrap();
    one.issue(7, "lot");
    assert_eq!(psql(&scene.place.owner, "SELECT name FROM daemons").unwrap(), "one");
    scene.check(vec![one]);
}

/// Whatever is cut at whatever message, before it arrives or after: what is answered is so, and nothing happens twice.
#[test]
fn connection_cut_at_any_message_is_answered_truly() {
    let Some(port) = port() else { return };
    let scene = Scene::new();
    let proxy = Proxy::to(port).unwrap();
    let url = proxy.url(&scene.place.daemons, port);
    let mut two = scene.daemon("two");
    two.ask(order("lot", 10_000));
    let mut one = scene.open_at(&url, "one", tempfile::tempdir().unwrap(), 20);
    let mut issued = BTreeMap::new();
    for number in 0..48 {
        proxy.cut_after(i64::from(number % 12), number % 2 == 0);
        issued.insert(number, one.issue(number, "lot"));
        if number % 5 == 0 {
            issued.insert(1000 + number, two.issue(1000 + number, "lot"));
        }
    }
    proxy.heal();
    for (number, serial) in &issued {
        let again = one.ask(reserve(*number, "lot"));
        assert!(matches!(&again, Outcome::Replay { serial_number, .. } if serial_number == serial), "{again:?}");
    }
    assert_eq!(one.records.order("lot").unwrap().unwrap().issued, issued.len() as u64);
    scene.check(vec![one, two]);
}

/// Sessions are ended by the server while two daemons issue to the same devices: every certificate that was answered is there, each
/// device has one, and the order is not exceeded.
#[test]
fn killed_sessions_lose_and_double_nothing() {
    let scene = Scene::new();
    let (mut one, two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 60));
    let stop = Arc::new(AtomicBool::new(false));
    let killer = {
        let (stop, schema, owner) = (Arc::clone(&stop), scene.place.schema.clone(), scene.place.owner.clone());
        thread::spawn(move || {
            // Those of this test alone: its schema is in their statements' tables.
            let kill = format!(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE relation = '{schema}.head'::regclass \
                 AND pid <> pg_backend_pid()"
            );
            let mut killed = 0;
            while !stop.load(Ordering::SeqCst) {
                killed += psql(&owner, &kill).unwrap().parse::<u32>().unwrap();
                thread::sleep(Duration::from_millis(5));
            }
            killed
        })
    };
    let work = |mut daemon: Daemon, from: u32| {
        thread::spawn(move || {
            let mut got = BTreeMap::new();
            for number in from..from + 40 {
                let serial_number = match daemon.ask(reserve(number, "lot")) {
                    Outcome::Reserved(serial_number) => serial_number,
                    Outcome::Replay { serial_number, .. } => {
                        got.insert(number, serial_number);
                        continue;
                    }
                    // The other one is at it, or the order is used up.
                    Outcome::InProgress(_) | Outcome::Refused(Refusal::OrderExhausted { .. }) => continue,
                    other => panic!("{other:?}"),
                };
                match daemon.ask(record(serial_number)) {
                    Outcome::Recorded => got.insert(number, serial_number),
                    other => panic!("{other:?}"),
                };
            }
            (daemon, got)
        })
    };
    let (first, second) = (work(one, 0), work(two, 30));
    let ((one, first), (mut two, second)) = (first.join().unwrap(), second.join().unwrap());
    stop.store(true, Ordering::SeqCst);
    let killed = killer.join().unwrap();
    assert!(killed > 0, "no session was killed");
    for (number, serial) in first.iter().chain(&second) {
        let again = two.ask(reserve(*number, "lot"));
        assert!(
            matches!(&again, Outcome::Replay { serial_number, .. } if serial_number == serial),
            "{number}: {again:?}"
        );
    }
    let issued = two.records.order("lot").unwrap().unwrap().issued;
    assert!((40..=60).contains(&issued), "{issued} issued, {killed} sessions killed");
    scene.check(vec![one, two]);
}

/// A daemon that stops while it has its turn keeps the others waiting for as long as its session may be idle.
#[test]
fn daemon_paused_in_its_turn_gives_way() {
    let scene = Scene::new();
    let (mut one, mut two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 10));
    let known = one.ledger.following.known;
    one.ledger.database.take_turn(known, false).map(drop).unwrap_or_else(|failure| panic!("{failure:?}"));
    let begun = Instant::now();
    two.issue(1, "lot");
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(500) && waited < Duration::from_secs(8), "{waited:?}");
    // It comes back, finds its turn over, and goes on.
    assert!(one.ledger.database.renew(Some(one.ledger.life.epoch())).is_err());
    assert!(matches!(one.ask(reserve(1, "lot")), Outcome::Replay { .. }));
    one.issue(2, "lot");
    scene.check(vec![one, two]);
}

/// A COMMIT whose answer was lost, and whose callers were told so: what it reserved is not held for ever.
#[test]
fn unknown_commit_that_was_given_up_is_tidied() {
    let Some(port) = port() else { return };
    let scene = Scene::new();
    let proxy = Proxy::to(port).unwrap();
    let url = proxy.url(&scene.place.daemons, port);
    let mut one = scene.open_at(&url, "one", tempfile::tempdir().unwrap(), 2);
    one.ask(order("lot", 1));
    // It arrives, and its answer does not.
    proxy.cut_for_good_at_commit();
    let begun = Instant::now();
    let told = one.try_ask(reserve(1, "lot"));
    assert!(matches!(told, Err(LedgerError::Unavailable { .. })), "{told:?}");
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    let said = one.records.healthy().unwrap_err();
    assert!(said.contains("is away since") && said.contains("127.0.0.1"), "{said}");
    // Nobody can reserve it meanwhile, and reads go on.
    assert_eq!(one.records.order("lot").unwrap().unwrap().issued, 0);
    proxy.heal();
    let mut two = scene.daemon("two");
    one.ledger.follow(Timestamp::now()).unwrap();
    assert!(one.records.healthy().is_ok());
    // The order's one unit is free again, at both.
    two.issue(1, "lot");
    scene.check(vec![one, two]);
}

/// A COMMIT of what nobody asked for, whose answer was lost: the next request is decided by itself.
#[test]
fn unknown_commit_of_a_chore_takes_no_requests_place() {
    let Some(port) = port() else { return };
    let scene = Scene::new();
    let proxy = Proxy::to(port).unwrap();
    let url = proxy.url(&scene.place.daemons, port);
    let mut one = scene.open_at(&url, "one", tempfile::tempdir().unwrap(), 20);
    one.ask(order("lot", 10));
    let others = || psql(&scene.place.owner, "SELECT count(*) FROM daemons WHERE name <> 'one'").unwrap() != "0";
    let _folder = scene.daemon("two").crash();
    // What the other one wrote is made certain first.
    one.ledger.follow(Timestamp::now()).unwrap();
    while one.ledger.acknowledged < one.ledger.following.known {
        one.follow_for(Duration::from_millis(200));
    }
    // It arrives, and its answer does not.
    proxy.cut_at_commit();
    while one.records.healthy().is_ok() {
        assert!(others(), "the COMMIT was not cut off");
        thread::sleep(Duration::from_secs(1));
        one.ledger.follow(Timestamp::now()).unwrap();
    }
    let begun = Instant::now();
    while others() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the COMMIT did not arrive");
        thread::sleep(Duration::from_millis(10));
    }
    one.issue(1, "lot");
    scene.check(vec![one]);
}

/// While the database takes connections and answers, and no COMMIT comes back, it is said to be away; one that does ends that.
#[test]
fn database_whose_commits_hang_is_away_until_one_comes_back() {
    let server = Server::start(&[]).unwrap();
    if server.port().is_none() {
        return;
    }
    let scene = Scene::on(&server);
    let mut one = scene.open_at(&scene.place.daemons, "one", tempfile::tempdir().unwrap(), 1);
    one.ask(order("lot", 10));
    let set = |standbys: &str| {
        server.sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{standbys}'")).unwrap();
        server.sql("SELECT pg_reload_conf()").unwrap();
        // Until the server's checkpointer knows it.
        thread::sleep(Duration::from_secs(2));
    };
    set("nobody");
    assert!(matches!(one.try_ask(reserve(1, "lot")), Err(LedgerError::Unavailable { .. })));
    for _ in 0..3 {
        one.ledger.follow(Timestamp::now()).unwrap();
        assert!(one.records.healthy().unwrap_err().contains("is away since"));
    }
    set("");
    let begun = Instant::now();
    while let Err(why) = one.records.healthy() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{why}");
        one.follow_for(Duration::from_millis(500));
    }
    one.issue(1, "lot");
    scene.check(vec![one]);
}

/// A pooler that gives each transaction another session has them forget what a daemon's was told: such a session writes nothing.
#[test]
fn session_that_was_not_told_writes_nothing() {
    let scene = Scene::new();
    let mut one = scene.daemon("one");
    one.ask(order("lot", 10));
    let forget = |database: &Database| {
        let link = database.link.as_ref().unwrap();
        database.runtime.block_on(link.client.batch_execute("RESET ALL")).unwrap();
    };
    let (database, known) = (&mut one.ledger.database, one.ledger.following.known);
    forget(database);
    let refused = database.take_turn(known, false).map(drop);
    assert!(matches!(&refused, Err(Failure::Away(why)) if why.contains("a pooler in transaction mode")), "{refused:?}");
    database.connect().unwrap();
    forget(database);
    let refused = database.look(known, None).map(drop);
    assert!(matches!(&refused, Err(Failure::Away(why)) if why.contains("a pooler in transaction mode")), "{refused:?}");
    // By a session of its own it goes on.
    one.issue(2, "lot");
    scene.check(vec![one]);
}

/// Pages of any size give all that others wrote: they become smaller where they do not come in time, and larger again.
#[test]
fn small_pages_give_everything() {
    let scene = Scene::new();
    let (mut one, mut two) = (scene.daemon("one"), scene.daemon("two"));
    one.ask(order("lot", 10));
    for number in 0..5 {
        one.issue(number, "lot");
    }
    two.ledger.database.page = 1;
    two.ledger.follow(Timestamp::now()).unwrap();
    assert_eq!(two.records.head().sequence, one.records.head().sequence);
    assert!(two.ledger.database.page > 1);
    one.issue(5, "lot");
    two.ledger.database.page = 1;
    two.issue(6, "lot");
    scene.check(vec![one, two]);
}

/// The database's clock is the one of the moment at which the turn comes, however long it was waited for.
#[test]
fn clock_is_compared_when_the_turn_comes() {
    let scene = Scene::new();
    let mut one = scene.daemon("one");
    let owner = scene.place.owner.clone();
    let holder = thread::spawn(move || {
        psql(&owner, "BEGIN; SELECT count(*) FROM (SELECT 1 FROM head FOR UPDATE) AS h; SELECT pg_sleep(3); ROLLBACK")
    });
    let held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while psql(&scene.place.owner, held).unwrap() == "0" {
        thread::sleep(Duration::from_millis(20));
    }
    let (begun, known) = (Instant::now(), one.ledger.following.known);
    let turn = one.ledger.database.take_turn(known, false).unwrap_or_else(|failure| panic!("{failure:?}"));
    let ahead = Timestamp::now().as_microsecond() - turn.head.clock;
    let waited = begun.elapsed();
    one.ledger.database.give_back();
    assert!(waited > Duration::from_millis(500), "it did not wait: {waited:?}");
    assert!(ahead < waited.as_micros() as i64 / 2, "{ahead} µs after {waited:?}");
    holder.join().unwrap().unwrap();
    scene.check(vec![one]);
}

/// A row of `names` that somebody has deleted is missed when it is to be freed: the daemon stops, and the table is made again.
#[test]
fn row_of_names_that_is_gone_stops_the_daemon() {
    let scene = Scene::new();
    let mut one = scene.daemon("one");
    one.ask(order("lot", 10));
    let serial_number = one.reserved(1, "lot");
    psql(&scene.place.owner, "DELETE FROM names").unwrap();
    let abandon = Action::Abandon { serial_number, reason: "no answer".into() };
    let stopped = one.try_ask(abandon).unwrap_err();
    assert!(stopped.is_fatal() && stopped.to_string().contains("the table names"), "{stopped}");
    let folder = one.crash();
    scene.owner().rebuild().unwrap();
    let mut one = scene.open("one", folder);
    one.issue(1, "lot");
    scene.check(vec![one]);
}

/// A request that waited while others wrote is decided at the time at which its turn came: the clock has not gone backwards.
#[test]
fn request_that_waited_is_decided_at_the_time_of_its_turn() {
    let Some(port) = port() else { return };
    let scene = Scene::new();
    let proxy = Proxy::to(port).unwrap();
    let url = proxy.url(&scene.place.daemons, port);
    let (mut one, mut two) = (scene.open_at(&url, "one", tempfile::tempdir().unwrap(), 20), scene.daemon("two"));
    two.ask(order("lot", 10));
    proxy.block();
    let asked = thread::spawn(move || (one.ask(reserve(1, "lot")), one));
    thread::sleep(Duration::from_secs(7));
    two.issue(2, "lot");
    proxy.heal();
    let (outcome, one) = asked.join().unwrap();
    assert!(matches!(outcome, Outcome::Reserved(_)), "{outcome:?}");
    scene.check(vec![one, two]);
}

/// A database that is away for longer than `patience` is said to be, at once from then on, and is found again by itself.
#[test]
fn database_away_is_said_after_patience_and_found_again() {
    let Some(port) = port() else { return };
    let scene = Scene::new();
    let proxy = Proxy::to(port).unwrap();
    let url = proxy.url(&scene.place.daemons, port);
    let mut one = scene.open_at(&url, "one", tempfile::tempdir().unwrap(), 2);
    one.ask(order("lot", 10));
    let issued = one.issue(1, "lot");
    proxy.block();
    let begun = Instant::now();
    assert!(matches!(one.try_ask(reserve(2, "lot")), Err(LedgerError::Unavailable { .. })));
    assert!((2..6).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert!(matches!(one.try_ask(reserve(3, "lot")), Err(LedgerError::Unavailable { .. })));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // What is known is read all the same.
    assert_eq!(one.records.by_device(&scene::device(1)).unwrap().map(|record| record.serial_number), Some(issued));
    one.ledger.follow(Timestamp::now()).unwrap();
    proxy.heal();
    one.issue(2, "lot");
    assert!(one.records.healthy().is_ok());
    // A silent network is as good as none.
    proxy.mute();
    let begun = Instant::now();
    assert!(matches!(one.try_ask(reserve(4, "lot")), Err(LedgerError::Unavailable { .. })));
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    proxy.heal();
    one.issue(4, "lot");
    scene.check(vec![one]);
}

/// Nothing happens while the database takes no writes, and the reason is told.
#[test]
fn database_that_takes_no_writes_is_said_with_its_reason() {
    let scene = Scene::new();
    let url = format!("{}%20-cdefault_transaction_read_only%3Don", scene.place.daemons);
    let mut one = scene.daemon("one");
    one.ask(order("lot", 10));
    let mut one = scene.open("one", one.crash());
    let entries = one.records.head().sequence;
    let folder = one.crash();
    let settings =
        super::super::DatabaseSettings { patience: Duration::from_secs(1), ..scene.settings_at(&url, "one") };
    let guards = crate::ledger::embedded::Guards::default();
    let opened = super::SharedLedger::open(folder.path(), Timestamp::now(), &scene::SETTINGS, &guards, &settings);
    let said = opened.map(drop).unwrap_err().to_string();
    assert!(said.contains("25006"), "{said}");
    one = scene.open("one", folder);
    assert_eq!(one.records.head().sequence, entries + 2);
    scene.check(vec![one]);
}

/// A right that was taken away is named as long as it is missing, though all else works, and nobody has to start the daemon again.
#[test]
fn missing_right_is_named_until_it_is_given() {
    let scene = Scene::new();
    let mut one = scene.open_at(&scene.place.daemons, "one", tempfile::tempdir().unwrap(), 1);
    one.ask(order("lot", 10));
    let role = scene.place.daemons.split("://").nth(1).and_then(|rest| rest.split(['@', ':']).next()).unwrap();
    for right in ["INSERT ON journal", "DELETE ON names", "UPDATE ON head"] {
        psql(&scene.place.owner, &format!("REVOKE {right} FROM {role}")).unwrap();
        // Only what is connected anew looks at its rights, unless it needs them.
        one.ledger.database.disconnect();
        assert!(matches!(one.try_ask(reserve(1, "lot")), Err(LedgerError::Unavailable { .. })), "{right}");
        one.ledger.follow(Timestamp::now()).unwrap();
        let said = one.records.healthy().unwrap_err();
        let grant = format!("GRANT {right} TO {role}");
        assert!(said.contains("lacks rights") && said.contains(&grant), "{said}");
        psql(&scene.place.owner, &grant).unwrap();
        one.ledger.follow(Timestamp::now()).unwrap();
        assert_eq!(one.records.healthy(), Ok(()));
    }
    one.issue(1, "lot");
    scene.check(vec![one]);
}

/// At other isolation levels conflicts come as errors, and all holds the same.
#[test]
fn two_daemons_hold_the_rules_at_every_isolation_level() {
    for isolation in ["read committed", "repeatable read", "serializable"] {
        let scene = Scene::new();
        let url = scene.place.at(isolation);
        let folder = || tempfile::tempdir().unwrap();
        let (mut one, two) = (scene.open_at(&url, "one", folder(), 20), scene.open_at(&url, "two", folder(), 20));
        one.ask(order("lot", 50));
        let work = |mut daemon: Daemon, step: u32| {
            thread::spawn(move || {
                for number in 0..40 {
                    if let Outcome::Reserved(serial_number) = daemon.ask(reserve(number * step, "lot")) {
                        assert!(matches!(daemon.ask(record(serial_number)), Outcome::Recorded));
                    }
                }
                daemon
            })
        };
        let (first, second) = (work(one, 1), work(two, 2));
        let (mut one, two) = (first.join().unwrap(), second.join().unwrap());
        // Its copy may lack what the other wrote last.
        one.ledger.follow(Timestamp::now()).unwrap();
        let issued = one.records.order("lot").unwrap().unwrap().issued;
        assert!((40..=50).contains(&issued), "{isolation}: {issued}");
        scene.check(vec![one, two]);
    }
}
