//! `MapShapes`: what the keys and values of a map are, by its object. No IO.

use super::{
    shape::{Shape, ShapeError},
    variables,
};
use crate::{
    btf::{Btf, BtfError, Kind},
    object::Object,
};

/// The types of a map's keys and values, copied out of the object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapShapes {
    /// The type of keys. None if the definition says none, as for global data and maps without keys.
    pub key: Option<Shape>,
    /// The type of values. None if the definition says none, as for rings.
    pub value: Option<Shape>,
}

/// The reason why it is not known what the bytes of a map mean.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// The object does not define the map.
    #[error("the object has no such map")]
    NoMap,
    /// The object has no types.
    #[error("the object has no BTF: compile it with -g, and strip it with llvm-strip -g")]
    NoTypes,
    /// The definition has sizes only.
    #[error("the map's definition says no types: define it in .maps, with __type(key, ...) and __type(value, ...)")]
    Untyped,
    /// A type and the definition contradict each other.
    #[error("the map's definition says one size of its {0}, and its type another")]
    Size(&'static str),
    /// The types can't be read.
    #[error("the object's types can't be read: {0}")]
    Types(#[from] ShapeError),
}

impl From<BtfError> for Undecodable {
    fn from(error: BtfError) -> Self {
        Self::Types(error.into())
    }
}

impl MapShapes {
    /// Reads the types of a map.
    ///
    /// # Errors
    /// Fails if the object lacks the map or its types, or if these can't be read.
    pub fn of(object: &Object<'_>, map: &str) -> Result<Self, Undecodable> {
        let map = object.maps.iter().find(|one| one.name == map).ok_or(Undecodable::NoMap)?;
        let Some(btf) = object.btf() else {
            return Err(object.btf_fault().cloned().map_or(Undecodable::NoTypes, Undecodable::from));
        };
        let definition = &map.definition;
        let is_section = btf.get(definition.value_type).is_some_and(|one| one.kind == Kind::Datasec);
        if map.form.is_data() && is_section {
            let mut variables = variables::of_map(object, btf, map);
            variables.sort_by_key(|variable| variable.offset);
            let value = Shape::of_section(btf, definition.value_size, &variables)?;
            return Ok(Self { key: None, value: Some(value) });
        }
        let key = shape(btf, definition.key_type, definition.key_size, "keys")?;
        let value = shape(btf, definition.value_type, definition.value_size, "values")?;
        if key.is_none() && value.is_none() { Err(Undecodable::Untyped) } else { Ok(Self { key, value }) }
    }
}

fn shape(btf: &Btf<'_>, id: u32, size: u32, what: &'static str) -> Result<Option<Shape>, Undecodable> {
    if id == 0 {
        return Ok(None);
    }
    let shape = Shape::of(btf, id)?;
    if shape.size() == size as usize { Ok(Some(shape)) } else { Err(Undecodable::Size(what)) }
}
