//! The bits of a value that its text names: those of the fields of structs, and all bits of everything else. No IO.

use sockeye_crds::Value;

use crate::{
    btf::value_type::Form,
    values::{
        encode::{Encoder, Result},
        json::{Json, MAX_LEVELS},
        mistake::contradiction,
    },
};

impl Encoder<'_> {
    /// Writes a value into a zeroed buffer of its type's size, and sets in another one the bits that the value names.
    ///
    /// A struct's or union's JSON object names its fields. Numbers, texts, addresses and lists name the whole of their
    /// type.
    pub fn encode_named(&mut self, id: u32, value: &Value, out: &mut [u8], named: &mut [u8]) -> Result<()> {
        let json = self.parse(id, value)?;
        self.put(id, &json, out, 0)?;
        self.name(id, &json, named, 0)
    }

    fn name(&mut self, id: u32, value: &Json, out: &mut [u8], depth: usize) -> Result<()> {
        self.step()?;
        let (Form::Record(record), Json::Object(fields)) = (self.btf().value_type(id)?.form, value) else {
            out.fill(0xff);
            return Ok(());
        };
        if depth > MAX_LEVELS {
            return Err(contradiction());
        }
        for (name, value) in fields {
            let member = self.member(&record, name, 0, depth)?.ok_or_else(contradiction)?;
            let bit = member.bit as usize;
            if let Some(width) = member.width {
                for at in bit..bit + width as usize {
                    *out.get_mut(at / 8).ok_or_else(contradiction)? |= 1 << (at % 8);
                }
                continue;
            }
            let size = self.btf().size(member.type_id)? as usize;
            let place = (bit / 8).checked_add(size).and_then(|end| out.get_mut(bit / 8..end));
            self.name(member.type_id, value, place.ok_or_else(contradiction)?, depth + 1)?;
        }
        Ok(())
    }
}
