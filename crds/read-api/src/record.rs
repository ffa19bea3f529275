//! `Record`: one line of the stream of a ring or perf buffer's records.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Record {
    /// A record of the buffer.
    Record {
        /// The time at which the agent read it (RFC 3339, nanoseconds, by the node's clock).
        time: String,
        /// The record, decoded as an entry's value is ([`Entry`](crate::map::Entry)).
        value: Value,
        /// The pod that a cgroup's ID in the record belongs to, where the spec gives a field the format `Pod`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<Pod>,
        /// Why the value is bytes, in hexadecimal digits, though the spec says a type.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        undecoded: Option<String>,
    },
    /// This reader was too slow, and records are missing here; other readers had them.
    Lost {
        /// The number of records.
        count: u64,
    },
    /// The kernel had no room in the buffer, and records are missing here, for all readers.
    Dropped {
        /// The number of records, where the kernel counts them (perf buffers).
        count: u64,
    },
    /// Records of another type come from here on, for the BpfProgram was updated; or none at all, for it is gone.
    End {
        /// The reason, for people.
        message: String,
    },
}

/// A pod of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The container's name, where the cgroup is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}
