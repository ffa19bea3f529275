//! Reads everything that one BpfProgram has: its home on bpffs, and what only the agent's own descriptors still hold.

use std::{collections::BTreeSet, path::PathBuf};

use super::{attached::QueryCache, reader::Reader};
use crate::{
    kernel::{SysError, bpffs::Dir, cgroup::Root},
    model::{
        observed::{AttachSite, LinkKey, Observed, ObservedMap},
        pin_names::PinNames,
        trial::Trial,
    },
    node::{
        handles::Handles,
        layout::{self, Home, STAGING},
        open_home::OpenHome,
    },
    plan::Step,
};

/// How often a home is listed and read before a pin that vanishes in between counts as an error.
const ATTEMPTS: usize = 4;

/// Reads one home, and what only the agent still holds. If others remove pins between the listing and the read, the
/// home is listed again.
pub fn home(home: &Home, root: &Root, queries: &QueryCache, handles: &mut Handles) -> Result<Observed, SysError> {
    for _ in 1..ATTEMPTS {
        match list_and_read(home, root, queries, handles) {
            Err(error) if error.is_not_found() => {}
            observed => return observed,
        }
    }
    list_and_read(home, root, queries, handles)
}

fn list_and_read(home: &Home, root: &Root, queries: &QueryCache, handles: &mut Handles) -> Result<Observed, SysError> {
    let home = OpenHome::open(home, root)?;
    let names = list(&home.dir)?;
    if names.is_none() && handles.is_empty() {
        return Ok(Observed::default());
    }
    Reader::new(&home, queries, handles).read(&names.unwrap_or_default())
}

/// A plan whose steps were all executed.
#[derive(Debug)]
pub struct ExecutedPlan<'a> {
    /// What there was before it.
    pub before: &'a Observed,
    /// The steps.
    pub steps: &'a [Step],
    /// The descriptors of what the steps created and pinned.
    pub pinned: Handles,
}

/// Reads one home after a plan, without listing directories: the plan tells which pins there are. If the steps only
/// attach to cgroups, detach from them and note kept pods, only these links and notes are read. If an expected pin is
/// missing, everything is listed and read. The next full observation finds whatever else came meanwhile.
pub fn after(
    home: &OpenHome<'_>,
    plan: ExecutedPlan<'_>,
    queries: &QueryCache,
    handles: &mut Handles,
) -> Result<Observed, SysError> {
    let ExecutedPlan { before, steps, pinned } = plan;
    let mut reader = Reader::new(home, queries, handles).with_pinned(pinned);
    // Once nothing is attached any more, the sockets in the maps are counted.
    let detaches = steps.iter().any(|step| matches!(step, Step::Detach(_)));
    let counts = detaches && before.maps.values().any(ObservedMap::holds_sockets);
    let read = match steps.iter().all(is_about_cgroups) && !counts {
        true => reader.reread(before, steps),
        false => reader.read(&PinNames::of(before).after(steps)),
    };
    match read {
        Err(error) if error.is_not_found() => self::home(home.paths, home.root, queries, handles),
        observed => observed,
    }
}

/// Returns whether a step changes nothing but a link to a cgroup or the note of a kept pod.
fn is_about_cgroups(step: &Step) -> bool {
    match step {
        Step::Attach { site, .. } => matches!(site, AttachSite::Cgroup(_)),
        Step::Detach(key) => key.map().is_none(),
        Step::KeepPod { .. } | Step::ForgetPod(_) => true,
        _ => false,
    }
}

/// Lists the notes and pins of a home; `None` if there is no home.
fn list(dir: &Dir) -> Result<Option<PinNames>, SysError> {
    if !dir.exists() {
        return Ok(None);
    }
    let notes = dir.list(&layout::meta())?;
    let mut links = BTreeSet::new();
    for function in dir.list(&layout::links())? {
        let places = dir.list(&layout::links_of(&function))?;
        links.extend(places.into_iter().map(|place| LinkKey { function: function.clone(), place }));
    }
    let names = PinNames {
        uid: dir.read_note(&layout::uid())?,
        revision: dir.read_note(&layout::revision())?,
        trial: dir.read_note(&layout::trial())?.as_deref().and_then(Trial::parse),
        functions: dir.list(&layout::programs())?.into_iter().collect(),
        maps: dir.list(&layout::maps())?.into_iter().collect(),
        links,
        kept_pods: notes.iter().filter_map(|note| layout::parse_kept_pod(note)).collect(),
        retained: notes.iter().filter_map(|note| layout::retained(note)).map(str::to_owned).collect(),
        shared: notes.iter().filter_map(|note| layout::shared(note)).map(str::to_owned).collect(),
        recorded: notes.iter().filter_map(|note| layout::recorded(note)).map(str::to_owned).collect(),
        force_detach: dir.contains(&layout::force_detach())?,
        stray: notes.iter().any(|name| name == STAGING),
    };
    // Only an agent that was killed leaves something at the staging place, or an empty home.
    let stray = names.stray || names == PinNames::default();
    Ok(Some(PinNames { stray, ..names }))
}

/// The directories in which something happens if somebody changes a home.
pub fn directories(home: &Home, observed: &Observed) -> Vec<PathBuf> {
    let functions = observed.links.keys().map(|key| layout::links_of(&key.function));
    let all = [layout::meta(), layout::maps(), layout::programs()].into_iter().chain(functions);
    all.map(|directory| home.directory().join(directory)).collect()
}
