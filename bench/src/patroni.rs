//! Three PostgreSQL that replace each other, as Patroni and etcd keep them: on loopback, in a temporary folder, until they are
//! dropped.
#![expect(clippy::disallowed_methods, reason = "the files of a trial need not survive a crash")]

use std::{
    env, fs,
    io::{self, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use crate::{
    port::Port,
    postgres::{OWNER, Place, ROLE, parking::Guarded, programs, psql, unprivileged},
};

/// How long the three may take to be there.
const START: Duration = Duration::from_secs(90);

/// How the standbys are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// A commit waits for a standby, always.
    Strict,
    /// A commit waits for a standby while there is one.
    NotStrict,
    /// No commit waits.
    Asynchronous,
}

/// Three servers, and what decides between them.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    etcd: Guarded,
    /// For etcd's clients and its peers.
    _ports: [Port; 2],
    nodes: Vec<Node>,
    replication: Replication,
    /// Processes that were stopped, which do not notice that their server is gone.
    stopped: Vec<String>,
}

/// One of the servers.
#[derive(Debug)]
struct Node {
    name: String,
    port: Port,
    /// Of Patroni's interface.
    rest: Port,
    folder: PathBuf,
    patroni: Guarded,
}

impl Cluster {
    /// Starts them, and waits until two follow the third.
    ///
    /// # Errors
    /// What is in the way.
    pub fn start(replication: Replication) -> anyhow::Result<Cluster> {
        let folder = env::temp_dir().join(format!("birthmark-postgresql-{}-patroni", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        give(&folder)?;
        let ports = [Port::hold()?, Port::hold()?];
        let [client, peer] = ports.each_ref().map(|port| format!("http://{}", port.address()));
        let mut etcd = unprivileged(Path::new("etcd"));
        etcd.arg("--data-dir").arg(folder.join("etcd")).args(["--name", "one"]);
        for (flag, url) in [
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &format!("one={peer}")),
        ] {
            etcd.args([flag, url]);
        }
        let etcd = started(etcd, &folder.join("etcd.log"))?;
        let mut cluster = Cluster { folder, etcd, _ports: ports, nodes: Vec::new(), replication, stopped: Vec::new() };
        for number in 1..=3 {
            let node = cluster.node(&format!("pg{number}"), &client, replication)?;
            cluster.nodes.push(node);
            if number == 1 {
                cluster.wait("the first server", |cluster| cluster.leader().is_some())?;
            }
        }
        cluster.wait_for_standbys()?;
        cluster.sql(&format!("CREATE ROLE {ROLE} LOGIN"))?;
        Ok(cluster)
    }

    /// Waits until both standbys follow, and one has what is acknowledged if replication is synchronous, which Patroni knows as well:
    /// one that dies before stays the server's synchronous standby.
    ///
    /// # Errors
    /// They do not.
    pub fn wait_for_standbys(&self) -> anyhow::Result<()> {
        let state = if self.replication == Replication::Asynchronous { "async" } else { "sync" };
        let there = format!(
            "SELECT count(*) = 2 AND bool_or(sync_state = '{state}') FROM pg_stat_replication WHERE application_name <> 'pg_basebackup' AND state = 'streaming'"
        );
        self.wait("what follows", |cluster| {
            let is_known =
                cluster.replication == Replication::Asynchronous || cluster.nodes.iter().any(Node::is_synchronous);
            is_known && cluster.sql(&there).is_ok_and(|found| found == "t")
        })
    }

    fn node(&self, name: &str, etcd: &str, replication: Replication) -> anyhow::Result<Node> {
        let folder = self.folder.join(name);
        fs::create_dir(&folder)?;
        let (port, rest) = (Port::hold()?, Port::hold()?);
        let (listen, interface) = (port.address(), rest.address());
        let etcd = etcd.trim_start_matches("http://");
        let (synchronous, strict) = match replication {
            Replication::Strict => (true, true),
            Replication::NotStrict => (true, false),
            Replication::Asynchronous => (false, false),
        };
        let (data, bin) = (folder.join("data"), programs()?);
        let (data, bin) = (data.display(), bin.display());
        let text = format!(
            "scope: birthmark\nname: {name}\netcd3: {{host: '{etcd}'}}\n\
             restapi: {{listen: '{interface}', connect_address: '{interface}'}}\n\
             bootstrap:\n  dcs:\n    ttl: 10\n    loop_wait: 2\n    retry_timeout: 3\n    maximum_lag_on_failover: 104857600\n    \
             synchronous_mode: {synchronous}\n    synchronous_mode_strict: {strict}\n    postgresql:\n      use_pg_rewind: true\n      \
             parameters: {{max_connections: 100, wal_level: replica, hot_standby: 'on', max_wal_senders: 10, wal_keep_size: 512MB}}\n  \
             initdb: [{{encoding: UTF8}}, {{locale: C}}, {{auth: trust}}, data-checksums, no-sync]\n\
             postgresql:\n  listen: '{listen}'\n  connect_address: '{listen}'\n  data_dir: {data}\n  bin_dir: {bin}\n  pgpass: {socket}/pgpass\n  \
             remove_data_directory_on_rewind_failure: true\n  remove_data_directory_on_diverged_timelines: true\n  \
             authentication:\n    superuser: {{username: {OWNER}}}\n    replication: {{username: {OWNER}}}\n  \
             pg_hba: ['host all all 127.0.0.1/32 trust', 'local all all trust', 'host replication all 127.0.0.1/32 trust']\n  \
             parameters: {{unix_socket_directories: '{socket}', shared_buffers: 64MB}}\nwatchdog: {{mode: 'off'}}\n",
            socket = folder.display()
        );
        let file = folder.join("patroni.yml");
        fs::write(&file, text)?;
        give(&folder)?;
        let mut patroni = unprivileged(Path::new("patroni"));
        patroni.arg(&file);
        let patroni = started(patroni, &folder.join("patroni.log"))?;
        Ok(Node { name: name.into(), port, rest, folder, patroni })
    }

    fn wait(&self, what: &str, is_there: impl Fn(&Cluster) -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < START {
            if is_there(self) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(200));
        }
        let log = |node: &Node| fs::read_to_string(node.folder.join("patroni.log")).unwrap_or_default();
        let logs: Vec<_> = self.nodes.iter().map(log).collect();
        bail!("{what} is not there after {} s: {}", START.as_secs(), logs.join("\n---\n"))
    }

    fn url(&self, user: &str) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| node.port.address().to_string()).collect();
        format!("postgresql://{user}@{}/postgres?target_session_attrs=read-write&sslmode=disable", hosts.join(","))
    }

    /// Runs statements as the owner, at whichever server takes writes.
    ///
    /// # Errors
    /// What psql says.
    pub fn sql(&self, text: &str) -> anyhow::Result<String> {
        psql(&self.url(OWNER), text)
    }

    /// An empty place for a ledger.
    ///
    /// # Errors
    /// What psql says.
    pub fn place(&self) -> anyhow::Result<Place> {
        let schema = "ledger".to_owned();
        self.sql(&format!("CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO {ROLE}"))?;
        let within = |user| format!("{}&options=-csearch_path%3D{schema}", self.url(user));
        Ok(Place { owner: within(OWNER), daemons: within(ROLE), schema, role: ROLE.into() })
    }

    fn leader(&self) -> Option<&Node> {
        let takes_writes = |node: &&Node| {
            let url = format!("postgresql://{OWNER}@{}/postgres?sslmode=disable", node.port.address());
            psql(&url, "SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
        };
        self.nodes.iter().find(takes_writes)
    }

    /// Ends the one that takes writes, and the Patroni that would start it again, as a power cut does. Gives its name.
    ///
    /// # Errors
    /// None takes writes.
    pub fn kill_primary(&mut self) -> anyhow::Result<String> {
        let node = self.leader().context("no server takes writes")?;
        node.kill();
        let name = node.name.clone();
        for pid in self.stopped.drain(..) {
            signal(&pid, "KILL")?;
        }
        Ok(name)
    }

    /// Ends those that follow. Gives their names.
    ///
    /// # Errors
    /// None takes writes.
    pub fn kill_standbys(&self) -> anyhow::Result<Vec<String>> {
        let leader = self.leader().context("no server takes writes")?.name.clone();
        let standbys = self.nodes.iter().filter(|node| node.name != leader);
        Ok(standbys.inspect(|node| node.kill()).map(|node| node.name.clone()).collect())
    }

    /// Stops what sends to the standbys, so that these lag.
    ///
    /// # Errors
    /// None takes writes.
    pub fn stop_senders(&mut self) -> anyhow::Result<()> {
        let senders = self.sql("SELECT pid FROM pg_stat_replication")?;
        for pid in senders.lines() {
            signal(pid.trim(), "STOP")?;
            self.stopped.push(pid.trim().to_owned());
        }
        Ok(())
    }

    /// Starts the server again that was ended; it follows the others.
    ///
    /// # Errors
    /// What is in the way.
    pub fn start_again(&mut self, name: &str) -> anyhow::Result<()> {
        let node = self.nodes.iter_mut().find(|node| node.name == name).context("there is no such server")?;
        let mut patroni = unprivileged(Path::new("patroni"));
        patroni.arg(node.folder.join("patroni.yml"));
        node.patroni = started(patroni, &node.folder.join("patroni.log"))?;
        Ok(())
    }

    /// Waits until a server takes writes again; gives its name.
    ///
    /// # Errors
    /// None does.
    pub fn wait_for_primary(&self) -> anyhow::Result<String> {
        self.wait("a server that takes writes", |cluster| cluster.leader().is_some())?;
        Ok(self.leader().context("it is gone again")?.name.clone())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter().for_each(Node::kill);
        for pid in &self.stopped {
            let _ = signal(pid, "KILL");
        }
        self.etcd.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Node {
    /// Whether Patroni counts it as a synchronous standby.
    fn is_synchronous(&self) -> bool {
        let ask = || -> io::Result<String> {
            let mut stream = TcpStream::connect(self.rest.address())?;
            write!(stream, "GET /synchronous HTTP/1.0\r\n\r\n")?;
            io::read_to_string(stream)
        };
        ask().is_ok_and(|answer| answer.starts_with("HTTP/1.0 200"))
    }

    fn kill(&self) {
        self.patroni.kill();
        let data = self.folder.join("data");
        let pid = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        // One that was ended before may have left the number of somebody else's process.
        if let Some(pid) = pid.lines().next()
            && fs::read_link(Path::new("/proc").join(pid).join("cwd")).is_ok_and(|folder| folder == data)
        {
            // All at once, as a power cut does: a child that notices that it is gone shows what no standby has.
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let all: Vec<_> = [pid].into_iter().chain(children.split_whitespace()).collect();
            for name in ["STOP", "KILL"] {
                for pid in &all {
                    let _ = signal(pid, name);
                }
            }
        }
    }
}

fn signal(pid: &str, name: &str) -> anyhow::Result<()> {
    let sent = Command::new("kill").args(["-s", name, pid]).stderr(Stdio::null()).status().context("kill")?;
    ensure!(sent.success(), "the process {pid} is not there");
    Ok(())
}

fn started(mut command: Command, log: &Path) -> anyhow::Result<Guarded> {
    let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Guarded::start(command)
}

/// A folder that the servers' user may write.
fn give(folder: &Path) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        let given = Command::new("chown").args(["-R", "postgres:postgres"]).arg(folder).status()?;
        ensure!(given.success(), "the folder {} cannot be given to postgres", folder.display());
    }
    Ok(())
}
