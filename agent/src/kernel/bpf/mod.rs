//! bpf(2): one function per command that the agent uses. Each returns the kernel's answer and nothing more.
//!
//! | file | commands |
//! |---|---|
//! | `call` | the system call itself |
//! | `object` | pins, and the kernel's info on an object |
//! | `create` | creates maps, BTF and programs |
//! | `elements` | the elements of maps, singly and in batches |
//! | `test_run` | runs a program on a packet |
//! | `attach` | links, attachments without a link, and queries |
#![expect(unsafe_code, reason = "bpf(2) has no safe form")]

mod attach;
mod call;
mod create;
mod elements;
mod object;
mod test_run;

/// The name of the programs and maps that the agent makes only to ask the kernel something.
pub const PROBE_NAME: &str = "sockeye_probe";

pub use attach::{
    Attachments, F_BEFORE, MAX_PROGRAMS_PER_CGROUP, Position, link_create, link_create_nowhere, link_detach,
    link_update, link_update_nothing, map_attach, map_detach, map_link, map_query, prog_attach_nowhere, prog_query,
    prog_query_nowhere,
};
pub use create::{
    MapAttr, ProgAttr, ProgBtf, btf_load, instruction, map_create, map_create_logged, map_freeze, map_update,
    prog_bind_map, prog_load,
};
pub use elements::{
    Batch, More, map_delete, map_delete_batch, map_lookup, map_lookup_batch, map_next_key, map_update_batch,
};
pub(super) use object::obj_info;
pub use object::{obj_get, obj_pin, takes_directories};
pub use test_run::prog_test_run;
