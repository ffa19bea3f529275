//! [`Gzip`]: unpacks gzip (RFC 1952) as it arrives, one or several members, in little memory. IO: none.

use miniz_oxide::inflate::{
    TINFLStatus,
    core::{DecompressorOxide, decompress, inflate_flags::TINFL_FLAG_HAS_MORE_INPUT},
};

/// The memory that deflate's references reach back into: a power of two of at least 32 KiB (RFC 1951, 2).
const WINDOW: usize = 64 << 10;
/// The bytes of a header without its optional parts.
const HEADER: usize = 10;
/// The bytes behind a member: CRC-32 and size.
const TRAILER: usize = 8;
/// The most bytes of a header. Its extra field alone may have 64 KiB.
const MAX_HEADER: usize = 128 << 10;

/// Unpacks gzip as it arrives.
pub struct Gzip {
    state: State,
    /// The bytes of a header or trailer that is not complete.
    held: Vec<u8>,
    inflate: Box<DecompressorOxide>,
    window: Box<[u8]>,
    /// The place of the next bytes in the window.
    at: usize,
    /// True if more can be unpacked of the bytes that were read already.
    has_more: bool,
    crc: u32,
    size: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first member.
    Start,
    Body,
    Trailer,
    /// Behind a member, maybe before another.
    Between,
}

impl Default for Gzip {
    fn default() -> Self {
        Self {
            state: State::Start,
            held: Vec::new(),
            inflate: Box::default(),
            window: vec![0; WINDOW].into_boxed_slice(),
            at: 0,
            has_more: false,
            crc: !0,
            size: 0,
        }
    }
}

impl Gzip {
    /// Unpacks bytes and hands on what they give, in pieces of 64 KiB at most.
    ///
    /// # Errors
    /// Fails where the bytes are no gzip, and where `sink` does.
    pub fn push<E: From<&'static str>>(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = bytes;
        while !rest.is_empty() || self.has_more {
            let used = match self.state {
                State::Start | State::Between => self.header(rest)?,
                State::Body => self.body(rest, sink)?,
                State::Trailer => self.trailer(rest)?,
            };
            rest = rest.get(used..).unwrap_or_default();
        }
        Ok(())
    }

    /// Checks that the last member is complete.
    ///
    /// # Errors
    /// Fails where it is not.
    pub fn finish(&self) -> Result<(), &'static str> {
        if self.state == State::Between && self.held.is_empty() { Ok(()) } else { Err("ends within its gzip data") }
    }

    /// Handles bytes of a header; returns how many.
    fn header(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let before = self.held.len();
        self.held.extend_from_slice(bytes);
        match header_len(&self.held)? {
            Some(len) => {
                self.held.clear();
                *self.inflate = DecompressorOxide::new();
                (self.state, self.crc, self.size) = (State::Body, !0, 0);
                Ok(len - before)
            }
            None if self.held.len() > MAX_HEADER => Err("has a gzip header of more than 128 KiB"),
            None => Ok(bytes.len()),
        }
    }

    /// Unpacks some bytes; returns how many.
    fn body<E: From<&'static str>>(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let (status, read, written) =
            decompress(&mut self.inflate, bytes, &mut self.window, self.at, TINFL_FLAG_HAS_MORE_INPUT);
        let unpacked = self.window.get(self.at..self.at + written).unwrap_or_default();
        self.crc = crc32(self.crc, unpacked);
        self.size = self.size.wrapping_add(u32::try_from(written).unwrap_or_default());
        sink(unpacked)?;
        self.at = (self.at + written) % WINDOW;
        self.has_more = status == TINFLStatus::HasMoreOutput;
        match status {
            TINFLStatus::Done => self.state = State::Trailer,
            TINFLStatus::HasMoreOutput | TINFLStatus::NeedsMoreInput if read > 0 || written > 0 => {}
            _ => return Err("has damaged gzip data".into()),
        }
        Ok(read)
    }

    /// Handles bytes of a trailer; returns how many.
    fn trailer(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let taken = bytes.len().min(TRAILER - self.held.len());
        self.held.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.held.len() == TRAILER {
            let (crc, size) = self.held.split_at(4);
            if crc != (!self.crc).to_le_bytes() || size != self.size.to_le_bytes() {
                return Err("has gzip data whose checksum is wrong");
            }
            self.held.clear();
            self.state = State::Between;
        }
        Ok(taken)
    }
}

/// Returns the length of the header at the beginning of `bytes`, if all of it is there.
fn header_len(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
    if !bytes.iter().zip(MAGIC).all(|(byte, magic)| *byte == magic) {
        return Err("is not packed by gzip, or has something behind its gzip data");
    }
    let Some(&flags) = bytes.get(3) else { return Ok(None) };
    if flags & 0xe0 != 0 {
        return Err("has a gzip header with reserved flags");
    }
    let mut at = HEADER;
    if flags & 4 != 0 {
        let Some(&[low, high]) = bytes.get(at..at + 2) else { return Ok(None) };
        at += 2 + usize::from(u16::from_le_bytes([low, high]));
    }
    // The name of the file, and a comment.
    for flag in [8, 16] {
        if flags & flag != 0 {
            let Some(len) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0)) else {
                return Ok(None);
            };
            at += len + 1;
        }
    }
    at += if flags & 2 != 0 { 2 } else { 0 };
    Ok((at <= bytes.len()).then_some(at))
}

/// Continues a CRC-32 of the polynomial of RFC 1952, 8.
pub fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| (crc >> 8) ^ CRC[usize::from(crc.to_le_bytes()[0] ^ byte)])
}

const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};
