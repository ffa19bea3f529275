//! Integers, IP addresses and prefixes from JSON, as bytes. No IO.
//!
//! Integers may also be written as decimal or hexadecimal strings, because many JSON implementations lose precision
//! beyond 53 bits. Addresses are in network order, as in packets and in the kernel's context structs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

/// An integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    negative: bool,
    magnitude: u128,
}

impl Number {
    /// Reads an integer from a JSON number or string.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number
                .as_u64()
                .map(|n| Self { negative: false, magnitude: n.into() })
                .or_else(|| number.as_i64().map(|n| Self { negative: n < 0, magnitude: n.unsigned_abs().into() })),
            Value::String(text) => {
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
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_are_read_if_they_fit() {
        let bits = |value: Value, bits, signed| Number::read(&value).and_then(|number| number.bits(bits, signed));
        for (value, width, signed, expected) in [
            (json!(255), 8, false, Some(255)),
            (json!(256), 8, false, None),
            (json!(-1), 8, false, None),
            (json!(-128), 8, true, Some(u128::MAX - 127)),
            (json!(-129), 8, true, None),
            (json!(128), 8, true, None),
            (json!(u64::MAX), 64, false, Some(u64::MAX.into())),
            (json!(i64::MIN), 64, true, Some(1_u128.wrapping_shl(63).wrapping_neg())),
            (json!("0x10"), 8, false, Some(16)),
            (json!("-0x10"), 8, true, Some(16_u128.wrapping_neg())),
            (json!("-0"), 8, false, Some(0)),
            (json!(u128::MAX.to_string()), 128, false, Some(u128::MAX)),
            (json!(7), 3, false, Some(7)),
            (json!(8), 3, false, None),
        ] {
            assert_eq!(bits(value.clone(), width, signed), expected, "{value} in {width} bits");
        }
        for nothing in [
            json!(1.0),
            json!("1.0"),
            json!(""),
            json!("0x"),
            json!("--1"),
            json!("+1"),
            json!(" 1"),
            json!(null),
            json!(true),
        ] {
            assert_eq!(Number::read(&nothing), None, "{nothing}");
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
