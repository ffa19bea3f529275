//! `CoreError` and `Cause`: why a relocation fails, and why one leaves an instruction that no verifier accepts.

use super::{Reason, Subject};

/// A relocation that libbpf refuses, and the object with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CO-RE relocation {subject}: {reason}")]
pub struct CoreError {
    /// The access or type that it is about.
    pub subject: Box<Subject>,
    /// Why it fails.
    pub reason: Reason,
}

impl CoreError {
    /// Returns whether another kernel may take the object.
    pub const fn is_of_kernel(&self) -> bool {
        matches!(self.reason, Reason::Candidate | Reason::Ambiguous | Reason::Range(_))
    }
}

/// The cause of an instruction that a relocation has made invalid ([`super::BAD_RELO`]). The verifier refuses the
/// program if the instruction can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The kernel has no type of that name and kind.
    Type,
    /// The kernel's type has no such field or enumerator.
    Missing,
    /// The kernel's field is of another size, and the instruction can't be adjusted to it.
    Size,
}
