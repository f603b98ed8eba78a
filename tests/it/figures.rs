//! Figures that are printed, not held: what other connections and a mirror cost four stations. Each is a ratio of rates that
//! were measured in turn, so that a machine which is busy with other things makes them rough and not wrong.
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
    power_cut_ext4::{Mounted, make_image},
    support::{
        faults::Load,
        site::{Daemon, Site, wait_until},
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
