//! The decisions of the mesh, pure: placement, scaling, leases, routing, admission, quotas, ticks.

pub mod admission;
pub mod affinity;
pub mod backoff;
pub mod curve;
pub mod fair;
pub mod lease;
pub mod place;
pub mod quota;
pub mod retry;
pub mod route;
pub mod scale;
pub mod shelf;
pub mod tick;
pub mod turns;
