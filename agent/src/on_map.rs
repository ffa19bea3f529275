//! `OnMap`: what a map runs of one function, as the kernel tells it. Reads only.
//!
//! Where the kernel has no links for maps (before 6.10) the map holds the program itself, which is pinned in a link's place.
//! Where it does not say what it holds either (before 5.17), what this very process has attached is believed to be attached;
//! another process's is attached again, which replaces it with no moment in between.

use std::os::fd::{AsFd as _, BorrowedFd};

use sockeye_ebpf::kinds::section::{SECTIONS, Section, Target};

use crate::{
    kept::KeptLink,
    kernel::{
        SysError, bpf,
        info::{self, LinkInfo},
    },
};

/// What a map runs of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnMap {
    /// The link; without one, only what an attachment has too: program, map and attach type.
    pub info: LinkInfo,
    /// Whether sockets that enter the map get the program.
    pub in_effect: bool,
    /// Whether that is what this process did, and not what the kernel says.
    pub believed: bool,
}

/// Looks. `kept` is what stands in the link's place, `own` the function's program: an agent that was killed while it replaced
/// one by the other left the new one attached and the old one's pin.
pub fn look(map: Option<BorrowedFd<'_>>, kept: &KeptLink, own: Option<BorrowedFd<'_>>) -> Result<OnMap, SysError> {
    if !info::is_program(kept.fd.as_fd())? {
        return link(map, info::link(kept.fd.as_fd())?);
    }
    let program = info::program(kept.fd.as_fd())?;
    let own = own.map(info::program_id).transpose()?;
    let mut types = attach_types(program.prog_type).peekable();
    let first = kept.attached.or(types.peek().copied()).unwrap_or_default();
    let nowhere = LinkInfo { program_id: program.id, attach_type: first, ..LinkInfo::default() };
    let Some(map) = map else { return Ok(OnMap { info: nowhere, in_effect: false, believed: false }) };
    let map_id = info::map_id(map)?;
    for attach_type in types {
        let Some(listed) = bpf::map_query(map, attach_type)? else {
            let in_effect = kept.attached.is_some();
            let map_id = if in_effect { map_id } else { 0 };
            return Ok(OnMap { info: LinkInfo { map_id, ..nowhere }, in_effect, believed: true });
        };
        if let Some(id) = listed.into_iter().find(|id| *id == program.id || Some(*id) == own) {
            let info = LinkInfo { program_id: id, map_id, attach_type, ..nowhere };
            return Ok(OnMap { info, in_effect: true, believed: false });
        }
    }
    Ok(OnMap { info: nowhere, in_effect: false, believed: false })
}

/// A link is in effect where it is alive, the map is the one that is pinned, and the map's query lists its program.
fn link(map: Option<BorrowedFd<'_>>, info: LinkInfo) -> Result<OnMap, SysError> {
    let in_effect = match map {
        Some(map) if info.map_id != 0 && info::map_id(map)? == info.map_id => {
            bpf::map_query(map, info.attach_type)?.is_none_or(|listed| listed.contains(&info.program_id))
        }
        _ => false,
    };
    Ok(OnMap { info, in_effect, believed: false })
}

/// How programs of a type can be attached to a map.
pub fn attach_types(prog_type: u32) -> impl Iterator<Item = u32> {
    let to_maps = move |row: &&Section| row.target == Target::Map && row.prog_type == prog_type;
    SECTIONS.iter().filter(to_maps).map(|row| row.attach_type)
}
