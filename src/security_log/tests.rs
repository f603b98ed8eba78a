#![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]

use std::{
    fs,
    io::Read,
    net::{TcpListener, UdpSocket},
    os::unix::net::UnixDatagram,
};

use tracing_subscriber::{Registry, layer::SubscriberExt};

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// Logs what `events` logs to a security log alone.
fn logged(log: &SecurityLog, events: impl FnOnce()) {
    tracing::subscriber::with_default(Registry::default().with(log.clone()), events);
}

fn refuse(number: u64) {
    tracing::warn!(target: security::TARGET, identity = %"station:l/1", number, reason = "a \"b\"", "refused");
}

/// A line is one JSON object; what is of another target is not there; a file that was moved away is made anew.
#[test]
fn security_log_in_a_file_has_its_events_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("security.jsonl");
    let log = SecurityLog::start(Some(&path), None).unwrap();
    logged(&log, || {
        tracing::info!("something else");
        refuse(7);
    });
    log.flush(LIMIT);
    let line: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(
        (&line["event"], &line["identity"], &line["number"], &line["reason"], &line["level"]),
        (&"refused".into(), &"station:l/1".into(), &7.into(), &"a \"b\"".into(), &"warn".into())
    );
    fs::rename(&path, folder.path().join("security.jsonl.1")).unwrap();
    thread::sleep(Duration::from_millis(1100));
    logged(&log, || refuse(8));
    log.flush(LIMIT);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
}

#[test]
fn security_log_reaches_receivers_of_each_kind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let unix = UnixDatagram::bind(&path).unwrap();
    unix.set_read_timeout(Some(LIMIT)).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(LIMIT)).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [
        format!("unix:{}", path.display()),
        format!("udp://{}", udp.local_addr().unwrap()),
        format!("tcp://{}", tcp.local_addr().unwrap()),
    ];
    for address in addresses {
        let log = SecurityLog::start(None, Some(address.parse().unwrap())).unwrap();
        logged(&log, || refuse(7));
        log.flush(LIMIT);
    }
    let mut buffer = [0; 4096];
    for read in [unix.recv(&mut buffer.clone()).unwrap(), udp.recv(&mut buffer.clone()).unwrap()] {
        assert!(read > 50);
    }
    let (mut stream, _) = tcp.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let read = stream.read(&mut buffer).unwrap();
    let text = std::str::from_utf8(&buffer[..read]).unwrap();
    let (length, message) = text.split_once(' ').unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), message.len());
    assert!(
        message.starts_with("<84>1 ") && message.ends_with("number=\"7\" reason=\"a \\\"b\\\"\"] refused"),
        "{message}"
    );
}

/// Nobody waits for a receiver that is away: what does not fit is lost, and told when it is there.
#[test]
fn security_log_without_its_receiver_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let log = SecurityLog::start(None, Some(Address::Unix(path.clone()))).unwrap();
    let begun = Instant::now();
    let number = 3 * QUEUE as u64;
    logged(&log, || (0..number).for_each(refuse));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let lost = log.sinks[0].lost.load(Ordering::Relaxed);
    assert!(lost >= number - QUEUE as u64 - 2, "{lost}");

    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut buffer = [0; 4096];
    let mut next = || {
        let read = receiver.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    };
    assert!(next().contains("number=\"0\""));
    let told = next();
    assert!(told.contains(&format!("number=\"{lost}\"")) && told.ends_with("records of this log were lost"), "{told}");
    assert!(next().contains("number=\"1\""));
}
