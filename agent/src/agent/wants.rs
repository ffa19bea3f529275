//! `Wants`: what a node is told to run, and where objects' bytes come from. Values.

use std::{collections::BTreeMap, sync::Arc};

use sockeye_crds::BpfRevision;

/// Gives the bytes of an object.
pub trait Bytes {
    /// The bytes of that digest, checked against it, or why there are none.
    fn get(&self, digest: &str) -> impl Future<Output = Result<Vec<u8>, String>> + Send;
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
}

impl Wants {
    /// Why a BpfProgram is to be left as it is, where it is.
    pub(super) fn leave_alone(&self, name: &str, revision: Option<&BpfRevision>) -> Option<String> {
        match self.keep.get(name) {
            Some(why) => Some(why.clone()),
            None if self.complete || revision.is_some() => None,
            None => Some("not everything that is wanted here could be read".to_owned()),
        }
    }
}
