//! Integers, IP addresses and prefixes as bytes. No IO.
//!
//! Integers may also be written as decimal or hexadecimal text, because many JSON implementations lose precision
//! beyond 53 bits. Addresses are in network order, as in packets and in the kernel's context structs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::values::json::Json;

/// An integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    negative: bool,
    magnitude: u128,
}

impl Number {
    /// Reads an integer from a number or text.
    pub(crate) fn read(value: &Json) -> Option<Self> {
        match value {
            Json::Integer(integer) => Some(Self { negative: *integer < 0, magnitude: integer.unsigned_abs() }),
            Json::Text(text) => {
                let (negative, digits) = text.strip_prefix('-').map_or((false, text.as_str()), |rest| (true, rest));
                let (digits, radix) = digits.strip_prefix("0x").map_or((digits, 10), |rest| (rest, 16));
                // from_str_radix would also accept a sign.
                let plain = digits.chars().all(|digit| digit.is_digit(radix));
                let magnitude = plain.then(|| u128::from_str_radix(digits, radix).ok()).flatten()?;
                Some(Self { negative: negative && magnitude > 0, magnitude })
            }
            _ => None,
        }
    }

    /// Returns the integer in two's complement, if it fits into `bits` bits.
    pub(crate) fn bits(self, bits: u32, signed: bool) -> Option<u128> {
        let Self { negative, magnitude } = self;
        let (least, most) = range(bits, signed);
        match negative {
            true => (magnitude <= least).then(|| magnitude.wrapping_neg()),
            false => (magnitude <= most).then_some(magnitude),
        }
    }
}

/// Returns how far below and above zero an integer of `bits` bits reaches.
const fn range(bits: u32, signed: bool) -> (u128, u128) {
    match (bits, signed) {
        (0, _) => (0, 0),
        (_, true) => (1 << (bits - 1), (1 << (bits - 1)) - 1),
        (_, false) => (0, u128::MAX >> (128 - bits)),
    }
}

/// Returns the range of integers of `bits` bits for a message.
pub(crate) fn range_in_words(bits: u32, signed: bool) -> String {
    let (least, most) = range(bits, signed);
    format!("{}{least} to {most}", if least > 0 { "-" } else { "" })
}

/// Reads an IP address of 4 or 16 bytes.
pub(crate) fn address(text: &str, size: usize) -> Option<Vec<u8>> {
    match size {
        4 => text.parse().ok().map(|address: Ipv4Addr| address.octets().to_vec()),
        16 => text.parse().ok().map(|address: Ipv6Addr| address.octets().to_vec()),
        _ => None,
    }
}

/// Encodes a CIDR block as a key of an LPM trie: the prefix length in native byte order, then the address, which must
/// fill the rest of the key. An address without a length means all its bits.
pub(crate) fn prefix(text: &str, key_size: usize) -> Result<Vec<u8>, String> {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let octets = match address.parse() {
        Ok(IpAddr::V4(address)) => address.octets().to_vec(),
        Ok(IpAddr::V6(address)) => address.octets().to_vec(),
        Err(_) => return Err("it is no address".to_owned()),
    };
    if 4 + octets.len() != key_size {
        let kind = if octets.len() == 4 { "IPv4" } else { "IPv6" };
        return Err(format!(
            "an {kind} prefix makes a key of {} bytes, and the map's have {key_size}",
            4 + octets.len()
        ));
    }
    let most = 8 * octets.len();
    let whole = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    let length = length.map_or(Some(most), whole).filter(|length| *length <= most);
    let length = length.ok_or_else(|| format!("its prefix must have 0 to {most} bits"))?;
    let kept = |i: usize| 0xff_u8.checked_shl(8 - length.saturating_sub(8 * i).min(8) as u32).unwrap_or_default();
    if octets.iter().enumerate().any(|(i, octet)| octet & !kept(i) != 0) {
        return Err(format!("it has bits beyond its prefix of {length}"));
    }
    Ok([&(length as u32).to_le_bytes()[..], &octets].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integer(integer: impl Into<i128>) -> Json {
        Json::Integer(integer.into())
    }

    fn text(text: &str) -> Json {
        Json::Text(text.to_owned())
    }

    #[test]
    fn integers_are_read_if_they_fit() {
        let bits = |value: &Json, bits, signed| Number::read(value).and_then(|number| number.bits(bits, signed));
        for (value, width, signed, expected) in [
            (integer(255), 8, false, Some(255)),
            (integer(256), 8, false, None),
            (integer(-1), 8, false, None),
            (integer(-128), 8, true, Some(u128::MAX - 127)),
            (integer(-129), 8, true, None),
            (integer(128), 8, true, None),
            (integer(u64::MAX), 64, false, Some(u64::MAX.into())),
            (integer(i64::MIN), 64, true, Some(1_u128.wrapping_shl(63).wrapping_neg())),
            (text("0x10"), 8, false, Some(16)),
            (text("-0x10"), 8, true, Some(16_u128.wrapping_neg())),
            (text("-0"), 8, false, Some(0)),
            (text(&u128::MAX.to_string()), 128, false, Some(u128::MAX)),
            (integer(7), 3, false, Some(7)),
            (integer(8), 3, false, None),
        ] {
            assert_eq!(bits(&value, width, signed), expected, "{value:?} in {width} bits");
        }
        let words = ["1.0", "", "0x", "--1", "+1", " 1", &format!("1{}", u128::MAX)].map(text);
        for nothing in words.into_iter().chain([Json::Real(1.0), Json::Null, Json::Bool(true)]) {
            assert_eq!(Number::read(&nothing), None, "{nothing:?}");
        }
        assert_eq!(range_in_words(8, true), "-128 to 127");
        assert_eq!(range_in_words(64, false), format!("0 to {}", u64::MAX));
    }

    #[test]
    fn prefixes_become_keys_of_lpm_tries() {
        assert_eq!(prefix("10.0.0.0/8", 8), Ok(vec![8, 0, 0, 0, 10, 0, 0, 0]));
        assert_eq!(prefix("10.1.2.3", 8), Ok(vec![32, 0, 0, 0, 10, 1, 2, 3]));
        assert_eq!(prefix("0.0.0.0/0", 8), Ok(vec![0; 8]));
        assert_eq!(prefix("192.168.128.0/17", 8), Ok(vec![17, 0, 0, 0, 192, 168, 128, 0]));
        assert_eq!(prefix("fd00::/8", 20).map(|key| (key[0], key[4], key.len())), Ok((8, 0xfd, 20)));
        for (text, size, word) in [
            ("10.0.0.0/33", 8, "0 to 32"),
            ("10.0.0.0/", 8, "0 to 32"),
            ("10.0.0.0/+8", 8, "0 to 32"),
            ("10.0.0.1/8", 8, "beyond"),
            ("fd00::/8", 8, "20 bytes"),
            ("10.0.0.0/8", 12, "8 bytes"),
            ("ten", 8, "no address"),
        ] {
            assert!(prefix(text, size).is_err_and(|error| error.contains(word)), "{text}");
        }
    }
}
