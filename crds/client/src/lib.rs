//! A client of an API server that may be away, overloaded or wrong for a while, a server of health probes, and the log
//! of a process. Both of sockeye's binaries use them.
//!
//! This is no feature of `sockeye-crds`, which does no IO: cargo unites features across a build, so everyone who reads
//! the resources would get a client with them.
//!
//! | module | noun | IO |
//! |---|---|---|
//! | [`client`](mod@client) | a client that sends each request once, and honours `Retry-After` | requests |
//! | [`backoff`] | the delay before a failed request is sent again | none; time |
//! | [`decode`] | an object from JSON, or its metadata if it can't be read | none |
//! | [`objects`] | lists, gets and writes whose answers are decoded so | requests |
//! | [`watch`](mod@watch) | a list and watch of one kind, for as long as the process runs | requests |
//! | [`probes`] | the server of `/healthz` and `/readyz` | one listening socket |
//! | [`log`] | the process's log, as text or JSON | standard error |
//!
//! Guarantees
//! - A failed request is sent again within [`backoff::MAX_DELAY`], however long the API server was away, and sooner
//!   where another request of the process was answered.
//! - A process retries one failing request at a time. While an API server is away, it gets one request in two seconds
//!   from a process. A thousand processes, whose delays are random, send some 450 a second, and come back over four
//!   seconds, not in one instant.
//! - No request is sent before the time that the API server's `Retry-After` names, but for those of an
//!   [`urgent_client`].
//! - A connection that is silent for [`client::READ_TIMEOUT`] is closed: no request hangs for ever.
//! - Only a complete list or a watch event changes what a watch reported: no error does.
//! - An object that can't be read, however deep it is, affects no other, and no log line has more than 200 bytes of it.

pub mod backoff;
pub mod client;
pub mod decode;
pub mod log;
pub mod objects;
pub mod probes;
pub mod watch;

pub use backoff::Backoff;
pub use client::{client, counting_client, is_transient, urgent_client};
pub use decode::Decode;
pub use log::LogArgs;
pub use probes::Readiness;
pub use watch::{Selection, watch};
