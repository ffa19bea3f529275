//! `Builtin`: the name of a program that ships with sockeye. `sockeye-ebpf` has the bytes; docs/programs describes the
//! programs.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of a program that ships with sockeye.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Builtin {
    /// Counts TCP events.
    TcpEvents,
    /// Collects histograms of round-trip times and retransmissions, per cgroup.
    TcpRtt,
    /// Sets options of TCP sockets.
    TcpTune,
    /// Logs which cgroup connects to which address.
    ConnectAudit,
    /// Refuses connections to addresses that are not on a list.
    EgressGuard,
    /// Passes data of TCP connections within a network namespace directly from socket to socket.
    SockRedirect,
}

impl Builtin {
    /// All builtins.
    pub const ALL: [Self; 6] =
        [Self::TcpEvents, Self::TcpRtt, Self::TcpTune, Self::ConnectAudit, Self::EgressGuard, Self::SockRedirect];
}

/// Writes the name as in `spec.bytecode.builtin`.
impl fmt::Display for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        for builtin in Builtin::ALL {
            assert_eq!(serde_json::from_value::<Builtin>(builtin.to_string().into()).unwrap(), builtin);
        }
        let refusal = serde_json::from_value::<Builtin>("tcp-rtts".into()).unwrap_err().to_string();
        for word in
            ["tcp-rtts", "`tcp-events`, `tcp-rtt`, `tcp-tune`, `connect-audit`, `egress-guard`, `sock-redirect`"]
        {
            assert!(refusal.contains(word), "{refusal}");
        }
    }
}
