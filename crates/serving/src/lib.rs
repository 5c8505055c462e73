//! The decisions of the mesh, pure: placement, leases, routing, admission, ticks.

pub mod admission;
pub mod backoff;
pub mod curve;
pub mod lease;
pub mod place;
pub mod retry;
pub mod route;
pub mod tick;
pub mod turns;
