//! Notes on an accepted spec: what the user may not expect.

use std::collections::BTreeSet;

use sockeye_crds::{ProgramType, names::line, program::ProgramSpec, target::AttachTarget};

use super::rules::list;
use crate::object::{Object, Selection};

/// Returns the notes on a spec.
pub(super) fn notes(object: &Object<'_>, selection: &Selection, programs: &[ProgramSpec]) -> Vec<String> {
    let mut notes = Vec::new();
    let requests = object.pin_requests(selection);
    if !requests.is_empty() {
        let names = list(requests.into_iter());
        notes.push(format!(
            "the ELF asks for maps to be pinned by their names; sockeye ignores that and pins them in the BpfProgram's \
             own directory: {names}"
        ));
    }
    let left_out = object.left_out(selection);
    if !left_out.is_empty() {
        notes.push(format!(
            "maps that only programs use which the spec does not name, or that can't be created and nothing uses, are \
             not created: {}",
            list(left_out.into_iter())
        ));
    }
    let addresses = object.addresses_in_data(selection);
    if !addresses.is_empty() {
        notes.push(format!(
            "variables that the source gives the address of something, or a text, don't hold it, since no loader of \
             BPF can: {}; declare texts as arrays (char[])",
            list(addresses.into_iter())
        ));
    }
    let targets = programs.iter().flat_map(|p| &p.attach).filter_map(AttachTarget::map);
    let maps: BTreeSet<&str> = targets.map(|map| map.name.as_str()).collect();
    if !maps.is_empty() {
        notes.push(format!(
            "sockets that are in {} keep the program they came in with: a later one, or none, is for sockets that come \
             then",
            list(maps.into_iter())
        ));
    }
    let devices = programs.iter().filter(|p| p.program_type == Some(ProgramType::CgroupDevice));
    let devices: Vec<&str> = devices.map(|p| p.name.as_str()).collect();
    if !devices.is_empty() {
        notes.push(format!(
            "container runtimes attach device programs of their own to containers' cgroups: an access that {} allows \
             needs their yes too",
            list(devices.into_iter())
        ));
    }
    notes.into_iter().map(|note| line(&note, 1024)).collect()
}
