//! [`Tar`]: finds the one ELF object for BPF in a tar archive as it arrives. Nothing else is kept. IO: none.
//!
//! The format is that of POSIX (pax) with GNU's long names, as Go's archive/tar reads it, by which images are built.
//! Nothing is unpacked to a file system, so a path can lead nowhere; what has an odd path is left out all the same, as
//! are links and devices, and named if the archive has no object.

use crate::error::shown;

const BLOCK: usize = 512;
/// The most bytes of an entry that describes the next one.
const MAX_EXTENSION: u64 = 64 << 10;
/// The bytes of an ELF header that tell what an object is for (elf(5): up to `e_machine`).
const ELF_HEADER: usize = 20;
/// The most entries that are named in a message.
const NAMED: usize = 4;

/// Finds the object in a tar archive.
pub struct Tar {
    max_entries: u32,
    max_object: u64,
    entries: u32,
    state: State,
    /// The header that is arriving.
    block: Vec<u8>,
    /// The properties that extensions give the next entry.
    next: Extensions,
    /// The object that was found.
    object: Option<(String, Vec<u8>)>,
    /// Entries that can be no object, whatever they hold, and why.
    skipped: Vec<String>,
}

enum State {
    Header,
    Content { what: Content, remaining: u64, padding: u64 },
    End,
}

/// The part of the archive that is arriving.
enum Content {
    /// Nothing that is needed.
    Skipped,
    /// The beginning of a file, and maybe all of it.
    File { name: String, bytes: Vec<u8>, size: u64 },
    /// A description of the next entry: GNU's long name, or pax records.
    Extension { kind: u8, bytes: Vec<u8> },
}

#[derive(Default)]
struct Extensions {
    name: Option<String>,
    size: Option<u64>,
    is_sparse: bool,
}

impl Tar {
    /// Returns one that takes an object of so many bytes, from so many entries.
    pub fn new(max_object: u64, max_entries: u32) -> Self {
        Self {
            max_entries,
            max_object,
            entries: 0,
            state: State::Header,
            block: Vec::with_capacity(BLOCK),
            next: Extensions::default(),
            object: None,
            skipped: Vec::new(),
        }
    }

    /// Reads on.
    ///
    /// # Errors
    /// Fails where the archive is damaged, or has more objects or entries than it may.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = match &mut self.state {
                State::End => rest.len(),
                State::Header => self.header(rest)?,
                State::Content { what, remaining, padding } => {
                    let used = at_most(*remaining, rest.len());
                    let piece = rest.get(..used).unwrap_or_default();
                    what.push(piece, self.max_object)?;
                    *remaining -= piece.len() as u64;
                    if *remaining > 0 {
                        used
                    } else {
                        let skipped = at_most(*padding, rest.len() - used);
                        *padding -= skipped as u64;
                        let is_complete = *padding == 0;
                        if is_complete {
                            self.end_of_content()?;
                        }
                        used + skipped
                    }
                }
            };
            rest = rest.get(used..).unwrap_or_default();
        }
        Ok(())
    }

    /// Returns the object, if there is exactly one.
    ///
    /// # Errors
    /// Fails where there is none, and where the archive ends within an entry.
    pub fn finish(self) -> Result<Vec<u8>, String> {
        if !matches!(self.state, State::End | State::Header) || !self.block.is_empty() {
            return Err("ends within an entry of its tar archive".to_owned());
        }
        match self.object {
            Some((_, object)) => Ok(object),
            None if self.skipped.is_empty() => {
                Err(format!("has no ELF object for BPF among its {} entries", self.entries))
            }
            None => {
                let named = self.skipped.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
                Err(format!("has no ELF object for BPF among its {} entries; left out: {named}", self.entries))
            }
        }
    }

    /// Handles bytes of a header; returns how many.
    fn header(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let used = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(bytes.get(..used).unwrap_or_default());
        if self.block.len() == BLOCK {
            let block = std::mem::take(&mut self.block);
            self.state = if block.iter().all(|byte| *byte == 0) { State::End } else { self.entry(&Header(&block))? };
            self.block = Vec::with_capacity(BLOCK);
            if matches!(self.state, State::Content { remaining: 0, padding: 0, .. }) {
                self.end_of_content()?;
            }
        }
        Ok(used)
    }

    fn entry(&mut self, header: &Header<'_>) -> Result<State, String> {
        header.check()?;
        self.entries += 1;
        if self.entries > self.max_entries {
            return Err(format!("has more than {} entries", self.max_entries));
        }
        let size = header.size()?;
        let kind = header.kind();
        if matches!(kind, b'x' | b'L') {
            if size > MAX_EXTENSION {
                return Err(format!("has an extended header of {size} bytes; {MAX_EXTENSION} are taken"));
            }
            return Ok(content(Content::Extension { kind, bytes: Vec::new() }, size));
        }
        // Extensions that speak of no name or size that matters: all following entries, and a link's long target.
        if matches!(kind, b'g' | b'K') {
            return Ok(content(Content::Skipped, size));
        }
        let next = std::mem::take(&mut self.next);
        let name = next.name.unwrap_or_else(|| header.name());
        let size = next.size.unwrap_or(size);
        // What has no content has none whatever its size says (archive/tar, `isHeaderOnlyType`).
        let size = if matches!(kind, b'1'..=b'6') { 0 } else { size };
        if let Some(why) = why_left_out(kind, &name, next.is_sparse) {
            if self.skipped.len() < NAMED {
                self.skipped.push(format!("\"{}\" ({why})", shown(&name)));
            }
            if kind == b'S' {
                return Err(format!("has the sparse file \"{}\"; pack it again without --sparse", shown(&name)));
            }
            return Ok(content(Content::Skipped, size));
        }
        // Archives from before POSIX tell folders by their names.
        if kind == b'5' || kind == 0 && name.ends_with('/') {
            return Ok(content(Content::Skipped, size));
        }
        Ok(content(Content::File { name, bytes: Vec::new(), size }, size))
    }

    fn end_of_content(&mut self) -> Result<(), String> {
        let State::Content { what, .. } = std::mem::replace(&mut self.state, State::Header) else { return Ok(()) };
        match what {
            Content::Extension { kind: b'L', bytes } => self.next.name = Some(until_nul(&bytes)),
            Content::Extension { bytes, .. } => self.next.read_pax(&bytes)?,
            Content::File { name, bytes, .. } if is_bpf_object(&bytes) => {
                if let Some((first, _)) = &self.object {
                    let (first, second) = (shown(first), shown(&name));
                    return Err(format!(
                        "has several ELF objects for BPF, \"{first}\" and \"{second}\"; it may have one"
                    ));
                }
                self.object = Some((name, bytes));
            }
            Content::File { .. } | Content::Skipped => {}
        }
        Ok(())
    }
}

/// Returns the state in which so many bytes of content follow.
fn content(what: Content, size: u64) -> State {
    State::Content { what, remaining: size, padding: size.wrapping_neg() % BLOCK as u64 }
}

/// Returns the lesser of a length and of what is there.
fn at_most(len: u64, there: usize) -> usize {
    usize::try_from(len).map_or(there, |len| len.min(there))
}

fn why_left_out(kind: u8, name: &str, is_sparse: bool) -> Option<&'static str> {
    let leads_out = name.split('/').any(|part| part == "..");
    match kind {
        b'0' | 0 | b'7' if is_sparse => Some("a sparse file"),
        b'0' | 0 | b'7' if leads_out => Some("its path has .."),
        b'0' | 0 | b'7' | b'5' => None,
        b'1' => Some("a hard link"),
        b'2' => Some("a symbolic link"),
        b'3' | b'4' => Some("a device"),
        b'6' => Some("a pipe"),
        _ => Some("an entry of an unknown kind"),
    }
}

/// Returns whether bytes begin as an object for BPF does: ELF of 64 bits, little-endian, relocatable, for BPF or, as of
/// compilers before LLVM 3.9, for no machine (libbpf, `bpf_object__check_endianness` and `bpf_object__elf_init`).
fn is_bpf_object(bytes: &[u8]) -> bool {
    let field = |at: usize| bytes.get(at..at + 2).map(|field| u16::from_le_bytes([field[0], field[1]]));
    bytes.starts_with(b"\x7fELF\x02\x01") && field(16) == Some(1) && matches!(field(18), Some(0 | 247))
}

impl Content {
    fn push(&mut self, piece: &[u8], max_object: u64) -> Result<(), String> {
        match self {
            Self::Skipped => {}
            Self::Extension { bytes, .. } => bytes.extend_from_slice(piece),
            Self::File { name, bytes, size } => {
                let (beginning, rest) = piece.split_at(piece.len().min(ELF_HEADER.saturating_sub(bytes.len())));
                bytes.extend_from_slice(beginning);
                if bytes.len() < ELF_HEADER || !is_bpf_object(bytes) {
                    return Ok(());
                }
                if *size > max_object {
                    let name = shown(name);
                    return Err(format!("has the object \"{name}\" of {size} bytes; sockeye takes {max_object}"));
                }
                bytes.extend_from_slice(rest);
            }
        }
        Ok(())
    }
}

impl Extensions {
    /// Reads pax records: a length, a space, a key, `=`, a value and a newline each (POSIX, pax).
    fn read_pax(&mut self, bytes: &[u8]) -> Result<(), String> {
        const DAMAGED: &str = "has a damaged pax header";
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ').ok_or(DAMAGED)?;
            let len = rest.get(..space).and_then(|len| std::str::from_utf8(len).ok()?.parse::<usize>().ok());
            let record = len.and_then(|len| rest.get(space + 1..len)?.strip_suffix(b"\n")).ok_or(DAMAGED)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(DAMAGED)?;
            let (key, value) = record.split_at(equals);
            let value = String::from_utf8_lossy(value.get(1..).unwrap_or_default());
            match key {
                b"path" => self.name = Some(value.into_owned()),
                b"size" => self.size = Some(value.parse().map_err(|_| DAMAGED)?),
                key if key.starts_with(b"GNU.sparse.") => self.is_sparse = true,
                _ => {}
            }
            rest = rest.get(len.unwrap_or(rest.len())..).unwrap_or_default();
        }
        Ok(())
    }
}

/// An entry's header.
struct Header<'a>(&'a [u8]);

impl Header<'_> {
    fn field(&self, at: usize, len: usize) -> &[u8] {
        self.0.get(at..at + len).unwrap_or_default()
    }

    fn kind(&self) -> u8 {
        self.field(156, 1).first().copied().unwrap_or_default()
    }

    fn name(&self) -> String {
        let name = until_nul(self.field(0, 100));
        let prefix = until_nul(self.field(345, 155));
        // GNU has other fields in the prefix's place, and another magic.
        if self.field(257, 6) == b"ustar\0" && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
    }

    fn size(&self) -> Result<u64, String> {
        number(self.field(124, 12)).ok_or_else(|| "has an entry without a valid size in its tar archive".to_owned())
    }

    /// Checks the checksum, which counts itself as spaces; old programs added signed bytes.
    fn check(&self) -> Result<(), String> {
        let bytes = self.0.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
        let unsigned: u64 = bytes.clone().map(u64::from).sum();
        let signed: i64 = bytes.map(|byte| i64::from(byte.cast_signed())).sum();
        match number(self.field(148, 8)) {
            Some(sum) if sum == unsigned || i64::try_from(sum).is_ok_and(|sum| sum == signed) => Ok(()),
            _ => Err("is no tar archive, or a damaged one".to_owned()),
        }
    }
}

/// Reads a number: octal digits, or, where the first bit is set, as GNU has it, the bytes themselves.
fn number(field: &[u8]) -> Option<u64> {
    if let Some((first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        // A negative one has the second bit set too.
        let (zeros, low) = rest.split_at(rest.len().checked_sub(8)?);
        let is_small = *first == 0x80 && zeros.iter().all(|byte| *byte == 0);
        return is_small.then(|| low.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn until_nul(bytes: &[u8]) -> String {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()).into_owned()
}
