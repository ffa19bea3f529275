//! `Encoder`: writes a value as the bytes that C has for it, by its BTF type. No IO.
//!
//! | type | value | within JSON |
//! |---|---|---|
//! | integers | an integer, or text with one | the same |
//! | `__be16`, `__be32`, `__be64` | as for integers; the bytes are in network order | the same |
//! | `bool` | the texts `true` and `false`, 1, 0 | `true`, `false` |
//! | enums | the name or the number of a value | the same |
//! | `char[N]` | text of less than N bytes | the same, or a list of numbers |
//! | 4 or 16 bytes of unsigned integers, `in_addr`, `in6_addr` | an IP address, or as for the type | the same |
//! | arrays | JSON text of a list; missing items are zero | a list |
//! | structs and unions | JSON text of an object; missing fields are zero | an object |
//!
//! Types and values may come from anyone, so the length of texts, the depth and the total number of steps are bounded.
//! The encoder writes only into the buffer that the caller provides.

use std::collections::BTreeMap;

use sockeye_crds::{Value, names::clip, value::MAX_TEXT};

use crate::{
    btf::{
        Btf,
        value_type::{Enumerators, Form, Member, Record, ValueType},
    },
    values::{
        json::{Json, MAX_LEVELS},
        mistake::{Mistake, contradiction, field, shown},
        number::{Number, address, range_in_words},
    },
};

/// The maximum number of members and enumerators that one encoder examines and of values that it writes.
const MAX_STEPS: usize = 1 << 22;
/// The maximum depth of anonymous structs whose fields a message lists.
const MAX_ANONYMOUS: usize = 2;
/// The maximum number of names that a message lists.
const MAX_LISTED: usize = 24;

pub(crate) type Result<T> = std::result::Result<T, Mistake>;

/// Encodes the values of one spec, with one bound on all its steps.
pub struct Encoder<'a> {
    btf: &'a Btf<'a>,
    steps: usize,
}

impl<'a> Encoder<'a> {
    /// Returns an encoder for values of these types.
    pub const fn new(btf: &'a Btf<'a>) -> Self {
        Self { btf, steps: 0 }
    }

    /// Writes a value into a zeroed buffer of its type's size.
    pub fn encode(&mut self, id: u32, value: &Value, out: &mut [u8]) -> Result<()> {
        let json = self.parse(id, value)?;
        self.put(id, &json, out, 0)
    }

    /// Returns the types.
    pub(crate) const fn btf(&self) -> &'a Btf<'a> {
        self.btf
    }

    /// Returns what a value says by its type.
    pub(crate) fn parse(&self, id: u32, value: &Value) -> Result<Json> {
        Ok(match value {
            Value::Integer(bit @ (0 | 1)) if matches!(self.btf.value_type(id)?.form, Form::Bool) => {
                Json::Bool(*bit == 1)
            }
            Value::Integer(_) => value.into(),
            Value::Text(text) => self.read(id, text)?,
        })
    }

    /// Returns what a text says by its type. The text of a composite type is JSON, unless it is an address.
    fn read(&self, id: u32, text: &str) -> Result<Json> {
        let length = text.chars().count();
        if length > MAX_TEXT as usize {
            return Err(Mistake::new(format!("the text has {length} characters; it may have {MAX_TEXT}")));
        }
        let value_type = self.btf.value_type(id)?;
        let is_json = match value_type.form {
            Form::Bool if matches!(text, "true" | "false") => return Ok(Json::Bool(text == "true")),
            Form::Record(_) => true,
            Form::Array { element, .. } => !self.is_char(element)?,
            _ => false,
        };
        let itself = Json::Text(text.to_owned());
        if !is_json || self.address_size(&value_type)?.is_some_and(|size| address(text, size).is_some()) {
            return Ok(itself);
        }
        Json::parse(text).map_err(|error| {
            let Mistake { at, what } = self.expected(id, &itself, 0);
            Mistake { at, what: format!("{what}, which can't be read as JSON: {error}") }
        })
    }

    pub(crate) fn step(&mut self) -> Result<()> {
        self.steps += 1;
        if self.steps > MAX_STEPS { Err(Mistake::new("all values together are too many")) } else { Ok(()) }
    }

    pub(crate) fn put(&mut self, id: u32, value: &Json, out: &mut [u8], depth: usize) -> Result<()> {
        self.step()?;
        if depth > MAX_LEVELS {
            return Err(Mistake::new(format!("values are nested deeper than {MAX_LEVELS}")));
        }
        let value_type = self.btf.value_type(id)?;
        let ValueType { big_endian, form, .. } = value_type;
        if let (Json::Text(text), Some(size)) = (value, self.address_size(&value_type)?)
            && let Some(octets) = address(text, size)
        {
            return copy(&octets, out);
        }
        let wrong = |encoder: &Self| encoder.expected(id, value, depth);
        match (form, value) {
            (Form::Number { size, signed }, _) => {
                let bits = Number::read(value).and_then(|number| number.bits(8 * size as u32, signed));
                let mut bytes = bits.ok_or_else(|| wrong(self))?.to_le_bytes();
                let bytes = bytes.get_mut(..size).unwrap_or_default();
                if big_endian {
                    bytes.reverse();
                }
                copy(bytes, out)
            }
            (Form::Bool, Json::Bool(on)) => copy(&[u8::from(*on)], out),
            (Form::Char, _) => {
                let bits = Number::read(value).and_then(|number| number.bits(8, true));
                copy(&bits.ok_or_else(|| wrong(self))?.to_le_bytes()[..1], out)
            }
            (Form::Enum(of), _) => {
                let bits = self.enumerator(&of, value)?.ok_or_else(|| wrong(self))?;
                copy(bits.to_le_bytes().get(..of.size).unwrap_or_default(), out)
            }
            (Form::Record(_), Json::Object(fields)) => self.record(id, fields, out, depth),
            (Form::Array { element, len }, Json::Text(text))
                if self.is_char(element)? && text.len() < len as usize && !text.contains('\0') =>
            {
                copy(text.as_bytes(), out.get_mut(..text.len()).unwrap_or_default())
            }
            (Form::Array { element, len }, Json::List(items)) if items.len() <= len as usize => {
                let size = self.btf.size(element)? as usize;
                for (i, item) in items.iter().enumerate() {
                    let place = i.checked_mul(size).and_then(|from| out.get_mut(from..from.checked_add(size)?));
                    let place = place.ok_or_else(contradiction)?;
                    self.put(element, item, place, depth + 1).map_err(|mistake| mistake.within(&format!("[{i}]")))?;
                }
                Ok(())
            }
            _ => Err(wrong(self)),
        }
    }

    fn is_char(&self, id: u32) -> Result<bool> {
        Ok(matches!(self.btf.value_type(id)?.form, Form::Char))
    }

    /// Returns the size of the IP address that a type can hold, if it can: 4 or 16 bytes of unsigned integers, or the
    /// structs.
    fn address_size(&self, value_type: &ValueType<'a>) -> Result<Option<usize>> {
        let size = match value_type.form {
            Form::Number { size, signed: false } => size,
            Form::Array { element, len } => match self.btf.value_type(element)?.form {
                Form::Number { size, signed: false } => size.saturating_mul(len as usize),
                _ => return Ok(None),
            },
            Form::Record(_) if value_type.name == "in_addr" => 4,
            Form::Record(_) if value_type.name == "in6_addr" => 16,
            _ => return Ok(None),
        };
        Ok(matches!(size, 4 | 16).then_some(size))
    }

    fn enumerator(&mut self, of: &Enumerators<'a>, value: &Json) -> Result<Option<u128>> {
        if let Some(number) = Number::read(value) {
            return Ok(number.bits(8 * of.size as u32, of.signed));
        }
        for enumerator in self.btf.enumerators(of) {
            self.step()?;
            let (name, bits) = enumerator?;
            if matches!(value, Json::Text(text) if text == name) {
                return Ok(Some(bits.into()));
            }
        }
        Ok(None)
    }

    /// Returns the bits of an enum's value in a bit field, if the field is wide enough.
    fn bits_of_name(&mut self, of: &Enumerators<'a>, name: &str, width: u32) -> Result<Option<u128>> {
        let Some(bits) = self.enumerator(of, &Json::Text(name.to_owned()))? else { return Ok(None) };
        let bits = bits as u64;
        let value = if of.signed { i128::from(bits.cast_signed()) } else { bits.into() };
        Ok(Number::read(&Json::Integer(value)).and_then(|number| number.bits(width, of.signed)))
    }

    fn record(&mut self, id: u32, fields: &BTreeMap<String, Json>, out: &mut [u8], depth: usize) -> Result<()> {
        let Form::Record(record) = self.btf.value_type(id)?.form else { return Err(contradiction()) };
        let mut written: Vec<(u64, u64, &str)> = Vec::new();
        for (name, value) in fields {
            let within = |mistake: Mistake| mistake.within(&format!(".{}", field(name)));
            let Some(member) = self.member(&record, name, 0, depth).map_err(within)? else {
                let there = self.names(&record)?;
                let message = format!("{} has no such field; it has: {there}", self.btf.c_name(id));
                return Err(within(Mistake::new(message)));
            };
            let from = u64::from(member.bit);
            let bits = match member.width {
                Some(width) => u64::from(width),
                None => 8 * u64::from(self.btf.size(member.type_id).map_err(Mistake::from)?),
            };
            let over = written.iter().find(|(start, end, _)| from < *end && *start < from + bits);
            if let Some((.., other)) = over {
                return Err(within(Mistake::new(format!("it lies over {}: give one of them", field(other)))));
            }
            written.push((from, from + bits, name));
            self.place(&member, value, out, depth).map_err(within)?;
        }
        Ok(())
    }

    /// Writes the value of a member.
    fn place(&mut self, member: &Member<'a>, value: &Json, out: &mut [u8], depth: usize) -> Result<()> {
        let Member { type_id, bit, width, .. } = *member;
        let Some(width) = width else {
            let from = bit as usize / 8;
            let size = self.btf.size(type_id)? as usize;
            let place = from.checked_add(size).and_then(|end| out.get_mut(from..end)).filter(|_| bit % 8 == 0);
            return self.put(type_id, value, place.ok_or_else(contradiction)?, depth + 1);
        };
        self.step()?;
        let form = self.btf.value_type(type_id)?.form;
        let signed = match form {
            Form::Number { signed, .. } | Form::Enum(Enumerators { signed, .. }) => signed,
            Form::Bool => false,
            _ => return Err(contradiction()),
        };
        if width > 64 {
            return Err(contradiction());
        }
        let number = match (value, &form) {
            (Json::Bool(on), _) => Some(u128::from(*on)),
            (Json::Text(name), Form::Enum(of)) if Number::read(value).is_none() => {
                self.bits_of_name(of, name, width)?
            }
            _ => Number::read(value).and_then(|number| number.bits(width, signed)),
        };
        let bits = number.ok_or_else(|| {
            Mistake::new(format!(
                "expected a bit field, a number from {}, got {}",
                range_in_words(width, signed),
                shown(value)
            ))
        })?;
        for i in 0..width {
            let at = (bit + i) as usize;
            let byte = out.get_mut(at / 8).ok_or_else(contradiction)?;
            *byte |= ((bits >> i & 1) as u8) << (at % 8);
        }
        Ok(())
    }

    /// Finds a member by name, also in anonymous structs and unions.
    pub(crate) fn member(
        &mut self,
        of: &Record<'a>,
        name: &str,
        base: u32,
        depth: usize,
    ) -> Result<Option<Member<'a>>> {
        let btf = self.btf;
        for member in btf.members(of) {
            self.step()?;
            let member = member?;
            let bit = base.checked_add(member.bit).ok_or_else(contradiction)?;
            if member.name == name && !name.is_empty() {
                return Ok(Some(Member { bit, ..member }));
            }
            if member.name.is_empty()
                && depth < MAX_LEVELS
                && let Form::Record(inner) = btf.value_type(member.type_id)?.form
                && let Some(found) = self.member(&inner, name, bit, depth + 1)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Lists the names of the fields.
    fn names(&self, of: &Record<'a>) -> Result<String> {
        let mut names = Vec::new();
        self.collect_names(of, &mut names, 0)?;
        Ok(clip(&names.join(", "), 512))
    }

    fn collect_names(&self, of: &Record<'a>, names: &mut Vec<String>, depth: usize) -> Result<()> {
        for member in self.btf.members(of).take(MAX_LISTED) {
            let member = member?;
            if names.len() >= MAX_LISTED || depth > MAX_ANONYMOUS {
                break;
            }
            match self.btf.value_type(member.type_id)?.form {
                Form::Record(inner) if member.name.is_empty() => self.collect_names(&inner, names, depth + 1)?,
                _ => names.push(field(member.name)),
            }
        }
        Ok(())
    }

    /// Returns the mistake that a value at this depth does not fit its type.
    fn expected(&self, id: u32, value: &Json, depth: usize) -> Mistake {
        let takes = self.describe_expected(id, depth).unwrap_or_else(|error| error.what);
        Mistake::new(format!("expected {}{takes}, got {}", self.btf.c_name(id), shown(value)))
    }

    fn describe_expected(&self, id: u32, depth: usize) -> Result<String> {
        let value_type = self.btf.value_type(id)?;
        let json = if depth == 0 { "JSON text of " } else { "" };
        let takes = match value_type.form {
            Form::Number { size, signed } => {
                format!(", a whole number from {}", range_in_words(8 * size as u32, signed))
            }
            Form::Bool => ", true or false".to_owned(),
            Form::Char => ", a number from -128 to 127".to_owned(),
            Form::Enum(of) => {
                let names = self.btf.enumerators(&of).take(MAX_LISTED).map(|one| Ok(field(one?.0)));
                format!(", one of {}, or its number", clip(&names.collect::<Result<Vec<_>>>()?.join(", "), 512))
            }
            Form::Record(of) => format!(", {json}an object with any of: {}", self.names(&of)?),
            Form::Array { element, len } if self.is_char(element)? => {
                let list = if depth > 0 { format!(", or a list of at most {len} numbers") } else { String::new() };
                format!(", text of at most {} bytes{list}", len.saturating_sub(1))
            }
            Form::Array { len, .. } => format!(", {json}a list of at most {len}"),
            Form::Other(_) => ", for which no value can be written".to_owned(),
        };
        Ok(match self.address_size(&value_type)? {
            Some(4) => format!("{takes}, or an IPv4 address"),
            Some(_) => format!("{takes}, or an IPv6 address"),
            None => takes,
        })
    }
}

fn copy(bytes: &[u8], out: &mut [u8]) -> Result<()> {
    if bytes.len() != out.len() {
        return Err(contradiction());
    }
    out.copy_from_slice(bytes);
    Ok(())
}
