//! `CoreError` and `Cause`: why a relocation fails, and why one leaves an instruction that no verifier accepts.

use std::fmt;

use sockeye_crds::names::line;

use super::{kind::RelocationKind, spec::Spec};
use crate::btf::{Btf, Kind, Type, ext::CoreRelo};

/// The longest text of a spec that is kept, in bytes. libbpf cuts it after 255.
const MAX_SPEC: usize = 255;

/// The type and the field or enumerator that a relocation is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The relocation as libbpf prints it: `<byte_off> [12] struct task_struct.pid (0:3 @ offset 24)`.
    pub spec: String,
    /// The type as C writes it: `struct task_struct`.
    pub type_name: String,
    /// The field or enumerator below it: `pid`, `comm[2]`. Empty for the type itself.
    pub field: String,
}

impl Subject {
    /// Describes a relocation of an object's.
    pub(super) fn of(btf: &Btf<'_>, relo: &CoreRelo) -> Self {
        let root = btf.get(relo.type_id).unwrap_or_else(Type::void);
        let name = root.text();
        let type_name = match root.kind {
            Kind::Struct => format!("struct {name}"),
            Kind::Union => format!("union {name}"),
            Kind::Enum | Kind::Enum64 => format!("enum {name}"),
            _ => name.to_string(),
        };
        let kind = RelocationKind::of(relo.kind);
        let (spec, field) = match kind.and_then(|kind| Spec::parse(btf, relo, kind)) {
            Ok(spec) => (spec.text(btf), spec.field(btf)),
            Err(_) => {
                let (kind, path) = (kind.map_or("unknown", RelocationKind::name), relo.access_str_off);
                let path = btf.strings().text(path);
                (format!("<{kind}> [{}] {} {name} + {path}", root.id, root.kind.name()), String::new())
            }
        };
        let [spec, type_name, field] = [spec, type_name, field].map(|text| line(&text, MAX_SPEC));
        Self { spec, type_name, field }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spec)
    }
}

/// A relocation that libbpf refuses, and the object with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CO-RE relocation {subject}: {reason}")]
pub struct CoreError {
    /// What it is about.
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

/// The reason why a relocation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The record refers to a type or a path that the object's BTF does not have.
    #[error("the object's BTF has no such type or field")]
    Record,
    /// The record is of a kind that libbpf does not know.
    #[error("relocations of kind {0} are not known")]
    Kind(u32),
    /// The type has no name to find it by in the kernel.
    #[error("a type without name can't be found in the kernel's BTF")]
    Anonymous,
    /// A type of the kernel's can't be compared with the object's.
    #[error("a type of the kernel's can't be compared with it")]
    Candidate,
    /// The kernel has several types of that name which give different answers.
    #[error("the kernel has several types of that name, which differ in it")]
    Ambiguous,
    /// The question can't be answered for this type, such as the signedness of an array's element.
    #[error("it can't be asked of a type of that kind, or of its size")]
    Question,
    /// The instruction is not one that the compiler makes for a relocation.
    #[error("the instruction has a form that can't be relocated")]
    Instruction,
    /// The instruction holds another value than the object's BTF says.
    #[error("the instruction holds {0}, and the object's BTF says {1}")]
    Value(u64, u64),
    /// The value does not fit into the instruction.
    #[error("the value {0} does not fit into the instruction")]
    Range(u64),
    /// All relocations together take too much work.
    #[error("the object's relocations are too many, or their types too large")]
    Work,
}

/// The cause of an instruction that a relocation has made invalid ([`super::BAD_RELO`]). The verifier refuses the
/// program if the instruction can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The kernel has no such type, field or enumerator.
    Missing,
    /// The kernel's field is of another size, and the instruction can't be adjusted to it.
    Size,
}
