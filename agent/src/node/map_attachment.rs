//! `MapAttachment`: a function's attachment to a map, as the kernel describes it. Reads only.
//!
//! If the kernel has no links for maps (before 6.10), the map holds the program itself, and the program is pinned in
//! the link's place. If the kernel does not tell what a map holds either (before 5.17), the agent believes that what
//! this very process has attached is attached. What another process attached is attached again, which replaces it
//! atomically.

use std::os::fd::{AsFd as _, BorrowedFd};

use sockeye_ebpf::kinds::section::{SECTIONS, Section, Target};

use crate::{
    kernel::{SysError, bpf, info},
    model::kernel::LinkInfo,
    node::handles::LinkHandle,
};

/// A function's attachment to a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapAttachment {
    /// The link. Without a link only program, map and attach type are known.
    pub info: LinkInfo,
    /// Whether the program runs for sockets that enter the map.
    pub in_effect: bool,
    /// Whether `in_effect` is what this process has done, because the kernel does not tell.
    pub believed: bool,
}

impl MapAttachment {
    /// Reads the attachment to a map that `handle` stands for. `own` is the function's pinned program: an agent that
    /// was killed while it replaced the program left the new one attached and the old one pinned in the link's place.
    pub fn read(
        map: Option<BorrowedFd<'_>>,
        handle: &LinkHandle,
        own: Option<BorrowedFd<'_>>,
    ) -> Result<Self, SysError> {
        if info::is_program(handle.fd.as_fd())? {
            Self::of_program(map, handle, own)
        } else {
            Self::of_link(map, info::link(handle.fd.as_fd())?)
        }
    }

    /// A link is in effect if it is alive, its map is the one that is pinned, and the query of that map lists its
    /// program.
    fn of_link(map: Option<BorrowedFd<'_>>, info: LinkInfo) -> Result<Self, SysError> {
        let in_effect = match map {
            Some(map) if info.map_id != 0 && info::map_id(map)? == info.map_id => {
                bpf::map_query(map, info.attach_type)?.is_none_or(|listed| listed.contains(&info.program_id))
            }
            _ => false,
        };
        Ok(Self { info, in_effect, believed: false })
    }

    fn of_program(
        map: Option<BorrowedFd<'_>>,
        handle: &LinkHandle,
        own: Option<BorrowedFd<'_>>,
    ) -> Result<Self, SysError> {
        let program = info::program(handle.fd.as_fd())?;
        let own = own.map(info::program_id).transpose()?;
        let mut types = attach_types(program.prog_type).peekable();
        let first = handle.map_attach_type.or(types.peek().copied()).unwrap_or_default();
        let unattached = LinkInfo { program_id: program.id, attach_type: first, ..LinkInfo::default() };
        let Some(map) = map else { return Ok(Self { info: unattached, in_effect: false, believed: false }) };
        let map_id = info::map_id(map)?;
        for attach_type in types {
            let Some(listed) = bpf::map_query(map, attach_type)? else {
                let in_effect = handle.map_attach_type.is_some();
                let map_id = if in_effect { map_id } else { 0 };
                return Ok(Self { info: LinkInfo { map_id, ..unattached }, in_effect, believed: true });
            };
            if let Some(id) = listed.into_iter().find(|id| *id == program.id || Some(*id) == own) {
                let info = LinkInfo { program_id: id, map_id, attach_type, ..unattached };
                return Ok(Self { info, in_effect: true, believed: false });
            }
        }
        Ok(Self { info: unattached, in_effect: false, believed: false })
    }
}

/// The attach types by which programs of a type can be attached to a map.
pub fn attach_types(prog_type: u32) -> impl Iterator<Item = u32> {
    let to_maps = move |row: &&Section| row.target == Target::Map && row.prog_type == prog_type;
    SECTIONS.iter().filter(to_maps).map(|row| row.attach_type)
}
