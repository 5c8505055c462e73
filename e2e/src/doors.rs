//! The proxies that callers may choose from, as behind a load balancer. Whoever kills one says so first: a connection that
//! breaks at a proxy that nobody killed is a failure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mobula_proto::image::v1::image_service_client::ImageServiceClient;
use tonic::transport::Channel;

/// A cheap handle to the proxies.
#[derive(Clone, Debug)]
pub struct Doors(Arc<[Door]>);

#[derive(Debug)]
struct Door {
    client: ImageServiceClient<Channel>,
    /// Where it speaks HTTP; none where nobody asks it so.
    http: Option<SocketAddr>,
    /// How often it was killed.
    falls: AtomicUsize,
    /// It was killed and does not answer yet.
    is_down: AtomicBool,
}

/// What was known of a proxy when a request was sent there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    falls: usize,
    is_down: bool,
}

impl Doors {
    /// These proxies, all of which answer.
    #[must_use]
    pub fn new(clients: impl IntoIterator<Item = (ImageServiceClient<Channel>, Option<SocketAddr>)>) -> Self {
        let door = |(client, http)| Door {
            client,
            http,
            falls: AtomicUsize::new(0),
            is_down: AtomicBool::new(false),
        };
        Self(clients.into_iter().map(door).collect())
    }

    /// One proxy, which may be killed at any time.
    pub(crate) fn one(client: ImageServiceClient<Channel>) -> Self {
        let doors = Self::new([(client, None)]);
        doors.falls(0);
        doors
    }

    /// A proxy is about to be killed.
    pub fn falls(&self, index: usize) {
        self.0[index].is_down.store(true, Ordering::SeqCst);
        self.0[index].falls.fetch_add(1, Ordering::SeqCst);
    }

    /// It answers again.
    pub fn stands(&self, index: usize) {
        self.0[index].is_down.store(false, Ordering::SeqCst);
    }

    /// Whether it answers, as far as was said.
    #[must_use]
    pub fn is_standing(&self, index: usize) -> bool {
        !self.0[index].is_down.load(Ordering::SeqCst)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn client(&self, index: usize) -> &ImageServiceClient<Channel> {
        &self.0[index].client
    }

    pub(crate) fn http(&self, index: usize) -> Option<SocketAddr> {
        self.0[index].http
    }

    pub(crate) fn before(&self, index: usize) -> Before {
        let door = &self.0[index];
        Before {
            falls: door.falls.load(Ordering::SeqCst),
            is_down: door.is_down.load(Ordering::SeqCst),
        }
    }

    /// Whether a request that was sent then may have met a killed proxy.
    pub(crate) fn was_killed(&self, index: usize, before: Before) -> bool {
        let now = self.before(index);
        before.is_down || now.is_down || now.falls != before.falls
    }
}
