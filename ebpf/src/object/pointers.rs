//! Addresses that an object's global data is to hold: relocations of data, which no loader of BPF makes. libbpf, too,
//! leaves what the compiler wrote there, mostly 0.

use std::collections::BTreeSet;

use super::{Object, Selection, maps::Map};

impl<'a> Object<'a> {
    /// Returns the selected variables that the source gives an address, each by its name, or by its section's where no
    /// symbol tells.
    pub fn addresses_in_data(&self, selection: &Selection) -> Vec<&'a str> {
        let maps = selection.maps.iter().filter_map(|index| self.maps.get(*index));
        let found: BTreeSet<&str> =
            maps.filter(|map| map.form.is_data() && map.section != 0).flat_map(|map| self.addresses_in(map)).collect();
        found.into_iter().collect()
    }

    fn addresses_in(&self, map: &Map<'a>) -> BTreeSet<&'a str> {
        let mut left: BTreeSet<u64> = self.image.relocations(map.section).map(|relocation| relocation.offset).collect();
        let mut names = BTreeSet::new();
        let symbols = self.image.symbols().filter(|symbol| symbol.section() == Some(map.section));
        for symbol in symbols.filter(|symbol| symbol.size > 0 && !symbol.name().is_empty()) {
            let within: Vec<u64> =
                left.range(symbol.offset..symbol.offset.saturating_add(symbol.size)).copied().collect();
            for place in &within {
                left.remove(place);
                names.insert(symbol.name());
            }
        }
        if !left.is_empty() {
            names.insert(map.name);
        }
        names
    }
}
