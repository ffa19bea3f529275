//! The three resources of `sockeye.dev/v1alpha1`, and the pure arithmetic on them.
//!
//! | module | noun |
//! |---|---|
//! | [`program`] | `BpfProgram`: intent, written by a user |
//! | [`target`] | where a program is to be attached |
//! | [`revision`] | `BpfRevision`: dispatch, written by the operator; what agents run |
//! | [`selector`] | label selectors: what one selects, and what is wrong with one |
//! | [`node`] | `BpfNode`: observation, written by one node's agent |
//! | [`builtin`] | the programs that ship with sockeye, by name |
//! | [`object`] | what an ELF object holds, before any node loads it |
//! | [`program_type`] | the program types sockeye runs, in the kernel's words |
//! | [`condition`] | conditions, their types and their reasons |
//! | [`Refusal`] | why a spec is not done, with its reason |
//! | [`summary`] | `BpfNode`s folded into `BpfProgram.status` |
//! | [`definitions`] | the CustomResourceDefinitions, and which version they are of |
//! | [`names`] | labels, finalizer, object names, and which names may reach a path |
//!
//! Nothing here does IO.

pub mod builtin;
pub mod condition;
pub mod definitions;
pub mod names;
pub mod node;
pub mod object;
pub mod program;
pub mod program_type;
mod refusal;
pub mod revision;
mod schema;
pub mod selector;
pub mod summary;
pub mod target;

pub use builtin::Builtin;
pub use condition::{Condition, ConditionType, Reason};
pub use node::{BpfNode, BpfNodeStatus};
pub use object::{MapDefinition, MapInfo, ObjectInfo, ProgramInfo};
pub use program::{BpfProgram, BpfProgramSpec, BpfProgramStatus};
pub use program_type::ProgramType;
pub use refusal::Refusal;
pub use revision::{BpfRevision, BpfRevisionSpec};
