//! The programs that ship with sockeye, compiled in the build from `programs/*.bpf.c`.

/// Counts socket-ops events 0 to 9 in `my_map`; legacy map definition.
pub static TCP_EVENTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tcp-events.bpf.o"));

/// The same with a BTF map definition.
pub static TCP_EVENTS_BTF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tcp-events-btf.bpf.o"));

/// One example for each program type, by the name of its source and of its manifest in deploy/examples/types.
#[cfg(feature = "fixtures")]
pub mod types {
    macro_rules! objects {
        ($($name:literal),* $(,)?) => {
            /// All of them.
            pub static ALL: &[(&str, &[u8])] =
                &[$(($name, include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bpf.o")))),*];
        };
    }
    objects!(
        "cgroup-device",
        "cgroup-skb",
        "cgroup-sock",
        "cgroup-sock-addr",
        "cgroup-sock-addr-unix",
        "cgroup-sockopt",
        "cgroup-sysctl",
        "sk-msg",
        "sk-skb",
    );
}

/// Objects for tests.
#[cfg(feature = "fixtures")]
pub mod fixtures {
    /// Two programs, global data, an unused map, a pinning that the ELF asks for.
    pub static GLOBALS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/globals.bpf.o"));
    /// A CO-RE relocation.
    pub static CORE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/core.bpf.o"));
    /// Every form of map, program, call and relocation.
    pub static EVERYTHING: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/everything.bpf.o"));
    /// A map of each type, global variables of each, and what a program found in them.
    pub static KINDS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kinds.bpf.o"));
    /// Storage that goes with cgroups, of the type that kernels have from 6.2 on.
    pub static CGRP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cgrp.bpf.o"));
    /// A program that the verifier refuses.
    pub static REFUSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/refused.bpf.o"));
    /// tcp-events with a map of another shape.
    pub static RESHAPED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reshaped.bpf.o"));
    /// Lets nothing connect.
    pub static SHUT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shut.bpf.o"));
    /// tcp-events beside a map of a type that not every kernel has.
    pub static STORAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/storage.bpf.o"));
    /// tcp-events with other instructions and the same map.
    pub static TWICE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/twice.bpf.o"));
}
