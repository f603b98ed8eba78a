//! Ports for programs that cannot be asked which one they got, or that are started again where they were.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::net::TcpSocket;

/// A port of the loopback that the kernel gives to nobody else until this is dropped. Servers may listen there one after
/// another: they set SO_REUSEADDR, as servers do.
#[derive(Debug)]
pub struct Port {
    /// Bound, and never listens.
    _held: TcpSocket,
    address: SocketAddr,
}

impl Port {
    /// Takes one.
    ///
    /// # Errors
    ///
    /// The system has none.
    pub fn hold() -> io::Result<Port> {
        let held = TcpSocket::new_v4()?;
        held.set_reuseaddr(true)?;
        held.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = held.local_addr()?;
        Ok(Port { _held: held, address })
    }

    /// Where to listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.address.port()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A server may listen there again and again, and nobody else does meanwhile.
    #[test]
    fn port_is_for_the_servers_of_its_owner() {
        let port = Port::hold().unwrap();
        for _ in 0..2 {
            assert!(TcpStream::connect(port.address()).is_err());
            let server = TcpListener::bind(port.address()).unwrap();
            let client = TcpStream::connect(port.address()).unwrap();
            // The server's end closes first, and is remembered for a while.
            drop(server.accept().unwrap());
            drop(client);
        }
        let others: Vec<_> = (0..1000).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        assert!(others.iter().all(|other| other.local_addr().unwrap() != port.address()));
    }
}
