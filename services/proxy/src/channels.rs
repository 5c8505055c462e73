//! Connections to workers: one HTTP/2 connection per address, shared by all requests, dialled with its first call and again
//! after a loss. Does not balance.

use std::collections::{HashMap, HashSet};

use mobula_kit::channel::Dial;
use tonic::transport::Channel;

/// Connections to workers, one per address.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    dial: Dial,
    open: HashMap<String, Channel>,
}

impl Channels {
    /// None yet; workers will be dialled like this.
    pub(crate) fn new(dial: Dial) -> Self {
        Self {
            dial,
            open: HashMap::new(),
        }
    }

    /// The connection to this address.
    pub(crate) fn of(&mut self, address: &str) -> Result<Channel, mobula_kit::Error> {
        if let Some(channel) = self.open.get(address) {
            return Ok(channel.clone());
        }
        let channel = self.dial.lazy(address)?;
        self.open.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Lets go of those that are not in the table any more; requests under way keep theirs.
    pub(crate) fn keep(&mut self, addresses: &HashSet<&str>) {
        self.open
            .retain(|address, _| addresses.contains(address.as_str()));
    }
}
