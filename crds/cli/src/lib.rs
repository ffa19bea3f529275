//! The command line `sockeye`, also `kubectl sockeye`: what is attached where, what it costs, what maps hold, and why
//! something is not in effect. It reads; it writes only what its verbs say: a registry (`push`), and the folder of a
//! node without a cluster (`apply`, `delete`).
//!
//! One command goes from the top to the bottom and back: [`commands`] asks [`source`] for objects, [`view`] decides on
//! values alone what they mean and what is shown, and [`output`] writes it as kubectl would.
//!
//! | module | noun | IO |
//! |---|---|---|
//! | [`commands`] | the verbs, a file each; start at `mod.rs` | standard output and error |
//! | [`source`] | an API server, agents, folders, files | requests, files |
//! | [`view`] | tables, pages and decisions | none |
//! | [`output`] | tables, JSON, YAML, JSONPath | none |

pub mod commands;
pub mod output;
pub mod source;
pub mod view;
