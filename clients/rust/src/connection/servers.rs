//! Several daemons that serve one ledger: which of them a client asks first, and which when that one is away.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use birthmark_base::hash::sha256;
use tokio::{
    net::lookup_host,
    time::{Instant, timeout},
};
use tonic::transport::Uri;

use super::error::SettingsError;

/// How long a name may take to be resolved.
const RESOLVING: Duration = Duration::from_secs(5);

/// For how long a daemon that was left is asked after the others.
const AVOIDED: Duration = Duration::from_secs(10);

/// The addresses, and what became of the newest connections.
#[derive(Clone, Debug)]
pub(super) struct Servers {
    uris: Vec<Uri>,
    past: Arc<Mutex<Past>>,
}

#[derive(Debug, Default)]
struct Past {
    connected: Option<Candidate>,
    left: Option<(Candidate, Instant)>,
}

/// One daemon, perhaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// As it was given: what its certificate has to be for.
    pub(super) uri: Uri,
    /// One of the name's addresses; none if the address was given, or the name is not resolved.
    pub(super) address: Option<SocketAddr>,
}

impl Candidate {
    /// For people.
    pub(super) fn name(&self) -> String {
        match self.address {
            Some(address) => format!("{} ({address})", self.uri),
            None => self.uri.to_string(),
        }
    }
}

/// The host of an address, without the brackets of IPv6.
pub(super) fn host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_matches(['[', ']'])
}

impl Servers {
    /// Reads one address or several with commas between them.
    pub(super) fn parse(list: &str) -> Result<Servers, SettingsError> {
        let read = |url: &str| {
            let uri = url.parse().ok().filter(|uri: &Uri| {
                uri.scheme_str() == Some("https")
                    && uri.host().is_some_and(|host| !host.is_empty())
                    && uri.port().is_some()
            });
            uri.ok_or_else(|| SettingsError::Address(url.to_owned()))
        };
        let uris = list.split(',').map(|url| read(url.trim())).collect::<Result<_, _>>()?;
        Ok(Servers { uris, past: Arc::default() })
    }

    pub(super) fn uris(&self) -> &[Uri] {
        &self.uris
    }

    /// All daemons, in the order in which this client asks them: each client, known by `who`, has its own, so that clients
    /// spread. One that was left a moment ago comes last.
    pub(super) async fn in_order(&self, who: &[u8]) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for uri in &self.uris {
            let resolved = resolve(uri).await;
            // One machine, perhaps with an address of either family: what connects knows what to do.
            if resolved.is_empty() {
                candidates.push(Candidate { uri: uri.clone(), address: None });
            } else {
                candidates.extend(resolved.into_iter().map(|at| Candidate { uri: uri.clone(), address: Some(at) }));
            }
        }
        candidates.sort_by_key(|candidate| sha256(&[who, candidate.name().as_bytes()].concat()));
        let left = self.past().left.as_ref().filter(|(_, at)| at.elapsed() < AVOIDED).map(|(left, _)| left.clone());
        candidates.sort_by_key(|candidate| Some(candidate) == left.as_ref());
        candidates
    }

    /// A connection to this one is used.
    pub(super) fn connected(&self, candidate: Candidate) {
        self.past().connected = Some(candidate);
    }

    /// That connection was of no use any more.
    pub(super) fn leave(&self) {
        let mut past = self.past();
        past.left = past.connected.take().map(|candidate| (candidate, Instant::now())).or(past.left.take());
    }

    fn past(&self) -> std::sync::MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The addresses of a name that stands for several machines; none if it is an address, or cannot be resolved.
async fn resolve(uri: &Uri) -> Vec<SocketAddr> {
    let (host, Some(port)) = (host(uri), uri.port_u16()) else { return Vec::new() };
    if host.parse::<IpAddr>().is_ok() {
        return Vec::new();
    }
    let Ok(Ok(found)) = timeout(RESOLVING, lookup_host((host, port))).await else { return Vec::new() };
    let mut addresses: Vec<_> = found.collect();
    addresses.sort_unstable();
    addresses.dedup();
    let of_version_4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    if of_version_4.max(addresses.len() - of_version_4) < 2 { Vec::new() } else { addresses }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each client has its own order, the same each time; one that was left comes last, and comes back.
    #[tokio::test]
    async fn clients_spread_over_servers_and_leave_them() -> Result<(), SettingsError> {
        let servers = Servers::parse("https://127.0.0.1:1, https://127.0.0.2:1,https://[::1]:1")?;
        let mut firsts = std::collections::HashMap::new();
        for station in 0..300 {
            let who = format!("station {station}");
            let order = servers.in_order(who.as_bytes()).await;
            assert_eq!(order, servers.in_order(who.as_bytes()).await);
            *firsts.entry(order[0].name()).or_insert(0) += 1;
        }
        assert!(firsts.len() == 3 && firsts.values().all(|number| (60..140).contains(number)), "{firsts:?}");
        let order = servers.in_order(b"a").await;
        servers.connected(order[0].clone());
        servers.leave();
        assert_eq!(servers.in_order(b"a").await, [order[1].clone(), order[2].clone(), order[0].clone()]);
        servers.leave();
        assert_eq!(servers.in_order(b"a").await.last(), Some(&order[0]));
        tokio::time::pause();
        tokio::time::advance(AVOIDED).await;
        assert_eq!(servers.in_order(b"a").await, order);
        for wrong in ["", "https://a:1,", "https://a:1,b:2"] {
            assert!(Servers::parse(wrong).is_err(), "{wrong}");
        }
        Ok(())
    }
}
