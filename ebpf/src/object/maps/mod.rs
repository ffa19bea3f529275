//! The maps that an object defines: by definitions with BTF, by legacy definitions, and as global data.
//!
//! A definition that can't be read is an error of whoever uses the map.

mod data;
mod definition;
mod error;
mod legacy;
mod map;
mod places;
mod slots;
mod typed;

pub(crate) use self::{
    data::KCONFIG,
    definition::{CreationError, Definition},
    error::MapError,
    map::{Map, MapForm, Slot},
    places::MapPlaces,
    typed::entries,
};
use crate::{
    btf::Btf,
    object::{externs::Extern, functions::Functions, image::Image},
};

/// Reads all maps, in libbpf's order: those of `.maps`, data by section, `.kconfig`. Legacy maps come first.
pub(crate) fn read<'a>(
    image: &Image<'a>,
    btf: Option<&Btf<'a>>,
    externs: &[Extern<'a>],
    functions: &Functions<'a>,
) -> Vec<Map<'a>> {
    let mut maps = legacy::read(image, btf);
    maps.extend(typed::read(image, btf));
    maps.extend(data::read(image, btf));
    maps.extend(data::kconfig(btf, externs));
    slots::read(image, &mut maps, functions);
    maps
}
