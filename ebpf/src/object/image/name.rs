//! Names in string tables.

/// The most bytes of a name. Longer names are read as [`UNREADABLE`], since many symbols may share one end.
const MAX_NAME: usize = 512;
/// The name of what has no readable name. It contains a character that no name has, so it equals none.
pub(super) const UNREADABLE: &str = "\u{fffd}";

/// Returns the name at an offset in a string table.
pub(super) fn name(table: &[u8], offset: u32) -> &str {
    let tail = table.get(offset as usize..).unwrap_or_default();
    let head = tail.get(..=MAX_NAME).unwrap_or(tail);
    let end = head.iter().position(|byte| *byte == 0);
    let text = end.and_then(|end| head.get(..end)).and_then(|text| str::from_utf8(text).ok());
    text.unwrap_or(UNREADABLE)
}
