//! [`Pulls`]: which images are pulled, and when. A state machine: events in, effects out. IO: none; callers pass the
//! time.
//!
//! - An image is pulled while a BpfProgram needs its content, a few at a time, and few of one registry. Registries that
//!   failed last share half of the places, so that those which hang delay no other for long.
//! - A tag that a BpfProgram follows is resolved at intervals. Only other content is pulled.
//! - What the policy objects to is pulled again at intervals, as long as it does: a signature may be pushed after the
//!   image. It is pulled by the digest that the tag was resolved to, unless a BpfProgram follows the tag.
//! - What fails is tried again with a growing delay. An edit of a BpfProgram ends it.
//! - Content is held until every BpfProgram that wanted it has it, and no longer than [`HOLD`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use sockeye_crds::Refusal;

use crate::images::{
    key::{ImageKey, Want},
    pulled::{Outcome, PulledImage},
};

/// At most this many images are pulled at a time. Of each, two layers of 4 MiB, manifests and signatures of as much may
/// be in memory: the operator has 256 MiB.
pub const MAX_PULLS: usize = 6;
/// At most this many of them from one registry.
pub const MAX_PULLS_OF_REGISTRY: usize = 2;
/// At most this many of them are such as failed when they were tried last.
pub const MAX_RETRIES: usize = 3;
/// No pull begins while images with this many bytes are held.
pub const MAX_HELD_BYTES: usize = 32 << 20;
/// Content that nobody takes is dropped after this long, and pulled again if it is needed then.
pub const HOLD: Duration = Duration::from_secs(120);

const INITIAL_DELAY: Duration = Duration::from_secs(5);
const MAX_DELAY: Duration = Duration::from_secs(300);
/// A registry that asks for more patience gets this much.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A pull ended.
    Finished(ImageKey, Outcome),
    /// Time has passed.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Pull an image, and send [`Event::Finished`].
    Pull(Job),
    /// Reconcile these BpfPrograms: the answer to them has changed.
    Changed(BTreeSet<String>),
}

/// A pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The image.
    pub key: ImageKey,
    /// The digests whose content is not needed.
    pub known: BTreeSet<String>,
    /// The digest that the reference was resolved to, if it is not to be resolved again.
    pub digest: Option<String>,
}

/// The knowledge of an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The meaning of the reference, as far as it was resolved.
    pub latest: Option<Latest>,
    /// The last pull failed.
    pub failure: Option<Refusal>,
}

/// The meaning of a reference.
#[derive(Clone, Debug, PartialEq)]
pub enum Latest {
    /// This digest, whose content is known.
    Known(String),
    /// This image.
    Pulled(Arc<PulledImage>),
}

/// The images that BpfPrograms want.
#[derive(Debug)]
pub struct Pulls {
    /// The time between two resolutions of a tag that is followed.
    interval: Duration,
    /// Spreads times, so that not everything is due at once.
    jitter: fn(Duration) -> Duration,
    entries: BTreeMap<ImageKey, Entry>,
    /// The image that each BpfProgram wants.
    keys: BTreeMap<String, ImageKey>,
}

#[derive(Debug)]
struct Entry {
    wants: BTreeMap<String, Want>,
    phase: Phase,
    resolved: Option<Resolved>,
    failure: Option<Refusal>,
    failures: u32,
}

#[derive(Debug)]
struct Resolved {
    digest: String,
    content: Option<(Arc<PulledImage>, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Nothing is to do.
    Idle,
    /// To be pulled at this time.
    Due(Instant),
    Running,
}

impl Pulls {
    /// Creates a state without images. A tag that is followed is resolved every `interval`, more or less: `jitter`
    /// returns a time between nothing and the one it is given.
    pub const fn new(interval: Duration, jitter: fn(Duration) -> Duration) -> Self {
        Self { interval, jitter, entries: BTreeMap::new(), keys: BTreeMap::new() }
    }

    /// Takes an event, and returns what is to be done.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Finished(key, outcome) => effects.extend(self.finish(&key, outcome, now).map(Effect::Changed)),
            Event::Tick => {}
        }
        self.drop_content(now);
        effects.extend(self.start(now).into_iter().map(Effect::Pull));
        effects
    }

    /// Returns what is known of the image that a BpfProgram wants.
    pub fn answer(&self, program: &str) -> Answer {
        let Some(entry) = self.keys.get(program).and_then(|key| self.entries.get(key)) else {
            return Answer::default();
        };
        let known = entry.wants.get(program).map(|want| &want.known);
        let latest = entry.resolved.as_ref().and_then(|resolved| match &resolved.content {
            Some((image, _)) => Some(Latest::Pulled(Arc::clone(image))),
            None if known.is_some_and(|known| known.contains(&resolved.digest)) => {
                Some(Latest::Known(resolved.digest.clone()))
            }
            None => None,
        });
        Answer { latest, failure: entry.failure.clone() }
    }

    /// Returns the time of the next [`Event::Tick`], if there is something to do at a time. What is due and has not
    /// begun waits for the end of a pull.
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        let due = self.entries.values().filter_map(|entry| match entry.phase {
            Phase::Due(due) => Some(due),
            Phase::Idle | Phase::Running => None,
        });
        let dropped = self.entries.values().filter_map(|entry| {
            let (_, since) = entry.resolved.as_ref()?.content.as_ref()?;
            Some(*since + HOLD)
        });
        due.chain(dropped).filter(|at| *at > now).min()
    }

    /// Takes what a BpfProgram wants, in place of what it wanted before. A pull begins with the next step.
    pub fn want(&mut self, program: &str, want: Want, now: Instant) {
        if self.keys.get(program) != Some(&want.key) {
            self.release(program);
            self.keys.insert(program.to_owned(), want.key.clone());
        }
        // After a start of the operator, tags whose content is known are not all resolved at the same time.
        let first_due = now + if want.known.is_empty() { Duration::ZERO } else { (self.jitter)(self.interval) };
        let entry = self.entries.entry(want.key.clone()).or_insert_with(|| Entry::due(first_due));
        let (recurs, generation) = (want.follows || want.unsigned.is_some(), want.generation);
        let before = entry.wants.insert(program.to_owned(), want);
        let is_edited = before.is_some_and(|before| before.generation != generation);
        let is_urgent = match entry.failures {
            0 => entry.needs_content(),
            _ => is_edited,
        };
        entry.phase = match entry.phase {
            Phase::Due(_) | Phase::Idle if is_urgent => Phase::Due(now),
            Phase::Idle if recurs => Phase::Due(first_due),
            phase => phase,
        };
        self.drop_content(now);
    }

    /// Takes that a BpfProgram wants no image any more.
    pub fn release(&mut self, program: &str) {
        let Some(key) = self.keys.remove(program) else { return };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.wants.remove(program);
        if entry.wants.is_empty() && entry.phase != Phase::Running {
            self.entries.remove(&key);
        }
    }

    /// Takes the end of a pull. Returns the BpfPrograms to reconcile, if there is news for them.
    fn finish(&mut self, key: &ImageKey, outcome: Outcome, now: Instant) -> Option<BTreeSet<String>> {
        let entry = self.entries.get_mut(key)?;
        if entry.wants.is_empty() {
            self.entries.remove(key);
            return None;
        }
        let before = (entry.resolved.as_ref().map(|resolved| resolved.digest.clone()), entry.failure.clone());
        match outcome {
            Outcome::Known(digest) => entry.resolve(digest, None),
            Outcome::Pulled(image) => entry.resolve(image.digest.clone(), Some((image, now))),
            Outcome::Failed { refusal, retry_after } => {
                let delay = INITIAL_DELAY.saturating_mul(1 << entry.failures.min(10)).min(MAX_DELAY);
                let delay = delay / 2 + (self.jitter)(delay / 2);
                let delay = delay.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER));
                (entry.failure, entry.failures) = (Some(refusal), entry.failures + 1);
                entry.phase = Phase::Due(now + delay);
                return (before.1 != entry.failure).then(|| entry.programs());
            }
        }
        let recurs = entry.wants.values().any(|want| want.follows || want.unsigned.is_some());
        let next = now + self.interval - self.interval / 10 + (self.jitter)(self.interval / 5);
        entry.phase = match (entry.needs_content(), recurs) {
            // Somebody has asked for it while the pull ran.
            (true, _) => Phase::Due(now),
            (false, true) => Phase::Due(next),
            (false, false) => Phase::Idle,
        };
        let is_news = before != (entry.resolved.as_ref().map(|resolved| resolved.digest.clone()), None)
            || entry.resolved.as_ref().is_some_and(|resolved| entry.is_awaited(resolved));
        is_news.then(|| entry.programs())
    }

    /// Drops the content that everybody has who wanted it, or that nobody has taken for long.
    fn drop_content(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            let Some(resolved) = &entry.resolved else { continue };
            let Some((_, since)) = &resolved.content else { continue };
            if (!entry.is_awaited(resolved) || now >= *since + HOLD)
                && let Some(resolved) = &mut entry.resolved
            {
                resolved.content = None;
            }
        }
    }

    /// Takes the pulls that are due and for which there is room, the earliest first.
    fn start(&mut self, now: Instant) -> Vec<Job> {
        let mut due: Vec<(Instant, ImageKey)> = self.entries.iter().filter_map(due_at).collect();
        due.retain(|(at, _)| *at <= now);
        due.sort();
        let mut jobs = Vec::new();
        for (_, key) in due {
            if !self.has_room_for(&key) {
                continue;
            }
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.phase = Phase::Running;
            jobs.push(Job { known: entry.known_to_all(), digest: entry.digest_to_keep(), key });
        }
        jobs
    }

    fn has_room_for(&self, key: &ImageKey) -> bool {
        let running = || self.entries.iter().filter(|(_, entry)| entry.phase == Phase::Running);
        let is_retry = |entry: &Entry| entry.failures > 0;
        let of_registry = running().filter(|(other, _)| other.registry() == key.registry()).count();
        let retries = running().filter(|(_, entry)| is_retry(entry)).count();
        let held: usize = self.entries.values().map(Entry::held_bytes).sum();
        running().count() < MAX_PULLS
            && of_registry < MAX_PULLS_OF_REGISTRY
            && (retries < MAX_RETRIES || !self.entries.get(key).is_some_and(is_retry))
            && held < MAX_HELD_BYTES
    }
}

fn due_at((key, entry): (&ImageKey, &Entry)) -> Option<(Instant, ImageKey)> {
    match entry.phase {
        Phase::Due(at) => Some((at, key.clone())),
        Phase::Idle | Phase::Running => None,
    }
}

impl Entry {
    const fn due(at: Instant) -> Self {
        Self { wants: BTreeMap::new(), phase: Phase::Due(at), resolved: None, failure: None, failures: 0 }
    }

    /// Reports whether a BpfProgram lacks content that is not held: of what the reference was resolved to, or of
    /// anything.
    fn needs_content(&self) -> bool {
        match &self.resolved {
            Some(Resolved { content: Some(_), .. }) => false,
            Some(resolved) => self.wants.values().any(|want| !want.known.contains(&resolved.digest)),
            None => self.wants.values().any(|want| want.known.is_empty()),
        }
    }

    fn resolve(&mut self, digest: String, content: Option<(Arc<PulledImage>, Instant)>) {
        self.resolved = Some(Resolved { digest, content });
        (self.failure, self.failures) = (None, 0);
    }

    fn programs(&self) -> BTreeSet<String> {
        self.wants.keys().cloned().collect()
    }

    /// Reports whether content is held that a BpfProgram lacks.
    fn is_awaited(&self, resolved: &Resolved) -> bool {
        resolved.content.as_ref().is_some_and(|(image, _)| !self.wants.values().all(|want| want.has(image)))
    }

    /// Returns the digest that stays the meaning of the reference, since nobody asks for another one.
    fn digest_to_keep(&self) -> Option<String> {
        let follows = self.wants.values().any(|want| want.follows);
        self.resolved.as_ref().filter(|_| !follows).map(|resolved| resolved.digest.clone())
    }

    /// Returns the digests whose content no BpfProgram needs.
    fn known_to_all(&self) -> BTreeSet<String> {
        let mut known = self.wants.values().map(|want| {
            let unsigned = want.unsigned.as_ref().map(|unsigned| &unsigned.digest);
            want.known.iter().filter(|known| Some(*known) != unsigned).cloned().collect::<BTreeSet<_>>()
        });
        let first = known.next().unwrap_or_default();
        known.fold(first, |all, these| &all & &these)
    }

    fn held_bytes(&self) -> usize {
        let content = self.resolved.as_ref().and_then(|resolved| resolved.content.as_ref());
        content.map_or(0, |(image, _)| image.size())
    }
}

#[cfg(test)]
mod tests;
