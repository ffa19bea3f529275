//! sockeye's agent: runs BpfRevisions on one node.
//!
//! One rhythm: reads, then pure decisions on values, then one interpreter of the steps, then a report.
//!
//! | step | module | IO | gives |
//! |---|---|---|---|
//! | fetch | [`fetch`] | API server, or a folder | the revisions that this node is to run, and objects' bytes |
//! | observe | [`observe`] | bpffs, kernel; reads only | [`held::Held`] |
//! | | [`wanted`] | none | [`wanted::Wanted`] |
//! | | [`around`] | none | [`around::Around`]: the cgroups, maps and places that others leave it |
//! | plan | [`mod@plan`] | none | `Vec<`[`plan::Step`]`>` |
//! | execute | [`execute`] | bpffs, kernel | |
//! | report | [`mod@report`] | none | `BpfNode.status` |
//! | | [`tell`] | API server | |
//!
//! | between these | |
//! |---|---|
//! | [`drive`] | when a pass is due: what changed, [`watch`] and the clock; [`agent`] takes it |
//! | [`track`] | what is remembered of a BpfProgram from pass to pass: what was tried, and what came of it |
//! | [`drift`], [`beside`] | what others did to it, and what they attached beside it |
//! | [`probation`] | whether what can cut the node off has stood its trial |
//! | [`policy`] | what the node gives |
//! | [`gate`], [`nri`] | containers' starts, held until what is strict is attached to them |
//! | [`switch`] | nothing attached, because somebody said so on the node |
//! | [`layout`] | where things stand on bpffs |
//! | [`audit`] | a command beside all that |
//!
//! [`host`] is the seam to the node: behind it observe and execute, and [`kernel`], the only door to bpf(2).

pub mod agent;
pub mod around;
pub mod audit;
pub mod beside;
pub mod drift;
pub mod drive;
pub mod execute;
pub mod failure;
pub mod fetch;
pub mod gate;
pub mod held;
pub mod host;
pub mod kept;
pub mod kernel;
pub mod kubelet;
pub mod layout;
pub mod nri;
pub mod observe;
pub mod on_map;
pub mod order;
pub mod plan;
pub mod pods;
pub mod policy;
pub mod probation;
pub mod report;
pub mod shape;
pub mod switch;
pub mod table;
pub mod tell;
pub mod track;
pub mod wanted;
pub mod watch;
