//! `ElfBuilder` and `BtfBuilder` write an ELF object for BPF field by field, so that it can hold what no compiler
//! emits.

/// Section type: bytes in the file.
pub const PROGBITS: u32 = 1;
/// Section type: zeroes that the file does not hold.
pub const NOBITS: u32 = 8;
/// Section type: relocations.
pub const REL: u32 = 9;
/// Section type: compact relocations, of one byte or more each.
pub const CREL: u32 = 0x4000_0014;
/// Symbol info: a global function.
pub const FUNC: u8 = 0x12;
/// Symbol info: a global variable.
pub const OBJECT: u8 = 0x11;
/// Symbol info: a section.
pub const SECTION: u8 = 0x03;
/// Section flags: allocated and executable.
pub const CODE: u64 = 6;
/// Section flags: allocated and written.
pub const DATA: u64 = 3;

#[derive(Debug)]
struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    size: u64,
    info: u32,
    bytes: Vec<u8>,
}

/// An ELF object. Section 1 holds all strings, section 2 the symbols.
#[derive(Debug)]
pub struct ElfBuilder {
    strings: Vec<u8>,
    symbols: Vec<u8>,
    sections: Vec<Section>,
}

/// The index of the first section that a test adds: the licence.
const FIRST: usize = 3;

impl Default for ElfBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ElfBuilder {
    /// Starts an object that has a licence and nothing else.
    pub fn new() -> Self {
        let mut elf = Self { strings: vec![0], symbols: vec![0; 24], sections: Vec::new() };
        elf.section("license", PROGBITS, DATA, b"GPL\0".to_vec());
        elf
    }

    /// Adds a string and returns its offset.
    pub fn string(&mut self, text: impl AsRef<[u8]>) -> u32 {
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(text.as_ref());
        self.strings.push(0);
        at
    }

    /// Adds a section and returns its index.
    pub fn section(&mut self, name: impl AsRef<[u8]>, kind: u32, flags: u64, bytes: Vec<u8>) -> u16 {
        let name = self.string(name);
        self.section_named_at(name, kind, flags, bytes)
    }

    /// Adds a section whose name is at an offset in the strings.
    pub fn section_named_at(&mut self, name: u32, kind: u32, flags: u64, bytes: Vec<u8>) -> u16 {
        self.sections.push(Section { name, kind, flags, size: bytes.len() as u64, info: 0, bytes });
        (FIRST + self.sections.len() - 1) as u16
    }

    /// Adds a section that has a size and no bytes, and returns its index.
    pub fn empty_section(&mut self, name: &str, size: u64) -> u16 {
        let index = self.section(name, NOBITS, DATA, Vec::new());
        self.sections.last_mut().unwrap().size = size;
        index
    }

    /// Adds the relocation table of a section.
    pub fn relocations(&mut self, of: u16, kind: u32, bytes: Vec<u8>) {
        let index = self.section(".rel", kind, 0, bytes);
        self.sections[usize::from(index) - FIRST].info = u32::from(of);
    }

    /// Adds a symbol with a value and a size, and returns its index.
    pub fn symbol(&mut self, name: impl AsRef<[u8]>, info: u8, section: u16, place: (u64, u64)) -> u32 {
        let name = self.string(name);
        self.symbol_named_at(name, info, section, place)
    }

    /// Adds a symbol, with a value and a size, whose name is at an offset in the strings.
    pub fn symbol_named_at(&mut self, name: u32, info: u8, section: u16, (value, size): (u64, u64)) -> u32 {
        let index = self.symbols.len() / 24;
        self.symbols.extend(name.to_le_bytes());
        self.symbols.extend([info, 0]);
        self.symbols.extend(section.to_le_bytes());
        self.symbols.extend(value.to_le_bytes());
        self.symbols.extend(size.to_le_bytes());
        index as u32
    }

    /// Adds a sockops program that returns at once, in a section of its own, and returns the section's index.
    pub fn program(&mut self, name: impl AsRef<[u8]>) -> u16 {
        let section = self.section("sockops", PROGBITS, CODE, [mov0(), exit()].concat());
        self.symbol(name, FUNC, section, (0, 16));
        section
    }

    /// Returns the file's bytes.
    pub fn build(self) -> Vec<u8> {
        let Self { strings, symbols, sections } = self;
        let plain =
            |kind, bytes: Vec<u8>| Section { name: 0, kind, flags: 0, size: bytes.len() as u64, info: 0, bytes };
        let head = [plain(0, Vec::new()), plain(3, strings), plain(2, symbols)];
        let all: Vec<Section> = head.into_iter().chain(sections).collect();
        let mut file = vec![0; 64];
        let mut table = Vec::new();
        for section in &all {
            let link: u32 = if section.kind == 2 { 1 } else { 2 };
            let entry: u64 = if section.kind == 2 { 24 } else { 16 };
            table.extend(section.name.to_le_bytes());
            table.extend(section.kind.to_le_bytes());
            table.extend(section.flags.to_le_bytes());
            table.extend(0u64.to_le_bytes());
            table.extend((file.len() as u64).to_le_bytes());
            table.extend(section.size.to_le_bytes());
            table.extend(link.to_le_bytes());
            table.extend(section.info.to_le_bytes());
            table.extend(8u64.to_le_bytes());
            table.extend(entry.to_le_bytes());
            file.extend(&section.bytes);
            file.resize(file.len().next_multiple_of(8), 0);
        }
        file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x10, &1u16.to_le_bytes());
        put(0x12, &247u16.to_le_bytes());
        put(0x14, &1u32.to_le_bytes());
        put(0x34, &64u16.to_le_bytes());
        put(0x3a, &64u16.to_le_bytes());
        put(0x3c, &(all.len() as u16).to_le_bytes());
        put(0x3e, &1u16.to_le_bytes());
        let at = file.len() as u64;
        file[0x28..0x30].copy_from_slice(&at.to_le_bytes());
        file.extend(table);
        file
    }
}

/// Encodes an instruction.
pub fn instruction(code: u8, registers: u8, immediate: i32) -> Vec<u8> {
    let mut bytes = vec![code, registers, 0, 0];
    bytes.extend(immediate.to_le_bytes());
    bytes
}

/// Encodes `r0 = 0`.
pub fn mov0() -> Vec<u8> {
    instruction(0xb7, 0, 0)
}

/// Encodes `exit`.
pub fn exit() -> Vec<u8> {
    instruction(0x95, 0, 0)
}

/// Encodes a call of a function in the same section, by its distance from the next instruction.
pub fn call(distance: i32) -> Vec<u8> {
    instruction(0x85, 0x10, distance)
}

/// Encodes a relocation of a call or of an address.
pub fn relocation(offset: u64, symbol: u32, is_call: bool) -> Vec<u8> {
    let kind = if is_call { 10 } else { 1 };
    words(&[offset as u32, (offset >> 32) as u32, kind, symbol])
}

/// Encodes 32-bit words in little-endian order.
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The types of an object: a `.BTF` section.
#[derive(Clone, Debug)]
pub struct BtfBuilder {
    strings: Vec<u8>,
    types: Vec<u32>,
    count: u32,
}

impl Default for BtfBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BtfBuilder {
    /// Starts a section without types.
    pub fn new() -> Self {
        Self { strings: vec![0], types: Vec::new(), count: 0 }
    }

    /// Adds a string and returns its offset.
    pub fn string(&mut self, text: impl AsRef<[u8]>) -> u32 {
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(text.as_ref());
        self.strings.push(0);
        at
    }

    /// Adds a type and returns its ID. `vlen` is the number of members that follow the type.
    pub fn add(&mut self, name: u32, (kind, vlen): (u32, u32), size_or_type: u32, rest: &[u32]) -> u32 {
        self.types.extend([name, kind << 24 | vlen, size_or_type]);
        self.types.extend(rest);
        self.count += 1;
        self.count
    }

    /// Adds what `__uint(_, value)` declares, a pointer to an array of `value` elements, and returns its ID.
    pub fn uint(&mut self, value: u32) -> u32 {
        let array = self.add(0, (3, 0), 0, &[1, 1, value]);
        self.add(0, (2, 0), array, &[])
    }

    /// Returns the section's bytes.
    pub fn build(self) -> Vec<u8> {
        let Self { strings, types, count: _ } = self;
        let len = 4 * types.len() as u32;
        let mut bytes = words(&[0x0001_eb9f, 24, 0, len, len, strings.len() as u32]);
        bytes.extend(words(&types));
        bytes.extend(strings);
        bytes
    }
}

/// Encodes a `.BTF.ext` section of three parts, each a record size and its words.
pub fn ext(parts: [(u32, Vec<u32>); 3]) -> Vec<u8> {
    let mut header = vec![0x0001_eb9f, 32];
    let mut body = Vec::new();
    for (size, part) in parts {
        let start = 4 * body.len() as u32;
        if !part.is_empty() {
            body.push(size);
            body.extend(part);
        }
        header.extend([start, 4 * body.len() as u32 - start]);
    }
    words(&[header, body].concat())
}
