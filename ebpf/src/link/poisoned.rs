//! `Poisoned`: the instructions of a program that the verifier refuses if they can be reached, and why each is one.
//!
//! An object can have tens of thousands, in functions that all of its programs call. So those of a function are kept
//! once, and without words: words are made for the one instruction that a verifier refuses.

use std::sync::Arc;

use super::core::{Cause, Subject};
use crate::btf::{Btf, ext::CoreRelo};

/// The reason why an instruction was made invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A relocation found nothing that it could stand for in the kernel.
    Core(Subject, Cause),
    /// The kernel lacks a function, which the object can do without.
    Function(String),
}

/// An [`Invalid`] reason that borrows from the object, before it is put into words.
#[derive(Clone, Copy, Debug)]
pub(super) enum Poison<'a> {
    /// A relocation found nothing that it could stand for in the kernel.
    Core(CoreRelo, Cause),
    /// The kernel lacks the function of that name.
    Function(&'a str),
}

/// The poisoned instructions of a function, in order: the index of each in the function. Of two reasons for one
/// instruction, the last counts.
pub(super) type OfFunction<'a> = Arc<[(usize, Poison<'a>)]>;

/// The poisoned instructions of a program.
#[derive(Clone, Debug, Default)]
pub struct Poisoned<'a> {
    /// The object's types, which relocations are about.
    pub(super) btf: Option<&'a Btf<'a>>,
    /// The functions with such instructions, in order: each with the index of its first instruction in the program.
    pub(super) functions: Vec<(usize, OfFunction<'a>)>,
}

impl Poisoned<'_> {
    /// Returns why an instruction was made invalid; None if it was not.
    pub fn get(&self, at: usize) -> Option<Invalid> {
        let before = self.functions.partition_point(|(base, _)| *base <= at);
        let (base, all) = self.functions.get(before.checked_sub(1)?)?;
        let after = all.partition_point(|(instruction, _)| base + instruction <= at);
        let (instruction, poison) = all.get(after.checked_sub(1)?)?;
        (base + instruction == at).then(|| self.words(poison))
    }

    /// Returns the indices of all poisoned instructions.
    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        self.functions.iter().flat_map(|(base, all)| all.iter().map(move |(instruction, _)| base + instruction))
    }

    fn words(&self, poison: &Poison<'_>) -> Invalid {
        match poison {
            Poison::Core(relo, cause) => {
                Invalid::Core(self.btf.map(|btf| Subject::of(btf, relo)).unwrap_or_default(), *cause)
            }
            Poison::Function(name) => Invalid::Function((*name).to_owned()),
        }
    }
}
