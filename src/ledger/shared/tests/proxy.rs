//! A network between a daemon and its database that can be cut: before something is sent on, after it, or altogether.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
};

/// What a daemon sends at the end of a batch, and nowhere else: a simple query (PostgreSQL's protocol, "Query").
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// How it is cut.
#[derive(Debug, Default)]
struct State {
    /// After so many more messages of the daemon; negative: not.
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

/// The network.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    state: Arc<State>,
    port: u16,
}

impl Proxy {
    pub(super) fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy { state: Arc::default(), port: listener.local_addr().unwrap().port() };
        proxy.heal();
        let state = Arc::clone(&proxy.state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if state.blocked.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                let (from, to, there) = (client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&state));
                let (gone, back) = (Arc::new(AtomicBool::new(false)), Arc::clone(&state));
                let left = Arc::clone(&gone);
                thread::spawn(move || forward(from, to, &left, &there));
                thread::spawn(move || answer(server, client, &gone, &back));
            }
        });
        proxy
    }

    /// A URL that leads through here.
    pub(super) fn url(&self, url: &str, port: u16) -> String {
        url.replace(&format!(":{port}/"), &format!(":{}/", self.port))
    }

    /// It is cut at the daemon's next message but so many; that message arrives or does not.
    pub(super) fn cut_after(&self, messages: i64, delivers: bool) {
        self.state.delivers.store(delivers, Ordering::SeqCst);
        self.state.cut_after.store(messages, Ordering::SeqCst);
    }

    /// It is cut at the next COMMIT of a batch, which arrives.
    pub(super) fn cut_at_commit(&self) {
        self.state.delivers.store(true, Ordering::SeqCst);
        self.state.cut_at_commit.store(true, Ordering::SeqCst);
    }

    /// The same, and nothing comes through after that.
    pub(super) fn cut_for_good_at_commit(&self) {
        self.state.blocks.store(true, Ordering::SeqCst);
        self.cut_at_commit();
    }

    /// Nothing comes through any more; what was under way is cut.
    pub(super) fn block(&self) {
        self.state.blocked.store(true, Ordering::SeqCst);
    }

    /// The daemon hears nothing any more, and is not told so.
    pub(super) fn mute(&self) {
        self.state.mute.store(true, Ordering::SeqCst);
    }

    /// All is well again.
    pub(super) fn heal(&self) {
        self.state.cut_after.store(-1, Ordering::SeqCst);
        self.state.cut_at_commit.store(false, Ordering::SeqCst);
        self.state.blocks.store(false, Ordering::SeqCst);
        self.state.blocked.store(false, Ordering::SeqCst);
        self.state.mute.store(false, Ordering::SeqCst);
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
        if state.blocked.load(Ordering::SeqCst) {
            return cut(&client, &server);
        }
        let left = state.cut_after.load(Ordering::SeqCst);
        let commits = bytes[..read].ends_with(COMMIT) && state.cut_at_commit.swap(false, Ordering::SeqCst);
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
            let _ = server.write_all(&bytes[..read]);
            let _ = server.shutdown(Shutdown::Write);
            return;
        }
        if left > 0 {
            state.cut_after.store(left - 1, Ordering::SeqCst);
        }
        if server.write_all(&bytes[..read]).is_err() {
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
        let blocked = state.blocked.load(Ordering::SeqCst);
        if (blocked || client.write_all(&bytes[..read]).is_err()) && !gone.load(Ordering::SeqCst) {
            break;
        }
    }
    cut(&client, &server);
}
