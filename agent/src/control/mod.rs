//! The agent's decisions over time: a state machine that does no waiting of its own.
//!
//! [`Controller::step`] takes the events that have come, does a bounded amount of work on the node, and returns effects
//! for the tasks around it. The node's own calls (bpf(2), bpffs) are synchronous and behind the
//! [`Node`](crate::node::Node) trait; everything else that takes time (the API server, bytes, container starts) is an
//! event one way and an effect the other way. [`run`](run::run) puts a controller on a thread of its own.
//!
//! | file | noun |
//! |---|---|
//! | [`event`] | events and effects |
//! | [`controller`] | all that the controller knows |
//! | `step` | one step: events in, work, effects out |
//! | `pass` | a pass: survey the node, list the work, do it in steps, report |
//! | `work` | the tasks of a pass |
//! | `reconcile` | one BpfProgram: observe, plan, execute, observe again |
//! | `bytes` | the bytes that a revision needs |
//! | [`verify`] | whether the node's own policy accepts an object; `verdicts` are remembered |
//! | `foreign_devices` | device programs of others beside a BpfProgram's |
//! | [`fetches`] | the ELF objects that loads wait for |
//! | `held_bytes` | those that have come, while others are awaited |
//! | [`program`] | the state of one BpfProgram; [`retry`] says when it is tried again |
//! | [`programs`] | all of them by name, and the index of what every pass asks of them |
//! | `spec_summary` | the parts of a revision that every pass reads |
//! | `known_good` | the revisions that are kept running while a newer one fails |
//! | `pod_search` | pods whose processes are not where the kubelet's names say |
//! | `all_pods` | whether the cgroup of all pods is where pods run |
//! | `dependencies` | what of other BpfPrograms one depends on |
//! | `draining`, `draining_maps` | takes sockets out of maps, and follows the maps that are kept for sockets |
//! | `suspend` | detaches what is suspended |
//! | `admit` | whether a container may start; [`starts`] are those that wait |
//! | [`connectivity`] | whether a program has cut the node off from the API server |
//! | `trials` | reverts such a program |
//! | [`attachments`] | the poll of what is attached |
//! | [`sync_entries`], [`program_entries`] | the entries of maps, and what is remembered of them |
//! | [`drift`] | external changes |
//! | [`timer`] | when passes and polls are due |
//! | [`report`] | the node's status |
//! | [`inspection`] | what others ask the controller, and its answers; `inspect` makes these |
//! | `verifier_logs` | the whole logs of the verifier that rejected programs last |
//! | [`run`] | the controller's thread |
//! | [`newest`] | a slot for the newest assignment or report |

mod admit;
mod all_pods;
pub mod attachments;
mod bytes;
pub mod connectivity;
pub mod controller;
mod dependencies;
mod draining;
mod draining_maps;
pub mod drift;
pub mod event;
pub mod fetches;
mod foreign_devices;
mod held_bytes;
mod inspect;
pub mod inspection;
mod known_good;
pub mod newest;
mod pass;
mod pod_search;
pub mod program;
pub mod program_entries;
pub mod programs;
mod reconcile;
pub mod report;
pub mod retry;
pub mod run;
mod spec_summary;
pub mod starts;
mod step;
mod suspend;
pub mod sync_entries;
pub mod timer;
mod trials;
mod verdicts;
mod verifier_logs;
pub mod verify;
mod work;

pub use self::controller::Controller;
