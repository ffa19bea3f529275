//! Streams: the records of ring and perf buffers, read once and given to several readers each.
//!
//! Start at [`Hub::subscribe`].
//!
//! | file | noun |
//! |---|---|
//! | [`hub`] | the buffers that are read now |
//! | [`buffer`] | one of them, and its subscriptions |
//! | [`reader`] | the thread that reads it, while anybody listens |
//! | [`source`] | where records come from: the kernel's buffers |
//! | [`backlog`] | keeps the newest records, for all who read them |
//! | [`record_writer`] | writes a record as a line of JSON |
//! | [`pace`] | when a buffer is read next |
//! | [`pods`] | the pods that cgroups belong to |
//!
//! A ring has one consumer, and reading consumes. So at most one thread reads a ring; it begins with the first reader
//! and ends with the last one, and what comes while nobody listens stays in the ring.

pub mod backlog;
pub mod buffer;
pub mod hub;
pub mod pace;
pub mod pods;
pub mod reader;
pub mod record_writer;
pub mod source;

pub use self::{
    buffer::{Buffer, Next, Subscription},
    hub::{Hub, Request, SubscribeError},
};
