//! sockeye's agent: runs BpfRevisions on one node.
//!
//! One rhythm: reads, then pure decisions on values, then one interpreter of the steps, then a report.
//!
//! | step | module | IO | gives |
//! |---|---|---|---|
//! | fetch | [`fetch`] | API server, or a folder | the revisions that this node is to run, and objects' bytes |
//! | observe | [`observe`] | bpffs, kernel; reads only | [`held::Held`] |
//! | | [`wanted`] | none | [`wanted::Wanted`] |
//! | plan | [`mod@plan`] | none | `Vec<`[`plan::Step`]`>` |
//! | execute | [`execute`] | bpffs, kernel | |
//! | report | [`mod@report`] | none | `BpfNode.status` |
//!
//! [`agent`] turns the wheel, [`track`] remembers what has been tried, [`layout`] knows where things stand on bpffs, and
//! [`kernel`] is the only door to bpf(2).

pub mod agent;
pub mod execute;
pub mod failure;
pub mod fetch;
pub mod health;
pub mod held;
pub mod kernel;
pub mod layout;
pub mod observe;
pub mod plan;
pub mod report;
pub mod shape;
pub mod table;
pub mod track;
pub mod wanted;
