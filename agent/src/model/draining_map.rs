//! `DrainingMap`: a map that no BpfProgram has any more and that is kept for the sockets in it. Values.

use super::map_shape::MapShape;

/// A sockmap or sockhash that is pinned for its sockets alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainingMap {
    /// The BpfProgram that had it.
    pub program: String,
    /// The pin name that it had there.
    pub name: String,
    /// The kernel's ID.
    pub id: u32,
    /// The number of sockets in it.
    pub sockets: u32,
    /// The path of its pin on the host.
    pub pin_path: String,
    /// Its shape, which determines the memory that it may hold.
    pub shape: MapShape,
}

/// What becomes of the sockets in a map that its BpfProgram gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SocketFate {
    /// They are taken out at once: nothing is lost, or the spec says so.
    TakeOut,
    /// They stay until they are closed.
    Keep,
}
