//! What the kernel counts of a process: time on a processor, by thread, and memory.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// What a process has used up to a moment.
#[derive(Debug)]
pub(super) struct Usage {
    /// User and system time of all threads, also of those that have exited.
    all: Time,
    threads: BTreeMap<u32, Thread>,
}

#[derive(Debug)]
struct Thread {
    name: String,
    time: Time,
    switches: u64,
}

/// In the kernel's ticks.
#[derive(Clone, Copy, Debug, Default)]
struct Time {
    user: u64,
    system: u64,
}

/// What the threads of one name used between two moments.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Group {
    /// The threads' name, of which the kernel keeps 15 characters.
    pub(super) name: String,
    /// How many there are.
    pub(super) threads: usize,
    /// Time in user mode.
    pub(super) user_us: f64,
    /// Time in the kernel.
    pub(super) system_us: f64,
    /// How often one went to sleep and was woken.
    pub(super) wake_ups: u64,
}

impl Usage {
    /// Reads what processes have used, together.
    pub(super) fn of(processes: &[u32]) -> anyhow::Result<Usage> {
        let mut usage = Usage { all: Time::default(), threads: BTreeMap::new() };
        processes.iter().try_for_each(|process| usage.add(*process))?;
        Ok(usage)
    }

    fn add(&mut self, process: u32) -> anyhow::Result<()> {
        let folder = format!("/proc/{process}");
        let gone = || format!("cannot read {folder}; the daemon exited");
        let all = stat(Path::new(&folder)).with_context(gone)?.1;
        self.all = Time { user: self.all.user + all.user, system: self.all.system + all.system };
        for entry in fs::read_dir(format!("{folder}/task")).with_context(gone)? {
            let entry = entry.with_context(gone)?;
            // A thread may exit while the list is read.
            let (Some(id), Some((name, time))) =
                (entry.file_name().to_str().and_then(|name| name.parse().ok()), stat(&entry.path()))
            else {
                continue;
            };
            let switches = field(&entry.path(), "voluntary_ctxt_switches").unwrap_or_default();
            self.threads.insert(id, Thread { name, time, switches });
        }
        Ok(())
    }

    /// What was used since `before`: in all, in µs, and by the threads' names, the greatest first.
    pub(super) fn since(&self, before: &Usage) -> (f64, Vec<Group>) {
        let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
        for (id, thread) in &self.threads {
            let (time, switches) =
                before.threads.get(id).map_or((Time::default(), 0), |thread| (thread.time, thread.switches));
            let group = groups.entry(&thread.name).or_default();
            group.threads += 1;
            group.user_us += microseconds(thread.time.user.saturating_sub(time.user));
            group.system_us += microseconds(thread.time.system.saturating_sub(time.system));
            group.wake_ups += thread.switches.saturating_sub(switches);
        }
        let mut groups: Vec<_> =
            groups.into_iter().map(|(name, group)| Group { name: name.to_owned(), ..group }).collect();
        groups.sort_by(|one, other| (other.user_us + other.system_us).total_cmp(&(one.user_us + one.system_us)));
        let ticks = |time: Time| time.user + time.system;
        (microseconds(ticks(self.all).saturating_sub(ticks(before.all))), groups)
    }
}

/// What a process, its children and those that it has waited for have used, in µs.
pub(super) fn family_us(process: u32) -> anyhow::Result<f64> {
    let gone = || format!("cannot read /proc/{process}; the database exited");
    let folder = format!("/proc/{process}");
    let mut ticks = 0;
    // Each thread has a list of those that it began.
    for thread in fs::read_dir(format!("{folder}/task")).with_context(gone)?.flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        let times = children.split_whitespace().filter_map(|child| Some(stat(&Path::new("/proc").join(child))?.1));
        ticks += times.map(|time| time.user + time.system).sum::<u64>();
    }
    let own = times(Path::new(&folder)).with_context(gone)?;
    Ok(microseconds(own.iter().sum::<u64>() + ticks))
}

/// The most memory that a process had at once, in MiB.
pub(super) fn peak_rss_mib(process: u32) -> anyhow::Result<f64> {
    let kib = field(Path::new(&format!("/proc/{process}")), "VmHWM").context("the kernel tells no VmHWM")?;
    Ok(kib as f64 / 1024.0)
}

fn microseconds(ticks: u64) -> f64 {
    ticks as f64 * 1e6 / rustix::param::clock_ticks_per_second() as f64
}

/// Name, user and system time: the 2nd, 14th and 15th field of `stat` (proc(5)). The name may have spaces and brackets.
fn stat(folder: &Path) -> Option<(String, Time)> {
    let text = fs::read_to_string(folder.join("stat")).ok()?;
    let (head, tail) = text.rsplit_once(')')?;
    let mut numbers = tail.split_whitespace().skip(11).map(|number| number.parse().ok());
    let time = Time { user: numbers.next()??, system: numbers.next()?? };
    Some((head.split_once('(')?.1.to_owned(), time))
}

/// User and system time of a process and of the children that it has waited for, in ticks: the 14th to 17th field.
fn times(folder: &Path) -> Option<Vec<u64>> {
    let text = fs::read_to_string(folder.join("stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().skip(11).take(4).map(|number| number.parse().ok()).collect()
}

/// A number of `status`.
fn field(folder: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(folder.join("status")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread's time is told under its name, and is part of the process'.
    #[test]
    fn usage_of_busy_thread_is_under_its_name() {
        let before = Usage::of(&[std::process::id()]).unwrap();
        let (done, wait) = std::sync::mpsc::sync_channel::<()>(0);
        let busy = std::thread::Builder::new()
            .name("busy (one) x".into())
            .spawn(move || while wait.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {});
        // Until it has had a processor for long enough, which other programs may need too.
        let began = std::time::Instant::now();
        let (all, groups) = loop {
            let (all, groups) = Usage::of(&[std::process::id()]).unwrap().since(&before);
            let group = groups.iter().find(|group| group.name == "busy (one) x");
            let used = group.map_or(0.0, |group| group.user_us + group.system_us);
            if used >= 40_000.0 || began.elapsed() > std::time::Duration::from_secs(30) {
                break (all, groups);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        let group = groups.iter().find(|group| group.name == "busy (one) x").unwrap();
        assert!(group.threads == 1 && group.user_us + group.system_us >= 40_000.0, "{groups:?}");
        // The kernel rounds the process' time and its threads' apart, to ticks of some 10 ms.
        assert!(all >= 20_000.0, "{all}");
        assert!(peak_rss_mib(std::process::id()).unwrap() > 1.0);
        drop(done);
        busy.unwrap().join().unwrap();
    }

    /// What a child used counts while it runs and after it.
    #[test]
    fn usage_of_family_has_children_that_run_and_that_ended() {
        use std::{
            io::{BufRead, BufReader, Write},
            process::{Command, Stdio},
            time::{Duration, Instant},
        };

        let busy = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; read line";
        let mut command = Command::new("sh");
        command.args(["-c", &format!("sh -c '{busy}'; echo ended; read line")]);
        let mut parent = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut input, output) = (parent.stdin.take().unwrap(), parent.stdout.take().unwrap());
        let id = parent.id();
        let used = || family_us(id).unwrap();
        let began = Instant::now();
        while used() < 30_000.0 {
            assert!(began.elapsed() < Duration::from_secs(30), "{} µs", used());
            std::thread::sleep(Duration::from_millis(10));
        }
        input.write_all(b"\n").unwrap();
        let mut said = String::new();
        BufReader::new(output).read_line(&mut said).unwrap();
        assert_eq!(said, "ended\n");
        // It does nothing itself but wait.
        assert!(used() >= 30_000.0, "{} µs", used());
        drop(input);
        parent.wait().unwrap();
    }
}
