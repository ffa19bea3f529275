//! The images of BpfPrograms: pulled from registries, each once for all BpfPrograms that want it, while no
//! reconciliation waits. IO: registries, and the mounted credentials.
//!
//! | file | noun |
//! |---|---|
//! | [`key`] | what a BpfProgram asks of a registry |
//! | [`pulls`] | which images are pulled, and when: a state machine |
//! | [`pulled`] | what a registry gave |
//! | [`run`] | the task around the state machine |
//! | [`puller`] | one pull |
//! | [`args`] | the settings |
//!
//! A reconciliation says what it wants and takes what is known ([`Images::want`]). It is triggered when more is known.
//! Nothing here outlives the process: a revision says what its reference was resolved to, and its bytes are stored.

pub mod args;
pub mod key;
pub mod pulled;
pub mod puller;
pub mod pulls;
pub mod run;

pub use run::Images;
