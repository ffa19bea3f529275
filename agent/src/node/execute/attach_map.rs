//! Attachments to maps: by link if the kernel has links for maps. Otherwise the map holds the program itself, and the
//! program is pinned in the link's place, so that the agent knows what is attached and can detach it.

use std::os::fd::AsFd as _;

use super::{
    attach::{Attachable, own_eperm_cause},
    executor::Executor,
    progress::{Progress, Undo},
    remove::existing,
};
use crate::{
    kernel::{Fd, SysError, bpf, info},
    model::observed::LinkKey,
    node::{
        attach_failure::AttachPoint,
        failure::Failure,
        handles::{Handles, LinkHandle},
        layout,
        map_attachment::{self, MapAttachment},
    },
};

impl Executor<'_> {
    /// Attaches a program to a map. `pin` is the map's pin name.
    pub(super) fn attach_to_map(
        &self,
        attachable: &Attachable<'_>,
        pin: &str,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let Attachable { function, program, attach_type } = attachable;
        let point = AttachPoint::Map { function, map: pin };
        let refused = |error: SysError| Failure::attach(point, &error, &own_eperm_cause());
        let key = LinkKey::on_map(function, pin);
        let map = self.home.dir.get(&layout::map(pin))?;
        let link = bpf::map_link(program.as_fd(), map.as_fd(), *attach_type).map_err(refused)?.map(Fd::from);
        // Without a link the pin comes first, so that nothing is ever attached without a pin.
        let replaced = self.pin(link.as_ref().unwrap_or(program), &layout::link(function, &key.place))?;
        progress.undo.push(match &replaced {
            Some(former) => Undo::RepinLink(key.clone(), Fd::clone(former)),
            None => Undo::Detach(key.clone()),
        });
        if let (Some(former), Some(former_map)) = (replaced, progress.handles.maps.get(pin))
            && info::is_program(former.as_fd())?
            && info::map_id(former_map.as_fd())? != info::map_id(map.as_fd())?
        {
            progress.replaced_on_maps.push((former, Fd::clone(former_map)));
        }
        if link.is_none() {
            bpf::map_attach(program.as_fd(), map.as_fd(), *attach_type).map_err(refused)?;
            progress.handles.links.insert(key, LinkHandle::to_map(Fd::clone(program), Some(*attach_type)));
        }
        Ok(())
    }

    /// Replaces the program that a map holds without a link.
    ///
    /// The map is changed first, then the pin. If the agent is killed in between, the next one finds the former program
    /// pinned in the link's place, and the new one attached and pinned as the function's own.
    pub(super) fn replace_on_map(
        &self,
        key: &LinkKey,
        pin: &str,
        program: &Fd,
        handles: &mut Handles,
    ) -> Result<(), Failure> {
        let map = self.home.dir.get(&layout::map(pin))?;
        let own = handles.programs.get(&key.function).map(|own| own.fd.as_fd());
        let known = handles.links.get(key).map(|handle| MapAttachment::read(Some(map.as_fd()), handle, own));
        let Some(MapAttachment { info, .. }) = known.transpose()?.filter(|known| known.in_effect) else {
            // Somebody has detached it: nothing is to be replaced, and the next plan attaches what is desired.
            return Ok(self.detach(key, handles)?);
        };
        let attach_type = info.attach_type;
        bpf::map_attach(program.as_fd(), map.as_fd(), attach_type)
            .map_err(|error| Failure::attach(AttachPoint::of(key), &error, &own_eperm_cause()))?;
        self.pin(program, &layout::link(&key.function, &key.place))?;
        handles.links.insert(key.clone(), LinkHandle::to_map(Fd::clone(program), Some(attach_type)));
        Ok(())
    }

    /// Detaches a program that a map holds without a link. An agent that was killed may have left the function's own
    /// program attached instead of the one pinned in the link's place: both are detached.
    pub(super) fn detach_from_map(
        &self,
        function: &str,
        pin: &str,
        program: &Fd,
        handles: &Handles,
    ) -> Result<(), SysError> {
        let pinned = existing(self.home.dir.get(&layout::map(pin)))?;
        let maps = [pinned.as_ref(), handles.maps.get(pin)];
        let own = existing(self.home.dir.get(&layout::program(function)))?;
        for map in maps.into_iter().flatten() {
            for program in [Some(program), own.as_ref()].into_iter().flatten() {
                detach_program(program, map)?;
            }
        }
        Ok(())
    }
}

/// Detaches a program from a map, if the map holds it without a link.
pub(super) fn detach_program(program: &Fd, map: &Fd) -> Result<(), SysError> {
    for attach_type in map_attachment::attach_types(info::program(program.as_fd())?.prog_type) {
        bpf::map_detach(program.as_fd(), map.as_fd(), attach_type)?;
    }
    Ok(())
}
