//! Where a process of this machine listens, as the kernel says it: ports that nobody was told of.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

/// The state of a socket that listens, in /proc/net/tcp.
const LISTEN: &str = "0A";

/// Addresses at which a process listens, over IPv4.
#[must_use]
pub(crate) fn of(pid: i32) -> Vec<SocketAddr> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let sockets: HashSet<String> = links
        .filter_map(|link| {
            let target = fs::read_link(link.ok()?.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let line = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let ours = *state == LISTEN && sockets.contains(*inode);
        let (ip, port) = address.split_once(':')?;
        // The address is in the machine's own order of bytes.
        let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
        let port = u16::from_str_radix(port, 16).ok()?;
        ours.then_some(SocketAddr::from((ip, port)))
    };
    table.lines().skip(1).filter_map(line).collect()
}
