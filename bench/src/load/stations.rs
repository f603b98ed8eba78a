//! `birthmark bench stations`: the stations, in a process of their own.
//!
//! They share the machine with the daemon, so they are light: one thread, requests encoded beforehand. Closed loop:
//! each station keeps its window full. Open loop (`--rate`): request number n is due n/rate seconds after the start,
//! whether or not earlier ones are answered, and its latency counts from then; so a daemon that stalls is charged for
//! all that it kept waiting (no coordinated omission).

use std::{
    cell::RefCell,
    path::PathBuf,
    process::ExitCode,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};
use birthmark::{
    client::{Connection, Failure},
    proto::{IssueReply, IssueRequest, issue_reply},
};
use bytes::{BufMut, Bytes};
use futures_util::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, mpsc},
    task::LocalSet,
    time::{sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
};
use tonic_prost::ProstCodec;

use super::{
    devices,
    floor::processor_time,
    usage::{Group, Usage, family_us, peak_rss_mib},
};
use crate::{
    console::{print_json, progress, step},
    trial::station_folder,
};

/// Measure a daemon with stations
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A daemon's address; the stations are spread over those that are given
    #[arg(long)]
    server: Vec<String>,

    /// A daemon's process
    #[arg(long)]
    daemon: Vec<u32>,

    /// The first process of a database
    #[arg(long)]
    database: Vec<u32>,

    /// The folder with the stations' identities
    #[arg(long)]
    site: PathBuf,

    /// How many stations
    #[arg(long)]
    stations: usize,

    /// How many identities they share
    #[arg(long)]
    identities: u32,

    /// How many requests each has open
    #[arg(long)]
    window: usize,

    /// How many seconds come before those that are measured
    #[arg(long)]
    warm_up: u64,

    /// How many seconds are measured
    #[arg(long)]
    seconds: u64,

    /// How many devices are made
    #[arg(long)]
    devices: usize,

    /// What their names begin with
    #[arg(long)]
    device_prefix: String,

    /// Requests a second, for an open loop
    #[arg(long)]
    rate: Option<f64>,

    /// Where the CSRs are written, too
    #[arg(long)]
    csrs_out: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Measured {
    /// Certificates that came in the measured time.
    pub(super) certificates: u64,
    /// The measured time.
    pub(super) seconds: f64,
    /// All devices had their certificates before the time was over.
    pub(super) stopped_early: bool,
    /// Requests of an open loop that had no answer when the stations gave up.
    pub(super) unanswered: u64,
    /// From the request (in an open loop: from when it was due) to its certificate.
    pub(super) latency_ms: Latency,
    /// Processor time of all daemons.
    pub(super) daemon_us: f64,
    /// Of each database, with all of its processes.
    pub(super) database_us: Vec<f64>,
    /// The same, by threads.
    pub(super) groups: Vec<Group>,
    /// The memory of the daemon that had the most.
    pub(super) peak_rss_mib: f64,
    /// Processor time of the stations.
    pub(super) stations_us: f64,
}

/// Quantiles, in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// How many TLS handshakes are under way at once.
const HANDSHAKES: usize = 16;

/// How often an open loop's requests are sent: a thread that wakes up for each of them would take the daemon's time.
const TICK: Duration = Duration::from_micros(250);

/// How long the answers to an open loop's last requests may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    step(&format!("Making {} P-256 keys and CSRs, as devices would", args.devices));
    let devices = devices::make(&args.device_prefix, args.devices)?;
    if let Some(folder) = &args.csrs_out {
        devices::write(&devices, folder)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = LocalSet::new().block_on(&runtime, measure(args, devices))?;
    print_json(&serde_json::to_value(measured)?)?;
    // The connections need no farewell.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// The requests, and when each was sent.
struct Requests {
    encoded: Vec<Bytes>,
    /// Nanoseconds after `began`.
    sent: Vec<AtomicU64>,
    began: Instant,
    /// The next that is sent.
    next: AtomicUsize,
}

impl Requests {
    /// The next request, sent now, if there is one.
    fn take(&self) -> Option<Bytes> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let request = self.encoded.get(number)?;
        self.sent[number].store(nanoseconds(self.began.elapsed()), Ordering::Relaxed);
        Some(request.clone())
    }
}

/// What came back.
struct Tally {
    /// The requests that count; none while the stations warm up.
    counted: Counted,
    certificates: u64,
    latency: Histogram<u64>,
    /// What made the measurement worthless.
    failure: Option<anyhow::Error>,
}

enum Counted {
    None,
    /// Of a closed loop: those answered from now on.
    All,
    /// Of an open loop: those due in this time, in nanoseconds.
    Due(std::ops::Range<u64>),
}

struct Measurement {
    requests: Arc<Requests>,
    tally: RefCell<Tally>,
    /// All devices have been asked for, or the measurement has failed.
    over: Notify,
}

async fn measure(args: Args, encoded: Vec<Bytes>) -> anyhow::Result<Measured> {
    let streams = connect(&args).await?;
    let sent = encoded.iter().map(|_| AtomicU64::new(0)).collect();
    let requests = Arc::new(Requests { encoded, sent, began: Instant::now(), next: AtomicUsize::new(0) });
    let latency = Histogram::new_with_bounds(1, 600_000_000_000, 3)?;
    let tally = Tally { counted: Counted::None, certificates: 0, latency, failure: None };
    let measurement = Rc::new(Measurement { requests, tally: RefCell::new(tally), over: Notify::new() });
    // Without its sender a stream would end.
    let senders: Arc<[_]> = streams.iter().map(|(sender, _)| sender.clone()).collect();
    for (sender, replies) in streams {
        let refill = args.rate.is_none().then_some(sender);
        tokio::task::spawn_local(receive(Rc::clone(&measurement), replies, refill));
    }
    step(&format!("{} stations stream for {} s, after {} s to warm up", args.stations, args.seconds, args.warm_up));
    let began = measurement.requests.began;
    let (warm_up, seconds) = (Duration::from_secs(args.warm_up), Duration::from_secs(args.seconds));
    match args.rate {
        None => {
            for sender in senders.iter() {
                for request in (0..args.window).map_while(|_| measurement.requests.take()) {
                    sender.send(request).await.context("the daemon closed a stream")?;
                }
            }
        }
        Some(rate) => {
            let span = nanoseconds(warm_up)..nanoseconds(warm_up + seconds);
            measurement.tally.borrow_mut().counted = Counted::Due(span);
            let (requests, senders) = (Arc::clone(&measurement.requests), Arc::clone(&senders));
            thread::Builder::new().name("pacer".into()).spawn(move || pace(&requests, &senders, rate))?;
        }
    }

    let over = measurement.over.notified();
    tokio::pin!(over);
    let mut stopped_early = false;
    tokio::select! {
        () = sleep_until((began + warm_up).into()) => {}
        () = &mut over => {
            return Err(measurement.failure().unwrap_or_else(|| anyhow!("the devices were too few even to warm up")));
        }
    }
    let databases = || args.database.iter().map(|process| family_us(*process)).collect::<anyhow::Result<Vec<_>>>();
    let (before, databases_before, own_before) = (Usage::of(&args.daemon)?, databases()?, processor_time());
    let first = Instant::now();
    let first_count = measurement.begin();
    tokio::select! {
        () = sleep_until((first + seconds).into()) => {}
        () = &mut over => stopped_early = true,
    }
    let took = first.elapsed();
    let (after, databases_after, own_after) = (Usage::of(&args.daemon)?, databases()?, processor_time());
    let certificates = measurement.tally.borrow().certificates - first_count;
    let unanswered = if args.rate.is_some() { measurement.settle().await } else { 0 };
    if let Some(failure) = measurement.failure() {
        return Err(failure);
    }
    let (daemon_us, groups) = after.since(&before);
    let tally = measurement.tally.borrow();
    ensure!(certificates > 0, "no certificate came in {took:?}");
    let quantile = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1e6;
    Ok(Measured {
        certificates,
        seconds: took.as_secs_f64(),
        stopped_early,
        unanswered,
        latency_ms: Latency {
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: tally.latency.max() as f64 / 1e6,
        },
        daemon_us,
        groups,
        database_us: databases_after.iter().zip(databases_before).map(|(after, before)| after - before).collect(),
        peak_rss_mib: args
            .daemon
            .iter()
            .map(|process| peak_rss_mib(*process))
            .try_fold(0.0, |most, mib| Ok::<_, anyhow::Error>(mib?.max(most)))?,
        stations_us: (own_after - own_before).as_secs_f64() * 1e6,
    })
}

impl Measurement {
    /// From now on all replies count. Gives how many certificates came before.
    fn begin(&self) -> u64 {
        let mut tally = self.tally.borrow_mut();
        if matches!(tally.counted, Counted::None) {
            tally.counted = Counted::All;
        }
        tally.certificates
    }

    fn failure(&self) -> Option<anyhow::Error> {
        self.tally.borrow_mut().failure.take()
    }

    fn fail(&self, failure: anyhow::Error) {
        self.tally.borrow_mut().failure.get_or_insert(failure);
        self.over.notify_one();
    }

    fn receive(&self, reply: IssueReply) -> anyhow::Result<()> {
        let now = nanoseconds(self.requests.began.elapsed());
        let number: usize = reply.request_id.parse().context("the reply has an unknown request_id")?;
        let sent = self.requests.sent.get(number).context("the reply has an unknown request_id")?;
        match reply.result {
            Some(issue_reply::Result::Issued(issued)) => ensure!(!issued.replay, "a certificate was given again"),
            Some(issue_reply::Result::Error(status)) => {
                bail!("the daemon refused a device: {}", Failure::from(&status))
            }
            None => bail!("the daemon sent an empty reply"),
        }
        let sent = sent.load(Ordering::Relaxed);
        let mut tally = self.tally.borrow_mut();
        tally.certificates += 1;
        let counts = match &tally.counted {
            Counted::None => false,
            Counted::All => true,
            Counted::Due(span) => span.contains(&sent),
        };
        if counts {
            tally.latency.saturating_record(now.saturating_sub(sent));
        }
        Ok(())
    }

    /// Waits for the open loop's last answers. Those that do not come count with the time that they have waited.
    async fn settle(&self) -> u64 {
        let total = self.requests.encoded.len() as u64;
        let answered = || self.tally.borrow().certificates;
        let all = async {
            while answered() < total && self.tally.borrow().failure.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // What is missing then is counted below.
        let _ = timeout(PATIENCE, all).await;
        let missing = total - answered();
        if missing > 0 {
            self.tally.borrow_mut().latency.saturating_record_n(nanoseconds(PATIENCE), missing);
        }
        missing
    }
}

/// Reads a station's replies; in a closed loop, each makes room for the next request.
async fn receive(
    measurement: Rc<Measurement>,
    mut replies: Streaming<IssueReply>,
    refill: Option<mpsc::Sender<Bytes>>,
) {
    loop {
        let received = match replies.message().await {
            Ok(Some(reply)) => measurement.receive(reply),
            Ok(None) => Err(anyhow!("the daemon closed a stream")),
            Err(status) => Err(anyhow!("the daemon closed a stream: {}", Failure::from(status))),
        };
        if let Err(failure) = received {
            return measurement.fail(failure);
        }
        let Some(sender) = &refill else { continue };
        match measurement.requests.take() {
            // There is room: one request was answered.
            Some(request) => {
                if sender.send(request).await.is_err() {
                    return measurement.fail(anyhow!("the daemon closed a stream"));
                }
            }
            None => measurement.over.notify_one(),
        }
    }
}

/// Gives each request to a station when it is due, or with those of the next [`TICK`]. If one must wait, those after it
/// are late; that is measured, because the time of each counts from when it was due.
fn pace(requests: &Requests, senders: &[mpsc::Sender<Bytes>], rate: f64) {
    let stations = senders.iter().cycle();
    let mut now = Duration::ZERO;
    for ((number, request), station) in requests.encoded.iter().enumerate().zip(stations) {
        let due = Duration::from_secs_f64(number as f64 / rate);
        if due > now {
            thread::sleep((due + TICK).saturating_sub(requests.began.elapsed()));
            now = requests.began.elapsed();
        }
        requests.sent[number].store(nanoseconds(due), Ordering::Relaxed);
        if station.blocking_send(request.clone()).is_err() {
            // The station's task reports why.
            return;
        }
    }
}

type Station = (mpsc::Sender<Bytes>, Streaming<IssueReply>);

/// Opens a connection and a stream for each station.
async fn connect(args: &Args) -> anyhow::Result<Vec<Station>> {
    // Each at each daemon.
    let identities = (1..=args.identities)
        .flat_map(|identity| {
            args.server.iter().map(move |server| {
                let identity = args.site.join(station_folder(identity));
                Ok(Connection { server: Some(server.clone()), identity: Some(identity), socket: None }.daemon()?)
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let bar = progress(args.stations as u64, "stations");
    // An open loop does not wait for room: what the daemon does not read yet is waiting, too.
    let room = if args.rate.is_some() { args.devices.max(1) } else { args.window };
    let stations = stream::iter(identities.iter().cycle().take(args.stations)).map(|daemon| async {
        let mut client = Grpc::new(daemon.connect().await?);
        client.ready().await?;
        let (sender, requests) = mpsc::channel(room);
        let path = PathAndQuery::from_static("/birthmark.v1.Issuance/Issue");
        let replies = client.streaming(Request::new(ReceiverStream::new(requests)), path, Encoded).await;
        bar.inc(1);
        let replies = replies.map_err(|status| anyhow!("the daemon refused a stream: {}", Failure::from(status)))?;
        anyhow::Ok((sender, replies.into_inner()))
    });
    let stations = stations.buffer_unordered(HANDSHAKES).try_collect().await?;
    bar.finish_and_clear();
    Ok(stations)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Sends requests that are encoded already.
#[derive(Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = IssueReply;
    type Encoder = Encoded;
    type Decoder = <ProstCodec<IssueRequest, IssueReply> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        Encoded
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<IssueRequest, IssueReply>::raw_decoder(BufferSettings::default())
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, request: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(request);
        Ok(())
    }
}
