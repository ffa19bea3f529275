//! Questions about a type that take a walk over others: without modifiers, its size, its alignment. Each walk is
//! bounded, so that types that refer to each other in a circle end it.

use super::{Btf, Kind, Type};

/// Pointers in BPF.
const POINTER: u64 = 8;
/// Types that libbpf resolves after each other for a size (`MAX_RESOLVE_DEPTH`).
const MAX_SIZE_DEPTH: usize = 32;
/// Typedefs and qualifiers after each other. The kernel allows 32, libbpf any number.
const MAX_MODIFIERS: usize = 128;
/// Structs within each other whose alignment is asked for, and the members looked at in all.
const MAX_ALIGN: (usize, usize) = (32, 1 << 14);

impl<'a> Btf<'a> {
    /// Returns a type without its typedefs and qualifiers (libbpf's `skip_mods_and_typedefs`).
    pub fn skip_modifiers(&self, id: u32) -> Option<Type<'a>> {
        self.skip_counted(id).map(|(one, _)| one)
    }

    /// Does the same, and returns the number of types that were looked at.
    pub(crate) fn skip_counted(&self, mut id: u32) -> Option<(Type<'a>, usize)> {
        for count in 1..=MAX_MODIFIERS {
            let one = self.get(id)?;
            if !one.kind.is_transparent() {
                return Some((one, count));
            }
            id = one.type_id();
        }
        None
    }

    /// Returns the size of a type in bytes (libbpf's `btf__resolve_size`). None if it has none or it is too large.
    pub fn resolve_size(&self, mut id: u32) -> Option<u32> {
        let mut count = 1u32;
        for _ in 0..MAX_SIZE_DEPTH {
            let one = self.get(id)?;
            let size = match one.kind {
                Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Datasec | Kind::Float => {
                    one.size().into()
                }
                Kind::Ptr => self.pointer,
                Kind::Array => {
                    let array = one.array()?;
                    count = count.checked_mul(array.len)?;
                    id = array.element;
                    continue;
                }
                Kind::Var | Kind::DeclTag => {
                    id = one.type_id();
                    continue;
                }
                kind if kind.is_transparent() => {
                    id = one.type_id();
                    continue;
                }
                _ => return None,
            };
            return u32::try_from(u64::from(count) * size).ok();
        }
        None
    }

    /// Returns the alignment of a type in bytes (libbpf's `btf__align_of`).
    pub fn align_of(&self, id: u32) -> Option<u32> {
        let mut left = MAX_ALIGN.1;
        self.align_within(id, MAX_ALIGN.0, &mut left)
    }

    fn align_within(&self, mut id: u32, depth: usize, left: &mut usize) -> Option<u32> {
        let depth = depth.checked_sub(1)?;
        for _ in 0..MAX_MODIFIERS {
            let one = self.get(id)?;
            return match one.kind {
                Kind::Int | Kind::Enum | Kind::Enum64 | Kind::Float => {
                    Some(one.size().min(POINTER as u32)).filter(|align| *align > 0)
                }
                Kind::Ptr => Some(POINTER as u32),
                Kind::Struct | Kind::Union => self.align_of_members(&one, depth, left),
                kind => {
                    id = match one.array() {
                        Some(array) => array.element,
                        None if kind.is_transparent() => one.type_id(),
                        None => return None,
                    };
                    continue;
                }
            };
        }
        None
    }

    fn align_of_members(&self, one: &Type<'a>, depth: usize, left: &mut usize) -> Option<u32> {
        let mut most = 1;
        for member in one.members() {
            *left = left.checked_sub(1)?;
            let align = self.align_within(member.type_id, depth, left)?;
            most = most.max(align);
            // A field that is not aligned as its type makes the struct a packed one.
            if member.width == 0 && u64::from(member.bit_offset) % (8 * u64::from(align)) != 0 {
                return Some(1);
            }
        }
        Some(if one.size().is_multiple_of(most) { most } else { 1 })
    }

    /// Guesses the size of pointers from the type `long`, as libbpf does for the kernel's BTF
    /// (`determine_ptr_size`).
    pub(super) fn guess_pointer(&self) -> u64 {
        const LONG: [&[u8]; 11] = [
            b"long",
            b"long int",
            b"int long",
            b"unsigned long",
            b"long unsigned",
            b"unsigned long int",
            b"unsigned int long",
            b"long unsigned int",
            b"long int unsigned",
            b"int unsigned long",
            b"int long unsigned",
        ];
        let is_long =
            |one: &Type<'a>| one.kind == Kind::Int && matches!(one.size(), 4 | 8) && LONG.contains(&one.name());
        self.types().find(is_long).map_or(POINTER, |one| one.size().into())
    }
}
