//! Execute: the one interpreter of [`Step`]s. Does IO, in the order given, and stops at the first refusal; what it had
//! made visible by then is undone in reverse, so that a revision that fails leaves what was there before it.
//!
//! Pods' cgroups are many, and each is its own matter: one that goes meanwhile is passed over, and what is refused at one
//! keeps nothing from the others. Whatever this run had attached there is undone.
//!
//! | file | what |
//! |---|---|
//! | this one | what is made: loads, pins, notes |
//! | `attach` | attachments and updates, to cgroups and to maps |
//! | `write` | notes and pins as they are written, over what is there or again |
//! | `remove` | what is taken away |
//! | `undo` | the inverse of what was done |

mod attach;
mod remove;
mod undo;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    os::fd::AsFd as _,
    path::PathBuf,
};

use sockeye_crds::program::MapRef;
use sockeye_ebpf::values::settings::Settings;

use crate::{
    failure::Failure,
    held::{LinkKey, Site},
    host::Order,
    kept::{Kept, KeptProgram, Previous},
    kernel::{
        Fd, SysError,
        bpffs::{self, Dir},
        cgroup::Cgroup,
        cgroup::Root,
        info::{self, MapInfo},
        load::{self, Loaded, MapSource, Request},
    },
    layout::{self, Home, Origin, Trial, Verdict},
    plan::Step,
};
use remove::take_off;
use undo::Undo;

/// What a plan gave that no pin tells.
#[derive(Debug, Default)]
pub struct Executed {
    /// Maps that were created and are not pinned, by name: what no program uses of these is gone.
    pub unpinned: BTreeMap<String, MapInfo>,
    /// What was refused at single pods' cgroups, by their paths.
    pub refused: BTreeMap<String, Failure>,
    /// How many links were attached anew to stand elsewhere among others.
    pub moved: usize,
    /// Why something of what is to go is still there, where everything else was done.
    pub left: Option<Failure>,
}

/// Executes one plan.
pub struct Executor<'a> {
    home: &'a Home,
    /// The home, from which what is in it is named.
    dir: Dir,
    /// Whether it was made for this plan.
    is_new: bool,
    root: &'a Root,
    order: &'a Order<'a>,
}

/// What has been done so far: the descriptors that later steps need, and how to undo it.
struct Progress<'a> {
    kept: &'a mut Kept,
    executed: Executed,
    loaded: Loaded,
    /// What is pinned and was made for it.
    made: Kept,
    /// Programs whose pins were replaced, with the load each came from: what links ran until now.
    replaced: BTreeMap<String, KeptProgram>,
    /// Links whose pins were replaced by other links', and which are to end once there is no way back.
    replaced_links: Vec<(LinkKey, Fd)>,
    /// Programs that maps hold without a link, and these maps, in whose places others are pinned: to be taken off likewise.
    replaced_on_maps: Vec<(Fd, Fd)>,
    /// Where what is attached goes on trial, and what there was may be gone back to: the links of that.
    former: Option<BTreeSet<LinkKey>>,
    /// Where links were made.
    made_at: BTreeSet<LinkKey>,
    /// How many links were made, moved or updated.
    attached: usize,
    undo: Vec<Undo>,
}

impl<'a> Executor<'a> {
    /// For a plan, and what its steps need, at a BpfProgram's home, which is made where the plan claims it and it is not there;
    /// cgroups are those below the node's root.
    pub fn new(home: &'a Home, root: &'a Root, order: &'a Order<'a>) -> Result<Self, SysError> {
        let claims = order.steps.iter().any(|step| matches!(step, Step::Claim { .. }));
        let is_new = claims && bpffs::ANYWHERE.make_dir(home.directory())?;
        Ok(Self { home, dir: Dir::at(home.directory())?, is_new, root, order })
    }

    /// The home.
    pub const fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Executes the steps; gives descriptors of what it made and pinned too.
    pub fn execute(&self, kept: &mut Kept) -> Result<(Executed, Kept), Failure> {
        let mut progress = Progress {
            kept,
            executed: Executed::default(),
            loaded: Loaded::default(),
            made: Kept::default(),
            replaced: BTreeMap::new(),
            replaced_links: Vec::new(),
            replaced_on_maps: Vec::new(),
            former: None,
            made_at: BTreeSet::new(),
            attached: 0,
            undo: Vec::new(),
        };
        // What goes comes last: all that is wanted is made by then, and stays.
        let making = self.order.steps.iter().rposition(|step| !removes(step)).map_or(0, |last| last + 1);
        let (making, removing) = self.order.steps.split_at(making);
        let made = making.iter().try_for_each(|step| self.make(step, &mut progress));
        if let Err(failure) = made.and_then(|()| self.attached_somewhere(&mut progress)) {
            self.undo(progress);
            return Err(failure);
        }
        let replaced = self.end_replaced(&mut progress);
        let removed = replaced.and_then(|()| removing.iter().try_for_each(|step| self.step(step, &mut progress)));
        if let Err(failure) = removed {
            tracing::warn!(%failure, "what is to go is still there");
            progress.executed.left = Some(Failure { partial: true, ..failure });
        }
        Ok((progress.executed, progress.made))
    }

    /// Takes a step. What is refused at a pod's cgroup is undone there, and that is all.
    fn make(&self, step: &Step, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let pod = self.pods_cgroup(step);
        if pod.is_some_and(|cgroup| progress.executed.refused.contains_key(&cgroup.path)) {
            return Ok(());
        }
        let Err(failure) = self.step(step, progress) else { return Ok(()) };
        match pod {
            Some(cgroup) if self.is_gone(cgroup) => self.undo_at(cgroup, progress),
            Some(cgroup) => {
                tracing::warn!(?step, %failure, "step refused: undoing what this run made there");
                self.undo_at(cgroup, progress);
                progress.executed.refused.insert(cgroup.path.clone(), failure);
            }
            None => {
                tracing::warn!(?step, %failure, "step refused: undoing what this run made");
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Another revision that could be attached nowhere takes no other's place, and what was loaded for nothing goes.
    fn attached_somewhere(&self, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let Order { steps, .. } = self.order;
        let is_another = steps.iter().any(|step| matches!(step, Step::SetRevision(Some(_))));
        let stays = |key: &LinkKey| !steps.iter().any(|step| matches!(step, Step::Detach(other) if other == key));
        let loads = !progress.loaded.programs.is_empty();
        let stands = progress.attached > 0 || !loads && progress.kept.links.keys().any(stays);
        if stands || !(loads || is_another) {
            return Ok(());
        }
        progress.executed.refused.pop_first().map_or(Ok(()), |(_, failure)| Err(failure))
    }

    /// Everything is made: what was replaced ends.
    fn end_replaced(&self, progress: &mut Progress<'_>) -> Result<(), Failure> {
        for (key, link) in progress.replaced_links.drain(..) {
            self.let_go(&key, &link, progress.kept)?;
        }
        Ok(progress.replaced_on_maps.drain(..).try_for_each(|(program, map)| take_off(&program, &map))?)
    }

    /// The cgroup that a step attaches to, where it is a pod's.
    fn pods_cgroup<'s>(&self, step: &'s Step) -> Option<&'s Cgroup> {
        let (function, cgroup) = match step {
            Step::Attach { function, site: Site::Cgroup(cgroup), .. } => (function, cgroup),
            Step::Move { key, cgroup, .. } => (&key.function, cgroup),
            _ => return None,
        };
        let wanted = self.order.wanted?.functions.get(function)?;
        wanted.paths.get(&cgroup.path)?.as_ref().map(|_| cgroup)
    }

    fn is_gone(&self, cgroup: &Cgroup) -> bool {
        self.root.cgroup(&cgroup.path).map_or_else(|error| error.is_not_found(), |now| now.id != cgroup.id)
    }

    fn step(&self, step: &Step, progress: &mut Progress<'_>) -> Result<(), Failure> {
        tracing::debug!(home = %self.home.directory().display(), ?step);
        match step {
            Step::RemoveStray => Ok(self.dir.remove(&layout::staging())?),
            Step::Claim { uid } => self.claim(uid, progress),
            Step::Load { reuse, shared } => self.load(reuse, shared, progress),
            Step::ForgetLoad(function) => Ok(self.remove_note(layout::origin(function), &mut progress.undo)?),
            Step::Retain(pin) => Ok(self.set_note(layout::retention(pin), "Retain", &mut progress.undo).map(drop)?),
            Step::Release(pin) => Ok(self.remove_note(layout::retention(pin), &mut progress.undo)?),
            Step::PinMap(name) => self.pin_map(name, None, progress),
            Step::ShareMap { name, from } => self.pin_map(name, Some(from), progress),
            Step::PinProgram(function) => self.pin_program(function, progress),
            Step::Attach { function, site, before } => self.attach(function, site, before.as_ref(), progress),
            Step::Move { key, cgroup, before } => self.move_link(key, cgroup, before.as_ref(), progress),
            Step::Update(key) => self.update(key, progress),
            Step::SetRevision(Some(revision)) => self.set_revision(revision, progress),
            Step::SetRevision(None) => Ok(self.forget_revision(progress.kept)?),
            Step::SetTrial(trial) => self.set_trial(trial, progress),
            Step::Restore(function) => self.restore(function, progress.kept),
            Step::RepinProgram(function) => self.repin_program(function, progress.kept),
            Step::RepinMap(pin) => self.repin_map(pin, progress.kept),
            Step::RepinLink(key) => self.repin_link(key, progress.kept),
            Step::Detach(key) => Ok(self.detach(key, progress.kept)?),
            Step::UnpinProgram(function) => Ok(self.unpin_program(function, progress.kept)?),
            Step::UnpinMap(pin) => Ok(self.unpin_map(pin, progress.kept)?),
            Step::Leave => Ok(self.leave()?),
        }
    }

    fn claim(&self, uid: &str, progress: &mut Progress<'_>) -> Result<(), Failure> {
        if self.is_new {
            progress.undo.push(Undo::Leave);
        }
        for dir in [layout::meta(), layout::maps(), layout::programs(), layout::links()] {
            self.dir.make_dir(&dir)?;
        }
        self.note(&layout::uid(), uid)?;
        Ok(())
    }

    fn load(
        &self,
        reuse: &BTreeSet<String>,
        shared: &BTreeMap<String, MapRef>,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let (Some(wanted), Some(bytes)) = (self.order.wanted, self.order.bytes) else {
            return Err(Failure::internal("a load was planned without an object to load"));
        };
        let settings = Settings::read(bytes, &wanted.globals, &wanted.settings)
            .map_err(|error| Failure::new(error.reason(), error.to_string()))?;
        let mut request = Request { settings, ..Request::default() };
        for (name, map) in &wanted.maps {
            let source = if let Some(MapRef { program, map }) = shared.get(name) {
                MapSource::Reuse(self.dir.get(&layout::beside(program, &layout::map(map)))?)
            } else if reuse.contains(&map.pin_name) {
                MapSource::Reuse(self.dir.get(&layout::map(&map.pin_name))?)
            } else {
                MapSource::Create { value_size: map.shape.value_size, max_entries: map.shape.max_entries }
            };
            request.maps.insert(name, source);
        }
        request.programs.extend(wanted.functions.iter().map(|(name, function)| (name.as_str(), function.kind)));
        let loaded = load::load(bytes, request, self.order.kernel_btf)?;
        for (name, fd) in &loaded.maps {
            if wanted.maps.get(name).is_some_and(|map| !map.pin) {
                progress.executed.unpinned.insert(name.clone(), info::map(fd.as_fd())?);
            }
        }
        progress.loaded = loaded;
        Ok(())
    }

    /// Pins a map that is this BpfProgram's own, or another's. The note on whose it is stands for as long as the other's may be
    /// what is pinned.
    fn pin_map(&self, name: &str, from: Option<&MapRef>, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let fd =
            progress.loaded.maps.get(name).ok_or_else(|| Failure::internal(format!("map {name} was not loaded")))?;
        let pin = sockeye_crds::names::pin_name(name);
        if let Some(from) = from {
            self.set_note(layout::source(&pin), &layout::source_note(from), &mut progress.undo)?;
        }
        let replaced = self.pin(fd, &layout::map(&pin))?;
        progress.made.maps.insert(pin.clone(), Fd::clone(fd));
        progress.undo.push(match replaced {
            Some(fd) => Undo::RepinMap(pin.clone(), fd),
            None => Undo::UnpinMap(pin.clone()),
        });
        if from.is_none() && !self.is_new {
            self.remove_note(layout::source(&pin), &mut progress.undo)?;
        }
        Ok(())
    }

    fn pin_program(&self, function: &str, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let missing = || Failure::internal(format!("program {function} was not loaded"));
        let fd = progress.loaded.programs.get(function).ok_or_else(missing)?;
        let load_key = self.order.wanted.map(|wanted| wanted.load_key.clone()).ok_or_else(missing)?;
        // The note first: a pin whose note is of another program counts as one whose load is not known.
        let origin = Origin { load_key, program_id: info::program_id(fd.as_fd())? };
        let made = Fd::clone(fd);
        self.set_note(layout::origin(function), &origin.note(), &mut progress.undo)?;
        let replaced = self.pin(fd, &layout::program(function))?;
        progress.undo.push(match replaced {
            Some(fd) => {
                let id = info::program_id(fd.as_fd())?;
                let kept = progress.kept.programs.get(function).filter(|kept| kept.id == id);
                let load_key = kept.and_then(|kept| kept.load_key.clone());
                let before = KeptProgram { fd: Fd::clone(&fd), id, load_key };
                progress.replaced.insert(function.to_owned(), before);
                Undo::RepinProgram(function.to_owned(), fd)
            }
            None => Undo::UnpinProgram(function.to_owned()),
        });
        let made = KeptProgram { fd: made, id: origin.program_id, load_key: Some(origin.load_key) };
        progress.made.programs.insert(function.to_owned(), made);
        Ok(())
    }

    /// The note on what is in effect. What ran before it is kept while the new one is on trial.
    fn set_revision(&self, revision: &str, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let revision = self.set_note(layout::revision(), revision, &mut progress.undo)?;
        let Progress { kept, loaded, replaced, former, made_at, .. } = progress;
        if let (Some(links), Some(_)) = (former.take(), &revision) {
            kept.previous = Some(Previous { revision, programs: BTreeMap::new(), links });
        }
        if let Some(previous) = &mut kept.previous {
            previous.give_way(mem::take(replaced), &loaded.programs, made_at);
        }
        Ok(())
    }

    /// Nothing is in effect any more, and nothing on trial.
    fn forget_revision(&self, kept: &mut Kept) -> Result<(), SysError> {
        kept.previous = None;
        self.dir.remove(&layout::trial())?;
        self.dir.remove(&layout::revision())
    }

    /// The note on a trial. What has not stood its own is nothing to go back to; what ran before that still is.
    fn set_trial(&self, trial: &Trial, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let before =
            self.set_note(layout::trial(), &trial.note(), &mut progress.undo)?.as_deref().and_then(Trial::parse);
        let was_open = before.as_ref().is_some_and(|before| before.verdict.is_open());
        let has_stood = match before {
            None | Some(Trial { verdict: Verdict::Passed, .. }) => true,
            Some(before) => !was_open && self.dir.read_note(&layout::revision())? != Some(before.revision),
        };
        let links = &progress.kept.links;
        progress.former = (trial.verdict.is_open() && has_stood).then(|| links.keys().cloned().collect());
        if !(was_open && trial.verdict.is_open()) {
            progress.kept.previous = None;
        }
        Ok(())
    }

    /// Writes a note, and has that undone with all the rest; gives what was there.
    fn set_note(&self, path: PathBuf, text: &str, undo: &mut Vec<Undo>) -> Result<Option<String>, SysError> {
        let before = self.note(&path, text)?;
        undo.push(Undo::RestoreNote(path, before.clone()));
        Ok(before)
    }

    /// Removes one, where there is one, likewise.
    fn remove_note(&self, path: PathBuf, undo: &mut Vec<Undo>) -> Result<(), SysError> {
        if let Some(before) = self.dir.read_note(&path)? {
            self.dir.remove(&path)?;
            undo.push(Undo::RestoreNote(path, Some(before)));
        }
        Ok(())
    }
}

/// Whether a step takes away what is not wanted any more, or ends a trial.
const fn removes(step: &Step) -> bool {
    matches!(
        step,
        Step::Detach(_)
            | Step::UnpinProgram(_)
            | Step::UnpinMap(_)
            | Step::SetTrial(Trial { verdict: Verdict::Passed, .. })
    )
}
