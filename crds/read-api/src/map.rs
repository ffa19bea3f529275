//! `Entries`: the entries of a map, a page of them; and `References`: what keeps a map alive.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A page of the entries of a map, in the kernel's order. Others may write the map meanwhile: an entry that moves can
/// come twice or not at all. A page may have fewer entries than were asked for, even none, and be followed by more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entries {
    /// The kernel's ID of the map.
    #[serde(rename = "mapID")]
    pub map_id: u32,
    /// The map's type by its name in statuses, such as `LruHash`.
    #[serde(rename = "type")]
    pub map_type: String,
    /// The entries.
    pub entries: Vec<Entry>,
    /// Asks for the next page, as [`EntriesQuery::after`](crate::route::EntriesQuery::after). Absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// True if the walk began anew with this page: the keys at which the page before ended have been deleted since. Its
    /// entries may have come before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub restarted: bool,
    /// Why keys and values are bytes, where they could not be decoded: for example that the object is not at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecoded: Option<String>,
}

/// An entry of a map.
///
/// Integers of C are JSON numbers, also those of 64 bits, written out; structs and unions objects, arrays arrays,
/// `bool` a Boolean, an enum its enumerator's name or else its number, `char[]` text where it is printable. Where
/// nothing says what bytes mean, they are text: hexadecimal, without a prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The key. Null where the map has none, as a queue.
    pub key: Value,
    /// The value. For a map with a value for each processor the sum of their numbers; what is no number is there if all
    /// processors have the same, and otherwise null. Absent with [`Cpus::Separate`](crate::route::Cpus::Separate), and
    /// where bytes that could not be decoded can't be added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// The value of each processor, in their order, if they were asked for, or can't be added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Value>,
}

/// The things that keep a map alive, as far as the agent may see: the kernel tells it of its own objects, and not who
/// else has a descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct References {
    /// The kernel's ID of the map.
    #[serde(rename = "mapID")]
    pub map_id: u32,
    /// The things that keep it.
    pub by: Vec<Reference>,
    /// Other things that may keep it and the agent can't see, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// One thing that keeps a map alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Reference {
    /// A pin on bpffs. It keeps the map until it is removed, or the node boots.
    Pin {
        /// The path on the host.
        path: String,
        /// The BpfProgram that it belongs to.
        program: String,
    },
    /// A loaded program that uses the map.
    Program {
        /// The BpfProgram.
        program: String,
        /// The function.
        function: String,
        /// The kernel's ID.
        id: u32,
        /// The paths of the program's pin and of its links' pins on the host, which keep the program.
        kept_by: Vec<String>,
    },
    /// Another map that holds this one.
    OuterMap {
        /// The BpfProgram.
        program: String,
        /// The outer map.
        map: String,
        /// The kernel's ID.
        id: u32,
    },
    /// A program attached to the map (a sockmap), which holds it by a link.
    Link {
        /// The BpfProgram.
        program: String,
        /// The function.
        function: String,
        /// The path of the link's pin on the host.
        path: String,
    },
    /// A descriptor of the agent. It goes when the agent ends.
    Descriptor {
        /// The number of them.
        count: u32,
    },
}
