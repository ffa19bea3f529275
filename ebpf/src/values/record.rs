//! `RecordShape`: what the records of a ring or perf buffer are, by the object and the spec. No IO.

use sockeye_crds::{
    names::printable,
    program::{Format, StreamField, StreamSpec},
};

use super::{
    format::Place,
    mistake::Mistake,
    shape::{Shape, ShapeError},
};
use crate::{
    btf::{Btf, Kind},
    object::Object,
};

/// The type of a buffer's records, with the formats that the spec gives its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordShape {
    /// The type. None if the spec names none.
    pub shape: Option<Shape>,
    /// The field with the ID of a cgroup.
    pub pod: Option<Place>,
}

impl RecordShape {
    /// Reads the type that a spec names, and checks its fields.
    ///
    /// # Errors
    /// Fails if the object has no such type, or the type no such fields, or a format does not fit.
    pub fn of(object: &Object<'_>, stream: &StreamSpec) -> Result<Self, Mistake> {
        let Some(name) = &stream.type_name else { return Ok(Self::default()) };
        let untyped = || match object.btf_fault() {
            Some(fault) => format!("the object's BTF can't be read: {fault}"),
            None => "the object has no BTF: compile it with -g, and strip it with llvm-strip -g".to_owned(),
        };
        let at_type = |what: String| Mistake::new(what).within(".typeName");
        let btf = object.btf().ok_or_else(|| at_type(untyped()))?;
        let mut shape = find(btf, name).map_err(at_type)?;
        let mut pod = None;
        for (i, StreamField { name, format }) in stream.fields.iter().enumerate() {
            let within = |what: String, part: &str| Mistake::new(what).within(&format!(".fields[{i}].{part}"));
            let place = shape.place(name).map_err(|error| within(error.to_string(), "name"))?;
            shape = shape.with_format(name, *format).map_err(|error| within(error.to_string(), "format"))?;
            if *format == Format::Pod && pod.replace(place).is_some() {
                return Err(within("a record has one pod: give one field the format Pod".to_owned(), "format"));
            }
        }
        Ok(Self { shape: Some(shape), pod })
    }
}

/// Finds a struct, a union, or a typedef of one.
fn find(btf: &Btf<'_>, name: &str) -> Result<Shape, String> {
    let kinds = [Kind::Struct, Kind::Union, Kind::Typedef];
    let found = kinds.into_iter().filter_map(|kind| btf.find(name.as_bytes(), kind));
    let of_records = found.filter(|one| btf.skip_modifiers(one.id).is_some_and(|one| one.kind.is_composite()));
    let Some(one) = of_records.into_iter().next() else {
        let structs = btf.types().filter(|one| one.kind == Kind::Struct && !one.name().is_empty());
        let mut there: Vec<String> = structs.map(|one| one.text().into_owned()).collect();
        there.sort_unstable();
        there.dedup();
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        let there = if there.is_empty() { "none".to_owned() } else { sockeye_crds::names::list(&there, 24) };
        return Err(format!(
            "the object's BTF has no struct or union {}; its structs: {there}. The compiler writes a type that a \
             program uses, or a global variable points to",
            printable(name)
        ));
    };
    Shape::of(btf, one.id).map_err(|error: ShapeError| error.to_string())
}
