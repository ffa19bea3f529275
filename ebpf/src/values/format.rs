//! Fields that are shown otherwise than their types say: [`Format`]. No IO.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serializer;
use sockeye_crds::{names::hex, program::Format};

use super::{
    bits::{bits_of, number},
    budget::Budget,
    shape::{Field, Node, Shape},
};

/// The reason why a field can't be shown in a format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// There is no such field.
    #[error("there is no field {name}; there are: {there}")]
    NoField {
        /// The part of the path that names nothing.
        name: String,
        /// The fields that are there.
        there: String,
    },
    /// The field is of another type than the format takes.
    #[error("{format:?} takes {takes}")]
    Unfit {
        /// The format.
        format: Format,
        /// The types that it takes.
        takes: &'static str,
    },
}

/// The place of a field within a value, and its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    bit: u32,
    width: Option<u32>,
    shape: Shape,
}

impl Place {
    /// Returns the field's bytes, if all of them are there. A bit field has none.
    pub fn bytes<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        let start = self.bit as usize / 8;
        value.get(start..start.checked_add(self.shape.size())?).filter(|_| self.width.is_none())
    }

    /// Returns a field of an unsigned integer of at most 64 bits.
    pub fn number(&self, value: &[u8]) -> Option<u64> {
        self.bytes(value).and_then(|bytes| u64::try_from(bits_of(bytes, false)).ok())
    }
}

impl Shape {
    /// Finds a field by its path, as `peer.address`.
    ///
    /// # Errors
    /// [`FormatError::NoField`]
    pub fn place(&self, path: &str) -> Result<Place, FormatError> {
        let mut place = Place { bit: 0, width: None, shape: self.clone() };
        for name in path.split('.') {
            let field = place.shape.field(name)?.clone();
            let bit = place.bit.saturating_add(field.bit);
            place = Place { bit, width: field.width, shape: field.shape };
        }
        Ok(place)
    }

    /// Returns the same type with a field in another format.
    ///
    /// # Errors
    /// Fails if there is no such field, or the format does not fit it.
    pub fn with_format(&self, path: &str, format: Format) -> Result<Self, FormatError> {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let field = self.field(name)?;
        let shape = match rest {
            Some(rest) => field.shape.with_format(rest, format)?,
            None => field.shape.formatted(format, field.width)?,
        };
        let Node::Record { size, fields } = self.node() else { return Ok(self.clone()) };
        let mut fields = fields.clone();
        fields.iter_mut().filter(|field| *field.name == *name).for_each(|field| field.shape = shape.clone());
        Ok(Self::new(Node::Record { size: *size, fields }))
    }

    /// Returns the same type in another format; `width` is a bit field's.
    ///
    /// # Errors
    /// [`FormatError::Unfit`]
    pub fn formatted(&self, format: Format, width: Option<u32>) -> Result<Self, FormatError> {
        let of = match self.node() {
            Node::Formatted { of, .. } => of,
            _ => self,
        };
        if !of.fits(format, width) {
            return Err(FormatError::Unfit { format, takes: takes(format) });
        }
        Ok(Self::new(Node::Formatted { of: of.clone(), format }))
    }

    fn field(&self, name: &str) -> Result<&Field, FormatError> {
        let fields = match self.node() {
            Node::Record { fields, .. } => &fields[..],
            _ => &[],
        };
        fields.iter().find(|field| *field.name == *name).ok_or_else(|| {
            let names: Vec<&str> = fields.iter().map(|field| &*field.name).collect();
            let there = if names.is_empty() { "none".to_owned() } else { sockeye_crds::names::list(&names, 24) };
            FormatError::NoField { name: sockeye_crds::names::printable(name), there }
        })
    }

    fn fits(&self, format: Format, width: Option<u32>) -> bool {
        let is_unsigned = |shape: &Self| matches!(shape.node(), Node::Integer { signed: false, .. } | Node::Char);
        let is_whole = width.is_none();
        let node = self.node();
        let is_number =
            matches!(node, Node::Integer { .. } | Node::Bits { .. } | Node::Bool | Node::Char | Node::Pointer { .. });
        match format {
            Format::Decimal => is_number || matches!(node, Node::Enum { .. }),
            Format::Hex => is_number || matches!(node, Node::Enum { .. }) || self.has_bytes(),
            Format::Text => self.has_bytes(),
            Format::Enum => matches!(node, Node::Enum { .. }),
            Format::Pod => is_whole && matches!(node, Node::Integer { size: 8, big_endian: false, .. }),
            Format::Port => is_whole && matches!(self.size(), 2 | 4) && is_unsigned(self),
            Format::IPAddress => {
                is_whole
                    && matches!(self.size(), 4 | 16)
                    && match node {
                        Node::Array { element, .. } => is_unsigned(element),
                        Node::Record { .. } => true,
                        _ => is_unsigned(self),
                    }
            }
        }
    }

    /// Returns whether it is an array of bytes.
    fn has_bytes(&self) -> bool {
        matches!(self.node(), Node::Array { element, .. }
            if matches!(element.node(), Node::Char | Node::Integer { size: 1, .. }))
    }
}

const fn takes(format: Format) -> &'static str {
    match format {
        Format::Decimal => "an integer or an enum",
        Format::Hex => "an integer, an enum, or an array of bytes",
        Format::Text => "an array of bytes",
        Format::IPAddress => "four or sixteen bytes: an unsigned integer, an array of them, a struct or a union",
        Format::Port => "an unsigned integer of two or four bytes",
        Format::Enum => "an enum",
        Format::Pod => "an integer of eight bytes, the ID of a cgroup",
    }
}

/// Writes a field in its format.
pub(crate) fn write<S: Serializer>(
    format: Format,
    of: &Shape,
    (bytes, budget): (&[u8], &Budget),
    to: S,
) -> Result<S::Ok, S::Error> {
    let text = match format {
        Format::Hex if of.has_bytes() => hex(bytes),
        Format::Text => text(bytes),
        Format::IPAddress => address(bytes),
        Format::Port => match port(bytes) {
            Some(port) => return to.serialize_u16(port),
            None => format!("{:#x}", bits_of(bytes, false)),
        },
        Format::Decimal | Format::Hex | Format::Enum | Format::Pod => {
            return write_bits(format, of, (bits(of, bytes), 8 * bytes.len() as u32), to);
        }
    };
    budget.spend(text.len())?;
    to.serialize_str(&text)
}

/// Writes the bits of a number.
pub(crate) fn write_bits<S: Serializer>(
    format: Format,
    of: &Shape,
    (bits, width): (u128, u32),
    to: S,
) -> Result<S::Ok, S::Error> {
    if format == Format::Hex {
        return to.serialize_str(&format!("{bits:#x}"));
    }
    let signed = match of.node() {
        Node::Integer { signed, .. } | Node::Bits { signed, .. } | Node::Enum { signed, .. } => *signed,
        node => matches!(node, Node::Char),
    };
    number(bits, width, signed, to)
}

fn bits(of: &Shape, bytes: &[u8]) -> u128 {
    match of.node() {
        Node::Integer { big_endian, .. } => bits_of(bytes, *big_endian),
        _ => bits_of(bytes, false),
    }
}

/// Returns bytes as text up to the first NUL. What can't be printed becomes the replacement character.
fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let printable = |one: char| match one {
        '\t' | '\n' | '\r' => one,
        _ if one.is_control() => char::REPLACEMENT_CHARACTER,
        _ => one,
    };
    String::from_utf8_lossy(text).chars().map(printable).collect()
}

/// Returns an address. An IPv4 address within IPv6 is shown as itself.
fn address(bytes: &[u8]) -> String {
    match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(octets), _) => Ipv4Addr::from(octets).to_string(),
        (_, Ok(octets)) => Ipv6Addr::from(octets).to_canonical().to_string(),
        _ => hex(bytes),
    }
}

/// Returns a port in network order. Of four bytes it is the first two in `bpf_sock_addr.user_port`, and the last two in
/// `bpf_sock_ops.remote_port` (`sock_addr_convert_ctx_access` and `sock_ops_convert_ctx_access` in net/core/filter.c).
/// Four bytes that hold no port give none.
fn port(bytes: &[u8]) -> Option<u16> {
    match *bytes {
        [high, low] | [high, low, 0, 0] | [0, 0, high, low] => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}
