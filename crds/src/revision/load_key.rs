//! The key of a load.

use super::RevisionTemplate;
use crate::{
    names,
    program::{MapRef, MapSpec, ProgramSpec},
};

impl RevisionTemplate {
    /// Returns a key that identifies the result of loading this revision: a node that has loaded one revision needs no
    /// new load for another with the same key.
    ///
    /// The key is sixteen hexadecimal digits over the object's digest and every option that changes a load: the
    /// functions with the attach types given for them, each map's size, pinning and origin, and global variables. The
    /// targets and the selected nodes are not part of it. The entries of a pinned map are not either, since a load
    /// carries the map's content over; those of a map that is not pinned are, since every load creates the map.
    pub fn load_key(&self) -> String {
        use sha2::{Digest as _, Sha256};
        let mut hash = Sha256::new();
        let mut add = |part: &str| {
            hash.update(part.as_bytes());
            hash.update([0]);
        };
        add(&self.digest);
        let attach_type = |program: &ProgramSpec| program.attach_type.clone().map(|given| format!(":{given}"));
        let name = |program: &ProgramSpec| program.name.clone() + &attach_type(program).unwrap_or_default();
        let mut functions: Vec<String> = self.programs.iter().map(name).collect();
        functions.sort_unstable();
        functions.iter().for_each(|function| add(function));
        add("maps");
        let changes_load = |map: &&MapSpec| !map.is_pinned() || map.max_entries.is_some() || map.map_ref.is_some();
        let mut maps: Vec<&MapSpec> = self.maps.iter().filter(changes_load).collect();
        maps.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for map in maps {
            let MapSpec {
                name,
                pinning: _,
                max_entries,
                reclaim_policy: _,
                on_incompatible: _,
                entries,
                entries_from: _,
                entries_policy: _,
                sharing: _,
                map_ref,
                stream: _,
            } = map;
            add(name);
            add(if map.is_pinned() { "pin" } else { "no-pin" });
            add(&max_entries.map(|n| n.to_string()).unwrap_or_default());
            if !map.is_pinned() && !entries.is_empty() {
                add(&serde_json::to_string(entries).unwrap_or_default());
            }
            if let Some(digest) = map.list_digest().filter(|_| !map.is_pinned()) {
                ["list", digest].into_iter().for_each(&mut add);
            }
            if let Some(MapRef { program, name }) = map_ref {
                ["from", program, name].into_iter().for_each(&mut add);
            }
        }
        if !self.globals.is_empty() {
            add("globals");
            for (name, value) in &self.globals {
                add(name);
                add(&value.to_string());
            }
        }
        names::hex(&hash.finalize())[..16].to_owned()
    }
}
