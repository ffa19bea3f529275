//! Test tools for hostile ELF objects. The tests of `ebpf/` and `agent/` use them, and so does the fuzz target.
//!
//! | module | noun |
//! |---|---|
//! | [`builder`] | ELF objects and BTF written field by field, so that they can hold what no compiler emits |
//! | [`cases`] | what users bring: the objects of tests/objects |
//! | [`kernel`] | the facts of a kernel, from a table |
//! | [`mutate`] | valid objects damaged at random; a case number reproduces the bytes |
//! | [`process`] | a child process that runs cases and measures their time and memory |
//! | [`random`] | the random numbers, reproducible from a seed |
//! | [`roundtrip`] | an object taken through everything that happens to it before the kernel sees it |
//! | [`types`] | the same for types alone |
#![allow(clippy::unwrap_used)]

pub mod builder;
pub mod cases;
pub mod kernel;
pub mod mutate;
pub mod process;
pub mod random;
pub mod roundtrip;
pub mod types;
