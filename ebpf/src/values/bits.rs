//! Bits of values as numbers. No IO. Bytes are little-endian, as every processor that sockeye runs on is.

use serde::Serializer;

/// Returns up to 16 bytes as a number.
pub(crate) fn bits_of(bytes: &[u8], big_endian: bool) -> u128 {
    let join = |bits: u128, byte: &u8| bits << 8 | u128::from(*byte);
    if big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) }
}

/// Returns a number of at most 128 bits that begins at any bit, if all of it is there.
pub(crate) fn slice_bits(bytes: &[u8], bit: u32, width: u32) -> Option<u128> {
    let end = bit.checked_add(width).filter(|_| width <= 128)? as usize;
    if end > bytes.len().checked_mul(8)? {
        return None;
    }
    let (first, shift) = (bit as usize / 8, bit % 8);
    let covered = bytes.get(first..end.div_ceil(8))?;
    let low = bits_of(covered.get(..covered.len().min(16))?, false) >> shift;
    // A number of 128 bits that begins within a byte ends in a seventeenth one.
    let high = covered.get(16).map_or(0, |byte| u128::from(*byte) << (128 - shift));
    Some((low | high) & mask(width))
}

/// Returns the lowest bits.
pub(crate) const fn mask(width: u32) -> u128 {
    match width {
        0 => 0,
        _ => u128::MAX >> (128 - width),
    }
}

/// Writes an integer of so many bits. JSON's readers know 64.
pub(crate) fn number<S: Serializer>(bits: u128, width: u32, signed: bool, to: S) -> Result<S::Ok, S::Error> {
    let is_negative = signed && (1..=128).contains(&width) && bits >> (width - 1) & 1 == 1;
    if is_negative {
        let number = (bits | !mask(width)).cast_signed();
        return match i64::try_from(number) {
            Ok(number) => to.serialize_i64(number),
            Err(_) => to.serialize_str(&number.to_string()),
        };
    }
    match u64::try_from(bits) {
        Ok(number) => to.serialize_u64(number),
        Err(_) => to.serialize_str(&bits.to_string()),
    }
}
