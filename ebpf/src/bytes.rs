//! Little-endian numbers in bytes that may be too short.

pub(crate) use crate::btf::word;

/// Reads two bytes at an offset.
pub(crate) fn half(data: &[u8], at: usize) -> Option<u16> {
    let end = at.checked_add(2)?;
    data.get(at..end)?.try_into().ok().map(u16::from_le_bytes)
}

/// Reads eight bytes at an offset.
pub(crate) fn long(data: &[u8], at: usize) -> Option<u64> {
    let end = at.checked_add(8)?;
    data.get(at..end)?.try_into().ok().map(u64::from_le_bytes)
}
