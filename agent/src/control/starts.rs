//! `Starts`: the pods and containers that wait for the agent's decision. No IO.

use std::collections::BTreeMap;

use crate::model::{
    pods::Pod,
    start::{Start, StartId},
};

/// The starts that wait, and the pods that the API server may not have listed yet.
#[derive(Debug, Default)]
pub struct Starts {
    /// The starts without a decision.
    pub(super) waiting: BTreeMap<StartId, Waiting>,
    /// The pods that were announced, by UID, as long as they have a cgroup.
    pub(super) announced: BTreeMap<String, Pod>,
}

/// A start without a decision.
#[derive(Debug)]
pub(super) struct Waiting {
    pub start: Start,
    /// The node was surveyed since it was requested, so that its cgroup is known.
    pub surveyed: bool,
    /// The reason for its wait that was logged last.
    pub logged: String,
}

impl Starts {
    /// Records a start that needs a decision.
    pub(super) fn request(&mut self, id: StartId, start: Start) {
        let pod = self.announced.entry(start.pod.uid.clone()).or_insert_with(|| start.pod.clone());
        pod.containers.extend(start.container.iter().map(|one| (one.id.clone(), one.name.clone())));
        self.waiting.insert(id, Waiting { start, surveyed: false, logged: String::new() });
    }

    /// Forgets a start for whose decision nobody waits any more.
    pub(super) fn withdraw(&mut self, id: StartId) {
        self.waiting.remove(&id);
    }
}
