//! `Inquiry` and `Inspection`: what somebody asks the controller, and what it answers. Values.
//!
//! An answer is cheap to make: descriptors in place of what they hold. Whoever asks makes the system calls.

use std::sync::Arc;

use sockeye_crds::{
    node::{NodeFacts, NodeProgram, ProgramDetail},
    program::StreamSpec,
};

use super::report::full::NodeLists;
use crate::{
    kernel::{Fd, cgroup::Root},
    model::{kernel::MapInfo, pod::Pod},
    node::handles::Descriptors,
};

/// Tells inquiries apart.
pub type InquiryId = u64;

/// A question to the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inquiry {
    /// The node, and the names of its BpfPrograms.
    Node,
    /// BpfPrograms, by name: a few at a time.
    Programs(Vec<String>),
    /// A BpfProgram's map.
    Map(MapName),
    /// Everything that keeps a BpfProgram's map alive.
    References(MapName),
    /// The log of the verifier that rejected a BpfProgram last.
    VerifierLog(String),
    /// A BpfProgram's buffer, and what its spec says of the records.
    Stream(MapName),
    /// The maps in which guards count what they refuse.
    Refused,
}

/// The name of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapName {
    /// The BpfProgram.
    pub program: String,
    /// The map's name in the ELF object, or its pin name.
    pub map: String,
}

/// The controller's answer.
#[derive(Clone, Debug)]
pub enum Inspection {
    /// The node.
    Node(Box<InspectedNode>),
    /// Those of the BpfPrograms that the node has or should have.
    Programs(Vec<InspectedProgram>),
    /// The map.
    Map(Box<InspectedMap>),
    /// Everything that keeps a map alive.
    References(Box<InspectedReferences>),
    /// The log.
    VerifierLog(Arc<str>),
    /// The buffer.
    Stream(Box<InspectedStream>),
    /// The maps.
    Refused(Box<InspectedRefused>),
    /// There is no such thing.
    Missing(Missing),
}

/// Why there is nothing to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The controller has not looked at the whole node yet.
    Node,
    /// The node has no such BpfProgram.
    Program,
    /// The BpfProgram has no such map.
    Map,
    /// The verifier has rejected nothing of the BpfProgram since the agent was started.
    VerifierLog,
}

/// The node, but for its BpfPrograms.
#[derive(Clone, Debug)]
pub struct InspectedNode {
    /// The node and its kernel.
    pub facts: NodeFacts,
    /// The reason why everything on the node is suspended.
    pub suspended: Option<String>,
    /// Its lists.
    pub lists: NodeLists,
}

/// A BpfProgram.
#[derive(Clone, Debug)]
pub struct InspectedProgram {
    /// Its entry in the BpfNode.
    pub status: NodeProgram,
    /// Its entry in the BpfNodeDetail.
    pub detail: ProgramDetail,
    /// The agent's descriptors.
    pub descriptors: Descriptors,
}

/// A map.
#[derive(Clone, Debug)]
pub struct InspectedMap {
    /// Its name in the ELF object.
    pub name: String,
    /// The kernel's information on it.
    pub info: MapInfo,
    /// The agent's descriptor. Absent if the map is not pinned.
    pub fd: Option<Fd>,
    /// The object that the map was made for.
    pub object: InspectedObject,
}

/// A buffer whose records the agent reads.
#[derive(Clone, Debug)]
pub struct InspectedStream {
    /// The map.
    pub map: InspectedMap,
    /// The spec's settings for its records. Absent if there are none.
    pub stream: Option<StreamSpec>,
    /// The node's pods, as far as they are known.
    pub pods: Arc<Vec<Pod>>,
    /// The root of the node's cgroups.
    pub cgroups: Option<Root>,
}

/// The maps in which guards count what they refuse.
#[derive(Clone, Debug)]
pub struct InspectedRefused {
    /// Each with its BpfProgram.
    pub maps: Vec<(String, MapInfo, Fd)>,
    /// The node's pods, as far as they are known.
    pub pods: Arc<Vec<Pod>>,
    /// The root of the node's cgroups.
    pub cgroups: Option<Root>,
}

/// The object that a map was made for, which says what its bytes mean.
#[derive(Clone, Debug)]
pub enum InspectedObject {
    /// Its bytes are at hand. Not checked against the digest yet.
    Bytes(String, Arc<[u8]>),
    /// Its digest.
    Digest(String),
    /// It is not known, for this reason.
    Unknown(String),
}

impl InspectedObject {
    /// Returns the digest, if it is known.
    pub fn digest(&self) -> Option<&str> {
        match self {
            Self::Bytes(digest, _) | Self::Digest(digest) => Some(digest),
            Self::Unknown(_) => None,
        }
    }
}

/// Everything that keeps a map alive.
#[derive(Clone, Debug)]
pub struct InspectedReferences {
    /// The kernel's information on the map.
    pub info: MapInfo,
    /// Its pins on the host, each with its BpfProgram.
    pub pins: Vec<(String, String)>,
    /// The programs that use it.
    pub users: Vec<UsingProgram>,
    /// The programs that are attached to it by links: BpfProgram, function, path of the link's pin.
    pub links: Vec<(String, String, String)>,
    /// The maps of maps that may hold it.
    pub outer: Vec<OuterMap>,
    /// The programs that ran before a revision that is on trial, with BpfProgram and function.
    pub previous: Vec<(String, String, Fd)>,
}

/// A program that uses a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsingProgram {
    /// The BpfProgram.
    pub program: String,
    /// The function.
    pub function: String,
    /// The kernel's ID.
    pub id: u32,
    /// The paths of its pin and of its links' pins on the host, which keep it.
    pub kept_by: Vec<String>,
}

/// A map of maps.
#[derive(Clone, Debug)]
pub struct OuterMap {
    /// The BpfProgram.
    pub program: String,
    /// The map's name.
    pub map: String,
    /// The kernel's information on it.
    pub info: MapInfo,
    /// The agent's descriptor.
    pub fd: Fd,
}
