//! How sockeye's two binaries speak to an API server that may be away, busy, or wrong for a while.
//!
//! A crate beside `sockeye-crds`, which does no IO, and no feature of it: one crate's feature is every crate's in a build, so
//! that the resources would come with a client for whoever reads them.
//!
//! | module | noun | IO |
//! |---|---|---|
//! | [`client`] | a client that asks once, and keeps to `Retry-After` | requests |
//! | [`patience`] | how long to wait before asking again | none; time |
//! | [`watch`] | one kind, listed and watched for as long as the process runs | requests |
//!
//! Guarantees
//! - What failed is asked again within [`patience::LONGEST`], however long the API server was away, and sooner where
//!   anything else of the same process was answered meanwhile.
//! - Of all that a process has failing, one thing is asked at a time. So while an API server is away a process asks about once
//!   in two seconds, whatever it has to ask; and a thousand of them, whose waits are drawn at random, some 450 times a
//!   second, and come back over four seconds, not in one instant.
//! - Nothing is asked before an API server said that it wants to be asked again.
//! - A connection from which nothing comes for [`client::SILENCE`] is given up; no request hangs for ever.
//! - Nothing but a complete list, or the word of a watch, changes what was told before: no error does.

pub mod client;
pub mod patience;
pub mod watch;

pub use client::{client, is_passing};
pub use patience::Patience;
pub use watch::{Selection, watch};
