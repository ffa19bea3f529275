//! The limits on what an object may hold. No compiler comes near them; an object written to exhaust a reader does.

/// Sections of the file. clang emits some dozens.
pub(crate) const MAX_SECTIONS: usize = 1024;
/// Symbols of the file.
pub(crate) const MAX_SYMBOLS: usize = 16_384;
/// ELF relocations of the file.
pub(crate) const MAX_RELOCATIONS: usize = 65_536;
/// Bytes of a section's name.
pub(crate) const MAX_SECTION_NAME: usize = 128;
/// Bytes of all symbols' names together; symbols that share a name count it once each.
pub(crate) const MAX_SYMBOL_NAMES: usize = 2 << 20;
/// Bytes of all sections that the file does not hold (`.bss`).
pub(crate) const MAX_ZEROED: u64 = 8 << 20;

/// Types in the BTF: the kernel's BTF_MAX_TYPE.
pub(crate) const MAX_TYPES: usize = 0x000f_ffff;
/// The highest linkage of a variable: static, global, extern. aya-obj reads the number into a Rust enum.
pub(crate) const MAX_LINKAGE: u32 = 2;
/// CO-RE relocations.
pub(crate) const MAX_CORE_RELOCATIONS: usize = 8192;
/// Different types that CO-RE relocations start at. aya-obj searches all of the kernel's types for each.
pub(crate) const MAX_CORE_TYPES: usize = 128;
/// Steps of a CO-RE relocation's access path: libbpf's BPF_CORE_SPEC_MAX_LEN.
pub(crate) const MAX_ACCESS_DEPTH: usize = 64;

/// Functions. A program can have 256, and aya-obj links with a recursion as deep as the calls, on a stack of 2 MiB.
pub(crate) const MAX_FUNCTIONS: usize = 512;
/// Programs.
pub(crate) const MAX_PROGRAMS: usize = 64;
/// Instructions of all programs, each with everything it calls.
pub(crate) const MAX_LINKED: usize = 1 << 19;
/// Line records and relocations, a section's counted once for each function in it.
pub(crate) const MAX_RECORDS: usize = 1 << 20;
/// Maps. A program can use 64.
pub(crate) const MAX_MAPS: usize = 128;
/// Values that the object itself puts into its maps.
pub(crate) const MAX_SLOTS: usize = 1024;
