//! TLS on every port and every dialled connection, by rustls with ring; certificates are read again when their files change.
//!
//! One certificate says who a process is: its ports show it, and connections that it dials show it too (mutual TLS). The
//! doors for users may have another one ([`PublicArgs`]). A port speaks TLS or plain, never both: plain bytes at a TLS port
//! are answered with what is wrong, and a name is never dialled plain because TLS failed.
//!
//! It keeps no connection and decides no authorisation; [`Connection`] in a request's extensions says who the peer proved
//! to be. Invariant: what cannot be used (a key that is not the certificate's, half a file) never replaces what is in use.

mod args;
mod certificate;
mod client;
mod live;
mod material;
mod server;
mod stream;

pub use self::{
    args::{AdminTls, Args, ClientArgs, PublicArgs, Tls},
    client::{Client, Outbound},
    server::{Connection, Protocol, Server},
    stream::Stream,
};

/// Reads of changed files, by result: `ok` or `failed`; what failed is not in use.
pub const RELOADS: &str = "mobula_tls_reload_total";
/// When the certificate in use ends, seconds since the Unix epoch, by use: `mesh` or `public`.
pub const EXPIRY: &str = "mobula_tls_certificate_expiry_timestamp_seconds";
/// Handshakes at ports of this process, by result: `ok`, `plain` (the caller does not speak TLS), `refused` (of the
/// certificates or the protocol), `late` or `broken`.
pub const HANDSHAKES: &str = "mobula_tls_handshakes_total";

#[cfg(test)]
mod tests;
