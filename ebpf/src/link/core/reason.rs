//! `Reason`: why a relocation fails.

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
