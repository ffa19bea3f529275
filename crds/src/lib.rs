//! The four resources of `sockeye.dev/v1alpha1`, and pure functions on them. No IO.
//!
//! | module | noun |
//! |---|---|
//! | [`program`] | `BpfProgram`: the desired state, written by a user |
//! | [`target`] | the cgroups or the map that a program is attached to |
//! | [`revision`] | `BpfRevision`: an accepted spec, written by the operator and run by agents |
//! | [`value`] | `Value`: what a spec gives a global variable or a map's entry |
//! | [`selector`] | label selectors: matching and validation |
//! | [`node`] | `BpfNode` and `BpfNodeDetail`: the observed state of a node, written by its agent |
//! | [`provenance`] | the origin of a revision's bytes, and what proves it |
//! | [`builtin`] | the names of the programs that ship with sockeye |
//! | [`regression`] | defects that some kernels have and programs would trigger |
//! | [`object`] | the content of an ELF object, before any node loads it |
//! | [`program_type`] | the program types that sockeye runs |
//! | [`condition`] | conditions and their types |
//! | [`Reason`] | the reasons of conditions |
//! | [`Refusal`] | why a spec is not carried out |
//! | [`size`] | the size of a value as JSON |
//! | [`summary`] | `BpfProgram.status`, computed from all BpfNodes |
//! | [`definitions`] | the CustomResourceDefinitions of this version |
//! | [`names`] | labels, the finalizer, derived object names, and text that is safe to show |

pub mod builtin;
pub mod condition;
pub mod definitions;
pub mod names;
pub mod node;
pub mod object;
pub mod program;
pub mod program_type;
pub mod provenance;
mod reason;
mod refusal;
pub mod regression;
pub mod revision;
mod schema;
pub mod selector;
pub mod size;
pub mod summary;
pub mod target;
pub mod value;

pub use builtin::Builtin;
pub use condition::{Condition, ConditionType};
pub use node::{BpfNode, BpfNodeDetail, BpfNodeDetailStatus, BpfNodeStatus};
pub use object::{MapDefinition, MapInfo, ObjectInfo, ProgramInfo};
pub use program::{BpfProgram, BpfProgramSpec, BpfProgramStatus};
pub use program_type::ProgramType;
pub use reason::Reason;
pub use refusal::Refusal;
pub use regression::Regression;
pub use revision::{BpfRevision, BpfRevisionSpec, RevisionTemplate};
pub use value::Value;
