//! The content of an object as statuses show it.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{
    MapDefinition, MapInfo, ObjectInfo, ProgramInfo, ProgramType,
    names::{is_pin_name, line},
};

use super::{
    Object, Selection,
    functions::Function,
    maps::{Map, MapForm, Slot},
    uses::Uses,
};
use crate::kinds::{map_type, section};

/// The most programs in a status.
const MAX_LISTED: usize = 64;

impl<'a> Object<'a> {
    /// Adds the maps that no program uses to a selection, and returns the content as statuses show it: the selected
    /// programs and maps, and of the other programs as many as there is room for.
    pub fn info(&self, selection: &mut Selection) -> ObjectInfo {
        let uses = Uses::of(self);
        uses.add_unused(self, selection);
        let programs = self.listed_programs(selection);
        let mut used_by: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (name, index) in &programs {
            for map in uses.maps(*index) {
                used_by.entry(map).or_default().push((*name).to_owned());
            }
        }
        let infos =
            programs.into_values().filter_map(|index| Some(program_info(self.functions.get(index)?, &uses, index)));
        let infos: Vec<ProgramInfo> = infos.collect();
        let maps = selection
            .maps
            .iter()
            .filter_map(|index| Some(self.map_info(self.maps.get(*index)?, used_by.remove(index).unwrap_or_default())));
        let mut maps: Vec<MapInfo> = maps.collect();
        maps.sort_by(|a, b| a.name.cmp(&b.name));
        ObjectInfo {
            programs: infos,
            maps,
            license: line(&String::from_utf8_lossy(self.license()), 128),
            btf: self.btf.is_some(),
        }
    }

    /// Returns the programs that a status lists, by name.
    fn listed_programs(&self, selection: &Selection) -> BTreeMap<&'a str, usize> {
        let all = self.functions.all().iter().enumerate().filter(|(_, function)| {
            function.is_program() && is_pin_name(function.name) && is_plain(function.section_name)
        });
        let mut listed: BTreeMap<&str, usize> =
            selection.programs.iter().filter_map(|index| Some((self.functions.get(*index)?.name, *index))).collect();
        for (index, function) in all {
            if listed.len() >= MAX_LISTED {
                break;
            }
            listed.entry(function.name).or_insert(index);
        }
        listed
    }

    fn map_info(&self, map: &Map<'_>, used_by: Vec<String>) -> MapInfo {
        let definition = &map.definition;
        let held = map.slots.iter().filter_map(|(_, slot)| match slot {
            Slot::Map(index) => self.maps.get(*index).map(|map| map.name),
            Slot::Program(index) => self.functions.get(*index).map(|function| function.name),
        });
        let held: BTreeSet<&str> = held.collect();
        MapInfo {
            name: map.name.to_owned(),
            map_type: map_type::name(definition.map_type).into_owned(),
            key_size_bytes: definition.key_size.into(),
            value_size_bytes: definition.value_size.into(),
            max_entries: definition.max_entries.into(),
            flags: definition.flags.into(),
            definition: match map.form {
                MapForm::Legacy => MapDefinition::Legacy,
                MapForm::Btf => MapDefinition::Btf,
                _ => MapDefinition::Data,
            },
            used_by,
            holds: held.into_iter().map(str::to_owned).collect(),
        }
    }
}

fn program_info(function: &Function<'_>, uses: &Uses, index: usize) -> ProgramInfo {
    let program_type = section::type_of(function.section_name);
    // The spec gives a type to a program whose section does not determine it.
    let may_be_sk_msg = matches!(program_type, None | Some(ProgramType::SkMsg));
    ProgramInfo {
        name: function.name.to_owned(),
        section: line(function.section_name, 256),
        program_type,
        passes_only: may_be_sk_msg && !uses.diverts(index),
    }
}

/// Returns whether text from the object is safe to show: one short line of printable ASCII.
fn is_plain(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}
