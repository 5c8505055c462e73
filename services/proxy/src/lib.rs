//! The proxy: the only door for users, over HTTP and gRPC.
