//! What else is asked of the daemon: an order and a scrap while the stations stream, and confirmations after them.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, ensure};
use birthmark::{
    client::{Connection, Failure},
    proto::{
        ConfirmRequest, GetOrderRequest, GetRecordRequest, ScrapCertificateRequest, admin_client::AdminClient,
        get_record_request::By, issuance_client::IssuanceClient,
    },
};
use birthmark_bench::site::{Daemon, Site};
use hdrhistogram::Histogram;
use serde::Serialize;
use tonic::transport::Channel;

use super::{devices::device_id, options::ORDER, stations::Measured};
use crate::{console::step, trial::station_folder};

/// Confirmations of one call: the most that a call may have.
const A_CALL: usize = 1000;

/// How many calls that confirm are under way at once.
const CALLERS: usize = 4;

/// The pause between two calls beside the stations.
const PAUSE: Duration = Duration::from_millis(20);

/// Of this many devices one is scrapped beside the stations.
const SCRAP_EVERY: usize = 5;

/// What the calls took.
#[derive(Debug, Serialize)]
pub(super) struct Calls {
    /// What the stations made beside the first two.
    certificates_per_second: f64,
    get_order_ms: Quantiles,
    scrap_ms: Quantiles,
    /// By their devices, 1,000 a call, when no station streams.
    confirmations: usize,
    confirmations_per_second: f64,
}

/// Quantiles of so many calls.
#[derive(Debug, Serialize)]
struct Quantiles {
    calls: u64,
    p50: f64,
    p99: f64,
    max: f64,
}

impl Quantiles {
    fn of(took: &Histogram<u64>) -> Quantiles {
        let ms = |microseconds: u64| microseconds as f64 / 1e3;
        let quantile = |quantile| ms(took.value_at_quantile(quantile));
        Quantiles { calls: took.len(), p50: quantile(0.5), p99: quantile(0.99), max: ms(took.max()) }
    }
}

/// Asks for the order and scraps devices of the first measurement while `measure` measures once more, then confirms what is left
/// of the first.
pub(super) fn measure(
    site: &Site,
    daemon: &Daemon,
    (first, prefix): (&Measured, &str),
    measure: impl FnOnce() -> anyhow::Result<Measured>,
) -> anyhow::Result<Calls> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // Requests are answered in about the order in which they are made: the last ones may be missing.
    let devices: Vec<_> = (0..first.certificates as usize).map(|number| device_id(prefix, number)).collect();
    let (scrapped, confirmed): (Vec<_>, Vec<_>) = devices.chunks(SCRAP_EVERY).filter_map(<[_]>::split_first).unzip();

    step("Measuring once more, beside calls for the order and scraps");
    let stop = Arc::new(AtomicBool::new(false));
    let (beside, took) = thread::scope(|scope| {
        let (stopped, runtime) = (Arc::clone(&stop), &runtime);
        let calls = scope.spawn(move || runtime.block_on(orders_and_scraps(&daemon.socket, &scrapped, &stopped)));
        let measured = measure();
        stop.store(true, Ordering::Relaxed);
        let took = calls.join().map_err(|_| anyhow!("the calls panicked"))?;
        Ok::<_, anyhow::Error>((measured?, took?))
    })?;
    let [get_order, scrap] = took;

    step("Measuring confirmations");
    let devices = confirmed.concat();
    let began = Instant::now();
    let confirmations = runtime.block_on(confirm(site, daemon, &devices))?;
    let confirmations_per_second = confirmations as f64 / began.elapsed().as_secs_f64();
    Ok(Calls {
        certificates_per_second: beside.certificates as f64 / beside.seconds,
        get_order_ms: Quantiles::of(&get_order),
        scrap_ms: Quantiles::of(&scrap),
        confirmations,
        confirmations_per_second,
    })
}

/// Microseconds of each call for the order, and of each scrap.
async fn orders_and_scraps(
    socket: &Path,
    devices: &[&String],
    stopped: &AtomicBool,
) -> anyhow::Result<[Histogram<u64>; 2]> {
    let connection = Connection { server: None, identity: None, socket: Some(socket.to_owned()) };
    let mut admin = AdminClient::new(connection.daemon()?.connect().await?);
    let [mut get_order, mut scrap] = [Histogram::new(3)?, Histogram::new(3)?];
    for device in devices {
        if stopped.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        admin.get_order(GetOrderRequest { id: ORDER.into() }).await.map_err(Failure::from)?;
        get_order.record(microseconds(began))?;
        let by = Some(By::DeviceId((*device).clone()));
        let record = admin.get_record(GetRecordRequest { by }).await.map_err(Failure::from)?.into_inner();
        let request = ScrapCertificateRequest { serial_number: record.serial_number, reason: "a measurement".into() };
        let began = Instant::now();
        admin.scrap_certificate(request).await.map_err(Failure::from)?;
        scrap.record(microseconds(began))?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok([get_order, scrap])
}

fn microseconds(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Confirms all of these devices, and gives how many they are.
async fn confirm(site: &Site, daemon: &Daemon, devices: &[String]) -> anyhow::Result<usize> {
    let identity = Some(site.path(&station_folder(1)));
    let connection = Connection { server: Some(daemon.url()), identity, socket: None }.daemon()?;
    let share = devices.len().div_ceil(CALLERS).max(1);
    let mut callers = tokio::task::JoinSet::new();
    for devices in devices.chunks(share) {
        callers.spawn(confirm_one_after_another(connection.connect().await?, devices.to_vec()));
    }
    while let Some(ended) = callers.join_next().await {
        ended.context("the calls panicked")??;
    }
    Ok(devices.len())
}

async fn confirm_one_after_another(channel: Channel, devices: Vec<String>) -> anyhow::Result<()> {
    let mut client = IssuanceClient::new(channel);
    for devices in devices.chunks(A_CALL) {
        let request = ConfirmRequest { device_ids: devices.to_vec(), ..ConfirmRequest::default() };
        let reply = client.confirm(request).await.map_err(Failure::from)?.into_inner();
        ensure!(reply.results.len() == devices.len(), "the daemon answered about {} devices", reply.results.len());
        if let Some(error) = reply.results.iter().find_map(|result| result.error.as_ref()) {
            return Err(anyhow!("the daemon confirmed a device not: {}", Failure::from(error)));
        }
    }
    Ok(())
}

impl std::fmt::Display for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Calls { certificates_per_second, get_order_ms, scrap_ms, confirmations, confirmations_per_second } = self;
        write!(
            f,
            "GetOrder {get_order_ms}, ScrapCertificate {scrap_ms}, beside {certificates_per_second:.0} certificates/s; \
             {confirmations_per_second:.0} confirmations/s ({confirmations}, {A_CALL} a call)"
        )
    }
}

impl std::fmt::Display for Quantiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Quantiles { calls, p50, p99, max } = self;
        write!(f, "p50 {p50:.2} ms, p99 {p99:.2} ms, longest {max:.2} ms ({calls})")
    }
}
