//! The programs that ship with sockeye, compiled in the build from `programs/*.bpf.c`: those that a BpfProgram names as
//! `builtin`, and those that tests use.

use sockeye_crds::Builtin;

macro_rules! object {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bpf.o"))
    };
}

/// The object of a builtin.
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

/// Counts socket-ops events 0 to 9 in `my_map`; legacy map definition.
pub static TCP_EVENTS: &[u8] = object!("tcp-events");

/// The same with a BTF map definition.
pub static TCP_EVENTS_BTF: &[u8] = object!("tcp-events-btf");

/// One example for each program type, by the name of its source and of its manifest in deploy/examples/types.
#[cfg(feature = "fixtures")]
pub mod types {
    macro_rules! objects {
        ($($name:literal),* $(,)?) => {
            /// All of them.
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
    /// Two programs, global data, an unused map, a pinning that the ELF asks for.
    pub static GLOBALS: &[u8] = object!("globals");
    /// A CO-RE relocation.
    pub static CORE: &[u8] = object!("core");
    /// Every form of map, program, call and relocation.
    pub static EVERYTHING: &[u8] = object!("everything");
    /// Loses two packets.
    pub static LOSSY: &[u8] = object!("lossy");
    /// A map of each type, global variables of each, and what a program found in them.
    pub static KINDS: &[u8] = object!("kinds");
    /// Storage that goes with cgroups, of the type that kernels have from 6.2 on.
    pub static CGRP: &[u8] = object!("cgrp");
    /// A program that the verifier refuses.
    pub static REFUSED: &[u8] = object!("refused");
    /// One that it refuses after some megabytes of words.
    pub static WORDY: &[u8] = object!("wordy");
    /// tcp-events with a map of another shape.
    pub static RESHAPED: &[u8] = object!("reshaped");
    /// A map that is static.
    pub static STATIC: &[u8] = object!("static");
    /// Lets nothing connect.
    pub static SHUT: &[u8] = object!("shut");
    /// tcp-events beside a map of a type that not every kernel has.
    pub static STORAGE: &[u8] = object!("storage");
    /// tcp-events with other instructions and the same map.
    pub static TWICE: &[u8] = object!("twice");
}
