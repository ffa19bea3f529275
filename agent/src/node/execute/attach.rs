//! Attaches programs: creates, moves and updates links. `attach_map` has the part for maps.

use std::os::fd::{AsFd as _, OwnedFd};

use super::{
    executor::Executor,
    progress::{Progress, Undo},
};
use crate::{
    kernel::{
        Fd, SysError,
        bpf::{self, Position},
        facts, info,
    },
    model::{
        kernel::Cgroup,
        observed::{AttachSite, LinkKey},
    },
    node::{
        attach_failure::{AttachPoint, EpermCause},
        failure::Failure,
        handles::LinkHandle,
        layout, observe,
    },
    plan::order::Neighbour,
};

/// A function's program, ready to be attached.
pub(super) struct Attachable<'a> {
    pub function: &'a str,
    pub program: Fd,
    pub attach_type: u32,
}

impl Executor<'_> {
    /// Attaches a function to a cgroup, before other links if any are named, or to a map.
    pub(super) fn attach(
        &self,
        function: &str,
        site: &AttachSite,
        before: &[Neighbour],
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let attach_type = self.attach_type(function)?;
        let program = match progress.loaded.programs.get(function) {
            Some(fd) => Fd::clone(fd),
            None => self.home.dir.get(&layout::program(function))?,
        };
        let attachable = Attachable { function, program, attach_type };
        match site {
            AttachSite::Cgroup(cgroup) => self.attach_to_cgroup(&attachable, cgroup, before, progress),
            AttachSite::Map(pin) => self.attach_to_map(&attachable, pin, progress),
        }?;
        progress.created_links.insert(LinkKey::to(function, site));
        progress.attached += 1;
        Ok(())
    }

    fn attach_to_cgroup(
        &self,
        attachable: &Attachable<'_>,
        cgroup: &Cgroup,
        before: &[Neighbour],
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let link = self.create_link(attachable, cgroup, before)?;
        let key = LinkKey::at(attachable.function, cgroup);
        self.note(&layout::cgroup(&key.place), &cgroup.path)?;
        if self.is_new && !progress.created_links.iter().any(|link| link.function == key.function) {
            self.home.dir.make_dir(&layout::links_of(&key.function))?;
        }
        let replaced = self.pin(&link, &layout::link(&key.function, &key.place))?;
        progress.undo.push(match replaced {
            Some(former) => {
                progress.replaced_links.push((key.clone(), Fd::clone(&former)));
                Undo::RepinLink(key.clone(), former)
            }
            None => Undo::Detach(key.clone()),
        });
        // The kernel's ID of the link is read with the rest of its info.
        progress.pinned.links.insert(key, LinkHandle::to_cgroup(link, 0, Some(cgroup.path.clone())));
        Ok(())
    }

    fn create_link(&self, attachable: &Attachable<'_>, cgroup: &Cgroup, before: &[Neighbour]) -> Result<Fd, Failure> {
        let directory = self.home.root.open(&cgroup.path)?;
        let before: Vec<Fd> = before.iter().filter_map(|before| self.open_neighbour(before)).collect();
        create_link_before(attachable, &directory, &before).map(Fd::from).map_err(|error| {
            let point = AttachPoint::Cgroup { function: attachable.function, path: &cgroup.path };
            Failure::attach(point, &error, &self.eperm_cause(&cgroup.path, attachable.attach_type))
        })
    }

    fn attach_type(&self, function: &str) -> Result<u32, Failure> {
        let desired = self.execution.desired.and_then(|desired| desired.functions.get(function));
        let missing = || Failure::internal(format!("program {function} is not desired"));
        Ok(desired.ok_or_else(missing)?.kind.attach_type)
    }

    /// Opens a link that another is to run before, unless its pin is gone.
    fn open_neighbour(&self, Neighbour { program, key, .. }: &Neighbour) -> Option<Fd> {
        let path = layout::in_home_of(program, &layout::link(&key.function, &key.place));
        self.home.dir.get(&path).inspect_err(|error| tracing::debug!(%error, "can't open the link to run before")).ok()
    }

    /// Moves a link to another place in its cgroup's order. The new link is created first, so that the program always
    /// runs; it runs twice until the old link is detached.
    pub(super) fn move_link(
        &self,
        key: &LinkKey,
        cgroup: &Cgroup,
        before: &[Neighbour],
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let attach_type = self.attach_type(&key.function)?;
        let path = layout::link(&key.function, &key.place);
        let (old, program) = (self.home.dir.get(&path)?, self.home.dir.get(&layout::program(&key.function))?);
        let attachable = Attachable { function: &key.function, program, attach_type };
        let link = self.create_link(&attachable, cgroup, before).map_err(|failure| Failure {
            message: format!("the program runs, but not in the order of priorities: {}", failure.message),
            ..failure
        })?;
        self.pin_over(&link, &path)?;
        bpf::link_detach(old.as_fd())?;
        progress.attached += 1;
        progress.executed.moved += 1;
        Ok(())
    }

    /// Switches a link, or a map without one, to the function's pinned program.
    pub(super) fn update(&self, key: &LinkKey, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let link = self.home.dir.get(&layout::link(&key.function, &key.place))?;
        let program = self.home.dir.get(&layout::program(&key.function))?;
        if let Some(pin) = key.map()
            && info::is_program(link.as_fd())?
        {
            progress.undo.push(Undo::ReplaceBack(key.clone(), link));
            progress.attached += 1;
            return self.replace_on_map(key, pin, &program, progress.handles);
        }
        let runs = info::link(link.as_fd())?.program_id;
        // The former program is not at hand if an agent replaced its pin and was killed before it updated the link.
        let former = progress.replaced_programs.get(&key.function).filter(|former| former.id == runs);
        let expected = former.map(|former| &former.fd);
        match bpf::link_update(link.as_fd(), program.as_fd(), expected.map(|fd| fd.as_fd())) {
            // The cgroup is gone. If there is a new one at its path, the next plan gives it a link of its own.
            Err(error) if error.errno() == Some(libc::ENOLINK) => {
                drop(link);
                return Ok(self.detach(key, progress.handles)?);
            }
            updated => {
                updated.map_err(|error| Failure::attach(AttachPoint::of(key), &error, &EpermCause::LinkChanged))?;
            }
        }
        if let Some(fd) = expected {
            progress.undo.push(Undo::UpdateBack(key.clone(), Fd::clone(fd)));
        }
        progress.attached += 1;
        Ok(())
    }

    /// Finds the cause of an EPERM at a cgroup.
    fn eperm_cause(&self, path: &str, attach_type: u32) -> EpermCause {
        match own_eperm_cause() {
            EpermCause::Unknown => match observe::exclusive_attachment(self.home.root, path, attach_type) {
                Ok(Some(exclusive)) => EpermCause::ExclusiveAttachment(exclusive),
                _ => EpermCause::Unknown,
            },
            own => own,
        }
    }
}

/// A position is looked for this many times in a list that others change meanwhile.
const TRIES: usize = 8;

/// Creates a link right before the first of some others that is attached; at the end if none is.
///
/// The kernel takes the link only while the list of attachments is as it was read, so that no other writer comes in
/// between. Others who change the list again and again keep no program off: at last it is attached to whatever list
/// there is, and the next plan moves it if it is misplaced.
fn create_link_before(attachable: &Attachable<'_>, cgroup: &OwnedFd, before: &[Fd]) -> Result<OwnedFd, SysError> {
    let Attachable { function, program: _, attach_type } = attachable;
    if before.is_empty() {
        return create_link_at(attachable, cgroup, before, 0);
    }
    for _ in 0..TRIES {
        let revision = bpf::prog_query(cgroup.as_fd(), *attach_type)?.revision;
        match create_link_at(attachable, cgroup, before, revision) {
            Err(error) if error.errno() == Some(libc::ESTALE) => {
                tracing::info!(function, revision, "others changed what is attached to the cgroup: looking again");
            }
            created => return created,
        }
    }
    create_link_at(attachable, cgroup, before, 0)
}

/// Creates a link in the list of a revision, or of any if that is zero.
fn create_link_at(
    Attachable { function: _, program, attach_type }: &Attachable<'_>,
    cgroup: &OwnedFd,
    before: &[Fd],
    revision: u64,
) -> Result<OwnedFd, SysError> {
    let create = |before: Option<&Fd>| {
        let position = Position { before: before.map(|fd| fd.as_fd()), revision };
        bpf::link_create(program.as_fd(), cgroup.as_fd(), *attach_type, position)
    };
    for link in before {
        match create(Some(link)) {
            // It is detached.
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            created => return created,
        }
    }
    create(None)
}

/// The cause of an EPERM, as far as it is the agent's own.
pub(super) fn own_eperm_cause() -> EpermCause {
    match facts::lacking_capabilities() {
        Ok(missing) if !missing.is_empty() => EpermCause::MissingCapabilities(missing),
        _ => EpermCause::Unknown,
    }
}
