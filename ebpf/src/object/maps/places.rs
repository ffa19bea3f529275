//! `MapPlaces`: the maps by where they are.

use std::collections::{BTreeMap, BTreeSet};

use super::MapForm;

/// The sections that references lead to: maps by section and offset, data by section.
#[derive(Clone, Debug, Default)]
pub(crate) struct MapPlaces {
    pub(crate) maps: BTreeMap<(usize, u64), usize>,
    pub(crate) data: BTreeMap<usize, usize>,
    /// The sections with maps that are no data.
    pub(crate) sections: BTreeSet<usize>,
}

impl MapPlaces {
    /// Returns where each map is.
    pub(crate) fn of<'m>(maps: impl Iterator<Item = (usize, u64, MapForm)> + 'm) -> Self {
        let mut places = Self::default();
        for (index, (section, offset, form)) in maps.enumerate() {
            match form {
                MapForm::Legacy | MapForm::Btf => {
                    places.maps.entry((section, offset)).or_insert(index);
                    places.sections.insert(section);
                }
                MapForm::Data | MapForm::Rodata | MapForm::Bss => drop(places.data.insert(section, index)),
                MapForm::Kconfig => {}
            }
        }
        places
    }
}
