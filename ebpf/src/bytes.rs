//! Little-endian numbers in bytes that may be too short.

/// Reads two bytes at an offset.
pub(crate) fn half(data: &[u8], at: usize) -> Option<u16> {
    let end = at.checked_add(2)?;
    data.get(at..end)?.try_into().ok().map(u16::from_le_bytes)
}

/// Reads four bytes at an offset.
pub(crate) fn word(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Reads eight bytes at an offset.
pub(crate) fn long(data: &[u8], at: usize) -> Option<u64> {
    let end = at.checked_add(8)?;
    data.get(at..end)?.try_into().ok().map(u64::from_le_bytes)
}
