//! `Budget`: the work that all relocations of an object may take together.

use super::Reason;

/// Types, members and enumerators that may be looked at: some tenths of a second. The 1,000 relocations of a large
/// object take some 500,000.
const MAX_WORK: u32 = 1 << 24;
/// The work of one step of an access path, whatever is behind it.
pub(super) const STEP: usize = 64;

/// The work that is left.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
}

impl Budget {
    pub(super) const fn new() -> Self {
        Self { left: MAX_WORK }
    }

    /// Takes some of the work.
    pub(super) fn take(&mut self, work: usize) -> Result<(), Reason> {
        let work = u32::try_from(work).map_err(|_| Reason::Work)?;
        self.left = self.left.checked_sub(work).ok_or(Reason::Work)?;
        Ok(())
    }
}
