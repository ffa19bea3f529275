//! `Work`: what a pass has to do, by what is wanted and by what happened since the last.

use std::{cmp::Ordering, collections::BTreeMap, mem, time::Instant};

use super::{Agent, Wants, attempt::Look};
use crate::{host::Host, pods::Needs, track::Track};

/// What one pass has to do.
#[derive(Default)]
pub(super) struct Work {
    /// What is to be left as it is, and why.
    pub leave: Vec<(String, String)>,
    /// What changed, or has to be looked at again, and how its attempt begins.
    pub due: BTreeMap<String, Look>,
    /// What something happened to while its next attempt is not due: its report must stay true.
    pub look: Vec<String>,
    /// The same where an older revision goes on running, and how that is looked at.
    pub go_on: BTreeMap<String, Look>,
}

/// What all BpfPrograms together ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Census {
    /// What has to be known of pods.
    pub needs: Needs,
    /// Whether any is to stand elsewhere among others than in the order of attachment.
    pub differ: bool,
    /// Whether any map is to be another's.
    pub share: bool,
    priority: Option<i64>,
}

impl Census {
    fn count(&mut self, track: &Track) {
        self.needs = self.needs.and(track.needs_in_all());
        self.share |= track.shares();
        for priority in track.priorities() {
            self.differ |= *self.priority.get_or_insert(priority) != priority;
        }
    }
}

impl<H: Host> Agent<H> {
    /// Takes what is wanted, and says what that asks for. Tracks and revisions are both in the order of names, so that one walk
    /// along both does it; what has not changed, as most has not, is not looked into.
    pub(super) fn take(&mut self, wants: &Wants) -> Census {
        let mut revisions = wants.run.iter().peekable();
        let mut new = Vec::new();
        for (name, track) in &mut self.tracks {
            let revision = loop {
                match revisions.peek().map(|(wanted, _)| wanted.cmp(&name)) {
                    Some(Ordering::Less) => new.extend(revisions.next()),
                    Some(Ordering::Equal) => break revisions.next().map(|(_, revision)| revision),
                    _ => break None,
                }
            };
            if wants.tells_of(name) {
                track.take(revision);
            }
        }
        for (name, revision) in new.into_iter().chain(revisions) {
            let track = self.tracks.entry(name.clone()).or_default();
            if wants.tells_of(name) {
                track.take(Some(revision));
            }
        }
        let mut census = Census::default();
        self.tracks.values().for_each(|track| census.count(track));
        census
    }

    /// What there is to do.
    pub(super) fn work(&mut self, wants: &Wants, needs: Needs, sweep: bool) -> Work {
        let mut work = Work::default();
        let now = Instant::now();
        let may_leave = !wants.tells_all(needs);
        for (name, track) in &mut self.tracks {
            let stirred = mem::take(&mut track.stirred) || sweep;
            if may_leave && let Some(why) = wants.leave_alone(name, track.needs()) {
                work.leave.push((name.clone(), why));
            } else if mem::take(&mut track.changed) || track.retry_at().map_or(stirred, |at| at <= now) {
                work.due.insert(name.clone(), Look::Anew);
            } else if self.pods_moved && track.follows_pods() {
                work.due.insert(name.clone(), if stirred { Look::Anew } else { Look::Known });
            } else if track.goes_on() && (stirred || self.pods_moved) {
                work.go_on.insert(name.clone(), if stirred { Look::Anew } else { Look::Known });
            } else if stirred {
                work.look.push(name.clone());
            }
        }
        work
    }
}
