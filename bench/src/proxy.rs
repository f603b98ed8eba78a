//! A network between daemons and their database that can be cut: before something is sent on, after it, or altogether.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
};

use anyhow::Context;

/// What a daemon sends at the end of a batch, and nowhere else: a simple query (PostgreSQL's protocol, "Query").
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// How it is cut.
#[derive(Debug)]
struct State {
    /// After so many more messages of a daemon; negative: not.
    cut_after: AtomicI64,
    /// At the next COMMIT of a batch.
    cut_at_commit: AtomicBool,
    /// The message at which it is cut is sent on before.
    delivers: AtomicBool,
    /// Nothing is let through after that.
    blocks: AtomicBool,
    /// Nothing is let through.
    blocked: AtomicBool,
    /// Answers are held back.
    mute: AtomicBool,
}

/// The network, to a server on this machine. It is there until the process ends.
#[derive(Clone, Debug)]
pub struct Proxy {
    state: Arc<State>,
    port: u16,
}

impl Proxy {
    /// To the server that listens on this port, without TLS.
    ///
    /// # Errors
    /// There is no port to listen on.
    pub fn to(port: u16) -> anyhow::Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port for the proxy")?;
        let state = Arc::new(State {
            cut_after: AtomicI64::new(-1),
            cut_at_commit: AtomicBool::default(),
            delivers: AtomicBool::default(),
            blocks: AtomicBool::default(),
            blocked: AtomicBool::default(),
            mute: AtomicBool::default(),
        });
        let proxy = Proxy { state: Arc::clone(&state), port: listener.local_addr()?.port() };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if state.blocked.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { continue };
                let (gone, there, back) = (Arc::new(AtomicBool::new(false)), Arc::clone(&state), Arc::clone(&state));
                let left = Arc::clone(&gone);
                thread::spawn(move || forward(from, to, &left, &there));
                thread::spawn(move || answer(server, client, &gone, &back));
            }
        });
        Ok(proxy)
    }

    /// A URL of the server at `port` that leads through here.
    pub fn url(&self, url: &str, port: u16) -> String {
        url.replace(&format!(":{port}/"), &format!(":{}/", self.port))
    }

    /// It is cut at the next message but so many; that message arrives or does not.
    pub fn cut_after(&self, messages: i64, delivers: bool) {
        self.state.delivers.store(delivers, Ordering::SeqCst);
        self.state.cut_after.store(messages, Ordering::SeqCst);
    }

    /// It is cut at the next COMMIT of a batch, which arrives.
    pub fn cut_at_commit(&self) {
        self.state.delivers.store(true, Ordering::SeqCst);
        self.state.cut_at_commit.store(true, Ordering::SeqCst);
    }

    /// The same, and nothing comes through after that.
    pub fn cut_for_good_at_commit(&self) {
        self.state.blocks.store(true, Ordering::SeqCst);
        self.cut_at_commit();
    }

    /// Nothing comes through any more; what was under way is cut.
    pub fn block(&self) {
        self.state.blocked.store(true, Ordering::SeqCst);
    }

    /// The daemons hear nothing any more, and are not told so.
    pub fn mute(&self) {
        self.state.mute.store(true, Ordering::SeqCst);
    }

    /// All is well again.
    pub fn heal(&self) {
        self.state.cut_after.store(-1, Ordering::SeqCst);
        let state = &self.state;
        for flag in [&state.cut_at_commit, &state.blocks, &state.blocked, &state.mute] {
            flag.store(false, Ordering::SeqCst);
        }
    }
}

fn cut(one: &TcpStream, other: &TcpStream) {
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}

/// `gone`: the daemon has gone, and the server does all that came before that.
fn forward(mut client: TcpStream, mut server: TcpStream, gone: &AtomicBool, state: &State) {
    let mut bytes = [0; 65_536];
    while let Ok(read @ 1..) = client.read(&mut bytes) {
        let message = bytes.get(..read).unwrap_or_default();
        if state.blocked.load(Ordering::SeqCst) {
            return cut(&client, &server);
        }
        let left = state.cut_after.load(Ordering::SeqCst);
        let commits = message.ends_with(COMMIT) && state.cut_at_commit.swap(false, Ordering::SeqCst);
        if left == 0 || commits {
            state.cut_after.store(-1, Ordering::SeqCst);
            if state.blocks.load(Ordering::SeqCst) {
                state.blocked.store(true, Ordering::SeqCst);
            }
            if !state.delivers.load(Ordering::SeqCst) {
                return cut(&client, &server);
            }
            // No answer comes back. A server that could not send one would do nothing more.
            gone.store(true, Ordering::SeqCst);
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.write_all(message);
            let _ = server.shutdown(Shutdown::Write);
            return;
        }
        if left > 0 {
            state.cut_after.store(left - 1, Ordering::SeqCst);
        }
        if server.write_all(message).is_err() {
            break;
        }
    }
    cut(&client, &server);
}

fn answer(mut server: TcpStream, mut client: TcpStream, gone: &AtomicBool, state: &State) {
    let mut bytes = [0; 65_536];
    while let Ok(read @ 1..) = server.read(&mut bytes) {
        if gone.load(Ordering::SeqCst) || state.mute.load(Ordering::SeqCst) {
            continue;
        }
        let passed =
            !state.blocked.load(Ordering::SeqCst) && client.write_all(bytes.get(..read).unwrap_or_default()).is_ok();
        if !passed && !gone.load(Ordering::SeqCst) {
            break;
        }
    }
    cut(&client, &server);
}
