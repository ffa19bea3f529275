//! `Track`: one BpfProgram on this node, over time: what it is to have, what it has, why these differ, when to try again.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use sockeye_crds::{
    BpfRevision, Reason,
    node::{Drift, State},
    program::{DEFAULT_PRIORITY, MapRef},
};

use crate::{
    drift::{self, Seen},
    failure::Failure,
    held::{Held, HeldMap},
    kernel::{facts::Machine, info::MapInfo},
    pods::Needs,
    shape::Shape,
    wanted::Wanted,
};

/// The first wait after a failure; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Bytes that are not there yet are asked for again so soon; that costs nothing, for they are fetched elsewhere.
const BYTES_WAIT: Duration = Duration::from_secs(2);
/// What others undo is repaired at once so often.
const AT_ONCE: u32 = 3;
/// After so long without being undone, it is repaired at once again.
const CALM: Duration = Duration::from_secs(600);

/// How often others have undone what was in effect, lately.
#[derive(Clone, Debug, Default)]
struct Undone {
    times: u32,
    last: Option<Instant>,
}

impl Undone {
    /// Once more; how long to wait with the repair.
    fn again(&mut self, now: Instant) -> Duration {
        if self.last.is_none_or(|last| now.duration_since(last) > CALM) {
            self.times = 0;
        }
        self.times = self.times.saturating_add(1);
        self.last = Some(now);
        match self.times.saturating_sub(AT_ONCE) {
            0 => Duration::ZERO,
            more => wait(more - 1),
        }
    }
}

fn wait(failures: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT)
}

/// One BpfProgram on this node.
#[derive(Clone, Debug, Default)]
pub struct Track {
    /// The BpfProgram's UID, where it is wanted.
    pub uid: Option<String>,
    /// The wanted revision; absent once the BpfProgram is to have nothing here.
    pub revision: Option<String>,
    /// What that revision comes to on this node; absent where that can't be told.
    pub wanted: Option<Arc<Wanted>>,
    /// Where that is to run among others.
    priority: Option<i64>,
    /// What is there, as last observed.
    pub held: Held,
    /// Whether planning from what is there to what is wanted gives nothing to do.
    pub settled: bool,
    /// Why what is there is not what is wanted.
    pub failure: Option<Failure>,
    /// Why it is attached nowhere, where someone has said so.
    pub suspended: Option<String>,
    /// Maps of the last load that are not pinned, by name; what no program uses of these went with the loader.
    pub unpinned: BTreeMap<String, MapInfo>,
    /// What its maps may hold, once it has been asked for.
    map_bytes: Option<MapBytes>,
    /// Where it has device programs, one of others' at or below each place, by the place's path: where that is, and its ID.
    pub devices: BTreeMap<String, (String, u32)>,
    /// How many of its links were attached anew, since the agent started, to stand elsewhere among others.
    pub moved: usize,
    /// What others did to it lately.
    pub drift: Vec<Drift>,
    /// Whether something may have happened to it since it was last observed.
    pub stirred: bool,
    /// Whether another revision is wanted than at the last attempt.
    pub changed: bool,
    /// The revision as it was told: told again, it is the same without a look into it.
    told: Option<Arc<BpfRevision>>,
    gist: Gist,
    /// The revision that came into effect last, as it was told, after the one that can be gone back to from it: whichever is in
    /// effect goes on where a newer one fails.
    good: Vec<(Arc<BpfRevision>, Gist)>,
    /// Whether it was ever observed.
    pub observed: bool,
    undone: Undone,
    /// When what others have undone again and again may be repaired.
    repair_at: Option<Instant>,
    /// Whether it was ever told what is wanted: a home found at start has to be looked at, wanted or not.
    seen: bool,
    failures: u32,
    retry_at: Option<Instant>,
}

/// What the maps of one BpfProgram may hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct MapBytes {
    /// Bytes, of those that are no other BpfProgram's.
    pub own: u64,
    /// Whether any is.
    pub shares: bool,
}

/// What of a revision is asked of every BpfProgram in every pass.
#[derive(Clone, Copy, Debug, Default)]
struct Gist {
    needs: Needs,
    priority: Option<i64>,
    shares: bool,
}

impl Gist {
    fn of(revision: &BpfRevision) -> Self {
        let spec = &revision.spec;
        Self {
            needs: Needs::of(spec.cgroup_targets()),
            priority: Some(spec.priority.unwrap_or(DEFAULT_PRIORITY)),
            shares: spec.maps.iter().any(|map| map.from.is_some()),
        }
    }
}

/// What a BpfProgram has as a map that others may share, as last observed.
pub fn shared<'a>(tracks: &'a BTreeMap<String, Track>, MapRef { program, map }: &MapRef) -> Option<&'a HeldMap> {
    tracks.get(program)?.held.maps.get(map)
}

/// Whose a map is, where it is another BpfProgram's and that one still has it.
pub fn owned<'a>(tracks: &BTreeMap<String, Track>, map: &'a HeldMap) -> Option<&'a MapRef> {
    map.from.as_ref().filter(|from| shared(tracks, from).is_some_and(|theirs| theirs.info.id == map.info.id))
}

impl Track {
    /// Whether anything is to be here.
    pub const fn is_wanted(&self) -> bool {
        self.revision.is_some()
    }

    /// How it stands.
    pub fn state(&self) -> State {
        match (&self.revision, &self.failure) {
            (None, _) => State::Removing,
            (Some(_), None) if self.settled && self.suspended.is_some() && self.held.links.is_empty() => {
                State::Suspended
            }
            (Some(_), None) if self.settled && self.held.links.values().all(|link| link.in_effect) => State::Attached,
            (Some(_), _) => State::Failed,
        }
    }

    /// Notes what an attempt came to, and when to try again.
    pub fn outcome(&mut self, outcome: Result<(), Failure>, now: Instant) {
        let told = self.told.as_ref().filter(|told| told.metadata.name == self.held.revision);
        if outcome.as_ref().err().is_none_or(|failure| failure.partial)
            && let Some(told) = told
        {
            let former = self.held.previous.as_ref().and_then(|former| former.revision.as_ref());
            self.good.retain(|(good, _)| former.is_some() && good.metadata.name.as_ref() == former);
            self.good.push((Arc::clone(told), self.gist));
        }
        match outcome {
            Ok(()) => {
                self.failure = None;
                self.failures = 0;
                self.retry_at = None;
                self.repair_at = None;
            }
            Err(failure) => {
                self.settled = false;
                let wait = match failure.reason {
                    Reason::BytecodeUnavailable => BYTES_WAIT,
                    _ => wait(self.failures),
                };
                self.failure = Some(failure);
                if self.repair_at.is_none_or(|at| at <= now) {
                    self.retry_at = Some(now + wait);
                    self.failures = self.failures.saturating_add(1);
                    self.repair_at = None;
                }
            }
        }
    }

    /// Takes the wanted revision. What failed before says nothing about another one.
    pub fn take(&mut self, revision: Option<&Arc<BpfRevision>>) {
        if let (Some(told), Some(revision)) = (&self.told, revision)
            && Arc::ptr_eq(told, revision)
        {
            return;
        }
        let name = revision.and_then(|r| r.metadata.name.as_deref());
        if name != self.revision.as_deref() || (name.is_none() && !self.seen) {
            self.failures = 0;
            self.retry_at = None;
            self.revision = name.map(str::to_owned);
            // A revision's name says all of it, its BpfProgram's UID too.
            self.uid = revision.map(|r| r.spec.program.uid.clone());
            self.changed = true;
        }
        self.seen = true;
        self.gist = revision.map(|revision| Gist::of(revision)).unwrap_or_default();
        self.told = revision.cloned();
    }

    /// Takes what the revision comes to on this node.
    pub fn want(&mut self, wanted: Option<Arc<Wanted>>) {
        self.priority = wanted.as_ref().map(|wanted| wanted.priority);
        self.wanted = wanted;
    }

    /// What has to be known of pods for what is wanted.
    pub const fn needs(&self) -> Needs {
        self.gist.needs
    }

    /// And for what goes on until that is in effect.
    pub fn needs_in_all(&self) -> Needs {
        self.good.iter().fold(self.gist.needs, |needs, (_, gist)| needs.and(gist.needs))
    }

    /// The revision that goes on running, where the wanted one is another and fails, and what has to be known of pods for it.
    pub fn last_good(&self) -> Option<(Arc<BpfRevision>, Needs)> {
        let fails = self.failure.as_ref().is_some_and(|failure| !failure.partial);
        let (good, gist) = self.good.iter().find(|(good, _)| good.metadata.name == self.held.revision)?;
        let told = self.told.as_ref()?;
        let goes_on = fails
            && self.suspended.is_none()
            && self.repair_at.is_none()
            && good.spec.program.uid == told.spec.program.uid
            && good.metadata.name != told.metadata.name
            && !told.spec.suspend;
        goes_on.then(|| (Arc::clone(good), gist.needs))
    }

    /// Whether there is one.
    pub fn goes_on(&self) -> bool {
        self.last_good().is_some()
    }

    /// Whether `wanted` waits for a cgroup that is named by its place.
    pub fn waits_for_cgroup(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.reason == Reason::CgroupNotFound) && !self.goes_on()
    }

    /// What its maps may hold. One that is not pinned counts as long as the agent that loaded it runs.
    pub fn map_bytes(&mut self, machine: &Machine) -> MapBytes {
        let Self { held, unpinned, .. } = self;
        let uses = |map: u32| held.functions.values().any(|function| function.info.map_ids.contains(&map));
        *self.map_bytes.get_or_insert_with(|| {
            let pinned = held.maps.values().filter(|map| map.from.is_none()).map(HeldMap::shape);
            let unpinned = unpinned.values().filter(|map| uses(map.id)).map(Shape::of);
            let own = pinned.chain(unpinned).fold(0, |sum: u64, shape| sum.saturating_add(shape.bytes(machine)));
            MapBytes { own, shares: held.maps.values().any(|map| map.from.is_some()) }
        })
    }

    /// Takes what an execution left that no pin tells.
    pub fn loaded(&mut self, unpinned: BTreeMap<String, MapInfo>) {
        self.unpinned = unpinned;
        self.map_bytes = None;
    }

    /// Whether any of its maps is to be another BpfProgram's.
    pub const fn shares(&self) -> bool {
        self.gist.shares
    }

    /// Where it is to run among others, and where it was.
    pub fn priorities(&self) -> impl Iterator<Item = i64> {
        self.gist.priority.into_iter().chain(self.priority)
    }

    /// What is wanted can't be told: what is there stays, and is told with the reason.
    pub fn leave_alone(&mut self, held: Held, why: String) {
        self.observe(held);
        self.revision = self.held.revision.clone();
        self.uid = self.held.uid.clone();
        self.failure = Some(Failure::new(Reason::Unsupported, why));
        self.settled = false;
        self.seen = false;
        self.told = None;
        // Once it can be told, that is news, whatever else changed.
        self.stirred = true;
    }

    /// Notes what others have done to what was in effect, and when it may be repaired: at once, unless they do it again and
    /// again.
    pub fn undone(&mut self, seen: Vec<Seen>, now: Instant) -> Result<(), Failure> {
        if seen.is_empty() {
            return Ok(());
        }
        for seen in seen {
            tracing::warn!(kind = seen.kind.as_str(), "{}", seen.message);
            drift::remember(&mut self.drift, seen, Timestamp::now());
        }
        let wait = self.undone.again(now);
        if wait.is_zero() {
            return Ok(());
        }
        self.settled = false;
        let message =
            format!("what is attached is undone by others again and again: it is repaired in {} s", wait.as_secs());
        self.repair_at = Some(now + wait);
        Err(Failure::new(Reason::NotInEffect, message))
    }

    /// Whether it is attached anew as pods come and go: not while it waits with something that is wrong whatever pods there are.
    pub fn follows_pods(&self) -> bool {
        self.gist.needs.pods && self.failure.as_ref().is_none_or(|failure| failure.partial)
    }

    /// Waits no longer: what it failed for may have changed.
    pub const fn forget_failures(&mut self) {
        self.failures = 0;
        self.retry_at = None;
        self.repair_at = None;
        self.stirred = true;
    }

    /// When to try again, after a failure.
    pub fn retry_at(&self) -> Option<Instant> {
        self.repair_at.or(self.retry_at)
    }

    /// Takes a new observation. Memory that a map holds can move with its content; the first figure stays, so that
    /// traffic causes no API writes.
    pub fn observe(&mut self, mut held: Held) {
        self.observed = true;
        for (pin, map) in &mut held.maps {
            if let Some(before) = self.held.maps.get(pin).filter(|before| before.info.id == map.info.id) {
                map.info.memlock_bytes = before.info.memlock_bytes;
            }
        }
        self.held = held;
        self.map_bytes = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_success_clears_them() {
        let mut track = Track::default();
        let now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..12 {
            track.outcome(Err(Failure::new(Reason::LoadFailed, "no")), now);
            waits.push(track.retry_at().unwrap().duration_since(now).as_secs());
        }
        assert_eq!(waits[..4], [1, 2, 4, 8]);
        assert_eq!(waits[11], 300);
        track.outcome(Ok(()), now);
        assert_eq!(track.retry_at(), None);
        for _ in 0..12 {
            track.outcome(Err(Failure::new(Reason::BytecodeUnavailable, "no")), now);
            assert!(track.retry_at().unwrap().duration_since(now) <= BYTES_WAIT);
        }
    }

    #[test]
    fn what_is_undone_again_and_again_is_repaired_ever_later() {
        let mut track = Track::default();
        let seen = || vec![Seen { kind: sockeye_crds::node::DriftKind::LinkDetached, message: "m".into() }];
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..14 {
            let repair = track.undone(seen(), now);
            waits.push(repair.err().map_or(0, |_| track.retry_at().unwrap().duration_since(now).as_secs()));
            track.outcome(Ok(()), now);
        }
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(track.drift.len(), 1);
        assert_eq!(track.drift[0].count, 14);
        now += CALM + Duration::from_secs(1);
        assert!(track.undone(seen(), now).is_ok());
    }
}
