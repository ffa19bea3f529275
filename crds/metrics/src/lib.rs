//! The metrics of sockeye's binaries: what each is called, and the counters that the binaries count in. It imports no
//! other part of sockeye, so every room may count.
//!
//! | module | noun | IO |
//! |---|---|---|
//! | [`description`] | the name, kind, unit, labels and help of one metric | none |
//! | [`families`] | counters and histograms by their labels, and the values of one scrape | none; atomics |
//! | [`client`] | the metrics of a client of the API server; both binaries have them | none; the monotonic clock |
//! | [`operator`] | the operator's metrics | none |
//! | [`agent`] | the agent's metrics | none |
//! | [`exposition`] | the two text formats, and which of them a scraper asked for | none |
//! | [`table`] | docs/metrics.md, made of the descriptions | none |
//! | `serve` | the server of `/metrics` | one listening socket |
//! | `certificate` | the server's certificate: a self-signed one, or a Secret's | files |
//! | `access` | whether a bearer token may read `/metrics` | requests |
//!
//! The last three need the feature `serve`.
//!
//! What happens is counted where it happens, in [`families`]. What is the case is asked at each scrape of whoever knows
//! it, in a [`Scrape`], and kept nowhere a second time. There is no global: whoever counts is handed the counters.
//!
//! Guarantees
//! - A label's values are few: a closed list, codes, or names of BpfPrograms and functions. One family has at most
//!   [`MAX_SERIES`](families::MAX_SERIES) series; the rest is counted as `other`.
//! - Nobody without the right gets a metric, where the server is secure.

#[cfg(feature = "serve")]
pub mod access;
pub mod agent;
#[cfg(feature = "serve")]
pub mod certificate;
pub mod client;
pub mod description;
pub mod exposition;
pub mod families;
pub mod operator;
#[cfg(feature = "serve")]
pub mod serve;
pub mod table;

pub use agent::AgentMetrics;
pub use client::ClientMetrics;
pub use families::Scrape;
pub use operator::OperatorMetrics;
