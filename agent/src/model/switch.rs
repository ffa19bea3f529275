//! The switch of an object: a data section that tells its programs whether the BpfProgram is attached. Sockets in a map
//! keep their programs after these are detached; by the switch these know. Values.

/// The pin name of the map that holds the section `.data.switch`.
pub const SWITCH: &str = "_data_switch";
/// The longest such section in bytes: what it says is noted on bpffs.
pub const MAX_SWITCH: usize = 64;

/// The switch of a BpfProgram, as observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedSwitch {
    /// True if all of its bytes are zero.
    pub is_zero: bool,
    /// True if a note has what it said before it was turned off.
    pub is_noted: bool,
}
