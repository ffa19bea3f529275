//! Finds an access of the object's in a type of the kernel's (libbpf's `bpf_core_spec_match`).

use super::{
    Reason,
    compat::{MAX_LEVEL, Pair},
    kind::RelocationKind,
    spec::{Accessor, MAX_STEPS, Spec, is_flexible},
};
use crate::btf::{Type, kernel::essential};

impl<'t> Pair<'_, '_, 't> {
    /// Returns where the kernel's type has what the object accesses. None if it has no such thing.
    pub(super) fn find(&mut self, local: &Spec, target: u32) -> Result<Option<Spec>, Reason> {
        self.budget.take(1)?;
        let mut spec = Spec::new(local.kind, target);
        let found = match local.kind {
            RelocationKind::TypeMatches => self.do_match(local.root, target)?,
            kind if kind.is_of_type() => self.are_types(local.root, target, MAX_LEVEL)?,
            kind if kind.is_of_enumerator() => self.find_enumerator(local, target, &mut spec)?,
            _ => self.find_field(local, target, &mut spec)?,
        };
        Ok(found.then_some(spec))
    }

    fn find_enumerator(&mut self, local: &Spec, target: u32, spec: &mut Spec) -> Result<bool, Reason> {
        let of = self.skip_target(target)?;
        let name = local.accessors.first().and_then(|accessor| accessor.name_off).ok_or(Reason::Record)?;
        let name = essential(self.local.strings().name(name));
        for (index, one) in of.enumerators().enumerate() {
            self.budget.take(1)?;
            if essential(one.name()) == name {
                spec.raw.push(index as i32);
                let index = index as u32;
                spec.accessors.push(Accessor { type_id: of.id, index, name_off: Some(one.name_off) });
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn find_field(&mut self, local: &Spec, target: u32, spec: &mut Spec) -> Result<bool, Reason> {
        let mut id = target;
        for (i, accessor) in local.accessors.iter().enumerate() {
            let of = self.skip_target(id)?;
            let next = match accessor.name_off {
                Some(name_off) => self.find_member(accessor, name_off, &of, spec)?,
                None if i == 0 => Some(of.id),
                None => self.element(accessor, &of, spec)?,
            };
            let Some(next) = next else { return Ok(false) };
            id = next;
            if accessor.name_off.is_none() {
                if spec.raw.len() >= MAX_STEPS {
                    return Err(Reason::Candidate);
                }
                let index = accessor.index.cast_signed();
                spec.accessors.push(Accessor { type_id: id, index: accessor.index, name_off: None });
                spec.raw.push(index);
                spec.advance(self.target, id, index).map_err(|_| Reason::Candidate)?;
            }
        }
        Ok(true)
    }

    /// Returns the element of the kernel's array, if it has so many.
    fn element(&mut self, accessor: &Accessor, of: &Type<'_>, spec: &Spec) -> Result<Option<u32>, Reason> {
        let Some(array) = of.array() else { return Ok(None) };
        let is_flexible = spec.accessors.last().is_some_and(|last| is_flexible(self.target, last, array.len));
        if !is_flexible && accessor.index >= array.len {
            return Ok(None);
        }
        let element = self.skip_target(array.element)?;
        Ok(Some(element.id))
    }

    /// Searches a struct of the kernel's, and the anonymous ones within it, for a member of the same name (libbpf's
    /// `bpf_core_match_member`), and returns its type. The recursion is as deep as the path, which is bounded.
    fn find_member(
        &mut self,
        local: &Accessor,
        name_off: u32,
        of: &Type<'t>,
        spec: &mut Spec,
    ) -> Result<Option<u32>, Reason> {
        // Members of the object's have whole names: those of the kernel's are never longer.
        let name = self.local.strings().name(name_off);
        for (index, member) in of.members().enumerate() {
            self.budget.take(1)?;
            if spec.raw.len() >= MAX_STEPS {
                return Err(Reason::Candidate);
            }
            let is_anonymous = self.target.strings().is(member.name_off, b"");
            if !is_anonymous && !member.is_named(name) {
                continue;
            }
            let before = (spec.bit_offset, spec.raw.len());
            spec.bit_offset = spec.bit_offset.wrapping_add(member.bit_offset);
            spec.raw.push(index as i32);
            if !is_anonymous {
                let field = self.local.get(local.type_id).and_then(|of| of.member(local.index as usize));
                let field = field.ok_or(Reason::Record)?;
                let index = index as u32;
                spec.accessors.push(Accessor { type_id: of.id, index, name_off: Some(member.name_off) });
                if self.are_fields(field.type_id, member.type_id)? {
                    return Ok(Some(member.type_id));
                }
                spec.accessors.pop();
                return Ok(None);
            }
            let inner = self.skip_target(member.type_id)?;
            if let Some(found) = self.find_member(local, name_off, &inner, spec)? {
                return Ok(Some(found));
            }
            // A member of that name and of another type ends the search of the anonymous struct, not of the outer one.
            spec.bit_offset = before.0;
            spec.raw.truncate(before.1);
        }
        Ok(None)
    }
}
