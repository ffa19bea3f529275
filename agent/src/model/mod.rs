//! The values that every other room works with. No IO, no call to the kernel, no import from another room.
//!
//! Start reading at [`desired`] and [`observed`]: `plan` computes the steps from one to the other.
//!
//! | file | noun |
//! |---|---|
//! | `assignment` | what this node is assigned to run |
//! | `desired`, `resolve/` | the state that a BpfProgram should have here, and its computation from a BpfRevision |
//! | `observed`, `pin_names` | the state that a BpfProgram has here, and the names of its pins |
//! | `node_context` | the facts about this node that `resolve/` uses |
//! | `pod`, `pods`, `cgroup_path` | this node's pods and their cgroups |
//! | `keeper`, `kept_pod` | the targets that go on selecting running pods which are relabelled, and these pods |
//! | `kernel`, `map_shape` | kernel objects as values, and the shape of a map |
//! | `entries` | the entries of maps: listed, listed before, and in the kernel |
//! | `per_cpu` | which maps are per-CPU, and how the values of their entries lie in bytes |
//! | `map_access`, `page` | how the entries of a map are read, by its type; and a page of them, as bytes |
//! | `start` | a pod or a container that is about to start |
//! | `switch` | the data that tells programs whether they are attached |
//! | `draining_map` | a map that is kept for the sockets in it |
//! | `regressions` | which known regressions this kernel has |
//! | `trial` | the connectivity trial of a revision |
//! | `refusal` | the reason why a revision can't run here |
//! | `refused` | the connections that guards refused, counted by pod |

pub mod architecture;
pub mod assignment;
pub mod cgroup_path;
pub mod desired;
pub mod draining_map;
pub mod entries;
pub mod keeper;
pub mod kept_pod;
pub mod kernel;
pub mod map_access;
pub mod map_shape;
pub mod node_context;
pub mod observed;
pub mod page;
pub mod per_cpu;
pub mod pin_names;
pub mod pod;
pub mod pods;
pub mod refusal;
pub mod refused;
pub mod regressions;
mod resolve;
pub mod start;
pub mod switch;
pub mod trial;
