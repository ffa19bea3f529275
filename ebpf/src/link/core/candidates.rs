//! `Candidates`: the kernel's types that the object's types may mean.

use std::{collections::HashMap, rc::Rc};

use super::{Reason, budget::Budget};
use crate::btf::{KernelBtf, Kind, Type};

/// The candidates of each of the object's types that a relocation was about.
#[derive(Debug)]
pub(super) struct Candidates<'k> {
    kernel: &'k KernelBtf,
    /// All of them, by the offset of the name and the kind.
    all: HashMap<(u32, Kind), Rc<[u32]>>,
    /// Those that are left of a type's, by its ID.
    left: HashMap<u32, Rc<[u32]>>,
}

impl<'k> Candidates<'k> {
    pub(super) fn new(kernel: &'k KernelBtf) -> Self {
        Self { kernel, all: HashMap::new(), left: HashMap::new() }
    }

    /// Returns the candidates of a type.
    pub(super) fn of(&mut self, root: &Type<'_>, budget: &mut Budget) -> Result<Rc<[u32]>, Reason> {
        if let Some(left) = self.left.get(&root.id) {
            return Ok(Rc::clone(left));
        }
        let key = (root.name_off, root.kind);
        if let Some(all) = self.all.get(&key) {
            return Ok(Rc::clone(all));
        }
        let found: Rc<[u32]> = self.kernel.candidates(root.name(), root.kind).into();
        // A name can be a long one, and the kernel can have many types of it.
        budget.take(root.name().len() + 8 * found.len())?;
        self.all.insert(key, Rc::clone(&found));
        Ok(found)
    }

    /// Drops all candidates of a type but these.
    pub(super) fn keep(&mut self, id: u32, kept: Vec<u32>) {
        self.left.insert(id, kept.into());
    }
}
