//! Checks every port before anything starts, so that a taken one is named with its flag and nothing is half up.
//!
//! Port 0 is decided here and not by the service: a service that is started again has to come back at the same address.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::Error;

/// An address and the flag that sets it.
pub(crate) type Wanted = (&'static str, SocketAddr);

/// Turns wanted addresses into free ones, in the same order, each with its port decided.
pub(crate) fn reserve<const N: usize>(wanted: [Wanted; N]) -> Result<[SocketAddr; N], Error> {
    // All are held until all are had: two zeros must not become one port, and one port must not be wanted twice.
    let mut held = Vec::with_capacity(N);
    let mut addresses = wanted.map(|(_, address)| address);
    for ((flag, address), slot) in wanted.into_iter().zip(&mut addresses) {
        let failed = |source: io::Error| {
            if source.kind() == io::ErrorKind::AddrInUse {
                Error::PortInUse { flag, address }
            } else {
                Error::Listen {
                    flag,
                    address,
                    source,
                }
            }
        };
        // std sets SO_REUSEADDR on Unix: a port whose last connections are in TIME_WAIT is free, as for the service.
        let listener = TcpListener::bind(address).map_err(failed)?;
        *slot = listener.local_addr().map_err(failed)?;
        held.push(listener);
    }
    Ok(addresses)
}

/// The address by which a client on this machine reaches a service that listens at `address`.
pub(crate) fn reached(address: SocketAddr) -> SocketAddr {
    let mut reached = address;
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            reached.set_ip(std::net::Ipv4Addr::LOCALHOST.into())
        }
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            reached.set_ip(std::net::Ipv6Addr::LOCALHOST.into())
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => {}
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn zeros_become_different_free_ports() {
        let [http, grpc] = reserve([("--http", ANY), ("--grpc", ANY)]).unwrap();
        assert!(http.port() != 0 && grpc.port() != 0 && http != grpc);
        assert!(TcpListener::bind(http).is_ok(), "released again");
    }

    #[test]
    fn a_taken_port_is_named_with_its_flag() {
        let taken = TcpListener::bind(ANY).unwrap();
        let error = reserve([("--http", ANY), ("--grpc", taken.local_addr().unwrap())]).unwrap_err();
        assert!(
            matches!(error, Error::PortInUse { flag: "--grpc", .. }),
            "{error}"
        );
    }

    #[test]
    fn one_port_for_two_doors_is_refused() {
        let [free] = reserve([("--http", ANY)]).unwrap();
        let error = reserve([("--http", free), ("--grpc", free)]).unwrap_err();
        assert!(
            matches!(error, Error::PortInUse { flag: "--grpc", .. }),
            "{error}"
        );
    }

    #[test]
    fn an_unspecified_address_is_reached_over_loopback() {
        assert_eq!(
            reached("0.0.0.0:8000".parse().unwrap()).to_string(),
            "127.0.0.1:8000"
        );
        assert_eq!(reached("[::]:8000".parse().unwrap()).to_string(), "[::1]:8000");
        assert_eq!(
            reached("10.0.0.7:8000".parse().unwrap()).to_string(),
            "10.0.0.7:8000"
        );
    }
}
