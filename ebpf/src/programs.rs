//! The objects that the build compiles from `programs/*.bpf.c`: the builtins, and those that tests use.

use sockeye_crds::Builtin;

macro_rules! object {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bpf.o"))
    };
}

/// Returns the object of a builtin.
pub const fn builtin(name: Builtin) -> &'static [u8] {
    match name {
        Builtin::TcpEvents => TCP_EVENTS_BTF,
        Builtin::TcpRtt => object!("tcp-rtt"),
        Builtin::TcpTune => object!("tcp-tune"),
        Builtin::ConnectAudit => object!("connect-audit"),
        Builtin::EgressGuard => object!("egress-guard"),
        Builtin::SockRedirect => object!("sock-redirect"),
    }
}

/// Counts sockops events 0 to 9 in `my_map`, which has a legacy definition.
pub static TCP_EVENTS: &[u8] = object!("tcp-events");

/// The same program with a map definition in BTF.
pub static TCP_EVENTS_BTF: &[u8] = object!("tcp-events-btf");

/// One object for each program type, by the name of its source and of its manifest in deploy/examples/types.
#[cfg(feature = "fixtures")]
pub mod types {
    macro_rules! objects {
        ($($name:literal),* $(,)?) => {
            /// All objects with their names.
            pub static ALL: &[(&str, &[u8])] =
                &[$(($name, object!($name))),*];
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
    /// Has two programs, global data, an unused map and a map that asks to be pinned.
    pub static GLOBALS: &[u8] = object!("globals");
    /// Has a CO-RE relocation.
    pub static CORE: &[u8] = object!("core");
    /// Has every form of map, program, call and relocation.
    pub static EVERYTHING: &[u8] = object!("everything");
    /// Drops two packets.
    pub static LOSSY: &[u8] = object!("lossy");
    /// Has a map of each type, a global variable of each type, and a map with what a program read from them.
    pub static KINDS: &[u8] = object!("kinds");
    /// Has an atomic operation that kernels know since 5.12, and an instruction that they know since 6.6.
    pub static ATOMIC: &[u8] = object!("atomic");
    /// Has a map of type BloomFilter, which kernels have since 5.16.
    pub static BLOOM: &[u8] = object!("bloom");
    /// Has a program that reads the kernel's memory.
    pub static READER: &[u8] = object!("reader");
    /// Has a map of type CgrpStorage, which kernels have since 6.2.
    pub static CGRP: &[u8] = object!("cgrp");
    /// Has a program that the verifier refuses.
    pub static REFUSED: &[u8] = object!("refused");
    /// Has a program that the verifier refuses with a log of some megabytes.
    pub static WORDY: &[u8] = object!("wordy");
    /// Is tcp-events with a map of another shape.
    pub static RESHAPED: &[u8] = object!("reshaped");
    /// Has maps whose entries a spec lists, and a program that looks them up.
    pub static LISTS: &[u8] = object!("lists");
    /// Has a static map.
    pub static STATIC: &[u8] = object!("static");
    /// Has sockets join a map, whose program passes what they send.
    pub static JOINED: &[u8] = object!("joined");
    /// Denies all connections.
    pub static SHUT: &[u8] = object!("shut");
    /// Is tcp-events with another map, of a type that not every kernel has.
    pub static STORAGE: &[u8] = object!("storage");
    /// Writes records into ring and perf buffers.
    pub static STREAM: &[u8] = object!("stream");
    /// Is tcp-events with other instructions and the same map.
    pub static TWICE: &[u8] = object!("twice");
}
