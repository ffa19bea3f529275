//! The entry of one BpfProgram in the BpfNodeDetail: the kernel's information about its programs, maps and links. Pure.

use std::collections::BTreeMap;

use sockeye_crds::{
    names::{clip, pin_name},
    node::{AttachedLink, LoadedMap, LoadedProgram, ProgramDetail},
};
use sockeye_ebpf::kinds::{map_type, section};

use super::{
    contents::Contents,
    counts::{count, entry_counts},
    notes::notes,
};
use crate::{
    control::program::ProgramState,
    model::{
        desired::Desired,
        kernel::{LINK_TYPE_CGROUP, LINK_TYPE_SOCKMAP, MapInfo},
        observed::{LinkKey, ObservedLink, ObservedMap, ObservedProgram},
    },
    node::layout::{self, Home},
};

/// Returns the detail of a BpfProgram.
pub(super) fn program_detail(
    name: &str,
    program: &ProgramState,
    programs: &BTreeMap<String, ProgramState>,
    contents: &Contents<'_>,
    home: &Home,
) -> ProgramDetail {
    let lists = Lists { program, contents, home };
    ProgramDetail {
        name: name.to_owned(),
        verifier_log: program.failure.as_ref().and_then(|failure| failure.verifier_log.clone()),
        notes: notes(program, contents, programs),
        programs: lists.programs(),
        maps: lists.maps(),
        links: lists.links(),
    }
}

/// The inputs of the lists of one BpfProgram's objects.
struct Lists<'a> {
    program: &'a ProgramState,
    contents: &'a Contents<'a>,
    home: &'a Home,
}

impl Lists<'_> {
    fn programs(&self) -> Vec<LoadedProgram> {
        let functions = self.contents.functions.iter().take(self.contents.limits.functions);
        functions.filter_map(|(name, function)| self.loaded_program(name, function)).collect()
    }

    /// Returns the pinned maps, then the others whose names are known.
    fn maps(&self) -> Vec<LoadedMap> {
        let pinned = self.contents.maps.iter().map(|(name, map)| self.pinned_map(name, map));
        let unpinned = self.program.unpinned.iter().filter(|(_, info)| self.contents.unpinned.contains(&info.id));
        pinned.chain(unpinned.map(|(name, info)| self.loaded_map(name, info))).take(self.contents.limits.maps).collect()
    }

    fn links(&self) -> Vec<AttachedLink> {
        let links = self.program.observed.links.iter().take(self.contents.limits.links);
        links.map(|(key, link)| self.attached_link(key, link)).collect()
    }

    /// Returns `None` for a program of a type that sockeye does not know.
    fn loaded_program(&self, function: &str, program: &ObservedProgram) -> Option<LoadedProgram> {
        let info = &program.info;
        let links = self.program.observed.links.values();
        let links = links.filter(|link| link.in_effect && link.info.program_id == info.id);
        Some(LoadedProgram {
            name: function.to_owned(),
            kernel_name: info.kernel_name.clone(),
            id: info.id.into(),
            program_type: section::program_type(info.prog_type)?,
            tag: info.tag.clone(),
            gpl_compatible: info.gpl_compatible,
            load_time: info.load_time.clone(),
            user_id: info.uid.into(),
            xlated_bytes: info.xlated_bytes.into(),
            jited_bytes: info.jited_bytes.into(),
            memlock_bytes: info.memlock_bytes.cast_signed(),
            map_ids: info.map_ids.iter().take(self.contents.limits.maps).map(|&id| id.into()).collect(),
            btf_id: info.btf_id.map(i64::from),
            links: count(links.count()),
            pin_path: self.home.host(&layout::program(function)),
        })
    }

    fn pinned_map(&self, name: &str, observed: &ObservedMap) -> LoadedMap {
        let desired = self.desired().and_then(|desired| desired.maps.get(name));
        let pin = desired.map_or_else(|| pin_name(name), |map| map.pin_name.clone());
        let users = self.contents.users.and_then(|users| users.get(pin.as_str())).into_iter().flatten();
        LoadedMap {
            map_ref: observed.from.clone(),
            shared_by: users.take(self.contents.limits.users).map(|user| (*user).to_owned()).collect(),
            pin_path: Some(self.home.host(&layout::map(&pin))),
            ..self.loaded_map(name, &observed.info)
        }
    }

    /// Returns the entry of a map that is not pinned.
    fn loaded_map(&self, name: &str, info: &MapInfo) -> LoadedMap {
        let desired = self.desired().and_then(|desired| desired.maps.get(name));
        LoadedMap {
            name: name.to_owned(),
            kernel_name: info.kernel_name.clone(),
            id: info.id.into(),
            map_type: map_type::name(info.map_type).into_owned(),
            flags: info.flags.into(),
            key_size_bytes: info.key_size.into(),
            value_size_bytes: info.value_size.into(),
            max_entries: info.max_entries.into(),
            memlock_bytes: info.memlock_bytes.cast_signed(),
            frozen: info.frozen,
            btf_id: info.btf_id.map(i64::from),
            definition: desired.map(|map| map.definition),
            map_ref: None,
            shared_by: Vec::new(),
            entries: self.program.entries.counts.get(name).map(entry_counts),
            used: self.contents.used.contains(&info.id),
            pin_path: None,
        }
    }

    fn attached_link(&self, key: &LinkKey, link: &ObservedLink) -> AttachedLink {
        let info = &link.info;
        let function = self.desired().and_then(|desired| desired.functions.get(&key.function));
        let paths = function.map(|function| &function.paths);
        let owner = paths.and_then(|paths| paths.get(link.path.as_ref()?)).and_then(Option::as_ref);
        AttachedLink {
            program: key.function.clone(),
            id: present(info.id.into()),
            link_type: link_type(info.link_type).map(str::to_owned),
            program_id: info.program_id.into(),
            attach_type: section::attach_type_name(info.attach_type).into_owned(),
            cgroup_id: present(info.cgroup_id.cast_signed()),
            cgroup_path: link.path.as_deref().map(|path| clip(path, 1024)),
            pod: owner.and_then(|owner| owner.pod.clone()),
            container: owner.and_then(|owner| owner.container.clone()),
            map: key.map().map(str::to_owned),
            map_id: present(info.map_id.into()),
            in_effect: link.in_effect,
            pin_path: self.home.host(&layout::link(&key.function, &key.place)),
        }
    }

    fn desired(&self) -> Option<&Desired> {
        self.program.desired.as_deref()
    }
}

/// Returns an ID unless it is the kernel's zero, which stands for none.
fn present(id: i64) -> Option<i64> {
    (id != 0).then_some(id)
}

/// Returns bpftool's name of a link type; nothing for what is no link.
const fn link_type(number: u32) -> Option<&'static str> {
    match number {
        LINK_TYPE_CGROUP => Some("cgroup"),
        LINK_TYPE_SOCKMAP => Some("sockmap"),
        _ => None,
    }
}
