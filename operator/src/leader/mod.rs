//! Leader election: of several operators, the one that holds the Lease [`LEASE`](lease::LEASE) writes.
//!
//! | module | noun | IO |
//! |---|---|---|
//! | [`election`] | who leads, when the Lease is written, when leadership is lost: a state machine | none |
//! | [`lease`] | the Lease as each write makes it | none |
//! | [`gate`] | a client that writes only while this process leads | passes requests on |
//! | [`identity`] | the name of this process in the Lease | none |
//! | [`requests`] | what the state machine asks of the API server | requests |
//! | [`run`](mod@run) | the watch of the Lease, the timer and the writers around the state machine | requests |
//!
//! Guarantees
//! - A leader is sure of its Lease for [`RENEW_DEADLINE`](election::RENEW_DEADLINE), counted from before its last
//!   accepted write was sent. Nobody takes the Lease from it before [`LEASE_DURATION`](election::LEASE_DURATION) have
//!   passed since it saw that write. Each process counts on its own monotonic clock; no two clocks are compared.
//! - A process that is no longer sure of its Lease sends no write any more, and ends.
//! - A process that is told to stop ends its writes, then gives the Lease up. Another takes it at once.
//!
//! Not guaranteed: a write that was sent in time may arrive late, and the clock stands still while the machine sleeps.
//! So writes collide by themselves: a revision's name has its sequence, and patches and deletions carry the UID and the
//! resourceVersion that they are based on. Whoever may delete the Lease can have two processes lead until the first one
//! notices: one that starts just after the deletion reads no Lease, and creates it at once.

pub mod election;
pub mod gate;
pub mod identity;
pub mod lease;
pub mod requests;
pub mod run;

pub use run::{Candidate, Lost, Phase};
