//! Figures that are printed, not held: what other connections, a mirror and a long list of devices cost four stations. Each is a
//! ratio of rates that were measured in turn, so that a machine which is busy with other things makes them rough and not wrong.
//!
//! ```sh
//! cargo test --release --test it figures:: -- --ignored --nocapture --test-threads 1
//! ```

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rand::RngExt;

use crate::{
    connections::raise_own_limit,
    fairness::status_of,
    power_cut_ext4::{Mounted, make_image},
    support::{
        faults::Load,
        site::{Daemon, Site, wait_until},
        token::succeeded,
    },
    tls::{SoftCa, site_that_trusts},
};

const SPAN: Duration = Duration::from_secs(4);
const ROUNDS: usize = 5;

/// Certificates a second, now.
async fn rate(load: &Load) -> f64 {
    let (before, began) = (load.issued(), Instant::now());
    tokio::time::sleep(SPAN).await;
    (load.issued() - before) as f64 / began.elapsed().as_secs_f64()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Threads that disturb the daemon until they are dropped.
struct Disturbance {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Disturbance {
    /// `number` connections, each in the hands of `with`, again and again.
    fn start(address: SocketAddr, number: usize, with: fn(TcpStream, &AtomicBool)) -> Disturbance {
        let stop = Arc::new(AtomicBool::new(false));
        let connect = |_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(stream) = TcpStream::connect(address) {
                        with(stream, &stop);
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            })
        };
        Disturbance { threads: (0..number).map(connect).collect(), stop }
    }
}

impl Drop for Disturbance {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// The beginning of a TLS handshake, an octet each tenth of a second.
fn drip(mut stream: TcpStream, stop: &AtomicBool) {
    let hello = [[22, 3, 1, 2, 0, 1, 0, 1, 252].as_slice(), &[0; 500]].concat();
    for octet in hello {
        if stop.load(Ordering::Relaxed) || stream.write_all(&[octet]).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// What is no TLS at all, until the daemon has enough of it.
fn babble(mut stream: TcpStream, stop: &AtomicBool) {
    let mut octets = [0; 512];
    rand::rng().fill(&mut octets);
    while !stop.load(Ordering::Relaxed) && stream.write_all(&octets).is_ok() {
        thread::sleep(Duration::from_millis(50));
    }
}

/// Connections up to HTTP/2, of stations that ask for nothing: 16 each.
async fn idle(daemon: &Daemon, identities: &[PathBuf], number: usize) -> Vec<tonic::transport::Channel> {
    let mut open = Vec::new();
    for index in 0..number {
        open.extend(daemon.try_connect(identities[index / 15 % identities.len()].clone()).await);
    }
    open
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn stations_beside_other_connections() {
    raise_own_limit();
    let ca = SoftCa::new("Known");
    let site = site_that_trusts(&ca);
    let identities: Vec<_> = (0..67)
        .map(|number| {
            let name = format!("idle{number}");
            ca.identity(&site, &name, &[&format!("urn:birthmark:station:line9/{name}")], |_| {})
        })
        .collect();
    let daemon = site.start();
    site.create_order("lot", 10_000_000);
    let load = Load::start(&site, &daemon, "lot").await;
    rate(&load).await;
    for what in ["1,000 idle", "1,000 silent", "200 slow", "200 garbage"] {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            alone.push(rate(&load).await);
            let (mut channels, mut silent, mut disturbance) = (Vec::new(), Vec::new(), None);
            match what {
                "1,000 idle" => channels = idle(&daemon, &identities, 1000).await,
                "1,000 silent" => silent = (0..1000).map(|_| TcpStream::connect(daemon.grpc).unwrap()).collect(),
                "200 slow" => disturbance = Some(Disturbance::start(daemon.grpc, 200, drip)),
                _ => disturbance = Some(Disturbance::start(daemon.grpc, 200, babble)),
            }
            beside.push(rate(&load).await);
            drop((channels, silent, disturbance));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let (alone, beside) = (median(alone), median(beside));
        println!("{what}: {alone:.0}/s alone, {beside:.0}/s beside them, {:.1} %", 100.0 * beside / alone);
    }
    // A hundred thousand certificates are not judged here.
    load.abandon().await;
    daemon.end();
}

/// Processor time that the daemon has used, in seconds.
fn processor_time(daemon: &Daemon) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    // utime and stime, in hundredths of a second.
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// What a connection costs the daemon on which something else than TLS comes, and one whose handshake fails.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn refused_connections() {
    let site = Site::new();
    let daemon = site.start();
    let hello: fn(TcpStream, &AtomicBool) = |mut stream, _| {
        let wrong = [[22, 3, 1, 0, 64, 1, 0, 0, 60].as_slice(), &[0; 60]].concat();
        let _ = stream.write_all(&wrong).and_then(|()| std::io::Read::read_to_end(&mut stream, &mut Vec::new()));
    };
    for (what, with) in [("no TLS", babble as fn(TcpStream, &AtomicBool)), ("no ClientHello", hello)] {
        let refused = || daemon.metric("birthmark_connections_refused_total", &["reason=\"handshake\""]);
        let (before, used, began) = (refused(), processor_time(&daemon), Instant::now());
        let disturbance = Disturbance::start(daemon.grpc, 200, with);
        tokio::time::sleep(3 * SPAN).await;
        let (number, used) = (refused() - before, processor_time(&daemon) - used);
        let each = 1e6 * used / number;
        let rate = number / began.elapsed().as_secs_f64();
        println!(
            "200 connections with {what}: {rate:.0}/s refused, {each:.0} \u{b5}s of processor time each, {used:.2} s"
        );
        drop(disturbance);
    }
    daemon.end();
}

/// The devices that [`Load`] has certified.
fn devices_of(order: &str, number: usize) -> String {
    (0..number).map(|index| format!("{order}-s{}-{}\n", index % 4, index / 4)).collect()
}

/// An order for a million devices beside one for any.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn order_for_a_million_devices() {
    const DEVICES: usize = 1_000_000;
    let site = Site::new();
    let daemon = site.start();
    site.create_order("any", 10_000_000);
    site.token.write("devices.txt", &devices_of("listed", DEVICES));
    let journal = || -> u64 {
        fs::read_dir(site.path("data/journal")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    };
    let (memory, bytes) = (status_of(&daemon, "VmHWM"), journal());
    let run = |what: &str, arguments: &[&str]| {
        let began = Instant::now();
        succeeded(&site.operator(arguments));
        println!("{what}: {:.2} s", began.elapsed().as_secs_f64());
    };
    let quantity = DEVICES.to_string();
    let create =
        ["order", "create", "listed", "--profile", "device", "--quantity", &quantity, "--devices", "devices.txt"];
    run("a million devices listed", &create);
    run("the same once more", &create);
    println!(
        "memory at most {} MiB before, {} MiB then; {:.1} bytes of journal a device",
        memory >> 10,
        status_of(&daemon, "VmHWM") >> 10,
        (journal() - bytes) as f64 / DEVICES as f64
    );
    run("order show", &["order", "show", "listed"]);
    let (mut any, mut listed) = (Vec::new(), Vec::new());
    // In turn, each round with devices that have no certificate yet.
    for round in 0..ROUNDS {
        for (order, rates) in [("any", &mut any), ("listed", &mut listed)] {
            let load = Load::start_at(&site, &daemon, order, round * DEVICES / 4 / ROUNDS).await;
            load.more(500);
            rates.push(rate(&load).await);
            load.abandon().await;
        }
    }
    let (any, listed) = (median(any), median(listed));
    println!("{any:.0}/s without a list, {listed:.0}/s with one, {:.1} %", 100.0 * listed / any);
    run("the devices that are missing", &["order", "devices", "listed", "--missing"]);
    daemon.end();
    let began = Instant::now();
    let daemon = site.start();
    println!(
        "a start: {:.2} s, memory at most {} MiB",
        began.elapsed().as_secs_f64(),
        status_of(&daemon, "VmHWM") >> 10
    );
    daemon.end();
    let began = Instant::now();
    succeeded(&site.token.birthmark(&["journal", "reindex", "data"]));
    println!("a reindex: {:.2} s", began.elapsed().as_secs_f64());
}

/// The mirror lies on an ext4 of its own, on a loop device.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn mirror_on_another_file_system() {
    let site = Site::new();
    let image = site.path("image");
    make_image(&image, 2 << 30).unwrap();
    let mounted = Mounted::new(&image, &site.path("other-disk")).unwrap();
    let folder = mounted.at.join("birthmark");
    fs::create_dir(&folder).unwrap();
    site.start().end();
    let without = fs::read_to_string(site.path("birthmark.toml")).unwrap();
    let with = without.replace("path = \"data\"", &format!("path = \"data\"\nmirror = \"{}\"", folder.display()));
    let (mut alone, mut mirrored) = (Vec::new(), Vec::new());
    for round in 0..2 * ROUNDS {
        let is_mirrored = round % 2 == 1;
        site.token.write("birthmark.toml", if is_mirrored { &with } else { &without });
        let daemon = site.start();
        let order = format!("lot-{round}");
        site.create_order(&order, 10_000_000);
        let load = Load::start(&site, &daemon, &order).await;
        load.more(200);
        let rate = rate(&load).await;
        if is_mirrored { &mut mirrored } else { &mut alone }.push(rate);
        load.abandon().await;
        daemon.end();
    }
    let (alone, mirrored) = (median(alone), median(mirrored));
    println!("mirror: {alone:.0}/s without, {mirrored:.0}/s with it, {:.1} %", 100.0 * mirrored / alone);
    wait_until("it is unmounted", || fs::remove_dir_all(&folder).is_ok());
}
