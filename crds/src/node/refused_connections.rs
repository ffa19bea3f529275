//! `RefusedConnections`: how often a guard refused the connections of one pod. No IO.

use serde::{Deserialize, Serialize};

/// The connections of one pod that a guard refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedConnections {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The UID in the name of the pod's cgroup. That of a static pod is not its mirror pod's.
    pub uid: String,
    /// The number of connections that were refused since `sinceTime`, as far as the map that counts them had room.
    #[serde(default)]
    pub count: i64,
    /// The time of the first of them (RFC 3339, seconds).
    #[serde(default)]
    pub since_time: String,
    /// The time of the last of them (RFC 3339, seconds).
    #[serde(default)]
    pub last_time: String,
}

impl RefusedConnections {
    /// Returns the length of its longest text in bytes.
    pub fn longest(&self) -> usize {
        let Self { namespace, name, uid, count: _, since_time, last_time } = self;
        [namespace, name, uid, since_time, last_time].map(String::len).into_iter().max().unwrap_or_default()
    }
}
