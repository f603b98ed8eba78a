//! A PostgreSQL server of one's own: in a temporary folder, on loopback, as a user without rights, until this process ends.
//!
//! `BIRTHMARK_TEST_POSTGRESQL=DIR` takes the programs of another version than Debian's; `BIRTHMARK_TEST_DATABASE=URL` takes a server
//! that runs already (as the owner of a database in it), and starts none.

use std::{
    env, fs, io,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use crate::port::Port;

/// The role that the owner of the tables is, and that of the daemons.
pub(crate) const OWNER: &str = "postgres";
pub(crate) const ROLE: &str = "birthmark";

/// How long a server may take to answer.
const START: Duration = Duration::from_secs(60);

/// A server.
#[derive(Debug)]
pub struct Server {
    /// The owner's URL without a query.
    owner: String,
    /// The daemons'.
    daemons: String,
    /// Of one that was started here.
    own: Option<Own>,
}

/// A server that was started here.
#[derive(Debug)]
struct Own {
    folder: PathBuf,
    port: Port,
    process: parking::Guarded,
}

/// Where a ledger may be made: a schema of its own.
#[derive(Clone, Debug)]
pub struct Place {
    /// The owner's URL.
    pub owner: String,
    /// The daemons' URL.
    pub daemons: String,
    /// The schema's name.
    pub schema: String,
    /// The role of the daemons.
    pub role: String,
}

impl Place {
    /// The daemons' URL with sessions of another isolation level.
    pub fn at(&self, isolation: &str) -> String {
        format!("{}%20-cdefault_transaction_isolation%3D{}", self.daemons, isolation.replace(' ', "%5C%20"))
    }
}

/// The programs of PostgreSQL.
pub(crate) fn programs() -> anyhow::Result<PathBuf> {
    if let Some(folder) = env::var_os("BIRTHMARK_TEST_POSTGRESQL") {
        return Ok(folder.into());
    }
    let versions = fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed (Debian: postgresql)")?;
    let newest = versions.filter_map(|version| version.ok()?.file_name().to_str()?.parse::<u32>().ok()).max();
    let newest = newest.context("PostgreSQL is not installed (Debian: postgresql)")?;
    Ok(format!("/usr/lib/postgresql/{newest}/bin").into())
}

/// A program as a user without rights, which ends with the thread that starts it.
pub(crate) fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg("--").arg(program).env("LC_ALL", "C").env_remove("PGDATA").current_dir("/");
    command
}

impl Server {
    /// The one that all tests of this process share.
    ///
    /// # Panics
    /// If there is none to be had.
    #[expect(clippy::panic, reason = "tests cannot go on without it")]
    pub fn shared() -> &'static Server {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(|| Server::start(&[]).unwrap_or_else(|error| panic!("PostgreSQL: {error:#}")))
    }

    /// Starts one with these settings (`name=value`), or takes the one that `BIRTHMARK_TEST_DATABASE` names.
    ///
    /// # Errors
    /// What is in the way.
    pub fn start(settings: &[&str]) -> anyhow::Result<Server> {
        if let Ok(url) = env::var("BIRTHMARK_TEST_DATABASE") {
            let (scheme, rest) = url.split_once("://").context("BIRTHMARK_TEST_DATABASE is no URL")?;
            let (_, host) = rest.split_once('@').context("BIRTHMARK_TEST_DATABASE names no user")?;
            let daemons = format!("{scheme}://{ROLE}@{host}");
            return Ok(Server { owner: url, daemons, own: None });
        }
        sweep();
        let folder = new_folder()?;
        let mut initdb = unprivileged(&programs()?.join("initdb"));
        initdb
            .args(["-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(folder.join("data"));
        let made = initdb.output().context("initdb")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let server = Server::run(folder, settings)?;
        server.sql(&format!("CREATE ROLE {ROLE} LOGIN"))?;
        Ok(server)
    }

    /// Starts a second server that has what this one acknowledges before it does: a synchronous standby.
    ///
    /// # Errors
    /// What is in the way; also that this server was not started here.
    pub fn standby(&self) -> anyhow::Result<Server> {
        let own = self.own.as_ref().context("a standby follows a server that was started here alone")?;
        let folder = new_folder()?;
        let mut copy = unprivileged(&programs()?.join("pg_basebackup"));
        copy.args(["--no-sync", "-R", "-X", "stream", "-c", "fast", "-h", "127.0.0.1", "-U", OWNER]);
        copy.arg("-p").arg(own.port.number().to_string()).arg("-D").arg(folder.join("data"));
        let copied = copy.output().context("pg_basebackup")?;
        ensure!(copied.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&copied.stderr));
        let standby = Server::run(folder, &[])?;
        self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")?;
        self.sql("SELECT pg_reload_conf()")?;
        let follows = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        let begun = Instant::now();
        while self.sql(follows)? != "1" {
            ensure!(begun.elapsed() < START, "the standby does not follow");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(standby)
    }

    /// Runs a server whose files are in this folder, and waits until it answers.
    fn run(folder: PathBuf, settings: &[&str]) -> anyhow::Result<Server> {
        let port = Port::hold()?;
        let log = fs::File::create(folder.join("log"))?;
        let mut postgres = unprivileged(&programs()?.join("postgres"));
        postgres.arg("-D").arg(folder.join("data")).arg("-p").arg(port.number().to_string());
        let always =
            ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", "shared_buffers=64MB"];
        for setting in always.iter().chain(settings) {
            postgres.args(["-c", setting]);
        }
        postgres.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = parking::Guarded::start(postgres)?;
        let base = |user: &str| format!("postgresql://{user}@{}/postgres", port.address());
        let (owner, daemons) = (base(OWNER), base(ROLE));
        let server = Server { owner, daemons, own: Some(Own { folder, port, process }) };
        server.wait()?;
        Ok(server)
    }

    fn wait(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < START {
            if self.sql("SELECT 1").is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        let log = self.own.as_ref().map(|own| fs::read_to_string(own.folder.join("log")).unwrap_or_default());
        bail!("it does not answer: {}", log.unwrap_or_default())
    }

    /// The port, if the server was started here.
    pub fn port(&self) -> Option<u16> {
        self.own.as_ref().map(|own| own.port.number())
    }

    /// Its first process, whose children the others are, if it was started here.
    pub fn pid(&self) -> Option<u32> {
        let own = self.own.as_ref()?;
        let file = fs::read_to_string(own.folder.join("data/postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// Runs statements as the owner; gives what they print.
    ///
    /// # Errors
    /// What psql says.
    pub fn sql(&self, text: &str) -> anyhow::Result<String> {
        psql(&self.owner, text)
    }

    /// An empty place for a ledger.
    ///
    /// # Errors
    /// What psql says.
    pub fn place(&self) -> anyhow::Result<Place> {
        let schema = format!("t_{}_{}", std::process::id(), number());
        self.sql(&format!("CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO {ROLE}"))?;
        let within = |url: &str| {
            let joint = if url.contains('?') { "&" } else { "?sslmode=disable&" };
            format!("{url}{joint}options=-csearch_path%3D{schema}")
        };
        let (owner, daemons) = (within(&self.owner), within(&self.daemons));
        Ok(Place { owner, daemons, schema, role: ROLE.into() })
    }

    /// Ends it as a crash does: no process of it is left.
    pub fn kill(&self) {
        if let Some(own) = &self.own {
            own.process.kill();
            while TcpStream::connect(own.port.address()).is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            own.process.kill();
            let _ = fs::remove_dir_all(&own.folder);
        }
    }
}

/// Runs statements; gives what they print, without titles.
///
/// # Errors
/// What psql says.
pub fn psql(url: &str, text: &str) -> anyhow::Result<String> {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text]).arg(url).env("PGCONNECT_TIMEOUT", "5");
    let done = psql.output().context("psql (Debian: postgresql-client)")?;
    ensure!(done.status.success(), "psql: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

/// A temporary folder that the servers' user may write.
fn new_folder() -> anyhow::Result<PathBuf> {
    let folder = env::temp_dir().join(format!("birthmark-postgresql-{}-{}", std::process::id(), number()));
    fs::create_dir_all(&folder)?;
    if rustix::process::geteuid().is_root() {
        let given = Command::new("chown").arg("postgres:postgres").arg(&folder).status()?;
        ensure!(given.success(), "the folder {} cannot be given to postgres", folder.display());
    }
    Ok(folder)
}

fn number() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// Removes what processes left that were killed.
fn sweep() {
    let Ok(entries) = fs::read_dir(env::temp_dir()) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix("birthmark-postgresql-")?.split('-').next());
        if let Some(process) = process
            && !Path::new("/proc").join(process).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The kernel ends a child with the thread that started it; so that thread waits until the process ends.
pub(crate) mod parking {
    use super::*;
    use std::sync::{Arc, Mutex, mpsc};

    #[derive(Clone, Debug)]
    pub(crate) struct Guarded(Arc<Mutex<Child>>);

    impl Guarded {
        pub(crate) fn start(mut command: Command) -> anyhow::Result<Guarded> {
            let (sender, receiver) = mpsc::sync_channel::<io::Result<Child>>(1);
            thread::Builder::new().name("postgresql".into()).spawn(move || {
                let _ = sender.send(command.spawn());
                loop {
                    thread::park();
                }
            })?;
            let child = receiver.recv()?.context("setpriv (Debian: util-linux)")?;
            Ok(Guarded(Arc::new(Mutex::new(child))))
        }

        pub(crate) fn kill(&self) {
            let mut child = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // The postmaster's children notice that it is gone, and end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
