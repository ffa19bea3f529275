//! `Wants`: what a node is told to run, and where objects' bytes come from. Values.

use std::{collections::BTreeMap, sync::Arc};

use sockeye_crds::BpfRevision;

use crate::pods::{Labels, Needs, Pod};

/// Gives the bytes of an object.
pub trait Bytes {
    /// The bytes of that digest, checked against it, or why there are none.
    fn get(&self, digest: &str) -> impl Future<Output = Result<Vec<u8>, Missing>> + Send;

    /// Whether it was said since this was told that nothing is to be attached, so that the pass has to end.
    fn is_halted(&self, _: &Wants) -> bool {
        false
    }
}

/// Why there are no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// They are on their way: nothing is wrong yet.
    #[error("the API server has not given it yet")]
    Awaited,
    /// They can't be had.
    #[error("{0}")]
    Refused(String),
}

/// What a node is told to run.
#[derive(Clone, Debug, Default)]
pub struct Wants {
    /// The revision to run, by BpfProgram.
    pub run: BTreeMap<String, Arc<BpfRevision>>,
    /// BpfPrograms that are to keep what they have, and why: what is wanted of them can't be told.
    pub keep: BTreeMap<String, String>,
    /// Whether a BpfProgram that is not named is to have nothing here. Otherwise it keeps what it has.
    pub complete: bool,
    /// Why nothing at all is to be attached, where someone has said so for the whole cluster.
    pub suspended: Option<String>,
    /// The node's pods; absent as long as that can't be told.
    pub pods: Option<Arc<Vec<Pod>>>,
    /// The labels of namespaces, by name; absent as long as they can't be told.
    pub namespaces: Option<Arc<BTreeMap<String, Labels>>>,
}

impl Wants {
    /// What has to be known of pods.
    pub fn needs(&self) -> Needs {
        Needs::of(self.run.values().flat_map(|revision| revision.spec.cgroup_targets()))
    }

    /// Whether all is told that these needs ask for: then nothing is left as it is.
    pub(super) fn tells_all(&self, needs: Needs) -> bool {
        self.keep.is_empty() && self.complete && self.untold(needs).is_none()
    }

    /// Whether it is told what a BpfProgram is to have here, be it nothing.
    pub(super) fn tells_of(&self, name: &str) -> bool {
        !self.keep.contains_key(name) && (self.complete || self.run.contains_key(name))
    }

    /// Why a BpfProgram with these needs is to be left as it is, where it is.
    pub(super) fn leave_alone(&self, name: &str, needs: Needs) -> Option<String> {
        match self.keep.get(name) {
            Some(why) => Some(why.clone()),
            None if !self.tells_of(name) => Some("not everything that is wanted here could be read".to_owned()),
            None => self.untold(needs),
        }
    }

    /// What targets need to be told and can't be, for now.
    pub(super) fn untold(&self, needs: Needs) -> Option<String> {
        let missing = match (needs.pods && self.pods.is_none(), needs.namespaces && self.namespaces.is_none()) {
            (true, _) => "this node's pods",
            (_, true) => "namespaces",
            _ => return None,
        };
        Some(format!(
            "{missing} can't be listed (the agent's log says why; without a cluster, --pods names a list): which pods are \
             selected is not known"
        ))
    }
}
