//! `Kind`: the kinds of types (`BTF_KIND_*` of include/uapi/linux/btf.h).

/// The kind of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// `BTF_KIND_UNKN`: the type 0, which is C's `void`.
    Void = 0,
    /// `BTF_KIND_INT`
    Int = 1,
    /// `BTF_KIND_PTR`
    Ptr = 2,
    /// `BTF_KIND_ARRAY`
    Array = 3,
    /// `BTF_KIND_STRUCT`
    Struct = 4,
    /// `BTF_KIND_UNION`
    Union = 5,
    /// `BTF_KIND_ENUM`
    Enum = 6,
    /// `BTF_KIND_FWD`: a struct or union that is only declared.
    Fwd = 7,
    /// `BTF_KIND_TYPEDEF`
    Typedef = 8,
    /// `BTF_KIND_VOLATILE`
    Volatile = 9,
    /// `BTF_KIND_CONST`
    Const = 10,
    /// `BTF_KIND_RESTRICT`
    Restrict = 11,
    /// `BTF_KIND_FUNC`
    Func = 12,
    /// `BTF_KIND_FUNC_PROTO`
    FuncProto = 13,
    /// `BTF_KIND_VAR`
    Var = 14,
    /// `BTF_KIND_DATASEC`
    Datasec = 15,
    /// `BTF_KIND_FLOAT`
    Float = 16,
    /// `BTF_KIND_DECL_TAG`
    DeclTag = 17,
    /// `BTF_KIND_TYPE_TAG`
    TypeTag = 18,
    /// `BTF_KIND_ENUM64`
    Enum64 = 19,
}

impl Kind {
    /// All kinds, by their numbers.
    const ALL: [Self; 20] = [
        Self::Void,
        Self::Int,
        Self::Ptr,
        Self::Array,
        Self::Struct,
        Self::Union,
        Self::Enum,
        Self::Fwd,
        Self::Typedef,
        Self::Volatile,
        Self::Const,
        Self::Restrict,
        Self::Func,
        Self::FuncProto,
        Self::Var,
        Self::Datasec,
        Self::Float,
        Self::DeclTag,
        Self::TypeTag,
        Self::Enum64,
    ];

    /// Returns the kind in a type's info word (`BTF_INFO_KIND`), or its number if it is not known. No type in a section
    /// is of kind 0.
    pub(crate) fn of(info: u32) -> Result<Self, u8> {
        let number = info >> 24 & 0x1f;
        match Self::ALL.get(number as usize) {
            Some(Self::Void) | None => Err(number as u8),
            Some(kind) => Ok(*kind),
        }
    }

    /// Returns the size of a type in the section by its info word, 0 if its kind is not known.
    pub(crate) fn size(info: u32) -> usize {
        /// The fixed size and the size of each part, by the number of the kind.
        const SIZES: [(u8, u8); 32] = {
            let mut sizes = [(0, 0); 32];
            let mut number = 1;
            while number < Kind::ALL.len() {
                sizes[number] = (12 + Kind::ALL[number].tail(0) as u8, Kind::ALL[number].stride() as u8);
                number += 1;
            }
            sizes
        };
        let (fixed, each) = SIZES[(info >> 24 & 0x1f) as usize];
        usize::from(fixed) + usize::from(each) * (info & 0xffff) as usize
    }

    /// Returns the number of bytes that follow a type of this kind with `vlen` parts (libbpf's `btf_type_size`).
    pub(crate) const fn tail(self, vlen: usize) -> usize {
        let fixed = match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            _ => 0,
        };
        fixed + self.stride() * vlen
    }

    /// Returns the size of each of the parts that follow a type: members, enumerators, parameters, variables.
    pub(crate) const fn stride(self) -> usize {
        match self {
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => 12,
            Self::Enum | Self::FuncProto => 8,
            _ => 0,
        }
    }

    /// Returns whether a type of this kind stands for the one that it refers to (libbpf's `btf_is_mod`, and typedefs).
    pub const fn is_transparent(self) -> bool {
        matches!(self, Self::Volatile | Self::Const | Self::Restrict | Self::TypeTag | Self::Typedef)
    }

    /// Returns whether it is a struct or a union (libbpf's `btf_is_composite`).
    pub const fn is_composite(self) -> bool {
        matches!(self, Self::Struct | Self::Union)
    }

    /// Returns whether it is an enum of any width (libbpf's `btf_is_any_enum`).
    pub const fn is_any_enum(self) -> bool {
        matches!(self, Self::Enum | Self::Enum64)
    }

    /// Returns the name that libbpf gives the kind in its messages (`btf_kind_str`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Void => "void",
            Self::Int => "int",
            Self::Ptr => "ptr",
            Self::Array => "array",
            Self::Struct => "struct",
            Self::Union => "union",
            Self::Enum => "enum",
            Self::Fwd => "fwd",
            Self::Typedef => "typedef",
            Self::Volatile => "volatile",
            Self::Const => "const",
            Self::Restrict => "restrict",
            Self::Func => "func",
            Self::FuncProto => "func_proto",
            Self::Var => "var",
            Self::Datasec => "datasec",
            Self::Float => "float",
            Self::DeclTag => "decl_tag",
            Self::TypeTag => "type_tag",
            Self::Enum64 => "enum64",
        }
    }
}
