//! Commands that need no running agent.

pub mod audit;
mod bpffs;
pub mod detach;
pub mod remove_older_pins;
