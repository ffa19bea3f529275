//! `Checked`: a program that fits its object.

use sockeye_crds::program::ProgramSpec;

use crate::kinds::section::Section;

/// A program that fits its object.
pub(super) struct Checked {
    /// The program, with its type and its targets set.
    pub(super) spec: ProgramSpec,
    /// The field that has the targets.
    pub(super) field: String,
    /// The kind of the program.
    pub(super) row: &'static Section,
}
