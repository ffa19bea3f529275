//! `Uses`: the maps and the helpers that each program of an object uses, by itself or in what it calls. Faults do not
//! matter here: who selects a program learns of them.

use std::collections::BTreeSet;

use sockeye_crds::names::{is_pin_name, pin_name};

use crate::{
    kinds::map_type::PROG_ARRAY,
    object::{
        Object, Selection,
        limits::MAX_MAPS,
        references::{Reference, Target},
    },
};

/// The references of each function by itself, by the function's index.
pub(super) struct Uses(Vec<Direct>);

/// The references of a function by itself.
#[derive(Default)]
struct Direct {
    maps: BTreeSet<usize>,
    functions: BTreeSet<usize>,
    diverts: bool,
}

/// `BPF_FUNC_*` that keep bytes from going the way that they were sent: `bpf_tail_call`, since what it calls is not
/// known; `bpf_sk_redirect_map`, `bpf_msg_redirect_map`, `bpf_msg_cork_bytes`, `bpf_msg_redirect_hash`,
/// `bpf_sk_redirect_hash`. What is redirected lies in a queue of the map's, and what is corked in one of the sender's
/// (`struct sk_psock`): both are freed when the socket leaves the map.
const DIVERTING: [i32; 6] = [12, 52, 60, 62, 71, 72];

impl Uses {
    /// Reads the references of all functions.
    pub(super) fn of(object: &Object<'_>) -> Self {
        let mut all: Vec<Direct> = Vec::new();
        let mut before = None;
        for function in object.functions.all() {
            let mut direct = Direct::default();
            let place = Some((function.section, function.start));
            // Several names of one function: the first one's references are all of theirs.
            let references = if place == before { Vec::new() } else { object.references(function) };
            direct.diverts = function.helpers().any(|helper| DIVERTING.contains(&helper));
            for Reference { target, instruction: _ } in references {
                match target {
                    Ok(Target::Call(callee) | Target::Address(callee)) => drop(direct.functions.insert(callee)),
                    Ok(Target::Map(map) | Target::Data { map, .. }) => drop(direct.maps.insert(map)),
                    Ok(Target::Extern(index)) => direct.maps.extend(object.kconfig(index)),
                    Ok(Target::ExternCall(_)) | Err(_) => {}
                }
            }
            if place == before {
                direct.functions.extend(all.len().checked_sub(1));
            }
            before = place;
            all.push(direct);
        }
        Self(all)
    }

    /// Returns the maps that a program uses.
    pub(super) fn maps(&self, program: usize) -> BTreeSet<usize> {
        let (mut maps, mut seen, mut open) = (BTreeSet::new(), BTreeSet::from([program]), vec![program]);
        while let Some(direct) = open.pop().and_then(|index| self.0.get(index)) {
            maps.extend(&direct.maps);
            open.extend(direct.functions.iter().filter(|callee| seen.insert(**callee)));
        }
        maps
    }

    /// Returns whether a program may keep bytes from going the way that they were sent.
    pub(super) fn diverts(&self, program: usize) -> bool {
        let (mut seen, mut open) = (BTreeSet::from([program]), vec![program]);
        while let Some(direct) = open.pop().and_then(|index| self.0.get(index)) {
            if direct.diverts {
                return true;
            }
            open.extend(direct.functions.iter().filter(|callee| seen.insert(**callee)));
        }
        false
    }

    /// Adds the maps that no function uses to a selection, as libbpf creates them too, unless they can't be created or
    /// would have further programs loaded.
    pub(super) fn add_unused(&self, object: &Object<'_>, selection: &mut Selection) {
        let used: BTreeSet<usize> = self.0.iter().flat_map(|direct| &direct.maps).copied().collect();
        for (index, map) in object.maps.iter().enumerate() {
            if selection.maps.contains(&index) {
                continue;
            }
            let has_programs = map.definition.map_type == PROG_ARRAY && !map.slots.is_empty();
            let pin = if map.form.is_data() { pin_name(map.name) } else { map.name.to_owned() };
            let is_sound = map.fault.is_none() && map.definition.creation_error().is_none() && map.slots.is_empty();
            let has_room = selection.maps.len() < MAX_MAPS && is_pin_name(&pin);
            if used.contains(&index) || has_programs || !is_sound || !has_room {
                selection.left_out.insert(index);
            } else {
                selection.maps.insert(index);
            }
        }
    }
}
