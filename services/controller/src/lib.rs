//! The controller: desired state, placement, leases, the route table.
