//! The demo's stations, each `birthmark station sign` in a process of its own.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use birthmark_bench::process::{PATIENCE, Process};

use super::factory::{Demo, ORDER};
use crate::{console::progress, trial::station_folder};

/// All stations of the demo.
pub(super) struct Fleet<'a> {
    demo: &'a Demo,
    servers: &'a [&'a str],
    /// The folder that their certificates come into.
    out: &'a str,
    stations: Vec<Station>,
    reports: mpsc::Sender<Report>,
    received: mpsc::Receiver<Report>,
    started: Instant,
}

/// What they did.
pub(super) struct Finished {
    pub(super) elapsed: Duration,
    /// Certificates that were there already, or were given again without signing.
    pub(super) replays: u64,
}

/// A station's process.
struct Station {
    process: Process,
    /// It was killed on purpose, and is to be started again.
    killed: bool,
}

/// What a station's process reports.
enum Report {
    Device { station: u32, id: String, replay: bool },
    Refused { id: String, reason: String },
    Exited { station: u32 },
}

impl<'a> Fleet<'a> {
    /// Starts them; each asks whichever of the servers answers.
    pub(super) fn start(demo: &'a Demo, servers: &'a [&'a str], out: &'a str) -> anyhow::Result<Fleet<'a>> {
        let (reports, received) = mpsc::channel();
        let mut fleet = Fleet { demo, servers, out, stations: Vec::new(), reports, received, started: Instant::now() };
        for station in 1..=demo.stations {
            let started = fleet.station(station)?;
            fleet.stations.push(started);
        }
        Ok(fleet)
    }

    /// `kill -9` of a station, which is started again.
    pub(super) fn kill(&mut self, station: u32) -> anyhow::Result<()> {
        let station = &mut self.stations[station as usize - 1];
        station.killed = true;
        station.process.kill().context("cannot kill the station")
    }

    /// Waits until all have finished. `each` is called at each certificate, with the number of the station that has it.
    pub(super) fn finish(
        mut self,
        devices: usize,
        mut each: impl FnMut(&mut Fleet<'a>, u32) -> anyhow::Result<()>,
    ) -> anyhow::Result<Finished> {
        let bar = progress(devices as u64, "certificates");
        let (mut done, mut replays, mut running) = (HashSet::new(), 0, self.stations.len());
        while running > 0 {
            match self.received.recv_timeout(PATIENCE).context("the stations are stuck")? {
                Report::Device { station, id, replay } => {
                    replays += u64::from(replay);
                    if done.insert(id) {
                        bar.inc(1);
                    }
                    each(&mut self, station)?;
                }
                Report::Refused { id, reason } => bail!("the device {id} was refused: {reason}"),
                Report::Exited { station } => {
                    let index = station as usize - 1;
                    let exit = self.stations[index].process.wait()?;
                    if self.stations[index].killed && exit.code().is_none() {
                        self.stations[index] = self.station(station)?;
                    } else if exit.success() {
                        running -= 1;
                    } else {
                        let log = fs::read_to_string(self.demo.site.path(&log(station))).unwrap_or_default();
                        bail!("station {station} failed with {exit}:\n{log}");
                    }
                }
            }
        }
        bar.finish_and_clear();
        Ok(Finished { elapsed: self.started.elapsed(), replays })
    }

    fn station(&self, station: u32) -> anyhow::Result<Station> {
        let folder = station_folder(station);
        let input = format!("{folder}/devices.jsonl");
        let log = fs::File::options().create(true).append(true).open(self.demo.site.path(&log(station)))?;
        let mut command =
            self.demo.site.command(&["station", "sign", "--order", ORDER, "--profile", "device", "--json"]);
        command.args(["--identity", &folder, "--in", &input, "--out", self.out]);
        for server in self.servers {
            command.args(["--server", server]);
        }
        let mut process =
            Process::spawn(command.stdout(Stdio::piped()).stderr(log)).context("cannot start a station")?;
        let output = process.child().stdout.take().context("the station has no output")?;
        let reports = self.reports.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(report) = report(station, &line) {
                    let _ = reports.send(report);
                }
            }
            let _ = reports.send(Report::Exited { station });
        });
        Ok(Station { process, killed: false })
    }
}

fn log(station: u32) -> String {
    format!("{}/station.log", station_folder(station))
}

fn report(station: u32, line: &str) -> Option<Report> {
    let line: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).ok()?;
    let field = |name: &str| line.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let id = line.get("device_id")?.as_str()?.to_owned();
    Some(match field("status").as_str() {
        "refused" => Report::Refused { id, reason: format!("{}: {}", field("reason"), field("message")) },
        "issued" => Report::Device { station, id, replay: false },
        // On disk since before the station was killed, or a replay by the daemon.
        _ => Report::Device { station, id, replay: true },
    })
}
