//! How many connections a process has, in all and from each address. Whoever is one too many is let go of at once: it goes
//! elsewhere, where a connection that waits in a line of the system's would hang.
//!
//! It refuses to know what connections carry. Admin pages have places of their own: they tell why the others are full.
//! Invariant: whoever came in is counted out once, by drop.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

const THERE: &str = "mobula_connections";
const REFUSED: &str = "mobula_connections_refused_total";

/// Connections where neither a flag nor the system says how many: most systems' own bound on sockets of one program.
const MOST: usize = 10_000;
/// The part of a process's descriptors that connections of others may take: the rest is for files and for dialling.
const SHARE: (usize, usize) = (3, 4);
/// The part of admin pages, and how many are enough: probes and scrapers are few, and a flood there must not take what the
/// other ports live on.
const ADMIN_SHARE: usize = 16;
const ADMIN_MOST: usize = 128;

/// How many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub all: usize,
    /// From one address of IPv4, or one network of IPv6 (a /64, which one machine has); none is without limit, since all
    /// that a balancer passes on comes from one.
    pub each: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            all: files().map_or(MOST, |files| files / SHARE.1 * SHARE.0),
            each: None,
        }
    }
}

/// Descriptors that this process may have, where the system says.
fn files() -> Option<usize> {
    descriptors(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

/// The soft limit of descriptors, as Linux tells it.
fn descriptors(text: &str) -> Option<usize> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Why somebody cannot come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    All,
    Each,
}

/// Who is there. Pure.
#[derive(Debug)]
struct Count {
    limits: Limits,
    all: usize,
    each: HashMap<IpAddr, usize>,
}

impl Count {
    fn enter(&mut self, network: IpAddr) -> Result<(), Full> {
        if self.all >= self.limits.all {
            return Err(Full::All);
        }
        let there = self.each.entry(network).or_default();
        if self.limits.each.is_some_and(|each| *there >= each) {
            return Err(Full::Each);
        }
        *there += 1;
        self.all += 1;
        Ok(())
    }

    fn leave(&mut self, network: IpAddr) {
        self.all = self.all.saturating_sub(1);
        if let Some(there) = self.each.get_mut(&network) {
            *there = there.saturating_sub(1);
            if *there == 0 {
                self.each.remove(&network);
            }
        }
    }
}

/// What is counted as one: an address of IPv4, the network of one of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            Ipv6Addr::from(network).into()
        }
    }
}

/// All connections of a process.
#[derive(Debug)]
pub(crate) struct Guests {
    count: Mutex<Count>,
    there: Gauge,
    refused: [Counter; 2],
}

/// A connection that is there; counted out by drop.
#[derive(Debug)]
pub(crate) struct Guest {
    guests: Arc<Guests>,
    network: IpAddr,
}

static GUESTS: OnceLock<Arc<Guests>> = OnceLock::new();

/// Decides how many connections this process may have. [`crate::main`] calls it with the flags; later calls, and calls after
/// the first connection, change nothing.
pub fn limit(limits: Limits) {
    GUESTS.get_or_init(|| Arc::new(Guests::new(limits)));
}

/// Those of this process.
pub(crate) fn guests() -> Arc<Guests> {
    Arc::clone(GUESTS.get_or_init(|| Arc::new(Guests::new(Limits::default()))))
}

/// Those of a process's admin pages.
pub(crate) fn admin() -> Arc<Guests> {
    let all = (files().unwrap_or(MOST) / ADMIN_SHARE).min(ADMIN_MOST);
    Arc::new(Guests::with(Limits { all, each: None }, Gauge::noop(), "admin"))
}

impl Guests {
    fn new(limits: Limits) -> Self {
        Self::with(limits, gauge!(THERE), "all")
    }

    /// Counted in a gauge; `full` is what the counter says when there is no place.
    fn with(limits: Limits, there: Gauge, full: &'static str) -> Self {
        crate::metrics::install();
        describe_gauge!(THERE, "Connections at all ports but the admin pages'.");
        describe_counter!(
            REFUSED,
            "Connections that were one too many: in all, from one address, or at the admin pages."
        );
        Self {
            count: Mutex::new(Count {
                limits,
                all: 0,
                each: HashMap::new(),
            }),
            there,
            refused: [full, "address"].map(|reason| counter!(REFUSED, "reason" => reason)),
        }
    }

    /// Lets a connection in, if there is room.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Guest> {
        let network = network(address);
        let entered = self.lock().enter(network);
        if let Err(full) = entered {
            self.refused[full as usize].increment(1);
            return None;
        }
        self.there.increment(1.0);
        Some(Guest {
            guests: Arc::clone(self),
            network,
        })
    }

    /// Nothing under this lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.lock().leave(self.network);
        self.guests.there.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_systems_bound_on_descriptors_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            1024                 524288               files\n";
        assert_eq!(descriptors(text), Some(1024));
        assert_eq!(
            descriptors("Max open files            unlimited unlimited files"),
            None
        );
        assert_eq!(descriptors(""), None);
        assert!(Limits::default().all > 0);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_mapped_addresses_as_what_they_are() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_there_may_be_and_all_who_leave_make_room(
            all in 1usize..6, each in prop::option::of(1usize..3), moves in prop::collection::vec((0u8..4, any::<bool>()), 0..60),
        ) {
            let mut count = Count { limits: Limits { all, each }, all: 0, each: HashMap::new() };
            let mut there = Vec::new();
            for (who, comes) in moves {
                let address = IpAddr::from([10, 0, 0, who]);
                let own = there.iter().filter(|one| **one == address).count();
                if comes {
                    let fits = there.len() < all && each.is_none_or(|each| own < each);
                    prop_assert_eq!(count.enter(address).is_ok(), fits);
                    if fits {
                        there.push(address);
                    }
                } else if let Some(at) = there.iter().position(|one| *one == address) {
                    there.swap_remove(at);
                    count.leave(address);
                }
                prop_assert_eq!(count.all, there.len());
            }
            for address in there.drain(..) {
                count.leave(address);
            }
            prop_assert!(count.all == 0 && count.each.values().all(|left| *left == 0));
        }
    }
}
