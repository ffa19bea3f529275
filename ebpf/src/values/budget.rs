//! `Budget`: bounds what is written of values. No IO.

use std::cell::Cell;

use serde::ser::Error;

/// The bytes of output that a value costs beside its names and texts.
pub(crate) const COST: usize = 8;

/// Bounds the output of one or more values: about so many bytes of JSON.
#[derive(Debug)]
pub struct Budget(Cell<usize>);

impl Budget {
    /// Returns a budget of so many bytes.
    pub const fn new(bytes: usize) -> Self {
        Self(Cell::new(bytes))
    }

    /// Returns how much is left after so many bytes. Whoever allocates for a list asks first.
    pub(crate) fn check<E: Error>(&self, bytes: usize) -> Result<usize, E> {
        self.0.get().checked_sub(bytes).ok_or_else(|| E::custom(DecodeError::TooLarge))
    }

    /// Takes so many bytes.
    pub(crate) fn spend<E: Error>(&self, bytes: usize) -> Result<(), E> {
        self.0.set(self.check(bytes)?);
        Ok(())
    }
}

impl Default for Budget {
    /// Returns a budget of 1 MiB.
    fn default() -> Self {
        Self::new(1 << 20)
    }
}

/// The reason why bytes can't be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The value would be too large as JSON.
    #[error("decoded, it would be too large")]
    TooLarge,
    /// There are fewer bytes than the type has.
    #[error("it has {given} bytes, and its type {needed}")]
    TooShort {
        /// The number of bytes.
        given: usize,
        /// The size of the type.
        needed: usize,
    },
}
