//! sockeye's agent: runs BpfRevisions on one node.
//!
//! The rooms, from the ground up; each uses only those above it in this table:
//!
//! | room | what it holds | IO |
//! |---|---|---|
//! | [`model`] | the values that all rooms share: what is desired, what is observed, pods, trials | none |
//! | [`kernel`] | the only door to bpf(2), bpffs and cgroups, and the only `unsafe` | system calls |
//! | [`plan`] | the steps from what is observed to what is desired | none |
//! | [`node`] | one node's side effects: observe, execute, watch, behind the trait [`node::Node`] | system calls |
//! | [`control`] | the agent's decisions over time, a state machine: events in, effects out | its thread's |
//! | [`admission`] | container starts, which the runtime asks about (NRI) | one socket |
//! | [`cluster`] | run by an API server: watches, bytecode, the node's status | API server |
//! | [`standalone`] | run by a folder of manifests | files |
//! | [`read_api`] | answers what the node holds | one listening socket |
//! | [`metrics`] | what a scraper is answered | one listening socket |
//! | [`commands`] | commands that need no running agent | bpffs |
//!
//! One BpfProgram's way through them: [`cluster`] or [`standalone`] sends an assignment; [`control`] has [`node`]
//! observe, [`plan`]s, and has [`node`] execute; then it reports a status, which [`cluster`] or [`standalone`] writes.

pub mod admission;
pub mod cluster;
pub mod commands;
pub mod control;
pub mod kernel;
pub mod metrics;
pub mod model;
pub mod node;
pub mod plan;
pub mod read_api;
pub mod standalone;
pub mod streams;
