//! `Request`: what to link of an object.

use std::collections::BTreeMap;

/// The programs and maps of an object that are to be linked.
#[derive(Clone, Debug, Default)]
pub struct Request<'r> {
    /// The programs to load, each with the kind that the kernel verifies it for.
    pub programs: BTreeMap<&'r str, ProgramKind>,
    /// The maps to create, with what the spec says of each. Those that the programs need must be among them.
    pub maps: BTreeMap<&'r str, MapRequest>,
}

/// The kind that the kernel verifies a program for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramKind {
    /// `enum bpf_prog_type`
    pub prog_type: u32,
    /// `enum bpf_attach_type`
    pub attach_type: u32,
}

/// The settings that a spec has for a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapRequest {
    /// The number of entries, if not the object's own.
    pub max_entries: Option<u32>,
}
