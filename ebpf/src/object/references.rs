//! References: what the instructions of a function refer to.

/// A reference of an instruction.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    /// The index of the instruction in its function.
    pub(crate) instruction: usize,
    pub(crate) target: Result<Target, ReferenceError>,
}

/// The target of an instruction's reference. Numbers are indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// It calls a function.
    Call(usize),
    /// It takes the address of a function, to have it called back.
    Address(usize),
    /// It takes a map.
    Map(usize),
    /// It takes the address of a value of a data map, `offset` bytes beyond where the instruction itself says.
    Data { map: usize, offset: u32 },
    /// It calls a function of the kernel.
    ExternCall(usize),
    /// It takes the address, or for configuration the value, of an extern.
    Extern(usize),
}

/// The reason why a reference can't be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReferenceError {
    /// The relocation is at something that is no call and no load of an address.
    #[error("instruction {0} has a relocation and refers to nothing (opcode {1:#04x})")]
    Opcode(usize, u8),
    /// The function ends within the load, whose second half would be another function's.
    #[error("instruction {0} is the first half of a load of an address, and the function ends there")]
    Half(usize),
    /// Two relocations are at one instruction.
    #[error("instruction {0} has two relocations")]
    Two(usize),
    /// The relocation names a symbol that is not there.
    #[error("instruction {0} refers to a symbol that is not there")]
    NoSymbol(usize),
    /// The call is of no function.
    #[error("instruction {0} calls what is no function: {1}")]
    NoFunction(usize, String),
    /// The load is of a variable that no section holds.
    #[error("{0} has no section: give the variable a value, or compile with -fno-common")]
    Common(String),
    /// A function's address is taken without a relocation.
    #[error("instruction {0} takes the address of a function that nothing names")]
    Unnamed(usize),
    /// The map is static.
    #[error("it uses a static map of section {0}: define the map without `static`")]
    StaticMap(String),
    /// The load is of something in a section that holds no maps and no data that programs can use.
    #[error(
        "{what} is in section {section}, which holds no maps and no global data: put a variable into .data, .rodata, \
         .bss or a section whose name begins with one of them and a dot, as .data.mine"
    )]
    NoMap { what: String, section: String },
    /// The variable is in an arena.
    #[error("it uses variables in an arena (section {0}), which sockeye can't give it")]
    Arena(String),
    /// The function jumps by a table.
    #[error(
        "it jumps by a table (section .jumptables, map type InsnArray), which sockeye can't give it: compile with \
         -fno-jump-tables or for -mcpu=v3"
    )]
    JumpTable,
    /// The relocations are in a form that linkers of machine code read.
    #[error("its relocations are not of the form that BPF has (SHT_REL)")]
    Unread,
}
